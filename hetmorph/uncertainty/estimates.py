"""All estimates of uncertainty by name, as the command line calls them."""

from collections.abc import Callable, Sequence

from hetmorph.data.transforms import FAMILIES
from hetmorph.evaluation import Predictor
from hetmorph.uncertainty.consistency import incoherence_uncertainty, inverse_uncertainty
from hetmorph.uncertainty.equivariance import equivariance_uncertainty
from hetmorph.uncertainty.intensity import dissimilarity_uncertainty, residual_uncertainty, variance_uncertainty
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
    "dissimilarity": dissimilarity_uncertainty,
    "incoherence": incoherence_uncertainty,
    "inverse": inverse_uncertainty,
}
AT_ONCE = ("variance", "residual", "dissimilarity", "incoherence")  # from a single registration, not of a displacement
DRAWING = ("equivariance", "posterior", "dropout", "noise")


def estimate_names() -> list[str]:
    """Names that `estimate` takes: those of `ESTIMATES`, and equivariance to one family, as "equivariance-bspline"."""
    return [*ESTIMATES, *(f"equivariance-{name}" for name in FAMILIES)]


def estimate(name: str, model, moving, fixed, **options) -> UncertaintyMap:
    """One estimate by its name.

    Args:
        name: one of `estimate_names()`.
        model: anything `evaluation.wrap` takes; for "ensemble" a list of such.
        moving, fixed: `[*S]`, intensities in [0, 1].
        options: what else the estimate takes.

    Raises:
        ValueError: an unknown name, or as the estimate raises.

    Example:
        >>> estimate("equivariance", "model.keras", moving, fixed, n=50).std
    """
    _check_names([name])
    kind, _, transforms = name.partition("-")
    if transforms:
        options = {"transforms": transforms, "name": name} | options
    return ESTIMATES[kind](model, moving, fixed, **options)


def pair_estimates(
    names: Sequence[str], predictor: Predictor, others: Sequence[Predictor] = (), n: int = 50, seed: int = 0
) -> dict[str, Callable[..., UncertaintyMap]]:
    """Estimates by name as functions of a `hetmorph.data.Pair`, as `evaluation.evaluate` and `known_truth` take them.

    Args:
        names: which estimates, some of `estimate_names()`.
        predictor: the model.
        others: further models of "ensemble".
        n: registrations of those that draw.
        seed: seed of their draws (default: 0).

    Raises:
        ValueError: an unknown name, an ensemble of one, or others without ensemble.
    """
    _check_names(names)
    if ("ensemble" in names) != bool(others):
        raise ValueError("the estimate ensemble needs further models, and they need it")

    def function(name):
        model = [predictor, *others] if name == "ensemble" else predictor
        options = {"n": n, "seed": seed} if name.partition("-")[0] in DRAWING else {}
        quiet = {} if name in (*AT_ONCE, "inverse") else {"progress": False}
        return lambda pair: estimate(name, model, pair.moving, pair.fixed, **options, **quiet)

    return {name: function(name) for name in names}


def estimates_for(predictor: Predictor, pair) -> list[str]:
    """Names of the estimates that one model alone can give, equivariance to each kind of transform apart.

    Args:
        predictor: the model.
        pair: a pair to try it on: its prediction tells whether the model predicts a variance.
    """
    own = [name for name in ("posterior", "dropout") if predictor.random == {name}]
    variance = ["variance"] if predictor(pair.moving, pair.fixed).log_variance is not None else []
    families = ("translation", "affine", "smooth-bspline")
    always = ("noise", "residual", "dissimilarity", "incoherence", "inverse")
    return [*(f"equivariance-{name}" for name in families), *variance, *own, *always]


def _check_names(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in estimate_names()]:
        raise ValueError(f"expected estimates among {', '.join(estimate_names())}, got {', '.join(unknown)}")
