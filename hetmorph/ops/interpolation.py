"""Linear interpolation on voxel grids and its two adjoints, the gradients of `warp`.

The gradients are written out because automatic ones scatter every corner by itself and keep all intermediate
weights; these keep the inputs only.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hetmorph.ops import xla
from hetmorph.ops.grid import displaced_grid, flat_voxels, spatial_shape

LARGE = 2**20  # positions, from which on they are interpolated slab by slab
SLAB = 2**15  # positions of a slab, or more
MANY = 16  # channels, from which on their gradients are summed together


def interpolate(image: tf.Tensor, position: tf.Tensor, relative: bool) -> tf.Tensor:
    """Values of an image at positions; outside, those of the nearest edge voxel.

    Args:
        image: `[B, *S, C]`, float32 or float64, fewer than 2³¹ numbers.
        position: `[B, *T, N]`, float32, voxels of the image.
        relative: whether positions are displacements from the voxels of their own grid.

    Returns:
        `[B, *T, C]`, differentiable in both. At a voxel's centre the derivative is the one to its upper side.
    """
    sizes = tuple(spatial_shape(image))
    _check_count(image)

    @tf.custom_gradient
    def apply(image, position):
        def gradients(upstream):
            of_position = xla.run(slope, image, position, upstream, relative=relative)
            return _pull_adjoint(upstream, position, sizes, relative), of_position

        return xla.run(pull, image, position, relative=relative), gradients

    return apply(image, position)


def pull(image: tf.Tensor, position: tf.Tensor, relative: bool) -> tf.Tensor:
    """The interpolation itself."""
    thickness = _slab(position)
    if thickness is None:
        return _pull(image, position, relative)
    position = tf.stack(displaced_grid(position), axis=-1) if relative else position
    return _by_slabs(lambda part: _pull(image, part, relative=False), thickness, position)


def _pull(image: tf.Tensor, position: tf.Tensor, relative: bool) -> tf.Tensor:
    cells = _cells(position, spatial_shape(image), relative)
    voxels = flat_voxels(image)
    values = [tf.gather(voxels, cells.row + offset) for offset in cells.offsets]
    # Not f[..., None]: TensorFlow Lite has no slice that adds an axis to an image of unknown size.
    fractions = [tf.expand_dims(tf.cast(f, image.dtype), -1) for f in cells.fractions]
    return _contract(values, fractions)


def slope(image: tf.Tensor, position: tf.Tensor, upstream: tf.Tensor, relative: bool) -> tf.Tensor:
    """Gradient of ⟨upstream, pull(image, position)⟩ with respect to the positions, `[B, *T, N]`."""
    thickness = _slab(position)
    if thickness is None:
        return _slope(image, position, upstream, relative)
    position = tf.stack(displaced_grid(position), axis=-1) if relative else position
    return _by_slabs(lambda *parts: _slope(image, *parts, relative=False), thickness, position, upstream)


def _slope(image: tf.Tensor, position: tf.Tensor, upstream: tf.Tensor, relative: bool) -> tf.Tensor:
    cells = _cells(position, spatial_shape(image), relative)
    voxels, fractions = flat_voxels(image), [tf.cast(f, image.dtype) for f in cells.fractions]
    values = [tf.gather(voxels, cells.row + offset) for offset in cells.offsets]
    if image.shape[-1] == 1:
        # Multiplied last: XLA then keeps the gathers in one loop.
        values, factor = [v[..., 0] for v in values], upstream[..., 0]
    else:
        values, factor = [tf.reduce_sum(upstream * v, axis=-1) for v in values], 1.0
    derivatives = [factor * _difference(values, fractions, axis) for axis in range(len(fractions))]
    zero = tf.zeros([], image.dtype)
    derivatives = [tf.where(o, zero, d) for o, d in zip(cells.outside, derivatives, strict=True)]
    return tf.cast(tf.stack(derivatives, axis=-1), position.dtype)


def push(upstream: tf.Tensor, position: tf.Tensor, sizes: tuple, relative: bool) -> tf.Tensor:
    """Gradient of ⟨upstream, pull(image, position)⟩ with respect to the image, `[B, *sizes, C]`.

    Every value is spread over the 2^N voxels around its position, with the weights of the interpolation.
    """
    cells = _cells(position, sizes, relative)
    weights = [1.0]
    for fraction in cells.fractions:
        f = tf.cast(fraction, upstream.dtype)
        weights = [w * side for w in weights for side in (1.0 - f, f)]
    rows = [tf.reshape(cells.row + offset, [-1]) for offset in cells.offsets]
    channels, batch = upstream.shape[-1], tf.shape(upstream)[0]
    # Numbers, not rows: TensorFlow has a faster sum for them; of many channels the operations themselves take longer.
    as_rows = channels is None or channels >= MANY
    parts = [upstream] if as_rows else tf.split(upstream, channels, axis=-1)
    shape = [-1, tf.shape(upstream)[-1]] if as_rows else [-1]
    images = []
    for part in parts:
        spread = [tf.reshape(part * w[..., None], shape) for w in weights]
        count = batch * math.prod(sizes)
        sums = [tf.math.unsorted_segment_sum(s, row, count) for s, row in zip(spread, rows, strict=True)]
        images.append(tf.reshape(tf.add_n(sums), [batch, *sizes, tf.shape(part)[-1]]))
    return images[0] if len(images) == 1 else tf.concat(images, axis=-1)


def push_packed(upstream: tf.Tensor, position: tf.Tensor, sizes: tuple, relative: bool) -> tf.Tensor:
    """As `push`, by one sum of rows that hold a cell's corners, then folded: faster under XLA, slower without."""
    cells = _cells(position, sizes, relative)
    weights = _packed_weights(cells, upstream.dtype)
    channels, batch = upstream.shape[-1], tf.shape(upstream)[0]
    count, width = batch * math.prod(sizes), len(cells.offsets) * channels
    spread = tf.reshape(weights[..., None] * upstream[..., None, :], [-1, width])
    packed = tf.math.unsorted_segment_sum(spread, tf.reshape(cells.row, [-1]), count)
    packed = tf.reshape(packed, [count, len(cells.offsets), channels])
    # What wraps round is zero: no cell begins so near the end that its upper corner would leave the image.
    folded = [tf.roll(packed[:, corner], offset, axis=0) for corner, offset in enumerate(cells.offsets)]
    return tf.reshape(tf.add_n(folded), [batch, *sizes, channels])


def _pull_adjoint(upstream, position, sizes: tuple, relative: bool) -> tf.Tensor:
    packed = xla.active() and xla.FAST_SCATTER
    with xla.compiled_kernels(packed):
        return xla.run(push_packed if packed else push, upstream, position, sizes=sizes, relative=relative)


def _slab(position: tf.Tensor) -> int | None:
    """Rows of the first axis to be interpolated at a time; None for all at once.

    Of every position there are some sixty numbers on the way: of a large volume, more than a network needs. Neither
    XLA, which keeps none of them, nor small images want it, nor graphs for any size.
    """
    grid = position.shape[1:-1]
    if xla.active() or grid.rank < 2 or not grid.is_fully_defined() or math.prod(grid) < LARGE:
        return None
    row = math.prod(grid[1:])
    return next(n for n in range(1, grid[0] + 1) if grid[0] % n == 0 and (n * row >= SLAB or n == grid[0]))


def _by_slabs(function, thickness: int, *fields: tf.Tensor) -> tf.Tensor:
    """A function of fields `[B, *S, C]` that maps each voxel by itself, slab after slab along the first axis."""

    def cut(field):
        sizes = field.shape[1:].as_list()
        parts = tf.reshape(field, [-1, sizes[0] // thickness, thickness, *sizes[1:]])
        return tf.transpose(parts, [1, 0, *range(2, parts.shape.rank)])

    parts = [cut(field) for field in fields]
    done = tf.map_fn(lambda part: function(*part), parts, parallel_iterations=1, fn_output_signature=fields[0].dtype)
    whole = tf.transpose(done, [1, 0, *range(2, parts[0].shape.rank)])
    return tf.reshape(whole, [-1, *fields[0].shape[1:-1], whole.shape[-1]])


class _Cells(NamedTuple):
    """Where positions lie: `row` of the lower corner in the flattened images, fractions of the way to the upper."""

    row: tf.Tensor
    fractions: list[tf.Tensor]
    outside: list[tf.Tensor]
    offsets: list


def _cells(position: tf.Tensor, sizes, relative: bool) -> _Cells:
    coordinates = displaced_grid(position) if relative else tf.unstack(position, axis=-1)
    batch = tf.range(tf.shape(position)[0])
    row = tf.reshape(batch, [-1] + [1] * (coordinates[0].shape.rank - 1))
    fractions, outside = [], []
    for x, size in zip(coordinates, sizes, strict=True):
        last = float(size - 1) if isinstance(size, int) else tf.cast(size - 1, x.dtype)
        clipped = tf.clip_by_value(x, 0.0, last)
        # Clipped again as an integer: NaN casts to an arbitrary index, and must not leave the image.
        # In this order: of the other, up to 6, TensorFlow Lite makes an operation that has no integers.
        lower = tf.minimum(tf.maximum(tf.cast(clipped, tf.int32), 0), _at_least_zero(size - 2))
        row = row * size + lower
        fraction = clipped - tf.cast(lower, x.dtype)
        # XLA up to TensorFlow 2.19 loses NaN in the clipping.
        fractions.append(tf.where(tf.math.is_nan(x), x, fraction) if xla.active() else fraction)
        outside.append((x < 0) | (x >= last))
    return _Cells(row, fractions, outside, _corner_offsets(sizes))


def _corner_offsets(sizes) -> list:
    """Distance in rows of each corner from the lower one, the last axis fastest. An axis of one voxel has no upper."""
    strides = []
    for axis, size in enumerate(sizes):
        has_upper = min(size - 1, 1) if isinstance(size, int) else tf.minimum(size - 1, 1)
        strides.append(has_upper * math.prod(sizes[axis + 1 :]))
    return [
        sum(s for s, upper in zip(strides, corner, strict=True) if upper)
        for corner in itertools.product((0, 1), repeat=len(sizes))
    ]


def _packed_weights(cells: _Cells, dtype: tf.DType) -> tf.Tensor:
    """Weights of the corners, `[B, *T, 2^N]`, in the order of the offsets."""
    upper = np.array(list(itertools.product((0, 1), repeat=len(cells.fractions))), dtype.as_numpy_dtype)
    # 1 − f at a lower corner, f at an upper one, in one broadcast: XLA makes a loop of it, but not of a stack.
    sides = [
        (1 - upper[:, axis]) + (2 * upper[:, axis] - 1) * tf.cast(f, dtype)[..., None]
        for axis, f in enumerate(cells.fractions)
    ]
    return math.prod(sides[1:], start=sides[0])


def _contract(values: list, fractions: list) -> tf.Tensor:
    """Interpolate corner values axis by axis, the last first.

    With both weights, and not as lower + f·(upper − lower): that is exact at f = 1, which the last voxel has.
    """
    for f in reversed(fractions):
        values = [lower * (1.0 - f) + upper * f for lower, upper in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _difference(values: list, fractions: list, axis: int) -> tf.Tensor:
    """Derivative of `_contract(values, fractions)` along one axis."""
    bit = 2 ** (len(fractions) - 1 - axis)
    steps = [values[k + bit] - values[k] for k in range(len(values)) if not k & bit]
    return _contract(steps, fractions[:axis] + fractions[axis + 1 :])


def _at_least_zero(size):
    return max(size, 0) if isinstance(size, int) else tf.maximum(size, 0)


def _check_count(image: tf.Tensor) -> None:
    count = image.shape.num_elements()
    if count is not None and count >= 2**31:
        raise ValueError(f"an image of {count} numbers cannot be indexed by 32-bit integers; split the batch")
