"""Several maps as one, the error that is to be expected; fitted where the truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

from hetmorph.evaluation.known_truth import Case

# Smoothed by less, maps rank known warps worse; by more, the distances of real contours (docs/uncertainty.md).
SMOOTHING = 2.0
FLOOR = 1e-6  # below it a map counts as this: the logarithm of 0 is none
SMALL = 0.1  # voxels; how much smaller an error is does not matter
SAMPLES = 500  # voxels of a case that take part in the fit of the exponents
DIGITS = 5  # of the points of the curve, which are to be read
BINS = 50  # of equal weight, through whose mean errors the curve goes


@dataclass(frozen=True)
class Combination:
    """The error to be expected, voxels: a rising function of Π stdₖ^wₖ, each map smoothed by a Gaussian before.

    Attributes:
        weights: exponent of each map by its name.
        smoothing: standard deviation of the Gaussian, voxels.
        products, errors: points of the function, linear between them and constant beyond; without any it is the
            product itself, whose unit is none unless it is one map.
    """

    weights: Mapping[str, float]
    smoothing: float = 0.0
    products: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()

    @classmethod
    def fit(cls, cases: Sequence[Case], names: Sequence[str], smoothing: float = SMOOTHING) -> "Combination":
        """The one that fits cases of known error: nothing is tried that could be chosen by luck.

        Exponents ≥ 0 come from a least squares fit of the logarithm of the error within cases, so that they rank its
        voxels; a map of exponent 0 is left out. The function is the isotonic regression of the error on the product, in
        which patients weigh alike.

        Args:
            cases: the cases.
            names: names of the maps that may take part.
            smoothing: standard deviation of the Gaussian, voxels.

        Raises:
            ValueError: no maps, no case with errors that differ, or errors that go with none of the maps.
        """
        if not names:
            raise ValueError("expected the name of at least one map")
        cases = [case for case in cases if np.unique(case.error[case.region]).size > 1]
        if not cases:
            raise ValueError("no case has a region with errors that differ")
        logs = np.concatenate([_centred_logs(case, names, smoothing) for case in cases])
        exponents, _ = optimize.nnls(logs[:, :-1], logs[:, -1])
        weights = {name: float(w) for name, w in zip(names, exponents, strict=True) if w > 0}
        if not weights:
            raise ValueError(f"the errors of {len(cases)} cases go with none of the maps {', '.join(names)}")
        return cls(weights, smoothing, *_rising(by_patient(cases, cls(weights, smoothing))))

    @property
    def name(self) -> str:
        """Such as "error expected from equivariance^0.5 · residual^0.2, smoothed by 2"."""
        alone = len(self.weights) == 1 and not self.products
        parts = [name if alone else f"{name}^{weight:.2g}" for name, weight in self.weights.items()]
        product = " · ".join(parts) + (f", smoothed by {self.smoothing:g}" if self.smoothing else "")
        return f"error expected from {product}" if self.products else product

    def __call__(self, maps: Mapping[str, np.ndarray]) -> np.ndarray:
        """The combined map `[*S]`, NaN where any of its maps is.

        Args:
            maps: standard deviations `[*S]` by name.

        Raises:
            ValueError: a map is missing.
        """
        if missing := [name for name in self.weights if name not in maps]:
            raise ValueError(f"the combination needs the maps {', '.join(missing)}, got {', '.join(maps)}")
        parts = [weight * _log(maps[name], self.smoothing) for name, weight in self.weights.items()]
        product = np.exp(sum(parts))
        if not self.products:
            return product
        return np.where(np.isfinite(product), np.interp(product, self.products, self.errors), np.nan)


def by_patient(cases: Sequence[Case], combination: Combination) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Errors and combined map of all voxels of a patient, by its name."""
    patients = {}
    for case in cases:
        parts = case.error[case.region], combination(case.maps)[case.region]
        patients.setdefault(case.patient, []).append(parts)
    return {name: tuple(np.concatenate(both) for both in zip(*own, strict=True)) for name, own in patients.items()}


def _rising(patients: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points of the rising function from the product to the mean error."""
    errors, products = (np.concatenate(all_of).astype(np.float64) for all_of in zip(*patients.values(), strict=True))
    weights = np.concatenate([np.full(error.size, 1 / error.size) for error, _ in patients.values()])
    order = np.argsort(products, kind="stable")
    cuts = np.searchsorted(np.cumsum(weights[order]), np.arange(1, BINS) / BINS * weights.sum())
    bins = [one for one in np.split(order, cuts) if one.size]
    centres, means = ([np.average(of[one], weights=weights[one]) for one in bins] for of in (products, errors))
    rising = optimize.isotonic_regression(means, weights=[weights[one].sum() for one in bins]).x
    return tuple(tuple(float(f"{x:.{DIGITS}g}") for x in values) for values in (centres, rising))


def _centred_logs(case: Case, names: Sequence[str], smoothing: float) -> np.ndarray:
    """Logarithms of the maps and, last, of the error, less their means in the case, `[voxels, maps + 1]`."""
    columns = [_log(case.maps[name], smoothing)[case.region] for name in names]
    columns.append(np.log(np.maximum(case.error[case.region], SMALL)))
    table = np.stack(columns, -1)[:: max(1, int(case.region.sum()) // SAMPLES)]
    return table - table.mean(0)


def _log(values: np.ndarray, smoothing: float) -> np.ndarray:
    """The logarithm of a smoothed map; what is not valid has no part in its neighbours, and stays so."""
    values = np.asarray(values, np.float64)
    if smoothing:
        valid = np.isfinite(values)
        total = ndimage.gaussian_filter(np.where(valid, values, 0), smoothing)
        share = ndimage.gaussian_filter(valid.astype(np.float64), smoothing)
        values = np.where(valid, total / np.maximum(share, FLOOR), np.nan)
    return np.log(np.maximum(values, FLOOR))
