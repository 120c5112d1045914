"""Reading images and displacement fields at scattered points."""

import numpy as np
import tensorflow as tf

from hetmorph.ops.grid import spatial_shape
from hetmorph.ops.interpolation import interpolate


def sample(image, points) -> tf.Tensor:
    """Linearly interpolated values of an image at points; outside, the nearest edge voxel's.

    Args:
        image: `[B, *S, C]`.
        points: `[B, P, N]`, voxel coordinates in array order.

    Returns:
        `[B, P, C]`.

    Raises:
        ValueError: the points have another dimension than the image.
    """
    image, points = tf.convert_to_tensor(image), tf.convert_to_tensor(points)
    sizes = spatial_shape(image)
    if points.shape.rank != 3 or points.shape[-1] != len(sizes):
        raise ValueError(f"an image {image.shape} needs points [batch, count, {len(sizes)}], got {points.shape}")
    if not image.dtype.is_floating:
        image = tf.cast(image, tf.float32)
    return interpolate(image, tf.cast(points, tf.float32), relative=False)


def displace(points, displacement, scale: float = 1.0) -> tf.Tensor:
    """Points moved by a displacement field: p + scale · u(p).

    u pulls the moving image to the fixed grid, so this takes points of the fixed image to the moving one.

    Args:
        points: `[B, P, N]`, or `[B, P, N+1]` whose last entry (a label) is passed on.
        displacement: `[B, *S, N]`, voxels.
        scale: factor on the vectors.
    """
    points, displacement = tf.convert_to_tensor(points), tf.convert_to_tensor(displacement)
    ndims = displacement.shape[-1]
    if points.shape[-1] not in (ndims, ndims + 1):
        raise ValueError(f"a {ndims}-D displacement moves points of {ndims} or {ndims + 1} entries, got {points.shape}")
    position, label = points[..., :ndims], points[..., ndims:]
    shift = sample(displacement, position) * scale
    return tf.concat([position + tf.cast(shift, position.dtype), label], axis=-1)


def outside(points: np.ndarray, shape) -> np.ndarray:
    """Which points lie more than half a voxel outside an image, `[P]`; none of those that are NaN.

    Args:
        points: `[P, N]`, voxel coordinates in array order.
        shape: spatial sizes.
    """
    return ((points < -0.5) | (points > np.asarray(shape) - 0.5)).any(-1)
