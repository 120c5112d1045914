"""All estimates of uncertainty by name, as the command line calls them."""

from collections.abc import Callable

from hetmorph.evaluation import Predictor
from hetmorph.uncertainty.equivariance import equivariance_uncertainty
from hetmorph.uncertainty.intensity import residual_uncertainty, variance_uncertainty
from hetmorph.uncertainty.repeated import (
    dropout_uncertainty,
    ensemble_uncertainty,
    noise_uncertainty,
    posterior_uncertainty,
)
from hetmorph.uncertainty.result import UncertaintyMap

ESTIMATES: dict[str, Callable[..., UncertaintyMap]] = {
    "equivariance": equivariance_uncertainty,
    "variance": variance_uncertainty,
    "posterior": posterior_uncertainty,
    "dropout": dropout_uncertainty,
    "ensemble": ensemble_uncertainty,
    "noise": noise_uncertainty,
    "residual": residual_uncertainty,
}


def estimate(name: str, model, moving, fixed, **options) -> UncertaintyMap:
    """One estimate by its name.

    Args:
        name: one of `ESTIMATES`.
        model: anything `evaluation.wrap` takes; for "ensemble" a list of such.
        moving, fixed: `[*S]`, intensities in [0, 1].
        options: of the estimate.

    Raises:
        ValueError: an unknown name, or as the estimate raises.

    Example:
        >>> estimate("equivariance", "model.keras", moving, fixed, n=50).std
    """
    if name not in ESTIMATES:
        raise ValueError(f"expected one of the estimates {', '.join(ESTIMATES)}, got {name!r}")
    return ESTIMATES[name](model, moving, fixed, **options)


def estimates_for(predictor: Predictor, log_variance: bool) -> list[str]:
    """Names of the estimates that one model can give.

    Args:
        predictor: the model.
        log_variance: whether it predicts a variance, which one prediction tells.
    """
    own = [name for name in ("posterior", "dropout") if predictor.random == {name}]
    return ["equivariance", *(["variance"] if log_variance else []), *own, "noise", "residual"]
