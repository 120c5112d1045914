"""Sampling an image at displaced voxel positions."""

import itertools

import tensorflow as tf

from hetmorph.ops.grid import identity_grid, spatial_shape

METHODS = ("linear", "nearest")


def warp(image, displacement, method: str = "linear", fill_value: float | None = None) -> tf.Tensor:
    """Pull an image through a displacement: `moved(x) = image(x + u(x))`.

    One gather per corner serves the whole batch. Positions are computed in float32 whatever the dtype of the
    inputs, because half precision cannot address voxels beyond 2048.

    Args:
        image: `[B, *S, C]`, any real dtype. Integers are sampled as float32 by "linear" and kept by "nearest".
        displacement: `[B, *T, N]` in voxels of the image, on the output grid, axes in array order.
        method: "linear" or "nearest".
        fill_value: value outside the image. None repeats the nearest edge voxel.

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
    if method == "linear" and not image.dtype.is_floating:
        image = tf.cast(image, tf.float32)
    sizes = spatial_shape(image)
    displacement = tf.cast(displacement, tf.float32)
    grid = identity_grid(spatial_shape(displacement))
    location = [grid[d] + displacement[..., d] for d in range(len(sizes))]
    sample = _linear if method == "linear" else _nearest
    moved = sample(_flatten_voxels(image), location, sizes)
    if fill_value is None:
        return moved
    inside = tf.reduce_all(
        [(x >= 0) & (x <= tf.cast(n - 1, tf.float32)) for x, n in zip(location, sizes, strict=True)], axis=0
    )
    return tf.where(inside[..., None], moved, tf.cast(fill_value, moved.dtype))


def _check(image: tf.Tensor, displacement: tf.Tensor, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"interpolation must be one of {METHODS}, got {method!r}")
    ndims = image.shape.rank - 2
    if displacement.shape.rank != image.shape.rank or displacement.shape[-1] != ndims:
        raise ValueError(
            f"a {ndims}-D image {tuple(image.shape)} needs a displacement [batch, *grid, {ndims}], "
            f"got {tuple(displacement.shape)}"
        )


def _flatten_voxels(image: tf.Tensor) -> tf.Tensor:
    return tf.reshape(image, [-1, image.shape[-1] or tf.shape(image)[-1]])


def _flat_index(index: list[tf.Tensor], sizes: list) -> tf.Tensor:
    """Row number in the flattened batch of images. `index[d]` is `[B, *T]`, already within the image."""
    batch = tf.range(tf.shape(index[0])[0])
    flat = tf.reshape(batch, [-1] + [1] * len(sizes))
    for i, size in zip(index, sizes, strict=True):
        flat = flat * size + i
    return flat


def _clip_index(x: tf.Tensor, size) -> tf.Tensor:
    # The second clip is on integers: a NaN position casts to an arbitrary index, and must not leave the image.
    x = tf.clip_by_value(x, 0.0, tf.cast(size - 1, x.dtype))
    return tf.clip_by_value(tf.cast(x, tf.int32), 0, size - 1)


def _linear(voxels: tf.Tensor, location: list[tf.Tensor], sizes: list) -> tf.Tensor:
    corners, weights = [], []
    for x, size in zip(location, sizes, strict=True):
        lower = _clip_index(tf.floor(x), size)
        upper = tf.minimum(lower + 1, size - 1)
        # The upper corner may coincide with the lower at the far edge: weighing by the distance to it is then 0.
        toward_lower = tf.cast(upper, x.dtype) - tf.clip_by_value(x, 0.0, tf.cast(size - 1, x.dtype))
        corners.append((lower, upper))
        weights.append((toward_lower, 1.0 - toward_lower))
    moved = 0.0
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        index = [pair[c] for pair, c in zip(corners, corner, strict=True)]
        weight = weights[0][corner[0]]
        for pair, c in zip(weights[1:], corner[1:], strict=True):
            weight = weight * pair[c]
        value = tf.gather(voxels, _flat_index(index, sizes))
        moved += tf.cast(weight[..., None], value.dtype) * value
    return moved


def _nearest(voxels: tf.Tensor, location: list[tf.Tensor], sizes: list) -> tf.Tensor:
    index = [_clip_index(tf.round(x), size) for x, size in zip(location, sizes, strict=True)]
    return tf.gather(voxels, _flat_index(index, sizes))
