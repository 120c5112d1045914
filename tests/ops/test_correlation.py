"""Local correlation and the filters it is made of, against loops in numpy."""

import numpy as np
import pytest

from hetmorph.ops import separable
from hetmorph.ops.correlation import local_correlation


@pytest.mark.parametrize(("shape", "window"), [((9, 7), (5, 3)), ((6, 5, 4), (3, 3, 1))])
def test_local_correlation_is_that_of_each_window(rng, shape, window):
    fixed, moved = (rng.random((1, *shape, 1)).astype(np.float32) for _ in range(2))
    ours = local_correlation(fixed, moved, window).numpy()[0, ..., 0]
    for voxel in np.ndindex(shape):
        part = tuple(slice(max(0, x - w // 2), x + w // 2 + 1) for x, w in zip(voxel, window, strict=True))
        a, b = (image[0, ..., 0][part].ravel().astype(float) for image in (fixed, moved))
        floors = [3e-3 * image.var() for image in (fixed, moved)]
        variances = [x.var() + floor for x, floor in zip((a, b), floors, strict=True)]
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        expected = (covariance + np.prod(floors) ** 0.5) ** 2 / np.prod(variances)
        assert ours[voxel] == pytest.approx(expected, abs=1e-3)


def test_equal_images_correlate_wherever_they_are_flat(rng):
    image = rng.random((1, 12, 12, 1)).astype(np.float32)
    image[:, :6] = 0.5
    np.testing.assert_allclose(local_correlation(image, image, (5, 5)), 1, atol=1e-6)


def test_it_does_not_depend_on_brightness_and_contrast_and_is_0_on_nothing(rng):
    image = rng.random((1, 12, 12, 1)).astype(np.float32)
    np.testing.assert_allclose(local_correlation(image, 7 - 300 * image, (5, 5)), 1, atol=0.05)
    assert not local_correlation(image, np.ones_like(image), (5, 5)).numpy().any()


def test_shrinking_keeps_voxels_where_they_are():
    ramp = np.broadcast_to(np.arange(17.0, dtype=np.float32)[:, None], (17, 9))[None, ..., None]
    small = separable.shrink(ramp, (4, 1)).numpy()
    assert small.shape == (1, 5, 9, 1)
    np.testing.assert_allclose(small[0, 1:-1, 0, 0], [4, 8, 12], atol=0.15)
    np.testing.assert_allclose(separable.sample(np.array([-1, 0.25, 9]), 3) @ [0, 4, 8], [0, 1, 8])
