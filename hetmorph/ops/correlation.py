"""Local correlation of two images."""

from collections.abc import Sequence

import tensorflow as tf

from hetmorph.ops import separable

_FLOOR = 3e-3


def local_correlation(fixed, moved, window: Sequence[int]) -> tf.Tensor:
    """Squared correlation coefficient of two images in a window round each voxel, `[B, *S, C]`, 0 to 1.

    cov² / ((var + ε)(var + ε)), where ε is 0.003 of the variance of the whole image: noise in a window that holds
    nothing else does not correlate, and intensities may have any unit. At the border the window ends with the image.

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
    return covariance**2 / (_raised(square_f - mean_f**2, fixed) * _raised(square_m - mean_m**2, moved))


def _centred(image: tf.Tensor) -> tf.Tensor:
    """Without the mean, which would cost digits when squared."""
    axes = list(range(1, image.shape.rank - 1))
    return image - tf.stop_gradient(tf.reduce_mean(image, axes, keepdims=True))


def _raised(variance: tf.Tensor, centred: tf.Tensor) -> tf.Tensor:
    axes = list(range(1, centred.shape.rank - 1))
    whole = tf.stop_gradient(tf.reduce_mean(centred**2, axes, keepdims=True))
    return tf.nn.relu(variance) + _FLOOR * whole + 1e-9
