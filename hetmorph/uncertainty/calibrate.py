"""A calibration from cases of known error: the combination of maps from some patients, bound and flags from others."""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hetmorph.data import Pair
from hetmorph.evaluation import Predictor
from hetmorph.evaluation.known_truth import Case
from hetmorph.uncertainty.combination import Combination, by_patient
from hetmorph.uncertainty.conformal import Bound, Calibration, Triage, least_patients
from hetmorph.uncertainty.estimates import pair_estimates
from hetmorph.uncertainty.result import VOXELS, UncertaintyMap

EXPECTED = "expected error"
CHOOSE = 1 / 3  # share of the patients that choose the combination


def divide(patients: Sequence[str], coverage: float = 0.9, seed: int = 0, choose: bool = True) -> tuple[list, list]:
    """Patients that choose the combination of maps, and those that the bound is calibrated on.

    A bound holds for new patients only if the map was not chosen on those of its calibration.

    Args:
        patients: names of the patients.
        coverage: that the bound is to have.
        seed: seed of the division (default: 0).
        choose: whether there is anything to choose; a single map leaves every patient to the bound.

    Raises:
        ValueError: too few patients for the coverage.
    """
    least, spare = least_patients(coverage), int(choose)
    names = sorted(set(patients), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    if len(names) < least + spare:
        several = f" ({least} for the bound, one to choose the combination of maps)" if choose else ""
        highest = max(len(names) - spare, 0) / max(len(names) - spare + 1, 1)
        raise ValueError(
            f"a coverage of {coverage:g} needs at least {least + spare} patients for its calibration{several}, there "
            f"are {len(names)}, enough for {math.floor(100 * highest) / 100:g} at most"
        )
    number = min(max(spare, round(CHOOSE * len(names))), len(names) - least) if choose else 0
    return names[:number], names[number:]


def calibrate(
    cases: Sequence[Case],
    names: Sequence[str],
    coverage: float = 0.9,
    tolerance: float = 2.0,
    seed: int = 0,
    about: Mapping | None = None,
) -> tuple[Calibration, list[dict], list[dict]]:
    """The calibration of a model, and how it does on patients that it has not seen.

    Args:
        cases: what `evaluation.measure` returned of pairs of known error.
        names: names of the maps that may take part.
        coverage: share of the voxels that the bound is to hold.
        tolerance: mean error above which a case is bad, voxels.
        seed: seed of the division of the patients (default: 0).
        about: entries for `Calibration.about`.

    Returns:
        The calibration; a row for each patient of it, what a bound from the others covers; a row for each case of these
        patients, how limits from the others flag it.

    Raises:
        ValueError: too few patients, or as `Combination.fit` and `Bound.fit` raise.
    """
    cases = [case for case in cases if case.region.any()]
    single = Combination({names[0]: 1.0}) if len(names) == 1 else None
    choosing, bounding = divide([case.patient for case in cases], coverage, seed, single is None)
    chosen = [case for case in cases if case.patient in choosing]
    kept = [case for case in cases if case.patient in bounding]
    combination = single or Combination.fit(chosen, names)
    bound = Bound.fit(by_patient(kept, combination), coverage)
    triage = limits(kept, combination, bound, tolerance)
    coverages, flags = _left_out(kept, combination, coverage, tolerance)
    told = {"patients": f"{len(bounding)}, and {len(choosing)} that chose the maps", "cases": len(kept)}
    sizes = np.array([case.error.shape for case in kept])
    told |= {"ndims": sizes.shape[1], "smallest": sizes.min(0).tolist(), "largest": sizes.max(0).tolist()}
    return Calibration(combination, bound, triage, {**(about or {}), **told}), coverages, flags


def calibrated_estimates(
    calibration: Calibration, predictor: Predictor, others: Sequence[Predictor] = ()
) -> dict[str, Callable[..., UncertaintyMap]]:
    """The estimates that a calibration needs, with its options, by name; functions of a `hetmorph.data.Pair`.

    A stack whose calibration is of slices is taken slice by slice, along its last axis.

    Args:
        calibration: says which maps, how many draws, and of which seed.
        predictor: the model.
        others: further models, of an ensemble.

    Raises:
        ValueError: as `pair_estimates`.
    """
    names, about = [*calibration.combination.weights], calibration.about
    draws, seed = about.get("draws", 50), about.get("seed", 0)
    estimates = pair_estimates(names, predictor, others if "ensemble" in names else (), draws, seed)

    def taken(name, pair):
        if not calibration.of_slices(pair.fixed.ndim):
            return estimates[name](pair)
        return UncertaintyMap.stacked([estimates[name](part) for part in pair.slices()])

    return {name: functools.partial(taken, name) for name in estimates}


def expected_error(calibration: Calibration, maps: Mapping[str, UncertaintyMap]) -> UncertaintyMap:
    """The length of the displacement's error that is to be expected, voxels; of no direction, alike along every axis.

    Args:
        calibration: whose combination is fitted.
        maps: those that it needs, of one registration.

    Raises:
        ValueError: a map is missing.
    """
    error = calibration.combined({name: one.std for name, one in maps.items()}).astype(np.float32)
    needed = [maps[name] for name in calibration.combination.weights]
    variances = np.repeat(error[..., None] ** 2 / error.ndim, error.ndim, -1)
    passes, seconds = (sum(getattr(one, name) for one in needed) for name in ("passes", "seconds"))
    n = max(one.n for one in needed)
    return UncertaintyMap(EXPECTED, error, np.isfinite(error), VOXELS, None, n, passes, seconds, variances=variances)


class ExpectedError:
    """The expected error as an estimate for `registration.register`; it keeps the maps that it was made of.

    Args:
        calibration: by which.

    Attributes:
        made: for each pair that was asked about, its maps by name.
    """

    def __init__(self, calibration: Calibration):
        self.calibration, self.made = calibration, []

    def __call__(self, predictor: Predictor, moving: np.ndarray, fixed: np.ndarray) -> UncertaintyMap:
        pair = Pair("", "", None, None, moving, fixed, None, None, (1.0,) * moving.ndim)
        estimates = calibrated_estimates(self.calibration, predictor)
        self.made.append({name: estimate(pair) for name, estimate in estimates.items()})
        return expected_error(self.calibration, self.made[-1])

    def maps(self, stacked: bool) -> dict[str, UncertaintyMap]:
        """The maps of the one pair, or of the slices of a stack.

        Args:
            stacked: whether they were of slices.
        """
        if not stacked:
            return self.made[-1]
        return {name: UncertaintyMap.stacked([one[name] for one in self.made]) for name in self.made[-1]}


def scored(cases: Sequence[Case], combination: Combination, bound: Bound) -> list[dict]:
    """Of each case its score, the mean bound where it would be judged, and its true mean error, voxels."""
    rows = []
    for case in cases:
        judged = case.region if case.judged is None else case.judged
        score = float(np.nanmean(bound(combination(case.maps))[judged]))
        known = {"case_id": case.case_id, "patient": case.patient}
        rows.append(known | {"score": score, "epe": float(case.error[case.region].mean())})
    return rows


def limits(cases: Sequence[Case], combination: Combination, bound: Bound, tolerance: float) -> Triage:
    """Limits of acceptance and rejection learned from cases."""
    return _limits(scored(cases, combination, bound), tolerance)


def covered(patients: Mapping[str, tuple], bound_of) -> list[dict]:
    """What a bound covers of each patient.

    Args:
        patients: by name, errors and map, as of `by_patient`.
        bound_of: the `Bound` for a patient, by its name.
    """
    rows = []
    for name, (error, std) in patients.items():
        bound = bound_of(name)
        row = {"patient": name, "voxels": error.size, "coverage": bound.covered(error, std)}
        rows.append(row | {"bound": float(bound(std).mean()), "scale": bound.scale})
    return rows


def _left_out(cases, combination, coverage: float, tolerance: float) -> tuple[list[dict], list[dict]]:
    """Coverage of each patient by a bound from the others; flags of its cases likewise.

    One patient fewer may be too few for the coverage; its bound then comes from all.
    """
    patients = by_patient(cases, combination)
    enough, bounds = len(patients) > least_patients(coverage), {}
    for name in patients:
        others = {other: own for other, own in patients.items() if other != name} if enough else patients
        bounds[name] = Bound.fit(others, coverage)
    flags = []
    for name, bound in bounds.items():
        own, others = ([case for case in cases if (case.patient == name) == same] for same in (True, False))
        triage = limits(others, combination, bound, tolerance)
        flags += [row | {"flag": triage.flag(row["score"])} for row in scored(own, combination, bound)]
    return covered(patients, bounds.__getitem__), flags


def _limits(rows: Sequence[Mapping], tolerance: float) -> Triage:
    return Triage.fit([row["score"] for row in rows], [row["epe"] for row in rows], tolerance)
