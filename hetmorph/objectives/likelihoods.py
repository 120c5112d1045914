"""What the two networks of a model with a noise variance minimise."""

from dataclasses import dataclass

import tensorflow as tf

from hetmorph.losses.likelihood import RELATIVE_MAPS, SNR_FORMS, beta_nll, nll, relative_weight, snr
from hetmorph.ops.masks import Counted, counted_mean


@dataclass(frozen=True)
class Heteroscedastic:
    """The collaborative objective: a weight for the displacement network, a likelihood for the variance network.

    Displacement: `E[w (I_f − Î_f)²] + λ‖∇v‖²` with w the relative SNR, free of gradient. Variance: β-NLL on the
    detached moved image. Neither loss reaches the other's network.

    Attributes:
        gamma: exponent γ of the SNR.
        beta: exponent β of the NLL.
        snr: "paper", "official" or "inverse".
        relative: "sample" or "official".
        foreground: normalise the weight over voxels where either image is not zero.

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """

    gamma: float = 0.5
    beta: float = 0.5
    snr: str = "paper"
    relative: str = "sample"
    foreground: bool = False
    joint = False

    def __post_init__(self):
        if self.snr not in SNR_FORMS or self.relative not in RELATIVE_MAPS:
            raise ValueError(
                f"snr must be one of {SNR_FORMS} and relative one of {RELATIVE_MAPS}, "
                f"got {self.snr!r} and {self.relative!r}"
            )
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")
        _check_beta(self.beta)

    def weight(self, log_variance, fixed, moving, counted: Counted | None = None) -> tf.Tensor:
        """Weight of each voxel of the fixed image, free of gradient, of mean 1 over what counts.

        Args:
            log_variance: log σ², `[B, *S, C]`.
            fixed, moving: images, same shape.
            counted: how much each voxel counts; None counts all alike.
        """
        mask = (fixed != 0) | (moving != 0) if self.foreground else None
        ratio = snr(fixed, tf.stop_gradient(log_variance), self.gamma, self.snr)
        if counted is None:
            return relative_weight(ratio, self.relative, mask)
        ranked = counted.weight * tf.ones_like(ratio)
        mask = ranked if mask is None else ranked * tf.cast(mask, ranked.dtype)
        return relative_weight(ratio, self.relative, mask, ranked)

    def image_loss(self, dissimilarity, log_variance, weight, counted: Counted | None = None) -> tf.Tensor:
        """Loss of the displacement network: weighted dissimilarity, one number per sample."""
        return counted_mean(weight * dissimilarity, counted)

    def variance_loss(self, fixed, moved, log_variance, counted: Counted | None = None) -> tf.Tensor:
        """β-NLL of the residual; the moved image is detached."""
        return beta_nll(fixed, tf.stop_gradient(moved), log_variance, self.beta, counted)


@dataclass(frozen=True)
class JointLikelihood:
    """One β-NLL for both networks, nothing detached: the baselines "nll" (β = 0) and "beta-nll".

    Attributes:
        beta: exponent β of the NLL, 0 to 1.

    Reference:
        Seitzer et al., ICLR 2022, arXiv:2203.09168.
    """

    beta: float = 0.0
    joint = True

    def __post_init__(self):
        _check_beta(self.beta)

    def weight(self, log_variance, fixed, moving, counted: Counted | None = None) -> tf.Tensor:
        """Factor of a voxel's squared residual in the loss, ½ σ^(2β − 2), free of gradient."""
        return 0.5 * tf.exp((self.beta - 1) * tf.stop_gradient(log_variance))

    def image_loss(self, dissimilarity, log_variance, weight, counted: Counted | None = None) -> tf.Tensor:
        """The likelihood itself; its gradient reaches the variance network and, through that one's input, both."""
        return nll(dissimilarity, log_variance, self.beta, counted)

    def variance_loss(self, fixed, moved, log_variance, counted: Counted | None = None) -> tf.Tensor:
        """The same."""
        return beta_nll(fixed, moved, log_variance, self.beta, counted)


def _check_beta(beta: float) -> None:
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
