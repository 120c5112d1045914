"""How well uncertainty tells the errors of a pair: what a model predicts, over many pairs too, and maps of estimates.

Two errors are asked about. The *residual* fixed − moved, of which σ_I claims to be the standard deviation: its order
(sparsification, AUSE) and its size (coverage, standardised residual, reliability). And, where the true displacement is
known, the *displacement* error |u − u_true|: whether σ_I is large where the registration is wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hetmorph.evaluation import artefact
from hetmorph.evaluation.predictor import Prediction
from hetmorph.metrics.calibration import (
    calibration_error,
    coverage,
    from_sums,
    normal_distance,
    reliability_curve,
    standardised,
)
from hetmorph.metrics.ranking import Sparsification, area, auroc, naurc, pearson, sparsification, spearman

REGIONS = ("", "_foreground")  # ending of the column: the whole image, or the voxels of the mask
CALIBRATION = ("coverage1", "coverage2", "z_mean", "z_sd", "z_normal_distance", "sigma_ece")
RESIDUAL = tuple(f"{name}{region}" for region in REGIONS for name in ("ause", *CALIBRATION))
DISPLACEMENT = tuple(f"ause_displacement{region}" for region in REGIONS)
NOISE = tuple(f"{name}{region}" for region in REGIONS for name in ("sigma_correlation", "sigma_rank_correlation"))
ARTEFACT = tuple(f"sigma_auroc{region}" for region in REGIONS)
SIZE = ("mean", "mean_mm", "valid_share", "seconds")  # columns of a map of uncertainty
TRUTH = ("pearson", "spearman", "naurc")  # those where the true error is known

# Bins common to all pairs, so that they add up. The outermost take whatever lies beyond.
SIGMA_EDGES = np.geomspace(1e-3, 1.0, 31)
Z_EDGES = np.linspace(-5, 5, 101)


@dataclass(frozen=True)
class Judgement:
    """What one pair says about the predicted uncertainty.

    Attributes:
        scores: columns of the pair's row.
        curves: sparsification by name, as "residual_foreground"; without those that an empty mask leaves undefined.
        sums: for each region, sums over its voxels that add up over pairs; see `_sums`.
    """

    scores: dict[str, float]
    curves: dict[str, Sparsification]
    sums: dict[str, dict[str, np.ndarray]]


def judge(pair, prediction: Prediction, foreground: np.ndarray) -> Judgement:
    """Judge the uncertainty of a prediction that has one.

    Args:
        pair: the `hetmorph.data.Pair`; its true `displacement`, `sigma` and artefacts are used where known.
        prediction: finite, with a log variance.
        foreground: `[*S]` booleans.
    """
    residual = pair.fixed - prediction.moved
    sigma = np.exp(0.5 * np.asarray(prediction.log_variance, np.float64))
    errors = {"residual": residual**2}
    if pair.displacement is not None:
        errors["displacement"] = np.square(np.float64(prediction.displacement) - pair.displacement).sum(-1)
    spoilt = artefact.inside(pair, prediction.displacement)
    scores, curves, sums = {}, {}, {}
    for region, mask in zip(REGIONS, (None, foreground), strict=True):
        for name, error in errors.items():
            curve = sparsification(error, prediction.log_variance, mask)
            column = "ause" if name == "residual" else f"ause_{name}"
            scores[f"{column}{region}"] = area(curve)
            curves |= {} if curve is None else {f"{name}{region}": curve}
        z = standardised(residual, sigma, mask)
        curve = reliability_curve(residual, sigma, mask)
        scores |= {f"{name}{region}": x for name, x in zip(CALIBRATION, _calibration(z, curve), strict=True)}
        sums[region] = _sums(residual, sigma, z, mask)
        if pair.sigma is not None:
            scores[f"sigma_correlation{region}"] = pearson(sigma, pair.sigma, mask)
            scores[f"sigma_rank_correlation{region}"] = spearman(sigma, pair.sigma, mask)
        if spoilt is not None:
            scores[f"sigma_auroc{region}"] = auroc(sigma, spoilt, mask)
    return Judgement(scores, curves, sums)


@dataclass
class Curves:
    """Uncertainty over many pairs: mean sparsification curves, pooled calibration.

    In a sparsification curve every pair weighs the same, in the calibration every voxel. It is empty for a model
    without variance.

    Attributes:
        sparsification: by name ("residual", "displacement_foreground", …) the number of pairs and sums of curves.
        sums: by region ("" for the whole image, "_foreground") sums over voxels.
    """

    sparsification: dict[str, dict] = field(default_factory=dict)
    sums: dict[str, dict] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sparsification)

    def add(self, judgement: Judgement) -> None:
        """Add one pair."""
        for name, curves in judgement.curves.items():
            _accumulate(self.sparsification, name, {"pairs": np.array(1), **curves._asdict()})
        for region, sums in judgement.sums.items():
            _accumulate(self.sums, region, sums)

    def join(self, other: "Curves") -> None:
        """Add the pairs of another collection.

        Args:
            other: it stays as it is.
        """
        for own, further in ((self.sparsification, other.sparsification), (self.sums, other.sums)):
            for name, values in further.items():
                _accumulate(own, name, values)

    def mean(self, name: str) -> Sparsification:
        """The sparsification curves of this name, averaged over pairs."""
        sums = self.sparsification[name]
        return Sparsification(*(sums[part] / sums["pairs"] for part in Sparsification._fields))

    def table(self) -> list[dict]:
        """Rows for `curves.csv`: error left after the most uncertain part of the voxels is removed.

        Columns: `error` (which, in which region), `removed` (fraction), `remaining` (mean squared error of what is
        left), `oracle` (had the largest errors been removed), `random` (had any been removed), `pairs`. Residuals
        are in squared intensity, displacement errors in squared voxels.
        """
        return [
            {
                "error": name,
                "removed": float(removed),
                "remaining": float(remaining),
                "oracle": float(oracle),
                "random": float(self.mean(name).curve[0]),
                "pairs": int(sums["pairs"]),
            }
            for name, sums in self.sparsification.items()
            for removed, remaining, oracle in zip(*self.mean(name), strict=True)
        ]

    def calibration(self) -> dict:
        """Calibration of σ_I over the voxels of all pairs, by region, as JSON values for `summary.json`."""
        return {region.strip("_") or "image": _pooled(sums) for region, sums in self.sums.items()}

    def state(self) -> dict:
        """Everything held, as JSON values; see `from_state`."""
        return {name: _plain(getattr(self, name)) for name in ("sparsification", "sums")}

    @classmethod
    def from_state(cls, state: Mapping) -> "Curves":
        """The collection that `state` was taken from."""
        return cls(
            **{
                part: {name: {key: np.asarray(x) for key, x in sums.items()} for name, sums in groups.items()}
                for part, groups in state.items()
            }
        )


def map_columns(name: str, unit: str, truth: bool) -> tuple[str, ...]:
    """Names of the columns of one map: millimetres of a displacement only, agreement where the truth is known."""
    size = SIZE if unit == "voxels" else tuple(one for one in SIZE if not one.endswith("_mm"))
    return tuple(f"{name}_{column}" for column in (*size, *(TRUTH if truth else ())))


def map_scores(name: str, result, error: np.ndarray | None, mask: np.ndarray, spacing) -> dict[str, float]:
    """Size of a map, and how well it ranks the true error, over the voxels of a mask in which it is valid.

    Args:
        name: begins the columns.
        result: anything with `std` `[*S]`, `valid` `[*S]`, `unit`, `std_mm(spacing)` and `seconds`, as
            `hetmorph.uncertainty.UncertaintyMap` has them.
        error: `[*S]` length of the displacement's true error, voxels; None where it is not known.
        mask: `[*S]` booleans.
        spacing: millimetres per array axis.

    Returns:
        The columns of `map_columns`; NaN where no voxel is left.
    """
    region = mask & result.valid
    values = {"mean": _mean(result.std[region]), "valid_share": _mean(result.valid[mask]), "seconds": result.seconds}
    if result.unit == "voxels":
        values["mean_mm"] = _mean(result.std_mm(spacing)[region])
    if error is not None:
        values |= agreement(error, result.std, region)
    columns = map_columns(name, result.unit, error is not None)
    return {column: values[column.removeprefix(f"{name}_")] for column in columns}


def agreement(error: np.ndarray, std: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """Correlations of a map with the true error, and nAURC, over the voxels of a region."""
    error, std = error[region], std[region]
    scores = (metric(error, std) for metric in (pearson, spearman, naurc))
    return dict(zip(TRUTH, scores, strict=True))


def _calibration(z: np.ndarray, curve) -> tuple[float, ...]:
    mean, deviation = (float(z.mean()), float(z.std())) if z.size else (math.nan, math.nan)
    return (
        coverage(z, 1),
        coverage(z, 2),
        mean,
        deviation,
        normal_distance(z),
        calibration_error(curve),
    )


def _sums(residual: np.ndarray, sigma: np.ndarray, z: np.ndarray, mask) -> dict[str, np.ndarray]:
    chosen = slice(None) if mask is None else mask
    residual, sigma = np.float64(residual[chosen]).ravel(), sigma[chosen].ravel()
    bins = np.searchsorted(SIGMA_EDGES, sigma, side="right")
    size = len(SIGMA_EDGES) + 1
    return {
        "z": np.array([z.size, z.sum(), np.square(z).sum()]),
        "inside": np.array([np.count_nonzero(np.abs(z) <= k) for k in (1, 2)]),
        "histogram": np.bincount(np.searchsorted(Z_EDGES, z, side="right"), minlength=len(Z_EDGES) + 1),
        "count": np.bincount(bins, minlength=size),
        "sigma_squares": np.bincount(bins, sigma**2, size),
        "residual_squares": np.bincount(bins, residual**2, size),
    }


def _pooled(sums: Mapping[str, np.ndarray]) -> dict:
    count, total, squares = (float(x) for x in sums["z"])
    if not count:
        return {"voxels": 0}
    curve = from_sums(sums["count"], sums["sigma_squares"], sums["residual_squares"])
    mean = total / count
    return {
        "voxels": int(count),
        "coverage1": float(sums["inside"][0] / count),
        "coverage2": float(sums["inside"][1] / count),
        "z_mean": mean,
        "z_sd": math.sqrt(max(squares / count - mean**2, 0.0)),
        "sigma_ece": calibration_error(curve),
        "reliability": {name: values.tolist() for name, values in curve._asdict().items()},
        "histogram": {"edges": Z_EDGES.tolist(), "count": sums["histogram"].tolist()},
    }


def _accumulate(groups: dict, name: str, values: Mapping[str, np.ndarray]) -> None:
    before = groups.get(name)
    groups[name] = dict(values) if before is None else {key: before[key] + values[key] for key in before}


def _plain(groups: Mapping[str, Mapping[str, np.ndarray]]) -> dict:
    return {name: {key: np.asarray(x).tolist() for key, x in sums.items()} for name, sums in groups.items()}


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else math.nan
