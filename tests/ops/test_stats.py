import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops import stats


@pytest.mark.parametrize(("low", "high"), [(1, 99), (0, 100), (5, 90), (25, 50), (60, 70), (50, 50)])
@pytest.mark.parametrize("kind", ["normal", "ties", "constant"])
@pytest.mark.parametrize("shape", [(1,), (7, 1), (10, 10, 1), (5, 6, 7, 2)])
def test_percentiles_are_the_nearest_ranks_of_the_sorted_values(rng, shape, kind, low, high):
    image = rng.normal(size=(3, *shape)).astype("float32")
    image = {"normal": image, "ties": np.round(image), "constant": np.ones_like(image)}[kind]
    ordered = np.sort(image.reshape(3, -1), axis=1)
    for percent, result in zip((low, high), stats.percentiles(image, low, high), strict=True):
        rank = (ordered.shape[1] - 1) * percent / 100
        nearest = ordered[:, [int(np.ceil(rank - 0.5)), int(np.floor(rank + 0.5))]]  # two where both are as near
        assert result.shape == (3, *[1] * len(shape))
        assert np.all((nearest == result.numpy().reshape(3, 1)).any(1))


def test_percentiles_of_sizes_known_at_run_time_only(rng):
    image = rng.normal(size=(2, 9, 8, 1)).astype("float32")
    traced = tf.function(lambda x: stats.percentiles(x, 1, 99), input_signature=[tf.TensorSpec([None] * 4)])
    for result, expected in zip(traced(image), stats.percentiles(image, 1, 99), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_a_few_extreme_voxels_do_not_move_percentiles(rng):
    image = rng.normal(size=(1, 50, 50, 1)).astype("float32")
    spoilt = image.copy()
    spoilt[0, :2, :5, 0] = [1e9], [-1e9]
    for before, after in zip(stats.percentiles(image, 1, 99), stats.percentiles(spoilt, 1, 99), strict=True):
        assert abs(float(before[0, 0, 0, 0] - after[0, 0, 0, 0])) < 0.3
