"""Regularisation of a velocity that is predicted with its uncertainty."""

import keras
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, require_rank
from hetmorph.losses.vxm import Grad


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
        axes = list(range(1, ndims + 2))
        spread = tf.reduce_mean(tf.exp(log_variance) - log_variance, axis=axes)
        return self.smoothness * Grad("l2", self.loss_mult).loss(None, mean) + self.alpha * spread

    def get_config(self):
        return {"smoothness": self.smoothness, "alpha": self.alpha, "loss_mult": self.loss_mult}
