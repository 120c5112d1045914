"""Windows round each voxel and local correlation in them, against SciPy and loops in numpy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.ops.windows import box_sum, local_correlation
from hetmorph.ops.xla import compiled_kernels

SIZES = [((2, 20, 1), (7,)), ((2, 13, 17, 2), (5, 4)), ((1, 5, 6, 1), (9, 15)), ((1, 9, 8, 7, 2), (9, 3, 2))]


@pytest.mark.parametrize(("shape", "sides"), SIZES)
@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_the_correlation_with_a_box(shape, sides, compiled, rng):
    image = rng.normal(size=shape).astype("float32")
    box = np.ones((1, *sides, 1))
    origin = [-((side + 1) % 2) for side in box.shape]  # scipy's middle of an even side is one later than ours
    expected = ndimage.correlate(image.astype(float), box, mode="constant", origin=origin)
    with compiled_kernels(compiled):
        np.testing.assert_allclose(box_sum(image, sides), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "sides"), SIZES)
def test_its_gradient_is_its_adjoint(shape, sides, rng):
    x, y = (tf.constant(rng.normal(size=shape)) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(y * box_sum(x, sides))
    np.testing.assert_allclose(tf.reduce_sum(x * tape.gradient(value, x)), value, rtol=1e-10)


def test_sizes_may_be_unknown(rng):
    image = rng.normal(size=(1, 9, 8, 1)).astype("float32")
    traced = tf.function(
        lambda x: box_sum(x, (5, 3)), input_signature=[tf.TensorSpec([None, None, None, 1])], autograph=False
    )
    np.testing.assert_allclose(traced(image), box_sum(image, (5, 3)), atol=1e-6)


@pytest.mark.parametrize(("shape", "window"), [((9, 7), (5, 3)), ((6, 5, 4), (3, 3, 1))])
@pytest.mark.parametrize("masked", [False, True])
def test_local_correlation_is_that_of_each_window(rng, shape, window, masked):
    """Of the voxels that count, where there are weights."""
    fixed, moved = (rng.random((1, *shape, 1)).astype(np.float32) for _ in range(2))
    counts = rng.random(shape) < 0.7 if masked else np.ones(shape, bool)
    weight = counts[None, ..., None].astype(np.float32) if masked else None
    ours = local_correlation(fixed, moved, window, weight).numpy()[0, ..., 0]
    for voxel in zip(*np.nonzero(counts), strict=True):
        part = tuple(slice(max(0, x - w // 2), x + w // 2 + 1) for x, w in zip(voxel, window, strict=True))
        a, b = (image[0, ..., 0][part][counts[part]].astype(float) for image in (fixed, moved))
        floors = [3e-3 * image[0, ..., 0][counts].var() for image in (fixed, moved)]
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


@pytest.mark.parametrize("sides", [(5, 5), (9, 3)])
def test_local_correlation_is_never_above_1_however_far_from_zero_the_images_lie(rng, sides):
    """And the same there as near zero, which differences of large squares would not be."""
    fixed, moved = (rng.random((1, 24, 20, 1)).astype(np.float32) for _ in range(2))
    near = local_correlation(fixed, moved, sides).numpy()
    far = local_correlation(fixed + 1000, moved + 1000, sides).numpy()
    assert near.min() >= 0 and max(near.max(), far.max()) <= 1 + 1e-6
    np.testing.assert_allclose(far, near, atol=0.02)
