"""Gaussian likelihood with a variance per voxel, and the weight that variance gives to a voxel."""

import tensorflow as tf

from hetmorph.ops import stats
from hetmorph.ops.masks import Counted, counted_mean
from hetmorph.ops.shared import lowest_and_highest

SNR_FORMS = ("paper", "official", "inverse")
RELATIVE_MAPS = ("sample", "proportional", "official")


def beta_nll(fixed, moved, log_variance, beta: float = 0.5, counted: Counted | None = None) -> tf.Tensor:
    """`nll` of the residual of two images.

    Args:
        fixed, moved: `[B, *S, C]`.
        log_variance, beta, counted: as of `nll`.
    """
    return nll(tf.math.squared_difference(fixed, moved), log_variance, beta, counted)


def nll(squared, log_variance, beta: float = 0.5, counted: Counted | None = None) -> tf.Tensor:
    """β-weighted negative log-likelihood, mean over the voxels of each sample: `E[sg(σ²)^β · (½ r²/σ² + ½ log σ²)]`.

    β = 0 is the Gaussian likelihood itself; β > 0 keeps voxels of large variance from losing their gradient. The
    minimum is at σ² = E[r²] for every β.

    Args:
        squared: squared residual r², `[B, *S, C]`.
        log_variance: log σ², same shape.
        beta: exponent, 0 to 1.
        counted: how much each voxel counts; None counts all alike.

    Returns:
        One number per sample, `[B]`.

    Reference:
        Seitzer et al., ICLR 2022, arXiv:2203.09168.
    """
    # log σ² is the network's output: exp(−s) needs no division and no guard.
    value = 0.5 * (squared * tf.exp(-log_variance) + log_variance)
    return counted_mean(tf.exp(beta * tf.stop_gradient(log_variance)) * value, counted)


def snr(fixed, log_variance, gamma: float = 0.5, form: str = "paper") -> tf.Tensor:
    """γ-exponentiated signal-to-noise ratio per voxel.

    "paper": (I²/σ²)^γ; "official" (the authors' code): (I/σ²)^γ; "inverse": (1/σ²)^γ. The signal enters by its
    magnitude: a fractional power of a negative intensity would be NaN.

    Args:
        fixed: image `[B, *S, C]`.
        log_variance: log σ², same shape.
        gamma: exponent γ > 0.
        form: one of the three above.

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """
    if form not in SNR_FORMS:
        raise ValueError(f"snr must be one of {SNR_FORMS}, got {form!r}")
    inverse = tf.exp(-gamma * log_variance)
    if form == "inverse":
        return inverse
    return tf.abs(fixed) ** (2 * gamma if form == "paper" else gamma) * inverse


def relative_weight(ratio, relative: str = "sample", mask=None, ranked=None) -> tf.Tensor:
    """Weight per voxel from a signal-to-noise ratio, free of gradient.

    "sample" (default): each sample's 1st to 99th percentile is mapped to [0, 1], then a sigmoid, then the weight is
    scaled to mean 1 over the mask, so that λ means the same as for the unweighted loss.
    "proportional": the ratio itself, up to its 99th percentile, scaled to mean 1. The sigmoid leaves a factor of 1.46
    between the largest and the smallest weight, this none; of the inverse variance it makes weighted least squares.
    "official" (the authors' code): minimum and maximum of the whole batch are mapped to [0, 1], then a sigmoid; the
    weight lies in [0.5, 0.731], depends on the batch's other samples, and one extreme voxel flattens it.

    Args:
        ratio: `[B, *S, C]`, non-negative.
        relative: one of the three above.
        mask: same shape, True where the mean is taken; None takes all voxels.
        ranked: same shape, above 0 where the percentiles are taken; None takes all voxels.
    """
    if relative not in RELATIVE_MAPS:
        raise ValueError(f"relative must be one of {RELATIVE_MAPS}, got {relative!r}")
    if relative == "official":
        low, high = lowest_and_highest(ratio)
    else:
        low, high = stats.percentiles(ratio, 1.0, 99.0, ranked)
    if relative == "proportional":
        weight = tf.minimum(ratio, high)
    else:
        # A constant ratio (blank image) has no range: divide_no_nan gives it the same weight everywhere.
        weight = tf.sigmoid(tf.clip_by_value(tf.math.divide_no_nan(ratio - low, high - low), 0.0, 1.0))
    if relative != "official":
        mean = stats.sample_mean(weight, mask)
        # Without any signal, in a blank image, every voxel weighs the same.
        weight = tf.where(mean > 0, tf.math.divide_no_nan(weight, mean), tf.ones_like(weight))
    return tf.stop_gradient(weight)
