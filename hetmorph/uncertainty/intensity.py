"""Maps of intensity that one registration gives: the predicted noise, and the residual to compare it with."""

import time

import numpy as np

from hetmorph.evaluation import wrap
from hetmorph.uncertainty.passes import checked_pair
from hetmorph.uncertainty.result import INTENSITY, UncertaintyMap


def variance_uncertainty(model, moving, fixed) -> UncertaintyMap:
    """σ_I, the predicted standard deviation of the noise of the fixed image.

    Args:
        model: with a variance network, anything `evaluation.wrap` takes.
        moving, fixed: `[*S]`, intensities in [0, 1].

    Raises:
        ValueError: a model without variance, or images that do not fit.

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """

    def sigma(prediction, _):
        if prediction.log_variance is None:
            raise ValueError(
                "this model predicts no variance; those of the objectives het, het-ncc, het-z, nll and beta-nll do"
            )
        return np.exp(0.5 * prediction.log_variance)

    return _map("variance", model, moving, fixed, sigma)


def residual_uncertainty(model, moving, fixed) -> UncertaintyMap:
    """|fixed − moved|: costs nothing and needs no model of uncertainty; what others have to beat.

    Arguments as `variance_uncertainty`.
    """
    return _map("residual", model, moving, fixed, lambda prediction, fixed: np.abs(fixed - prediction.moved))


def _map(name: str, model, moving, fixed, values) -> UncertaintyMap:
    start = time.perf_counter()
    moving, fixed = checked_pair(moving, fixed)
    std = values(wrap(model)(moving, fixed), fixed).astype(np.float32)
    if not np.isfinite(std).all():
        raise ValueError(f"{name}: the model answered with NaN or infinity")
    return UncertaintyMap(
        name, std, np.ones(std.shape, bool), INTENSITY, None, n=1, passes=1, seconds=time.perf_counter() - start
    )
