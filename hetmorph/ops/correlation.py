"""Local correlation of two images."""

from collections.abc import Sequence

import tensorflow as tf

from hetmorph.ops import separable

_FLOOR = 3e-3


def local_correlation(fixed, moved, window: Sequence[int]) -> tf.Tensor:
    """Squared correlation coefficient of two images in a window round each voxel, `[B, *S, C]`, 0 to 1.

    (cov + √(εδ))² / ((var + ε)(var + δ)), where ε and δ are 0.003 of the variances of the whole images: noise in a
    window that holds nothing else hardly counts, equal images have 1 everywhere, and intensities may have any unit. At
    the border the window ends with the image.

    Args:
        fixed, moved: `[B, *S, C]`; gradients reach both.
        window: odd sides in voxels, for each axis.

    Reference:
        Avants et al., Medical Image Analysis 2008, doi:10.1016/j.media.2007.06.004.
    """
    fixed, moved = tf.convert_to_tensor(fixed), tf.convert_to_tensor(moved)
    channels = fixed.shape[-1]
    boxes = [separable.box(size, width) for size, width in zip(fixed.shape[1:-1], window, strict=True)]
    fixed, moved = _centred(fixed), _centred(moved)
    mean_f, square_f = tf.split(separable.multiply(tf.concat([fixed, fixed**2], -1), boxes), 2, axis=-1)
    of_moved = separable.multiply(tf.concat([moved, moved**2, fixed * moved], -1), boxes)
    mean_m, square_m, product = tf.split(of_moved, [channels] * 3, axis=-1)
    covariance = product - mean_f * mean_m
    floor_f, floor_m = _floor(fixed), _floor(moved)
    variance_f, variance_m = tf.nn.relu(square_f - mean_f**2), tf.nn.relu(square_m - mean_m**2)
    raised = covariance + tf.sqrt(floor_f * floor_m)
    return raised**2 / ((variance_f + floor_f) * (variance_m + floor_m) + 1e-20)


def _centred(image: tf.Tensor) -> tf.Tensor:
    """Without the mean, which would cost digits when squared."""
    axes = list(range(1, image.shape.rank - 1))
    return image - tf.stop_gradient(tf.reduce_mean(image, axes, keepdims=True))


def _floor(centred: tf.Tensor) -> tf.Tensor:
    """What is added to the variances of an image."""
    axes = list(range(1, centred.shape.rank - 1))
    return _FLOOR * tf.stop_gradient(tf.reduce_mean(centred**2, axes, keepdims=True))
