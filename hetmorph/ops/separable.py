"""Linear filters that act along each axis by itself, as small matrices.

A product with a matrix is a single call, its gradient is a product again, and windows end exactly at the border.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def multiply(image, matrices: Sequence[np.ndarray | None]) -> tf.Tensor:
    """Each spatial axis of an image multiplied by a matrix of its own.

    Args:
        image: `[B, *S, C]`.
        matrices: for each axis `[new, old]`, or None to leave it.
    """
    image = tf.convert_to_tensor(image)
    letters = "bxyzc"[: image.shape.rank - 1] + "c"
    for letter, matrix in zip(letters[1:], matrices, strict=False):
        if matrix is not None:
            target = letters.replace(letter, "n")
            image = tf.einsum(f"n{letter},{letters}->{target}", tf.constant(matrix, image.dtype), image)
    return image


def box(size: int, width: int) -> np.ndarray:
    """Mean of the window `width` voxels wide, as far as it lies in the image, `[size, size]`.

    Args:
        size: voxels along the axis.
        width: odd.
    """
    inside = np.abs(_differences(size)) <= width // 2
    return inside / inside.sum(1, keepdims=True)


def bell(size: int, scale: float, mean: bool = True) -> np.ndarray:
    """A Gaussian, `[size, size]`.

    Args:
        size: voxels along the axis.
        scale: standard deviation, voxels.
        mean: make it a mean, at the border of fewer voxels; else it is symmetric, and loses at the border.
    """
    weights = np.exp(-0.5 * (_differences(size) / scale) ** 2)
    return weights / (weights.sum(1, keepdims=True) if mean else weights.sum(1).max())


def sample(positions: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation at positions, beyond the ends as at the ends, `[positions, size]`.

    Args:
        positions: voxels of the axis.
        size: voxels along the axis.
    """
    clipped = np.clip(positions, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(clipped[:, None] - np.arange(size)))


def shrink(image, factors: Sequence[int]) -> tf.Tensor:
    """Every `factor`-th voxel of an image from the first on, smoothed before by a Gaussian of half the factor.

    Args:
        image: `[B, *S, C]`.
        factors: whole numbers, for each axis.
    """
    sizes = image.shape[1:-1]
    matrices = [None if k == 1 else bell(size, k / 2)[::k] for size, k in zip(sizes, factors, strict=True)]
    return multiply(image, matrices)


def _differences(size: int) -> np.ndarray:
    return np.arange(size)[:, None] - np.arange(size)
