"""Affine matrices `[B, N, N+1]` on voxel grids."""

import tensorflow as tf

from hetmorph.ops.grid import identity_grid

_HALVINGS, _ORDER = 4, 12


def exponential(matrix) -> tf.Tensor:
    """exp of square matrices `[B, N, N]`, by Taylor's series of a sixteenth and four squarings.

    As exact as float32 up to norms of some sixteen. `tf.linalg.expm` loops as often as its values ask for, of which XLA
    cannot compile the gradient.

    Args:
        matrix: `[B, N, N]`.
    """
    part = matrix / 2.0**_HALVINGS
    result = power = tf.eye(matrix.shape[-1], dtype=matrix.dtype) + tf.zeros_like(matrix)
    for k in range(1, _ORDER + 1):
        power = power @ part / k
        result += power
    for _ in range(_HALVINGS):
        result = result @ result
    return result


def is_affine_shape(shape) -> bool:
    """Whether the shape of one transform (without batch) is a matrix N×(N+1) and not a dense field.

    A 1-D dense field `[D, 1]` also has rank 2; its last size, 1, tells it apart.

    Args:
        shape: sizes.
    """
    return len(shape) == 2 and shape[-1] != 1


def to_displacement(matrix, shape: list, shift_center: bool = True) -> tf.Tensor:
    """Displacement x ↦ A·x − x of an affine map on a voxel grid.

    Args:
        matrix: `[B, N, N+1]` (an extra last row is ignored), maps voxels to voxels.
        shape: spatial sizes of the grid.
        shift_center: whether the origin is the centre of the grid, (size − 1)/2, or its first voxel.

    Returns:
        `[B, *shape, N]`, voxels.
    """
    matrix = tf.cast(matrix, tf.float32)
    ndims = len(shape)
    if matrix.shape[-1] != ndims + 1:
        raise ValueError(f"a {ndims}-D grid needs an affine matrix {(ndims, ndims + 1)}, got {tuple(matrix.shape[1:])}")
    axes = identity_grid(shape)
    if shift_center:
        axes = [x - tf.cast(size - 1, tf.float32) / 2 for x, size in zip(axes, shape, strict=True)]
    points = tf.stack([tf.broadcast_to(x, shape) for x in axes], axis=-1)
    linear, translation = matrix[:, :ndims, :ndims] - tf.eye(ndims), matrix[:, :ndims, ndims]
    moved = tf.einsum("bij,xj->bxi", linear, tf.reshape(points, [-1, ndims])) + translation[:, None]
    return tf.reshape(moved, [-1, *shape, ndims])


def square(matrix: tf.Tensor) -> tf.Tensor:
    """Append the row (0, …, 0, 1) unless it is there: `[B, N+1, N+1]`.

    Args:
        matrix: `[B, N, N+1]` or `[B, N+1, N+1]`.
    """
    if matrix.shape[-1] == matrix.shape[-2]:
        return matrix
    row = tf.zeros_like(matrix[:, :1]) + tf.one_hot(matrix.shape[-1] - 1, matrix.shape[-1], dtype=matrix.dtype)
    return tf.concat([matrix, row], axis=1)


def compose(outer: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
    """Matrix of outer∘inner, `[B, N, N+1]`.

    Args:
        outer, inner: `[B, N, N+1]` or `[B, N+1, N+1]`.
    """
    return (square(outer) @ square(inner))[:, :-1]
