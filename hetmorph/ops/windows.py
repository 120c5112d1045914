"""Sums over a window round each voxel."""

from collections.abc import Sequence

import tensorflow as tf

from hetmorph.ops import xla


def box_sum(image, sides: Sequence[int]) -> tf.Tensor:
    """Sum over a box round each voxel, zeros outside the image.

    A box of side w is made of sums over 1, 2, 4 … voxels along one axis after another: the cost grows with log w, and
    nothing cancels as it does in differences of running sums. The gradient is a box sum itself.

    Args:
        image: `[B, *S, C]`, floating.
        sides: voxels along each spatial axis. An even side reaches one voxel farther towards the end of the axis.

    Returns:
        The same shape.
    """
    sides = tuple(int(side) for side in sides)

    @tf.custom_gradient
    def apply(values):
        def gradient(upstream):
            return xla.run(_boxes, upstream, sides=sides, ahead=True)

        return xla.run(_boxes, values, sides=sides, ahead=False), gradient

    return apply(tf.convert_to_tensor(image))


def _boxes(image: tf.Tensor, sides: tuple[int, ...], ahead: bool) -> tf.Tensor:
    """`ahead`: an even side reaches one voxel farther towards the start, as the adjoint does."""
    rank = image.shape.rank
    for axis, side in enumerate(sides, start=1):
        if side > 1:
            shorter, longer = (side - 1) // 2, side // 2
            padding = [[0, 0] for _ in range(rank)]
            padding[axis] = [longer, shorter] if ahead else [shorter, longer]
            image = _run(tf.pad(image, padding), axis, side)
    return image


def _run(padded: tf.Tensor, axis: int, side: int) -> tf.Tensor:
    """Sums over `side` consecutive entries of an axis that is longer by `side` − 1."""

    def part(values, start, length):
        return values[(*[slice(None)] * axis, slice(start, start + length))]

    whole = padded.shape[axis]
    whole = tf.shape(padded)[axis] if whole is None else whole
    total, start, width, sums = None, 0, 1, padded  # sums over `width` entries each
    while True:
        if side & width:
            piece = part(sums, start, whole - side + 1)
            total, start = piece if total is None else total + piece, start + width
        if 2 * width > side:
            return total
        length = whole - 2 * width + 1
        sums = part(sums, 0, length) + part(sums, width, length)
        width *= 2
