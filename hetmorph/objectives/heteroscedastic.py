"""The collaborative heteroscedastic objective."""

from dataclasses import dataclass

import tensorflow as tf

from hetmorph.losses.likelihood import RELATIVE_MAPS, SNR_FORMS, beta_nll, relative_weight, snr


@dataclass(frozen=True)
class Heteroscedastic:
    """Weight of the displacement loss and loss of the variance network.

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

    def __post_init__(self):
        if self.snr not in SNR_FORMS or self.relative not in RELATIVE_MAPS:
            raise ValueError(
                f"snr must be one of {SNR_FORMS} and relative one of {RELATIVE_MAPS}, "
                f"got {self.snr!r} and {self.relative!r}"
            )
        if not self.gamma > 0 or not 0 <= self.beta <= 1:
            raise ValueError(f"gamma must be positive and beta in [0, 1], got {self.gamma} and {self.beta}")

    def weight(self, log_variance, fixed, moving) -> tf.Tensor:
        """Weight of each voxel of the fixed image, same shape as `log_variance`, free of gradient."""
        mask = (fixed != 0) | (moving != 0) if self.foreground else None
        ratio = snr(fixed, tf.stop_gradient(log_variance), self.gamma, self.snr)
        return relative_weight(ratio, self.relative, mask)

    def variance_loss(self, fixed, moved, log_variance) -> tf.Tensor:
        """β-NLL of the residual; the moved image is detached."""
        return beta_nll(fixed, tf.stop_gradient(moved), log_variance, self.beta)
