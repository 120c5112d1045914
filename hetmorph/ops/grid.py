"""Voxel grids: coordinates, padding to a multiple, cropping back."""

import numpy as np
import tensorflow as tf


def spatial_shape(tensor: tf.Tensor) -> list:
    """Spatial sizes of a `[B, *S, C]` tensor: Python integers where static, scalar tensors elsewhere.

    Args:
        tensor: `[B, *S, C]` of known rank.
    """
    sizes = list(tensor.shape)[1:-1]
    if None not in sizes:
        return sizes
    dynamic = tf.shape(tensor)
    return [dynamic[i] if d is None else d for i, d in enumerate(sizes, start=1)]


def identity_grid(shape: list, dtype: tf.DType = tf.float32) -> list[tf.Tensor]:
    """Voxel coordinates, one broadcastable tensor per axis: axis d has size `shape[d]` there and 1 elsewhere.

    Args:
        shape: spatial sizes, integers or scalar tensors.
        dtype: type of the coordinates (default: float32).
    """
    axes = []
    for d, size in enumerate(shape):
        along = [-1 if i == d else 1 for i in range(len(shape))]
        if isinstance(size, int):  # a constant: on small grids calling operations takes longer than computing them
            axes.append(tf.constant(np.arange(size, dtype=dtype.as_numpy_dtype).reshape(along)))
        else:
            axes.append(tf.reshape(tf.cast(tf.range(size), dtype), along))
    return axes


def displaced_grid(displacement: tf.Tensor) -> list[tf.Tensor]:
    """Positions x + u(x) of a `[B, *S, N]` displacement, `[B, *S]` for each axis, voxels.

    Args:
        displacement: on the grid whose positions are asked for, voxels.
    """
    grid = identity_grid(spatial_shape(displacement))
    return [g + u for g, u in zip(grid, tf.unstack(displacement, axis=-1), strict=True)]


def flat_voxels(image: tf.Tensor) -> tf.Tensor:
    """A batch of images `[B, *S, C]` as rows `[B·∏S, C]`.

    Args:
        image: any channels.
    """
    return tf.reshape(image, [-1, image.shape[-1] or tf.shape(image)[-1]])


def pad_to_multiple(tensor: tf.Tensor, multiple: int) -> tf.Tensor:
    """Append zeros at the end of each spatial axis until its size is a multiple of `multiple`.

    Padding at the end only keeps voxel coordinates as they are, so that displacements need no shift afterwards.

    Args:
        tensor: `[B, *S, C]`.
        multiple: voxels.
    """
    sizes = spatial_shape(tensor)
    return pad(tensor, 0, [missing(size, multiple) for size in sizes])


def missing(size, multiple: int):
    """Voxels that an axis lacks to a multiple.

    Args:
        size: voxels, an integer or a scalar tensor.
        multiple: voxels.
    """
    # Not (-size) % multiple: what converts graphs to ONNX (tf2onnx 1.17) rounds quotients towards zero.
    return (multiple - size % multiple) % multiple


def pad(tensor: tf.Tensor, before, after) -> tf.Tensor:
    """Zeros round the spatial axes of a `[B, *S, C]` tensor.

    Args:
        tensor: any channels.
        before, after: voxels at the start and the end of each axis, one number or one for each.
    """
    sizes = spatial_shape(tensor)
    before, after = ([x] * len(sizes) if isinstance(x, int) else x for x in (before, after))
    # Not tf.pad: TensorFlow up to 2.21 at least drops its operation in front of a 3-D convolution with oneDNN.
    paddings = tf.convert_to_tensor([[0, 0], *map(list, zip(before, after, strict=True)), [0, 0]])
    padded = tf.raw_ops.PadV2(input=tensor, paddings=paddings, constant_values=tf.zeros([], tensor.dtype))
    known = [None if tf.is_tensor(n) else n + a + b for n, a, b in zip(sizes, before, after, strict=True)]
    padded.set_shape([tensor.shape[0], *known, tensor.shape[-1]])
    if None in known and tensor.shape[-1] is not None:
        # So that the graph says how many channels there are, and not Python alone: TensorFlow Lite looks there.
        padded = tf.reshape(padded, [-1, *spatial_shape(padded), tensor.shape[-1]])
    return padded


def edge_repeated(image: tf.Tensor, axis: int, margin: int) -> tf.Tensor:
    """An image `[B, *S, C]` with its first and last voxels repeated along a spatial axis.

    Args:
        image: a batch of any rank.
        axis: from 0, the first spatial one.
        margin: voxels added at either end.
    """
    first, last = cut(image, axis + 1, 0, 1), cut(image, axis + 1, -1)
    return tf.concat([*[first] * margin, image, *[last] * margin], axis=axis + 1)


def neighbours(image: tf.Tensor, axis: int, distance: int) -> list[tf.Tensor]:
    """image(x − distance) and image(x + distance) along an axis, the edge repeated.

    Args:
        image: `[B, *S, C]`.
        axis: from 0, the first spatial one.
        distance: voxels.
    """
    size = spatial_shape(image)[axis]
    padded = edge_repeated(image, axis, distance)
    return [cut(padded, axis + 1, start, start + size) for start in (0, 2 * distance)]


def crop_to(tensor: tf.Tensor, shape: list) -> tf.Tensor:
    """Keep the first `shape[d]` voxels of each spatial axis of a `[B, *S, C]` tensor.

    Args:
        tensor: no smaller than `shape`.
        shape: spatial sizes, integers or scalar tensors.
    """
    for axis, size in enumerate(shape, start=1):
        tensor = cut(tensor, axis, 0, size)
    return tensor


def without_margin(image: tf.Tensor, margin: int) -> tf.Tensor:
    """An image `[B, *S, C]` without the voxels next to its edges.

    Args:
        image: larger than the margins.
        margin: voxels left out at either end of each spatial axis.
    """
    for axis, size in enumerate(spatial_shape(image), start=1):
        image = cut(image, axis, margin, size - margin)
    return image


def cut(tensor: tf.Tensor, axis: int, start, stop=None) -> tf.Tensor:
    """Entries from `start` to before `stop` along an axis, as Python's slices give them.

    The gradient of Python's slices fills an array of zeros entry by entry; this one is a padding, far quicker,
    where the size of the axis is known.

    Args:
        tensor: a tensor of known rank, or an array.
        axis: from 0, the first of all.
        start, stop: integers or scalar tensors; an integer below 0 counts from the end, None is the end.
    """
    tensor = tf.convert_to_tensor(tensor)
    size, axis = tensor.shape[axis], axis % tensor.shape.rank
    if size is None or tf.is_tensor(start) or tf.is_tensor(stop):
        # Of a slice of unknown size nothing would be known, not even its channels.
        return tensor[(*[slice(None)] * axis, slice(start, stop))]
    low, high, _ = slice(start, stop).indices(size)
    if (low, high) == (0, size):
        return tensor
    begin, length = [0] * tensor.shape.rank, [-1] * tensor.shape.rank
    begin[axis], length[axis] = low, max(high - low, 0)
    return tf.slice(tensor, begin, length)


def block_mean(image: tf.Tensor, factor: int) -> tf.Tensor:
    """Mean of each block of `factor` voxels along each axis, `[B, *⌈S / factor⌉, C]`.

    Args:
        image: `[B, *S, C]`, floating.
        factor: voxels. What does not fill a block at the end of an axis is averaged alone.
    """
    values = tf.cast(image, tf.float32) if image.dtype == tf.float16 else image  # for volumes there is no other kernel
    # The layout is spelt out because the eager gradient in 3-D fails without.
    layout = ("NWC", "NHWC", "NDHWC")[image.shape.rank - 3]
    return tf.cast(tf.nn.avg_pool(values, factor, factor, "SAME", layout), image.dtype)
