"""Linear filters that act along each axis by itself, as small matrices.

A product with a matrix is a single call, its gradient is a product again, and windows end exactly at the border.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hetmorph.ops import xla


def multiply(image, matrices: Sequence[np.ndarray | tf.Tensor | None]) -> tf.Tensor:
    """Each spatial axis of an image multiplied by a matrix of its own.

    Args:
        image: `[B, *S, C]`.
        matrices: for each axis `[new, old]`, or None to leave the axis as it is.
    """
    image = tf.convert_to_tensor(image)
    letters = "bxyzc"[: image.shape.rank - 1] + "c"
    for letter, matrix in zip(letters[1:], matrices, strict=False):
        if matrix is not None:
            target, matrix = letters.replace(letter, "n"), tf.cast(matrix, image.dtype)
            if xla.active():  # in a training step, where this order takes a sixth less time
                image = tf.einsum(f"n{letter},{letters}->{target}", matrix, image)
            else:  # TensorFlow Lite fails on the other one where the batch is free
                image = tf.einsum(f"{letters},n{letter}->{target}", image, matrix)
    return image


def bell(size: int, scale: float, mean: bool = True) -> np.ndarray:
    """A Gaussian, `[size, size]`.

    Args:
        size: voxels along the axis.
        scale: standard deviation, voxels.
        mean: make it a mean, at the border of fewer voxels; else it is symmetric, and loses at the border.
    """
    weights = np.exp(-0.5 * ((np.arange(size)[:, None] - np.arange(size)) / scale) ** 2)
    return weights / (weights.sum(1, keepdims=True) if mean else weights.sum(1).max())


def hats(positions, size) -> np.ndarray | tf.Tensor:
    """Linear interpolation at positions, beyond the ends as at the ends, `[positions, size]` float32.

    Of an array of positions and a whole number an array.

    Args:
        positions: voxels of the axis, not whole as a rule.
        size: voxels along the axis; an integer or a scalar tensor.
    """
    if isinstance(positions, np.ndarray) and isinstance(size, int):
        clipped = np.clip(positions.astype(np.float32), 0, size - 1)
        return np.maximum(1 - np.abs(clipped[:, None] - np.arange(size, dtype=np.float32)), 0)
    last = tf.cast(size - 1, tf.float32)
    clipped = tf.clip_by_value(tf.cast(positions, tf.float32), 0.0, last)
    return tf.nn.relu(1.0 - tf.abs(clipped[:, None] - tf.range(tf.cast(size, tf.float32))))


def shrink(image, factors: Sequence[int]) -> tf.Tensor:
    """Every `factor`-th voxel of an image from the first on, smoothed before by a Gaussian of half the factor.

    Args:
        image: `[B, *S, C]`.
        factors: whole numbers, for each axis.
    """
    sizes = image.shape[1:-1]
    matrices = [None if k == 1 else bell(size, k / 2)[::k] for size, k in zip(sizes, factors, strict=True)]
    return multiply(image, matrices)
