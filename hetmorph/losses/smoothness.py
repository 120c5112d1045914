"""How rough a field is: its differences, alone or as the prior of a predicted velocity distribution."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, per_sample, positive, require_rank
from hetmorph.ops.grid import cut


@keras.saving.register_keras_serializable("hetmorph")
class Grad(SerializableLoss):
    """Smoothness of a field: mean absolute or squared forward difference, averaged over the axes, per sample.

    An axis of a single voxel has no differences and counts as smooth.

    Args:
        penalty: "l1" (absolute) or "l2" (squared).
        loss_mult: factor on the loss, e.g. the downsampling factor of the field.
        vox_weight: weight of each voxel's difference, broadcastable to the field `[B, *S, N]`.
    """

    def __init__(self, penalty: str = "l1", loss_mult: float | None = None, vox_weight=None):
        if penalty not in ("l1", "l2"):
            raise ValueError(f"penalty must be 'l1' or 'l2', got {penalty!r}")
        if vox_weight is not None and not tf.is_tensor(vox_weight):
            vox_weight = np.asarray(vox_weight, np.float32)
        self.penalty, self.loss_mult, self.vox_weight = penalty, loss_mult, vox_weight

    def _loss(self, _, y_pred):
        size = tf.abs if self.penalty == "l1" else tf.square
        per_axis = [sample_mean(size(d)) for d in differences(y_pred, require_rank(y_pred, "Grad"), self.vox_weight)]
        smoothness = tf.add_n(per_axis) / len(per_axis)
        return smoothness if self.loss_mult is None else smoothness * self.loss_mult


@keras.saving.register_keras_serializable("hetmorph")
class KL(SerializableLoss):
    """Kullback–Leibler divergence of a predicted velocity distribution from a smooth prior.

    ½·N·(mean(λ·D·exp(log σ²) − log σ²) + λ·½·mean‖∇μ‖²), D the number of grid neighbours of a voxel.
    The field `[B, *S, 2N]` holds μ, then log σ².

    Args:
        prior_lambda: precision λ of the prior.
        flow_vol_shape: spatial size of the field; taken from the field itself where None.

    Reference:
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """

    def __init__(self, prior_lambda: float, flow_vol_shape=None):
        self.prior_lambda, self.flow_vol_shape = positive(prior_lambda, "prior_lambda"), flow_vol_shape

    def _loss(self, _, y_pred):
        ndims = require_rank(y_pred, "KL")
        if y_pred.shape[-1] != 2 * ndims:
            raise ValueError(f"KL needs a field with {2 * ndims} channels (mean, log σ²), got shape {y_pred.shape}")
        self._check_size(y_pred.shape[1:-1])
        mean, log_variance = y_pred[..., :ndims], y_pred[..., ndims:]
        degree = neighbours(tf.shape(y_pred)[1:-1], ndims, y_pred.dtype)
        spread = per_sample(self.prior_lambda * degree * tf.exp(log_variance) - log_variance)
        roughness = tf.add_n([sample_mean(tf.square(d)) for d in differences(mean, ndims)]) / (2 * ndims)
        return 0.5 * ndims * (spread + self.prior_lambda * roughness)

    def _check_size(self, shape: tf.TensorShape) -> None:
        if self.flow_vol_shape is not None and not shape.is_compatible_with(tuple(self.flow_vol_shape)):
            raise ValueError(f"KL was made for fields of size {tuple(self.flow_vol_shape)}, got {tuple(shape)}")


@keras.saving.register_keras_serializable("hetmorph")
class SmoothPosterior(SerializableLoss):
    """`λ·m·‖∇μ‖² + α·E[σ² − log σ²]` of a velocity field `[B, *S, 2N]` that holds μ, then log σ².

    The first term is `Grad("l2", loss_mult=m)` of the mean, the second keeps the uncertainty from vanishing: alone it
    is least at σ = 1 voxel; the more the likelihood suffers from samples far from the mean, the smaller σ gets.

    Args:
        smoothness: λ.
        alpha: α.
        loss_mult: m, as in `Grad`.

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """

    def __init__(self, smoothness: float, alpha: float, loss_mult: float | None = None):
        if not (smoothness >= 0 and alpha >= 0):
            raise ValueError(f"smoothness λ and α must be at least 0, got {smoothness!r} and {alpha!r}")
        self.smoothness, self.alpha, self.loss_mult = smoothness, alpha, loss_mult

    def _loss(self, _, y_pred):
        ndims = require_rank(y_pred, "SmoothPosterior")
        if y_pred.shape[-1] != 2 * ndims:
            raise ValueError(
                f"SmoothPosterior needs a field with {2 * ndims} channels (mean, log σ²), got shape {y_pred.shape}"
            )
        mean, log_variance = y_pred[..., :ndims], y_pred[..., ndims:]
        spread = per_sample(tf.exp(log_variance) - log_variance)
        return self.smoothness * Grad("l2", self.loss_mult).loss(None, mean) + self.alpha * spread


def differences(field: tf.Tensor, ndims: int, weight=None) -> Iterator[tf.Tensor]:
    """Forward differences of a field `[B, *S, C]` along each axis, times the weight of the farther voxel."""
    for axis in range(1, ndims + 1):
        difference = cut(field, axis, 1) - cut(field, axis, 0, -1)
        if weight is not None:
            # a weight that is the same for all voxels along an axis has one entry there
            difference *= cut(weight, axis, 1) if weight.shape[axis] != 1 or field.shape[axis] == 1 else weight
        yield difference


def sample_mean(values: tf.Tensor) -> tf.Tensor:
    """Mean of each sample, `[B]`; 0 where there are no values, as along an axis of one voxel."""
    count = tf.cast(tf.reduce_prod(tf.shape(values)[1:]), values.dtype)
    return tf.reduce_sum(values, axis=list(range(1, len(values.shape)))) / tf.maximum(count, 1.0)


def neighbours(shape: tf.Tensor, ndims: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Number of grid neighbours of each voxel of a grid, `[1, *shape, 1]`."""
    count = tf.zeros(tf.concat([[1], shape, [1]], axis=0), dtype)
    for axis in range(ndims):
        position = tf.range(shape[axis])
        along = tf.cast(position > 0, dtype) + tf.cast(position < shape[axis] - 1, dtype)
        count += tf.reshape(along, [-1 if i == axis + 1 else 1 for i in range(ndims + 2)])
    return count
