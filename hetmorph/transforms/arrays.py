"""What transforms need of arrays, by numpy in double precision or, for tensors, by TensorFlow with gradients.

TensorFlow is imported only by those who hold one of its tensors: a file can be warped without waiting for it.
"""

import sys
from collections.abc import Sequence

import numpy as np

from hetmorph.transforms.sampling import pull


def is_tensor(*values) -> bool:
    """Whether any of the values is a tensor or variable of TensorFlow."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and any(isinstance(value, (tf.Tensor, tf.Variable)) for value in values)


def library(*values):
    """`tensorflow`, if one of the values is a tensor, else `numpy`: for the functions that both call alike."""
    return sys.modules["tensorflow"] if is_tensor(*values) else np


def as_points(points, *others):
    """Points `[B, *T, N]` as float32 tensor beside tensors, else as float64 array."""
    if is_tensor(points, *others):
        return sys.modules["tensorflow"].cast(points, "float32")
    return np.asarray(points, np.float64)


def voxels(shape: Sequence, *others):
    """Coordinates of every voxel of a grid, `[1, *shape, N]` float64; a float32 tensor beside tensors.

    Args:
        shape: sizes of the grid.
        others: what the coordinates will meet.
    """
    if is_tensor(*shape, *others):
        tf = sys.modules["tensorflow"]
        from hetmorph.ops.grid import identity_grid

        # A graph must not know the numbers: TensorFlow would keep whatever follows from them, gigabytes for a volume.
        zero = tf.compat.v1.placeholder_with_default(0.0, [])
        return tf.stack([tf.broadcast_to(axis + zero, shape) for axis in identity_grid(shape)], -1)[None]
    return np.stack(np.indices(tuple(shape), dtype=np.float64), -1)[None]


def sample(field, points):
    """A field at points, linear between voxels; outside, that of the nearest edge voxel.

    Args:
        field: `[B, *S, C]`; a batch of one meets any batch.
        points: `[B, *T, N]`, voxels of the field.

    Returns:
        `[B, *T, C]`.
    """
    if is_tensor(field, points):
        return _sample_tensor(field, points)
    count = max(len(field), len(points))
    fields, places = (np.broadcast_to(x, (count, *x.shape[1:])) for x in (np.asarray(field, np.float64), points))
    return np.stack([pull(values, where) for values, where in zip(fields, places, strict=True)])


def _sample_tensor(field, points):
    tf = sys.modules["tensorflow"]
    from hetmorph.ops.interpolation import interpolate

    field, points = tf.cast(field, tf.float32), tf.cast(points, tf.float32)
    count = tf.maximum(tf.shape(field)[0], tf.shape(points)[0])
    field, points = (tf.repeat(x, count // tf.shape(x)[0], axis=0) for x in (field, points))
    return interpolate(field, points, relative=False)
