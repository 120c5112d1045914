"""Smoothing that gradients pass through."""

import math

import numpy as np
import tensorflow as tf


def gaussian(image: tf.Tensor, scale: float) -> tf.Tensor:
    """An image smoothed along each spatial axis by a Gaussian cut off at three standard deviations; 0 outside.

    Args:
        image: `[B, *S, C]`, one to three spatial axes; channels are smoothed by themselves.
        scale: standard deviation, voxels; 0 leaves the image as it is.
    """
    if not scale:
        return image
    reach = math.ceil(3 * scale)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    weights = (weights / weights.sum()).astype(image.dtype.as_numpy_dtype)
    ndims, channels = len(image.shape) - 2, image.shape[-1]
    for axis in range(ndims):
        along = [-1 if other == axis else 1 for other in range(ndims)]
        kernel = np.reshape(weights, [*along, 1, 1]) * np.eye(channels, dtype=weights.dtype)
        image = tf.nn.convolution(image, kernel, padding="SAME")
    return image
