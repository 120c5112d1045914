"""Baselines that adapt to the residual by a formula, without a variance network."""

import keras
import numpy as np
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, as_real
from hetmorph.ops import stats
from hetmorph.ops.masks import weighted_mean


@keras.saving.register_keras_serializable("hetmorph")
class AdaFrame(SerializableLoss):
    """Squared difference, with less weight on voxels whose residual stands out.

    `(1 − sigmoid(a·ρ − b)) · (y − ŷ)²`, where ρ is the absolute residual r, standardised within each sample,
    a = 0.1/(μ + 1e-7) and b = 10·(1 − cos πμ) for its mean μ. The weight is free of gradient.

    Reference:
        The adaptive weighting that Zhang et al., MICCAI 2024, arXiv:2312.00836, compare with.
    """

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """Weighted squared difference of images in [0, 1].

        Args:
            y_true, y_pred: `[B, *S, C]`.
            weight: `[B, *S, 1]`, not negative: what stands out does so among the voxels that count.
        """
        y_true, y_pred = as_real(y_true, y_pred)
        return frame_weight(y_true - y_pred, weight) * tf.math.squared_difference(y_true, y_pred)


def frame_weight(residual, weight=None) -> tf.Tensor:
    """Weight of `AdaFrame` for a residual `[B, *S, C]`; the same everywhere where the residual is constant.

    Args:
        residual: r.
        weight: `[B, *S, 1]`, how much each voxel counts in mean and deviation; None counts all alike.
    """
    size = tf.stop_gradient(tf.abs(residual))
    mean = _mean_of(size, weight)
    deviation = tf.sqrt(_mean_of(tf.math.squared_difference(size, mean), weight))
    standardised = tf.math.divide_no_nan(size - mean, deviation)
    steepness, shift = 0.1 / (mean + 1e-7), 10 * (1 - tf.cos(np.pi * mean))
    return 1 - tf.sigmoid(steepness * standardised - shift)


def _mean_of(values: tf.Tensor, weight) -> tf.Tensor:
    """Mean of each sample, broadcastable."""
    return stats.sample_mean(values) if weight is None else stats.broadcast(weighted_mean(values, weight), values)


def residual_scale(fixed, moved, field, weight=None) -> tf.Tensor:
    """Factor exp(−50·r·mean r) of a field in its penalty, free of gradient.

    Where the images disagree the field is allowed to be rougher. The residual r = |fixed − moved| is averaged over its
    channels and over the voxels of the coarser field.

    Args:
        fixed, moved: images `[B, *S, C]`.
        field: `[B, *field grid, N]`.
        weight: `[B, *S, 1]`, how much each voxel counts; a residual that does not count is none.

    Returns:
        `[B, *field grid, 1]`.

    Raises:
        ValueError: sizes that are known only at run time.

    Reference:
        The adaptive regularisation that Zhang et al., MICCAI 2024, arXiv:2312.00836, compare with.
    """
    size = tf.reduce_mean(tf.stop_gradient(tf.abs(fixed - moved)), axis=-1, keepdims=True)
    size = size if weight is None else size * tf.cast(weight, size.dtype)
    scale = tf.exp(-50 * size * _mean_of(size, weight))
    if None in (*size.shape[1:-1], *field.shape[1:-1]):
        raise ValueError(f"the residual needs known sizes to be averaged, got {size.shape} for a field {field.shape}")
    factors = [-(-a // b) for a, b in zip(size.shape[1:-1], field.shape[1:-1], strict=True)]
    averaged = scale if set(factors) == {1} else tf.nn.avg_pool(scale, factors, factors, "SAME")
    if averaged.shape[1:-1] != field.shape[1:-1]:
        raise ValueError(f"the field's grid {field.shape} must be that of images {fixed.shape} in whole voxels")
    return averaged
