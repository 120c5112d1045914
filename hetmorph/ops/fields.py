"""Displacement and velocity fields: integrate, compose, rescale, differentiate.

Fields are `[B, *S, N]`, in voxels of their own grid, axes in array order; u pulls: moved(x) = moving(x + u(x)).
"""

from fractions import Fraction

import numpy as np
import tensorflow as tf

from hetmorph.ops import separable
from hetmorph.ops.grid import cut, displaced_grid, spatial_shape
from hetmorph.ops.warp import METHODS, warp


def integrate(velocity, steps: int = 7) -> tf.Tensor:
    """Displacement of a stationary velocity field after unit time, by scaling and squaring.

    u₀ = v / 2ⁿ and u ← u + u∘(id + u), n times. Integration runs in float32: the first of seven steps divides by
    128, which half precision does not survive.

    Args:
        velocity: `[B, *S, N]`, voxels per unit time.
        steps: number of squarings n ≥ 0; 0 returns the velocity itself.

    Returns:
        Displacement `[B, *S, N]`, voxels, float32.

    Reference:
        Arsigny et al., MICCAI 2006, doi:10.1007/11866565_113.
    """
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    displacement, squared = tf.cast(velocity, tf.float32) / 2.0**steps, _squared
    if steps > 1 and not tf.executing_eagerly():
        squared = tf.function(_squared, autograph=False)  # traced once, and not once for each squaring
    for _ in range(steps):
        displacement = squared(displacement)
    return displacement


def _squared(displacement) -> tf.Tensor:
    return compose(displacement, displacement)


def compose(outer, inner, method: str = "linear") -> tf.Tensor:
    """Displacement of φ_outer∘φ_inner: `u(x) = inner(x) + outer(x + inner(x))`.

    Warping an image by the result equals warping it by `outer` first and the outcome by `inner` second.

    Args:
        outer, inner: displacements `[B, *S, N]`, voxels.
        method: how `outer` is interpolated: "linear" or "nearest".
    """
    outer, inner = tf.cast(outer, tf.float32), tf.cast(inner, tf.float32)
    return inner + warp(outer, inner, method)


def rescale(field, factor: float, method: str = "linear") -> tf.Tensor:
    """Resample a field to `floor(size * factor)` voxels per axis and scale its vectors by `factor`.

    First and last voxels stay aligned, as in VoxelMorph's `RescaleTransform`.

    Args:
        field: `[B, *S, N]`, voxels of its own grid, before and after.
        factor: above 1 for a finer grid.
        method: "linear" or "nearest".
    """
    # Vectors are scaled on the smaller of the two grids.
    field = tf.convert_to_tensor(field)
    if factor < 1:
        return resize(field, factor, method) * factor
    return resize(field * factor, factor, method)


def resized_shape(shape: list, factor: float) -> list:
    """Sizes after `resize`; integers stay integers, None stays None, tensors stay tensors.

    Args:
        shape: spatial sizes: integers, None or scalar tensors.
        factor: new voxels for each old one along each axis, as `resize` takes it.
    """
    rounding = 1e-6  # 48 * (2 / 3) must not fall below the integer it stands for
    ratio = Fraction(factor).limit_denominator(10**4)

    def one(size):
        if size is None or isinstance(size, int):
            return None if size is None else int(size * factor + rounding)
        # In whole numbers: TensorFlow Lite does not compute with float64, and float32 is off by more than the rounding.
        return size * ratio.numerator // ratio.denominator

    return [one(size) for size in shape]


def resize(image, factor: float, method: str = "linear") -> tf.Tensor:
    """Resample `[B, *S, C]` to `floor(size * factor)` voxels per axis, first and last voxels aligned.

    Linear resampling is one small matrix product per axis, whose gradient is again a product and not a scatter.

    Args:
        image: any channels.
        factor: above 1 for more voxels.
        method: "linear" or "nearest".
    """
    if method not in METHODS:
        raise ValueError(f"interpolation must be one of {METHODS}, got {method!r}")
    image = tf.convert_to_tensor(image)
    if factor == 1:
        return image
    old, new = spatial_shape(image), resized_shape(spatial_shape(image), factor)
    positions = [_spread(size, count) for size, count in zip(old, new, strict=True)]
    if method == "linear":
        return separable.multiply(image, [separable.hats(x, size) for x, size in zip(positions, old, strict=True)])
    for axis, position in enumerate(positions, start=1):
        image = tf.gather(image, tf.cast(tf.round(position), tf.int32), axis=axis)
    return image


def _spread(size, count):
    """`count` positions from the first to the last of `size` voxels, as `tf.linspace` has them, float32."""
    if not (isinstance(size, int) and isinstance(count, int)):
        return tf.linspace(0.0, tf.cast(size - 1, tf.float32), count)
    # The same numbers, known before anything runs: an axis costs one operation then, and not thirty.
    positions = np.arange(count, dtype=np.float32) * (np.float32(size - 1) / np.float32(max(count - 1, 1)))
    return np.append(positions[:-1], np.float32(size - 1)) if count > 1 else positions


def gradient(field) -> list[tf.Tensor]:
    """Derivative along each spatial axis: central differences, one-sided at the two borders, as `numpy.gradient`.

    An axis of a single voxel has no extent, and the derivative 0.

    Args:
        field: `[B, *S, C]`; the result has this shape for each axis, per voxel.
    """
    field = tf.convert_to_tensor(field)
    result = []
    for axis in range(1, field.shape.rank - 1):
        if field.shape[axis] == 1:
            result.append(tf.zeros_like(field))
            continue
        steps = cut(field, axis, 1) - cut(field, axis, 0, -1)
        inner = (cut(field, axis, 2) - cut(field, axis, 0, -2)) / 2
        result.append(tf.concat([cut(steps, axis, 0, 1), inner, cut(steps, axis, -1)], axis=axis))
    return result


def jacobian_determinant(displacement) -> tf.Tensor:
    """det(I + ∇u) per voxel, `[B, *S]`: local volume ratio, ≤ 0 where the map folds.

    Args:
        displacement: `[B, *S, N]` in voxels.
    """
    columns = [tf.unstack(column, axis=-1) for column in gradient(tf.cast(displacement, tf.float32))]
    for axis, column in enumerate(columns):  # column[i] = ∂(x + u)ᵢ / ∂x_axis
        column[axis] += 1.0
    return _determinant(columns)


def cell_determinant(displacement) -> tf.Tensor:
    """det(I + ∇u) of each cell of the grid, by the edges that meet in one of its corners, `[B, *(S − 1)]`.

    The corner is the first of a cell, in 3-D the last, as in the publications of the ICON family. One-sided differences
    see the checkerboards that `jacobian_determinant` overlooks.

    Args:
        displacement: `[B, *S, N]` in voxels.

    Reference:
        Greer et al., ICON: learning regular maps through inverse consistency, ICCV 2021, arXiv:2105.04459.
    """
    displacement = tf.convert_to_tensor(displacement)
    ndims = displacement.shape[-1]
    corner = (1,) if ndims == 3 else (0, -1)
    columns = []
    for axis in range(ndims):
        edges = cut(displacement, axis + 1, 1) - cut(displacement, axis + 1, 0, -1)
        for other in set(range(ndims)) - {axis}:
            edges = cut(edges, other + 1, *corner)
        column = tf.unstack(edges, axis=-1)
        column[axis] += 1.0
        columns.append(column)
    return _determinant(columns)


def _determinant(columns: list[list[tf.Tensor]]) -> tf.Tensor:
    """Of square matrices by their columns, by Laplace's expansion along the first."""
    first, *others = columns
    if not others:
        return first[0]
    minors = [_determinant([column[:i] + column[i + 1 :] for column in others]) for i in range(len(first))]
    terms = [entry * minor for entry, minor in zip(first, minors, strict=True)]
    return tf.add_n(terms[::2]) - tf.add_n(terms[1::2])


def magnitude(displacement) -> tf.Tensor:
    """Euclidean length per voxel, `[B, *S]`, voxels.

    Args:
        displacement: `[B, *S, N]`, voxels.
    """
    return tf.norm(tf.cast(displacement, tf.float32), axis=-1)


def positions(displacement) -> tf.Tensor:
    """Absolute sampling positions x + u(x), `[B, *S, N]`, voxels.

    Args:
        displacement: `[B, *S, N]`, voxels.
    """
    return tf.stack(displaced_grid(tf.cast(displacement, tf.float32)), axis=-1)
