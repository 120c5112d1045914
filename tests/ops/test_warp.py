import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from hetmorph.ops import warp
from tests import reference

SHAPES = [(11,), (7, 10), (5, 6, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", [None, -0.5])
def test_linear_equals_scipy(rng, shape, fill):
    image = rng.normal(size=(2, *shape, 3)).astype("float32")
    u = rng.uniform(-3, 3, size=(2, *shape, len(shape))).astype("float32")
    expected = [reference.warp(i, d, 1, fill) for i, d in zip(image, u, strict=True)]
    np.testing.assert_allclose(warp(image, u, "linear", fill), expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_faded_edge_is_that_of_an_image_among_voxels_of_the_fill_value(rng, shape):
    image = rng.normal(size=(1, *shape, 1)).astype("float32")
    u = rng.uniform(-3, 3, size=(1, *shape, len(shape))).astype("float32")
    where = reference.positions(u[0])
    expected = map_coordinates(image[0, ..., 0].astype(float), where, order=1, mode="grid-constant", cval=-0.5)
    np.testing.assert_allclose(warp(image, u, fill_value=-0.5, fade=True)[0, ..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_nearest_equals_numpy_indexing(rng, shape):
    labels = rng.integers(0, 9, size=(1, *shape, 1))
    u = rng.uniform(-3, 3, size=(1, *shape, len(shape))).astype("float32")
    where = np.round(reference.positions(u[0])).astype(int)
    index = tuple(np.clip(w, 0, n - 1) for w, n in zip(where, shape, strict=True))
    moved = warp(labels, u, "nearest")
    assert moved.dtype == labels.dtype
    np.testing.assert_array_equal(moved[0], labels[0][index])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_zero_displacement_is_identity_to_the_bit(rng, shape, method):
    image = rng.normal(size=(2, *shape, 1)).astype("float32")
    np.testing.assert_array_equal(warp(image, np.zeros((2, *shape, len(shape)), "f"), method), image)


@settings(max_examples=20, deadline=None)
@given(st.tuples(st.integers(-4, 4), st.integers(-4, 4)))
def test_integer_translation_moves_voxels_exactly(shift):
    image = np.random.default_rng(0).normal(size=(1, 9, 9, 1)).astype("float32")
    u = np.broadcast_to(np.array(shift, "float32"), (1, 9, 9, 2))
    padded = np.pad(image[0, ..., 0], 4, mode="edge")
    expected = padded[4 + shift[0] : 13 + shift[0], 4 + shift[1] : 13 + shift[1]]
    np.testing.assert_array_equal(warp(image, u)[0, ..., 0], expected)


def test_direction_is_pull():
    image = np.zeros((1, 5, 5, 1), "float32")
    image[0, 3, 2] = 1
    u = np.zeros((1, 5, 5, 2), "float32")
    u[..., 0] = 1  # look one voxel further down the first axis
    assert warp(image, u)[0, 2, 2, 0] == 1


def test_gradients_equal_finite_differences(rng):
    image = tf.constant(rng.normal(size=(1, 6, 6, 1)))
    # Positions away from voxel centres, where the interpolant has no kink.
    u = tf.constant(rng.uniform(0.2, 0.8, size=(1, 6, 6, 2)) - 0.5 + rng.integers(-1, 2, size=(1, 6, 6, 2)) * 0.0)
    u = tf.where(tf.abs(u) < 0.1, 0.2 * tf.ones_like(u), u)
    loss = lambda i, d: tf.reduce_sum(tf.sin(tf.cast(warp(i, d), tf.float64)))  # noqa: E731
    theory, numeric = tf.test.compute_gradient(loss, [tf.cast(image, tf.float32), tf.cast(u, tf.float32)], delta=1e-2)
    for a, b in zip(theory, numeric, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2)


def test_half_precision_images_are_sampled_at_float32_positions():
    size = 4099  # float16 cannot tell 4096 from 4097
    image = np.linspace(0, 1, size, dtype="float16")[None, :, None]
    u = np.full((1, size, 1), 1.0, "float16")
    np.testing.assert_array_equal(warp(image, u)[0, :-1, 0], image[0, 1:, 0])


def test_nan_displacement_gives_nan_there_and_nowhere_else(rng):
    image = rng.normal(size=(1, 6, 6, 1)).astype("float32")
    u = np.zeros((1, 6, 6, 2), "float32")
    u[0, 2, 3] = np.nan
    moved = warp(image, u).numpy()[0, ..., 0]
    assert np.isnan(moved[2, 3]) and np.isnan(moved).sum() == 1


def test_huge_displacement_stays_on_the_edge():
    image = np.arange(9, dtype="float32").reshape(1, 3, 3, 1)
    assert warp(image, np.full((1, 3, 3, 2), 1e30, "float32")).numpy().tolist() == np.full((1, 3, 3, 1), 8.0).tolist()


def test_sizes_unknown_until_run_time(rng):
    traced = tf.function(
        warp, input_signature=[tf.TensorSpec([None, None, None, 1]), tf.TensorSpec([None, None, None, 2])]
    )
    for shape in [(5, 6), (9, 4)]:
        image = rng.normal(size=(2, *shape, 1)).astype("float32")
        u = rng.normal(size=(2, *shape, 2)).astype("float32")
        np.testing.assert_allclose(traced(image, u), warp(image, u), atol=1e-6)


def test_wrong_inputs_are_named():
    image = np.zeros((1, 4, 4, 1), "float32")
    with pytest.raises(ValueError, match="linear.*cubic"):
        warp(image, np.zeros((1, 4, 4, 2)), "cubic")
    with pytest.raises(ValueError, match="2-D image"):
        warp(image, np.zeros((1, 4, 4, 3)))
