"""Smoothing that gradients pass through."""

import math

import numpy as np
import tensorflow as tf

from hetmorph.ops.grid import spatial_shape


def gaussian(image: tf.Tensor, scale: float, cut: float = 3.0) -> tf.Tensor:
    """An image smoothed along each spatial axis by a Gaussian; 0 outside.

    Args:
        image: `[B, *S, C]`, one to three spatial axes; channels are smoothed by themselves.
        scale: standard deviation, voxels; 0 leaves the image as it is.
        cut: where the Gaussian ends, in standard deviations.
    """
    if not scale:
        return image
    weights = _bell(scale, cut).astype(image.dtype.as_numpy_dtype)
    ndims, channels = len(image.shape) - 2, image.shape[-1]
    for axis in range(ndims):
        along = [-1 if other == axis else 1 for other in range(ndims)]
        kernel = np.reshape(weights, [*along, 1, 1]) * np.eye(channels, dtype=weights.dtype)
        # The layout is spelt out because the eager gradient in 3-D fails without.
        image = tf.nn.convolution(image, kernel, padding="SAME", data_format=("NWC", "NHWC", "NDHWC")[ndims - 1])
    return image


def beyond(image: tf.Tensor, scale: float, cut: float = 3.0) -> tf.Tensor:
    """The share of the Gaussian round each voxel that leaves the image: exactly 0 inside, where it does not.

    Args:
        image: `[B, *S, C]`.
        scale, cut: as of `gaussian`.

    Returns:
        `[1, *S, 1]`.
    """
    weights = _bell(scale, cut)
    reach = len(weights) // 2
    tails = tf.constant([weights[reach + 1 + at :].sum() for at in range(reach + 1)], image.dtype)
    sizes, within = spatial_shape(image), tf.ones([1] * image.shape.rank, image.dtype)
    for axis, size in enumerate(sizes, start=1):
        at = tf.range(size)
        lost = tf.gather(tails, tf.minimum(at, reach)) + tf.gather(tails, tf.minimum(size - 1 - at, reach))
        within *= 1 - tf.reshape(lost, [-1 if other == axis else 1 for other in range(image.shape.rank)])
    return 1 - within


def _bell(scale: float, cut: float) -> np.ndarray:
    """Weights of sum 1."""
    reach = math.ceil(cut * scale)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    return weights / weights.sum()
