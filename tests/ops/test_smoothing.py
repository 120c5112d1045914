"""Gaussian smoothing: SciPy's numbers, and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.ops.smoothing import beyond, gaussian


@pytest.mark.parametrize("shape", [(9,), (13, 17), (9, 8, 11)])
@pytest.mark.parametrize("scale", [0.7, 2.0])
def test_is_scipys_filter_of_every_channel(shape, scale, rng):
    image = rng.normal(size=(2, *shape, 3)).astype("float32")
    expected = image
    for axis in range(1, len(shape) + 1):
        expected = ndimage.gaussian_filter1d(expected, scale, axis, mode="constant", radius=int(np.ceil(3 * scale)))
    np.testing.assert_allclose(gaussian(tf.constant(image), scale), expected, atol=2e-6)


def test_no_scale_leaves_the_image():
    image = tf.ones((1, 4, 4, 1))
    assert gaussian(image, 0.0) is image


@pytest.mark.parametrize("shape", [(9,), (12, 10), (7, 8, 6)])
def test_gradient_is_the_filter_again(shape, rng):
    """It is symmetric."""
    image, upstream = (tf.constant(rng.normal(size=(1, *shape, 1)), tf.float32) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = tf.reduce_sum(upstream * gaussian(image, 1.0))
    np.testing.assert_allclose(tape.gradient(value, image), gaussian(upstream, 1.0), atol=1e-6)


@pytest.mark.parametrize("size", [30, 5])
def test_what_leaves_the_image_is_what_is_missing_of_a_one(size):
    ones = tf.ones([1, size, 11, 1])
    outside = beyond(ones, 2.5, 2.0)
    np.testing.assert_allclose(outside, 1 - gaussian(ones, 2.5, 2.0), atol=1e-6)
    if size == 30:
        np.testing.assert_array_equal(outside[:, 5:-5, 5:6], 0)  # the kernel reaches 5 voxels
    graph = tf.function(
        lambda x: beyond(x, 2.5, 2.0), input_signature=[tf.TensorSpec([None, None, None, 1])], autograph=False
    )
    np.testing.assert_array_equal(graph(ones), outside)
