"""One registration with everything that a report on it needs of all its voxels."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hetmorph.data import Pair
from hetmorph.evaluation import Checks, Prediction, RegistrationFailed, evaluate_pair
from hetmorph.evaluation.cases import NO_LABELS, warp_labels
from hetmorph.evaluation.table import FEW, structure_heading
from hetmorph.viz.rasters import Scale, spread
from hetmorph.viz.scores import as_numbers
from hetmorph.viz.verdict import Verdict, verdict

NO_MAPS: Mapping = {}
# RV, myocardium, LV: told apart also by the colour-blind
STRUCTURE_COLOURS = ("#4cc9f0", "#ffb703", "#ef476f")


@dataclass(frozen=True, eq=False)
class ReportedCase:
    """A case with everything that needs all of its voxels.

    Attributes:
        pair, row, maps, verdict: as given or found.
        prediction: None where nothing was registered.
        determinant: Jacobian determinant of x + u(x), `[*S]`; None without prediction.
        labels: values by structure; empty without labels.
        truth, before, after: masks `[*S]` by structure; `after` is empty without prediction.
        main: the main structure.
    """

    pair: Pair
    prediction: Prediction | None
    row: dict
    maps: Mapping
    verdict: Verdict
    determinant: np.ndarray | None
    labels: Mapping[str, int]
    truth: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    main: str | None

    @functools.cached_property
    def window(self) -> Scale:
        """Of both images, so that moving, fixed and moved are seen alike."""
        return Scale(*spread([self.pair.moving, self.pair.fixed], 0.2, 99.8), "gray", "intensity")

    @property
    def unit(self) -> str:
        """Of lengths: voxels, where the images do not say how large these are."""
        return "mm" if self.pair.in_mm else "voxels"

    @functools.cached_property
    def length(self) -> np.ndarray:
        """Of the displacement, `[*S]`, in `unit`."""
        return np.linalg.norm(self.prediction.displacement * np.asarray(self.pair.spacing), axis=-1)

    @functools.cached_property
    def true_error(self) -> np.ndarray | None:
        """|u − u_true|, `[*S]` voxels, where both are known."""
        if self.prediction is None or self.pair.displacement is None:
            return None
        return np.linalg.norm(self.prediction.displacement - self.pair.displacement, axis=-1)

    @functools.cached_property
    def sigma(self) -> np.ndarray | None:
        """σ_I, intensity; None without, or where it is no standard deviation."""
        if self.prediction is None or self.prediction.log_variance is None:
            return None
        with np.errstate(over="ignore"):
            sigma = np.exp(0.5 * np.float64(self.prediction.log_variance))
        return sigma if finite(sigma) and sigma.min() > 0 else None

    def dices(self, block: str) -> dict[str, float]:
        """Dice of each structure, or of many the main one and their mean, by what it is called; defined ones only.

        Args:
            block: "undeformed" or "registered".
        """
        names = [*self.labels] if len(self.labels) <= FEW else [self.main, "mean"]
        scores = {structure_heading(name): self.row.get(f"{block}_dice_{name}", math.nan) for name in names}
        return {name: score for name, score in scores.items() if math.isfinite(score)}


def report_on(
    pair,
    prediction,
    row,
    maps=NO_MAPS,
    calibration=None,
    convention="hetmorph",
    labels=NO_LABELS,
    main=None,
    checks=None,
) -> ReportedCase:
    """Everything about one case; arguments and errors as `case_report`."""
    for name, one in maps.items():
        if one.std.shape != pair.fixed.shape:
            raise ValueError(f"{pair.case_id}: expected the map {name} of {pair.fixed.shape}, got {one.std.shape}")
    labelled = bool(labels) and pair.moving_labels is not None and pair.fixed_labels is not None
    labels, main = (labels, main) if labelled else ({}, None)
    if labels and main not in labels:
        raise ValueError(f"the main structure must be one of {tuple(labels)}, got {main!r}")
    row = _row(pair, prediction, convention, labels, main) if row is None else as_numbers([row])[0]
    if prediction is not None and not (finite(prediction.displacement) and finite(prediction.moved)):
        prediction = None
    masks = [{name: one == value for name, value in labels.items()} for one in (pair.fixed_labels, pair.moving_labels)]
    after, determinant = {}, None
    if prediction is not None:
        field = np.asarray(prediction.displacement, np.float32)
        determinant = prediction.determinant
        if labels:
            after = dict(
                zip(labels, warp_labels(pair.moving_labels, field, [*labels.values()], convention), strict=True)
            )
        if checks is None:
            checks = Checks.of_pair(pair, prediction)
    said = Verdict("reject", "Nothing was registered.")
    if prediction is not None:
        said = verdict(pair, maps, calibration, checks)
    return ReportedCase(pair, prediction, row, maps, said, determinant, labels, *masks, after, main)


def structure_colours(count: int) -> list[str]:
    """A colour for each of so many structures; beyond twenty they repeat."""
    if count <= len(STRUCTURE_COLOURS):
        return [*STRUCTURE_COLOURS[:count]]
    from matplotlib import colormaps, colors

    palette = [colors.to_hex(colour) for colour in colormaps["tab20"].colors]
    return [palette[i % len(palette)] for i in range(count)]


def finite(values) -> bool:
    """Whether there is neither NaN nor infinity."""
    return bool(np.isfinite(values).all())


def _row(pair, prediction, convention, labels, main) -> dict:
    def known(moving, fixed):
        if prediction is None:
            raise RegistrationFailed("no prediction")
        return prediction

    row = evaluate_pair(known, pair, convention, labels, main)
    row.pop("registered_seconds_per_pair")  # of looking the prediction up
    return row
