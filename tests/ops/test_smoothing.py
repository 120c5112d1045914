"""Gaussian smoothing: SciPy's numbers, and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.ops.smoothing import gaussian


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


def test_gradient_is_the_filter_again(rng):
    """It is symmetric."""
    image, upstream = (tf.constant(rng.normal(size=(1, 12, 10, 1)), tf.float32) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = tf.reduce_sum(upstream * gaussian(image, 1.0))
    np.testing.assert_allclose(tape.gradient(value, image), gaussian(upstream, 1.0), atol=1e-6)
