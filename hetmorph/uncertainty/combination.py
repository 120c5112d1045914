"""Several maps as one: a product of powers, smoothed; found where the truth is known."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize
from tqdm import tqdm

from hetmorph.evaluation.known_truth import Case, over_patients, score

SMOOTHINGS = (0.0, 1.0, 2.0, 4.0)
FLOOR = 1e-6  # below it a map counts as this: the logarithm of 0 is none
SAMPLES = 500  # voxels of a case that take part in the fit of the exponents


@dataclass(frozen=True)
class Combination:
    """exp(Σ wₖ log stdₖ), smoothed by a Gaussian: a line in the logarithms of the maps.

    Attributes:
        weights: exponent of each map by its name.
        smoothing: standard deviation of the Gaussian, voxels.
    """

    weights: Mapping[str, float]
    smoothing: float = 0.0

    @property
    def name(self) -> str:
        """Such as "equivariance^0.5 · variance^0.5, smoothed by 2"."""
        single = len(self.weights) == 1
        parts = [name if single else f"{name}^{weight:.2g}" for name, weight in self.weights.items()]
        return " · ".join(parts) + (f", smoothed by {self.smoothing:g}" if self.smoothing else "")

    def __call__(self, maps: Mapping[str, np.ndarray]) -> np.ndarray:
        """The combined map `[*S]`, NaN where any of its maps is; its unit is none unless one map alone takes part.

        Args:
            maps: standard deviations `[*S]` by name.

        Raises:
            ValueError: a map is missing.
        """
        if missing := [name for name in self.weights if name not in maps]:
            raise ValueError(f"the combination needs the maps {', '.join(missing)}, got {', '.join(maps)}")
        parts = [weight * np.log(np.maximum(maps[name], FLOOR)) for name, weight in self.weights.items()]
        values = np.exp(sum(parts))
        if not self.smoothing:
            return values
        valid = np.isfinite(values)
        total = ndimage.gaussian_filter(np.where(valid, values, 0).astype(np.float64), self.smoothing)
        share = ndimage.gaussian_filter(valid.astype(np.float64), self.smoothing)
        return np.where(valid, total / np.maximum(share, FLOOR), np.nan)


def best_combination(
    cases: Sequence[Case], names: Sequence[str], smoothings: Sequence[float] = SMOOTHINGS, progress: bool = True
) -> tuple[Combination, list[dict]]:
    """The combination of least mean nAURC over patients; to be tested on others.

    Tried, with every smoothing: each map, the geometric mean of any two, any two and all with exponents ≥ 0 from a
    least squares fit of the logarithm of the error, within cases.

    Args:
        cases: the cases of known error of the validation patients.
        names: names of the maps that may take part.
        smoothings: standard deviations of the Gaussian filters to try, voxels; 0 is none.
        progress: show a progress bar on stderr.

    Returns:
        The best, and a row for each tried: `map`, `naurc`, `spearman`, means over patients, the best first.

    Raises:
        ValueError: no maps, or no case with a defined nAURC.
    """
    if not names:
        raise ValueError("expected the name of at least one map")
    tried = [Combination(weights, smoothing) for weights in _weights(cases, names) for smoothing in smoothings]
    rows = []
    for one in tqdm(tried, desc="combinations", disable=not progress):
        scores = [score(case, one.name, one(case.maps)) for case in cases]
        means = {metric: over_patients(scores, metric) for metric in ("naurc", "spearman")}
        rows.append({"map": one.name} | {metric: float(np.mean(v)) if v else np.nan for metric, v in means.items()})
    order = sorted((n for n, row in enumerate(rows) if np.isfinite(row["naurc"])), key=lambda n: rows[n]["naurc"])
    if not order:
        raise ValueError(f"none of {len(cases)} cases has a region with errors that differ")
    return tried[order[0]], [rows[n] for n in order]


def _weights(cases: Sequence[Case], names: Sequence[str]) -> list[dict[str, float]]:
    logs = _centred_logs(cases, names)
    several = [*itertools.combinations(range(len(names)), 2)]
    found = [{name: 1.0} for name in names]
    found += [{names[i]: 0.5, names[j]: 0.5} for i, j in several]
    for chosen in [*several, *([range(len(names))] if len(names) > 2 else [])]:
        exponents, _ = optimize.nnls(logs[:, list(chosen)], logs[:, -1])
        # An exponent of 0 leaves a combination that is tried already.
        if np.count_nonzero(exponents) > 1:
            found.append({names[k]: float(w) for k, w in zip(chosen, exponents, strict=True) if w > 0})
    return found


def _centred_logs(cases: Sequence[Case], names: Sequence[str]) -> np.ndarray:
    """Logarithms of the maps and, last, of the error, less their mean in each case, `[voxels, maps + 1]`."""
    tables = [np.zeros((0, len(names) + 1))]
    for case in cases:
        columns = [case.maps[name][case.region] for name in names] + [case.error[case.region]]
        table = np.log(np.maximum(np.stack(columns, -1), FLOOR))[:: max(1, int(case.region.sum()) // SAMPLES)]
        tables.append(table - table.mean(0) if len(table) else table)
    return np.concatenate(tables).astype(np.float64)
