"""Sampling an image at displaced voxel positions."""

import tensorflow as tf

from hetmorph.ops.grid import displaced_grid, flat_voxels, spatial_shape
from hetmorph.ops.interpolation import interpolate

METHODS = ("linear", "nearest")


def warp(image, displacement, method: str = "linear", fill_value: float | None = None, fade: bool = False) -> tf.Tensor:
    """Pull an image through a displacement: `moved(x) = image(x + u(x))`.

    Positions are computed in float32 whatever the dtype of the inputs, because half precision cannot address voxels
    beyond 2048. Gradients reach the image and the displacement; at a voxel's centre the latter is the upper one.

    Args:
        image: `[B, *S, C]`, any real dtype. Integers are sampled as float32 by "linear" and kept by "nearest".
        displacement: `[B, *T, N]` in voxels of the image, on the output grid, axes in array order.
        method: "linear" or "nearest".
        fill_value: value outside the image. None repeats the nearest edge voxel.
        fade: go over to that value within the voxel beyond the edge, as PyTorch's `grid_sample` does, so that the
            result is continuous; else it begins at the edge.

    Returns:
        `[B, *T, C]`.

    Raises:
        ValueError: unknown method, or a displacement whose rank or channels do not fit the image.

    Example:
        >>> u = tf.ones([1, 4, 4, 2])             # look one voxel further along both axes
        >>> warp(tf.eye(4)[None, ..., None], u)
    """
    image, displacement = tf.convert_to_tensor(image), tf.convert_to_tensor(displacement)
    _check(image, displacement, method)
    displacement = tf.cast(displacement, tf.float32)
    moved = _linear(image, displacement) if method == "linear" else _nearest(image, displacement)
    if fill_value is None:
        return moved
    fill_value = tf.cast(fill_value, moved.dtype)
    if fade:
        share = tf.cast(tf.expand_dims(_share_inside(displacement, spatial_shape(image)), -1), moved.dtype)
        return fill_value + share * (moved - fill_value)
    return tf.where(tf.expand_dims(_inside(displacement, spatial_shape(image)), -1), moved, fill_value)


def _check(image: tf.Tensor, displacement: tf.Tensor, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"interpolation must be one of {METHODS}, got {method!r}")
    ndims = image.shape.rank - 2
    if displacement.shape.rank != image.shape.rank or displacement.shape[-1] != ndims:
        raise ValueError(
            f"a {ndims}-D image {tuple(image.shape)} needs a displacement [batch, *grid, {ndims}], "
            f"got {tuple(displacement.shape)}"
        )


def _linear(image: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    if not image.dtype.is_floating:
        image = tf.cast(image, tf.float32)
    if image.dtype.size >= 4:
        return interpolate(image, displacement, relative=True)
    return tf.cast(interpolate(tf.cast(image, tf.float32), displacement, relative=True), image.dtype)


def _nearest(image: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    sizes = spatial_shape(image)
    batch = tf.range(tf.shape(displacement)[0])
    row = tf.reshape(batch, [-1] + [1] * len(sizes))
    for x, size in zip(displaced_grid(displacement), sizes, strict=True):
        nearest = tf.clip_by_value(tf.round(x), 0.0, tf.cast(size - 1, x.dtype))
        # Clipped again as an integer: NaN casts to an arbitrary index, and must not leave the image.
        row = row * size + tf.minimum(tf.maximum(tf.cast(nearest, tf.int32), 0), size - 1)
    return tf.gather(flat_voxels(image), row)


def _inside(displacement: tf.Tensor, sizes: list) -> tf.Tensor:
    """Whether each position lies within the image, `[B, *T]`."""
    inside = [
        (x >= 0) & (x <= tf.cast(size - 1, x.dtype))
        for x, size in zip(displaced_grid(displacement), sizes, strict=True)
    ]
    return tf.reduce_all(inside, axis=0)


def _share_inside(displacement: tf.Tensor, sizes: list) -> tf.Tensor:
    """1 within the image, falling to 0 within the voxel beyond its edge, `[B, *T]`."""
    shares = [
        tf.clip_by_value(1.0 + tf.minimum(x, tf.cast(size - 1, x.dtype) - x), 0.0, 1.0)
        for x, size in zip(displaced_grid(displacement), sizes, strict=True)
    ]
    return tf.reduce_prod(tf.stack(shares), axis=0)
