"""What a registration did to the images, in a few lines, and whether that looks wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from hetmorph.instance import RefinementWarning, window_of
from hetmorph.io import Chain, Image, matched_grid, resample, warp_labels
from hetmorph.metrics import dice
from hetmorph.ops.windows import local_correlation
from hetmorph.registration import Registration, jacobian

_MANY_FOLDS = 0.1  # percent of the voxels


@dataclass(frozen=True)
class Outcome:
    """Scores of one registration; pairs of numbers are those before and after.

    Attributes:
        similarity: mean squared local correlation, 0 to 1, of what the model saw: undeformed and registered.
        folds: percent of the voxels of the fixed image, det ≤ 0.
        optimised: loss, similarity and percent of folds, before and after, where the answer was optimised on the pair.
        dice: Dice of each label value on the fixed grid, undeformed and registered.
        dice_of_model: Dice of each label value by the model alone; empty if that moves nothing or was not optimised.
        before: what the first number of a pair is of: the images undeformed, or after an affine stage.
        dice_placed: Dice of each label value without that stage; empty without one.
    """

    similarity: tuple[float, float]
    folds: float
    optimised: dict[str, tuple[float, float]] = field(default_factory=dict)
    dice: dict[int, tuple[float, float]] = field(default_factory=dict)
    dice_of_model: dict[int, float] = field(default_factory=dict)
    before: str = "undeformed"
    dice_placed: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, result: Registration, fixed: Image, labels: Image | None, target: Image | None) -> Outcome:
        """Score a registration.

        Args:
            result: the registration.
            fixed: the fixed image.
            labels: label image of the moving image, or None.
            target: labels of the fixed image, or None.
        """
        after = _similarity(result, result.prediction.moved)
        scored = labels is not None and target is not None
        undeformed, registered, start = _dice(result, fixed, labels, target) if scored else ({}, {}, {})
        return cls(
            similarity=(_similarity(result, result.seen[0]), after),
            folds=100 * float(np.mean(jacobian(result.transform) <= 0)),
            optimised=_optimised(result, after) if result.refinements else {},
            dice={label: (undeformed[label], registered[label]) for label in registered},
            dice_of_model=start,
            **({} if result.affine is None else {"before": f"after the {result.affine.kind} stage"}),
            dice_placed=_dice_placed(result, fixed, labels, target) if scored and result.affine else {},
        )

    @property
    def line(self) -> str:
        """Similarity and folds."""
        before, after = self.similarity
        said = f"similarity (local correlation) {before:.3f} {self.before}, {after:.3f} registered"
        return f"{said}; folds {self.folds:.3f} %"

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield self.line
        if self.optimised:
            parts = (f"{name} {before:.4f} to {after:.4f}" for name, (before, after) in self.optimised.items())
            yield f"optimised on this pair, from the model's own answer on: {', '.join(parts)}"
        for label in self.dice:
            yield self._dice_line(f" of label {label}", [label])
        if len(self.dice) > 1:
            yield self._dice_line(", mean", list(self.dice))

    def _dice_line(self, of: str, labels: list[int]) -> str:
        before, after = np.mean([self.dice[label] for label in labels], 0)
        placed, alone = "", ""
        if self.dice_placed:
            placed = f"{np.mean([self.dice_placed[label] for label in labels]):.3f} undeformed, "
        if self.dice_of_model:
            alone = f"{np.mean([self.dice_of_model[label] for label in labels]):.3f} by the model alone, "
        return f"Dice{of}: {placed}{before:.3f} {self.before}, {alone}{after:.3f} registered"

    def doubts(self) -> Iterator[str]:
        """Sentences on what looks wrong."""
        before, after = self.similarity
        if after < before:
            yield (
                f"the moved image is less like the fixed one than it was {self.before} (local correlation "
                f"{before:.3f} to {after:.3f}): was the model made for such images?"
            )
        if self.folds > _MANY_FOLDS:
            yield f"the deformation folds at {self.folds:.2f} % of the voxels"
        worse = [f"{label}: {a:.3f} to {b:.3f}" for label, (a, b) in self.dice.items() if b < a]
        if worse:
            yield f"Dice is lower than {self.before} (label {', '.join(worse)})"
        if self.dice_of_model:
            scores = [(a, self.dice[label][1]) for label, a in self.dice_of_model.items()]
            alone, after = np.mean(scores, 0)
            if after < alone:
                yield f"the optimisation lowered the mean Dice from {alone:.3f}, of the model alone, to {after:.3f}"


@contextmanager
def doubts_of_refinement(doubts: list[str]) -> Iterator[None]:
    """Gather in `doubts` what is warned of while pairs are optimised, each sentence once and how often."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RefinementWarning)
        yield
    said = Counter(str(one.message) for one in caught if issubclass(one.category, RefinementWarning))
    doubts += [text if count == 1 else f"{text} ({count} slices or frames)" for text, count in said.items()]
    for one in caught:
        if not issubclass(one.category, RefinementWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def mean_line(outcomes: Sequence[Outcome]) -> str:
    """Similarity and folds of several frames."""
    similarity = tuple(np.mean([outcome.similarity for outcome in outcomes], 0))
    return f"mean of {len(outcomes)} frames: {Outcome(similarity, np.mean([one.folds for one in outcomes])).line}"


def _similarity(result: Registration, moved: np.ndarray) -> float:
    """Mean local correlation with the fixed image; of a stack that a 2-D model saw, in windows of its slices."""
    shape = moved.shape
    window = [*window_of(shape[:-1]), 1] if result.by_slice else window_of(shape)
    pair = (np.asarray(image, np.float32)[None, ..., None] for image in (result.seen[1], moved))
    return float(np.mean(local_correlation(*pair, window)))


def _optimised(result: Registration, after: float) -> dict[str, tuple[float, float]]:
    parts = result.refinements
    starts = [part.start.moved for part in parts]
    moved = np.stack(starts, -1) if result.by_slice else starts[0]
    loss, folds = (np.mean(x, 0) for x in ([(p.losses[0], p.loss) for p in parts], [p.folds for p in parts]))
    return {"loss": tuple(loss), "similarity": (_similarity(result, moved), after), "folds in percent": tuple(folds)}


def _dice(result: Registration, fixed: Image, labels: Image, target: Image) -> tuple[dict[int, float], ...]:
    """Of each label: undeformed, registered, and by the model alone if that moves anything and was optimised."""
    there = resample(target.array, matched_grid(target, fixed), fixed.grid, "nearest")
    own = matched_grid(labels, fixed)
    if result.initial is None:
        undeformed = resample(labels.array, own, fixed.grid, "nearest")
    else:  # as the registered ones are, or the difference would be that of two interpolations
        undeformed = warp_labels(Chain([result.initial], fixed.grid).transform, labels.array, own)
    ways = [undeformed, result.labels(labels, fixed)]
    if any(part.start.displacement.any() for part in result.refinements):
        ways.append(result.labels(labels, fixed, start=True))
    values = [int(value) for value in np.unique(there) if value != 0]
    scores = [{value: dice(there == value, way == value) for value in values} for way in ways]
    return (*scores, {})[:3]


def _dice_placed(result: Registration, fixed: Image, labels: Image, target: Image) -> dict[int, float]:
    """Of each label, as it lies without the affine stage; 0 where the images do not meet."""
    there = resample(target.array, matched_grid(target, fixed), fixed.grid, "nearest")
    try:
        way = resample(labels.array, matched_grid(labels, fixed), fixed.grid, "nearest", through=result.affine.earlier)
    except ValueError:
        way = np.zeros_like(there)
    return {int(value): dice(there == value, way == value) for value in np.unique(there) if value != 0}
