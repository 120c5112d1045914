"""From a map to a bound that holds: split-conformal calibration with patients as the unit, and a flag for each case.

What is promised: of a new patient, exchangeable with those of the calibration, a voxel drawn at random has an error
within the bound with probability of at least the stated coverage, over patients, voxels and calibration sets alike. It
holds whatever the map is worth (a bad one gives a wide bound). What is not promised: that coverage in every patient, in
every voxel, or for motions and scanners other than those of the calibration.

Reference:
    Vovk et al., Algorithmic learning in a random world, 2005, doi:10.1007/b106715; patients of many voxels: Lee,
    Barber, Willett, Distribution-free inference with hierarchical data, arXiv:2306.06342.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hetmorph.evaluation.checks import FLAGS  # noqa: F401  of a calibration, too
from hetmorph.io.atomic import write_text
from hetmorph.metrics.ranking import sparsification
from hetmorph.uncertainty.combination import Combination

MARGIN = 1.25  # of the size of images to those of the calibration, along an axis
BAD_ACCEPTED = 0.1  # share of bad cases that acceptance tolerates
BAD_REJECTED = 0.9  # share of bad cases from which on a case is rejected


@dataclass(frozen=True)
class Bound:
    """Bound of the error, scale · std, voxels.

    Attributes:
        scale: factor on the map.
        coverage: the stated one.
        patients: number of the calibration.
    """

    scale: float
    coverage: float
    patients: int

    @classmethod
    def fit(cls, patients: Mapping[str, tuple[np.ndarray, np.ndarray]], coverage: float = 0.9) -> "Bound":
        """The least scale that keeps the promise.

        Every patient weighs 1/(m + 1), its voxels alike; the rest is the new patient's, whose errors may be infinite.

        Args:
            patients: by name, true errors and standard deviations of their voxels, flat, of one length.
            coverage: to promise.

        Raises:
            ValueError: a coverage outside (0, 1), too few patients for it, a patient without voxels, or bad values.
        """
        count = len(patients)
        if count < least_patients(coverage):
            raise ValueError(
                f"a coverage of {coverage:g} needs at least {least_patients(coverage)} patients for its calibration, "
                f"got {count}"
            )
        ratios = [_ratios(error, std, name) for name, (error, std) in patients.items()]
        weights = np.concatenate([np.full(one.size, 1 / ((count + 1) * one.size)) for one in ratios])
        ratios = np.concatenate(ratios)
        order = np.argsort(ratios)
        place = np.searchsorted(np.cumsum(weights[order]), coverage - 1e-12)
        scale = float(ratios[order][min(place, ratios.size - 1)])
        if not math.isfinite(scale):
            raise ValueError("the map is 0 in too many voxels that have an error: no scale bounds them")
        return cls(scale, coverage, count)

    def __call__(self, std) -> np.ndarray:
        """The bound at each voxel, voxels."""
        return self.scale * np.asarray(std)

    def covered(self, error, std) -> float:
        """Share of the voxels whose error lies within the bound; NaN for none."""
        error, std = np.asarray(error), np.asarray(std)
        return float(np.mean(error <= self(std))) if error.size else math.nan


@dataclass(frozen=True)
class Triage:
    """Flags of cases by their score, such as the mean bound over the region: more is worse.

    Attributes:
        accept: largest score that is accepted.
        reject: smallest score that is rejected; between the two a case is to be reviewed.
        tolerance: mean error above which a case was called bad, voxels.
    """

    accept: float
    reject: float
    tolerance: float

    @classmethod
    def fit(cls, scores: Sequence[float], errors: Sequence[float], tolerance: float) -> "Triage":
        """Limits from cases of known error.

        Accepted is up to the largest score at which at most a tenth of the cases up to it are bad; rejected is from the
        smallest score above it on, from which on at least nine tenths are bad.

        Args:
            scores, errors: score and mean error, voxels, of each case.
            tolerance: mean error above which a case is bad, voxels.

        Raises:
            ValueError: no cases, of two lengths, not finite, or a tolerance that is not positive.
        """
        scores, errors = _finite_cases(scores, errors)
        if not tolerance > 0:
            raise ValueError(f"the tolerance must be positive, got {tolerance}")
        order = np.argsort(scores, kind="stable")
        scores, bad = scores[order], errors[order] > tolerance
        # Cases of one score stand or fall together.
        last = np.append(scores[1:] > scores[:-1], True)
        number = np.arange(1, scores.size + 1)
        good = np.flatnonzero(last & (np.cumsum(bad) <= BAD_ACCEPTED * number))
        accept = float(scores[good[-1]]) if good.size else -math.inf
        above = np.cumsum(bad[::-1])[::-1] / number[::-1]
        first = np.append(True, last[:-1])
        worse = np.flatnonzero(first & (scores > accept) & (above >= BAD_REJECTED))
        return cls(accept, float(scores[worse[0]]) if worse.size else math.inf, float(tolerance))

    def flag(self, score: float) -> str:
        """ "accept", "review" or "reject"; a score that is NaN is to be reviewed."""
        if score <= self.accept:
            return "accept"
        return "reject" if score >= self.reject else "review"


@dataclass(frozen=True)
class Calibration:
    """A combination of maps with its bound and flags, as one file.

    Attributes:
        combination, bound, triage: the three.
        about: where it comes from (model, data, options of the maps), JSON values.
    """

    combination: Combination
    bound: Bound
    triage: Triage
    about: dict

    def of_slices(self, ndims: int) -> bool:
        """Whether it is of 2-D images, so that one of more axes is taken slice by slice, along the last."""
        return self.about.get("ndims") == 2 and ndims == 3

    def of_size(self, shape: Sequence[int]) -> bool:
        """Whether images of this size are like those of the calibration, a quarter smaller or larger at most.

        A larger field of view holds another share of air and of what moves, so that a mean over it is another number.
        Slices of a volume count, not how many there are. A calibration that does not tell its sizes is of any.
        """
        sizes = [self.about.get(name) for name in ("smallest", "largest")]
        if None in sizes:
            return True
        return all(low / MARGIN <= n <= high * MARGIN for n, low, high in zip(shape, *sizes, strict=False))

    def judge(self, maps: Mapping[str, np.ndarray], region: np.ndarray | None = None) -> tuple[np.ndarray, str]:
        """What the calibration says about a new case.

        Args:
            maps: standard deviations `[*S]` by name, made with the options in `about`.
            region: `[*S]` booleans, voxels of which the case is flagged; None for all in which the maps are valid.

        Returns:
            The bound of the error `[*S]`, voxels, NaN where a map is; and "accept", "review" or "reject".
        """
        bound = self.bound(self.combined(maps))
        values = bound[np.isfinite(bound) if region is None else region & np.isfinite(bound)]
        return bound, self.triage.flag(float(values.mean()) if values.size else math.nan)

    def combined(self, maps: Mapping[str, np.ndarray]) -> np.ndarray:
        """The combination of the maps, `[*S]`; of a stack slice by slice if it is of slices.

        Args:
            maps: standard deviations `[*S]` by name.
        """
        shape = next(iter(maps.values())).shape
        if not self.of_slices(len(shape)):
            return self.combination(maps)
        slices = ({name: one[..., z] for name, one in maps.items()} for z in range(shape[-1]))
        return np.stack([self.combination(one) for one in slices], -1)

    def save(self, path) -> None:
        """Write as JSON, complete or not at all."""
        combination = asdict(self.combination) | {"weights": dict(self.combination.weights)}
        content = {
            "combination": combination,
            "bound": asdict(self.bound),
            "triage": asdict(self.triage),
            "about": self.about,
        }
        content["triage"] |= {key: None for key in ("accept", "reject") if math.isinf(content["triage"][key])}
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path) -> "Calibration":
        """What `save` wrote.

        Raises:
            ValueError: another file, or one of an earlier version, whose maps were combined in another way.
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            earlier = "products" not in stored["combination"]
            triage = stored["triage"]
            limits = {"accept": -math.inf, "reject": math.inf}
            triage |= {key: limit for key, limit in limits.items() if triage[key] is None}
            combination = {key: tuple(x) if isinstance(x, list) else x for key, x in stored["combination"].items()}
            parts = Combination(**combination), Bound(**stored["bound"]), Triage(**triage)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no calibration: {error!r}") from error
        if earlier:
            raise ValueError(f"{path} is of an earlier version, which combined maps in another way: calibrate again")
        return cls(*parts, stored["about"])


def least_patients(coverage: float) -> int:
    """Patients that a calibration needs for a coverage: m/(m + 1) must reach it; ValueError outside (0, 1)."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def risk_coverage(scores: Sequence[float], errors: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Share of the cases that are kept, the most certain first, and the mean error of those, from one case to all.

    Cases of equal score stand in no particular order. Arguments and errors as `Triage.fit`.
    """
    scores, errors = _finite_cases(scores, errors)
    if scores.size == 1:
        return np.ones(1), errors
    curve = sparsification(errors, scores, steps=scores.size).curve[::-1]
    return np.arange(1, scores.size + 1) / scores.size, curve


def _ratios(error, std, name: str) -> np.ndarray:
    """error / std; 0 where there is no error, infinite where there is one and the map is 0."""
    error, std = np.asarray(error, np.float64).ravel(), np.asarray(std, np.float64).ravel()
    if error.shape != std.shape or not error.size:
        raise ValueError(
            f"{name}: expected as many errors as values of the map, at least one; got {error.size}, {std.size}"
        )
    if not (np.isfinite(error).all() and np.isfinite(std).all()) or min(error.min(), std.min()) < 0:
        raise ValueError(f"{name}: errors and map must be finite and not negative")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / std)


def _finite_cases(scores, errors) -> tuple[np.ndarray, np.ndarray]:
    scores, errors = np.asarray(scores, np.float64), np.asarray(errors, np.float64)
    if scores.ndim != 1 or scores.shape != errors.shape or not scores.size:
        raise ValueError(f"expected a score and an error for each case, got shapes {scores.shape} and {errors.shape}")
    if not (np.isfinite(scores).all() and np.isfinite(errors).all()):
        raise ValueError("scores and errors of cases must be finite")
    return scores, errors
