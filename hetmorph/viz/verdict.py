"""Accept, review or reject one registration, and why, in words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hetmorph.evaluation import checks as plain
from hetmorph.evaluation.cases import foreground
from hetmorph.evaluation.checks import Checks

WORDS = {"accept": "Accept", "review": "Review", "reject": "Reject", "none": "No verdict"}


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a calibration, or else the plain checks, say about one registration.

    Attributes:
        flag: "accept", "review", "reject", or "none" where nothing can be said.
        reason: a few sentences.
        bound: `[*S]` bound of the displacement's error, voxels, NaN where not known; or None.
        score: its mean over the region, voxels; NaN where it is not known.
        calibrated: whether a calibration judged; else it is the plain checks, which know no bound.
    """

    flag: str
    reason: str
    bound: np.ndarray | None = None
    score: float = float("nan")
    calibrated: bool = False

    def told(self) -> dict[str, str]:
        """Flag, reason, and what they rest on, for the file beside a result."""
        by = "calibration and checks" if self.calibrated else "checks"
        return {"flag": self.flag, "reason": self.reason, "by": by}


def verdict(pair, maps: Mapping, calibration, checks: Checks | None = None) -> Verdict:
    """Judge a registration by its maps of uncertainty, and by what images and deformation show without any.

    A calibration leads, the checks can only make its verdict worse. Where there is none, the verdict is theirs.

    Args:
        pair: the `hetmorph.data.Pair`.
        maps: by name, `uncertainty.UncertaintyMap`s of it.
        calibration: an `uncertainty.Calibration`, made with the same options of the maps; or None.
        checks: `evaluation.Checks` of the registration; None leaves the verdict to the calibration.
    """
    said = _calibrated(pair, maps, calibration)
    if checks is None:
        return said
    if said.flag == "none":
        unknown = "" if checks.flag == "reject" else f" {said.reason}"
        return replace(said, flag=checks.flag, reason=checks.reason + unknown)
    flag = plain.worst((said.flag, checks.flag))
    return replace(said, flag=flag, reason=f"{said.reason} {checks.reason}" if any(checks.doubts()) else said.reason)


def _calibrated(pair, maps: Mapping, calibration) -> Verdict:
    """The verdict of the calibration, "none" where there is none that can judge."""
    if calibration is None:
        return Verdict("none", "No calibration was given: how far the displacement may be wrong is not known.")
    missing = [name for name in calibration.combination.weights if name not in maps]
    if missing:
        return Verdict("none", f"The calibration is of maps that were not made here: {', '.join(missing)}.")
    region, where = foreground(pair), "foreground"
    if calibration.about.get("region") == "labels":
        if pair.fixed_labels is None:
            return Verdict("none", "The calibration is of labelled voxels; the fixed image has no labels.")
        region, where = pair.fixed_labels > 0, "labelled voxels"
    bound, flag = calibration.judge({name: one.std for name, one in maps.items()}, region)
    values = bound[region & np.isfinite(bound)]
    if not values.size:
        unknown = f"In no voxel of the {where} is the bound of the error known."
        return Verdict(flag, unknown, bound, calibrated=True)
    score = float(values.mean())
    if not calibration.of_size(pair.fixed.shape):
        return Verdict("review", _unlike(pair.fixed.shape, score, where, calibration), bound, score, True)
    return Verdict(flag, _reason(flag, score, where, calibration.triage), bound, score, True)


def looked_at() -> str:
    """What the plain checks are, and what they cannot see."""
    limits = (
        "the moved image is more like the fixed one than the moving one was, by mean squared local correlation, and at "
        f"least {plain.UNLIKE:g} alike; the deformation folds at {plain.FOLDS[0]:g} % of the voxels at most; no more "
        f"than {plain.OUTSIDE:g} % of them come from outside the moving image, no more than a hundredth moves by "
        f"{plain.FAR:g} % of it; an inverse, if one was made, misses by {plain.INVERSE:g} voxels at most"
    )
    return (
        f"Plain checks ask that {limits}. They see that a registration failed as a whole, not that it is right: an "
        "error of one organ, of one slice or along an edge stays unseen, and so do alike images of two people."
    )


def promise(calibration) -> str:
    """What the bound of a calibration means, and where its limits come from."""
    bound, triage, about = calibration.bound, calibration.triage, calibration.about
    source = ", ".join(f"{key}: {about[key]}" for key in ("data", "model", "patients") if about.get(key))
    return (
        f"Bound: {bound.scale:.3g} × {calibration.combination.name}. In patients like the {bound.patients} of the "
        f"calibration it holds for {bound.coverage:.0%} of the voxels on average, not in every patient or region. The "
        f"limits come from cases of known error, called bad above a mean error of {triage.tolerance:g} voxels: at most "
        "a tenth were bad up to the limit of acceptance, at least nine tenths from the limit of rejection on. "
        f"Calibrated on {source or 'an unknown source'}; it says nothing about other models or data."
    )


def _unlike(shape, score: float, where: str, calibration) -> str:
    own, known = (" × ".join(map(str, sizes)) for sizes in (shape, calibration.about["largest"]))
    return (
        f"The calibration is of images of up to {known} voxels: the limits of their means do not hold for one of "
        f"{own}. Let the model see the part round the organ, by a mask. The mean bound of the error over the {where} "
        f"is {score:.2f} voxels."
    )


def _reason(flag: str, score: float, where: str, triage) -> str:
    mean = f"The mean bound of the error over the {where} is {score:.2f} voxels"
    if flag == "accept":
        return f"{mean}, not above {triage.accept:.2f}, the limit of acceptance."
    if flag == "reject":
        return f"{mean}, not below {triage.reject:.2f}, the limit of rejection."
    accepted = f"above {triage.accept:.2f}, the limit of acceptance" if np.isfinite(triage.accept) else ""
    accepted = accepted or "and no bound was small enough for acceptance in the calibration"
    rejected = f"below {triage.reject:.2f}, the limit of rejection" if np.isfinite(triage.reject) else ""
    rejected = rejected or "none was large enough for rejection"
    return f"{mean}, {accepted}, and {rejected}."
