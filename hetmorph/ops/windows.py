"""Windows round each voxel: their sums, and the local correlation of two images."""

from collections.abc import Sequence

import tensorflow as tf

from hetmorph.ops import xla
from hetmorph.ops.grid import cut

_FLOOR = 3e-3
_WINDOW = {2: 15, 3: 7}
_OF_AXIS = 4  # a window takes at most this part of an axis: stacks have few slices


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


def window_of(shape: Sequence[int], side: int | None = None) -> list[int]:
    """Odd sides of the window of local correlation for an image.

    Args:
        shape: spatial sizes.
        side: voxels, an even one gets one more; None takes 15 in 2-D and 7 in 3-D. An axis gets a quarter of its voxels
            at most.
    """
    side = _WINDOW.get(len(shape), 9) if side is None else side
    return [min(side, size // _OF_AXIS) // 2 * 2 + 1 for size in shape]


def local_correlation(fixed, moved, sides: Sequence[int], weight=None) -> tf.Tensor:
    """Squared correlation coefficient of two images in a window round each voxel, `[B, *S, C]`, 0 to 1.

    (cov + √(εδ))² / ((var + ε)(var + δ)), where ε and δ are 0.003 of the variances of the whole images: noise in a
    window that holds nothing else hardly counts, equal images have 1 everywhere, and intensities may have any unit. At
    the border the window ends with the image. `losses.NCC` is VoxelMorph's form of it, whose windows meet zeros there
    and whose ε is a number.

    Args:
        fixed, moved: `[B, *S, C]`; gradients reach both.
        sides: voxels of the window along each axis.
        weight: `[B, *S, 1]`, how much each voxel counts in the windows and in the variances; None counts all alike.

    Reference:
        Avants et al., Medical Image Analysis 2008, doi:10.1016/j.media.2007.06.004.
    """
    fixed, moved = _centred(fixed, weight), _centred(moved, weight)
    count = box_sum(tf.ones_like(fixed[:1, ..., :1]) if weight is None else weight, sides)

    def mean(values):
        return tf.math.divide_no_nan(box_sum(values if weight is None else weight * values, sides), count)

    # One by one: of several channels at once the sums, and their gradients, take far longer.
    mean_f, square_f, mean_m, square_m, product = (
        mean(values) for values in (fixed, tf.square(fixed), moved, tf.square(moved), fixed * moved)
    )
    covariance = product - mean_f * mean_m
    floor_f, floor_m = _floor(fixed, weight), _floor(moved, weight)
    variance_f, variance_m = (
        tf.nn.relu(square - tf.square(average)) for square, average in ((square_f, mean_f), (square_m, mean_m))
    )
    raised = covariance + tf.sqrt(floor_f * floor_m)
    return tf.square(raised) / ((variance_f + floor_f) * (variance_m + floor_m) + 1e-20)


def _centred(image, weight) -> tf.Tensor:
    """Without the mean, which would cost digits when squared."""
    image = tf.convert_to_tensor(image)
    return image - tf.stop_gradient(_mean(image, weight))


def _floor(centred: tf.Tensor, weight) -> tf.Tensor:
    """What is added to the variances of an image."""
    return _FLOOR * tf.stop_gradient(_mean(tf.square(centred), weight))


def _mean(image: tf.Tensor, weight) -> tf.Tensor:
    """Mean of each image and channel, `[B, 1…, C]`."""
    axes = list(range(1, image.shape.rank - 1))
    if weight is None:
        return tf.reduce_mean(image, axes, keepdims=True)
    sums = (tf.reduce_sum(values, axes, keepdims=True) for values in (weight * image, weight))
    return tf.math.divide_no_nan(*sums)


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
    whole = padded.shape[axis]
    whole = tf.shape(padded)[axis] if whole is None else whole
    total, start, width, sums = None, 0, 1, padded  # sums over `width` entries each
    while True:
        if side & width:
            piece = cut(sums, axis, start, start + whole - side + 1)
            total, start = piece if total is None else total + piece, start + width
        if 2 * width > side:
            return total
        length = whole - 2 * width + 1
        sums = cut(sums, axis, 0, length) + cut(sums, axis, width, width + length)
        width *= 2
