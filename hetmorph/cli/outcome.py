"""What a registration did to the images, in a few lines, and what its verdict does to the exit status."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from hetmorph.evaluation import Checks
from hetmorph.evaluation.checks import FLAGS, similarity
from hetmorph.instance import RefinementWarning
from hetmorph.io import Chain, Image, matched_grid, resample, warp_labels
from hetmorph.metrics import dice
from hetmorph.registration import Registration

NEVER = "never"
FAILED_VERDICT = 3  # exit status: 1 and 2 say that something was not done, here it was and is no good


@dataclass(frozen=True)
class Outcome:
    """Scores of one registration; pairs of numbers are those before and after.

    Attributes:
        checks: checks of what the model saw; folds and unevenness of the voxels of the fixed image.
        optimised: loss, similarity and percent of folds, before and after, where the answer was optimised on the pair.
        dice: Dice of each label value on the fixed grid, undeformed and registered.
        dice_of_model: Dice of each label value by the model alone; empty if that moves nothing or was not optimised.
        before: what the first number of a pair is of: the images undeformed, or after an affine stage.
        dice_placed: Dice of each label value without that stage; empty without one.
    """

    checks: Checks
    optimised: dict[str, tuple[float, float]] = field(default_factory=dict)
    dice: dict[int, tuple[float, float]] = field(default_factory=dict)
    dice_of_model: dict[int, float] = field(default_factory=dict)
    before: str = "undeformed"
    dice_placed: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, result: Registration, fixed: Image, labels=None, target=None, inverse_error=None) -> Outcome:
        """Score a registration.

        Args:
            result: the registration.
            fixed: the fixed image.
            labels: label `Image` of the moving image, or None.
            target: that of the fixed image, or None.
            inverse_error: largest residual of the inverse, voxels; None where none was made.
        """
        answer = result.prediction
        whole = result.transform.jacobian(), answer.across, inverse_error
        checks = Checks.of(*result.seen, answer.moved, answer.displacement, *whole)
        scores = {} if labels is None or target is None else _dice(result, fixed, labels, target)
        registered = scores.get("registered", {})
        return cls(
            checks=checks,
            optimised=_optimised(result, checks.similarity[1]) if result.refinements else {},
            dice={label: (scores["before"][label], after) for label, after in registered.items()},
            dice_of_model=scores.get("model", {}),
            **({} if result.affine is None else {"before": f"after the {result.affine.kind} stage"}),
            dice_placed=scores.get("placed", {}),
        )

    @property
    def line(self) -> str:
        """Similarity and folds."""
        return _line(self.checks.similarity, self.checks.folds, self.before)

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield self.line
        if self.optimised:
            parts = (f"{name} {before:.4f} to {after:.4f}" for name, (before, after) in self.optimised.items())
            yield f"optimised on this pair, from the model's own answer on: {', '.join(parts)}"
        for label in self.dice:
            yield self._dice_line(f" of label {label}", [label])
        if len(self.dice) > 1:
            yield from self.mean_dice()

    def mean_dice(self) -> Iterator[str]:
        """A line on the mean Dice of the labels, where there are any."""
        if self.dice:
            yield self._dice_line(", mean", list(self.dice))

    def scores(self) -> dict[str, float]:
        """Numbers by the names of columns."""
        if not self.dice:
            return self.checks.scores()
        before, after = zip(*self.dice.values(), strict=True)
        undeformed = [*self.dice_placed.values()] or before
        means = {"undeformed_dice_mean": float(np.mean(undeformed)), "registered_dice_mean": float(np.mean(after))}
        return self.checks.scores() | means

    def _dice_line(self, of: str, labels: list[int]) -> str:
        before, after = np.mean([self.dice[label] for label in labels], 0)
        placed, alone = "", ""
        if self.dice_placed:
            placed = f"{np.mean([self.dice_placed[label] for label in labels]):.3f} undeformed, "
        if self.dice_of_model:
            alone = f"{np.mean([self.dice_of_model[label] for label in labels]):.3f} by the model alone, "
        return f"Dice{of}: {placed}{before:.3f} {self.before}, {alone}{after:.3f} registered"

    def doubts(self) -> Iterator[str]:
        """Sentences on what looks wrong beside what the verdict says: of that, labels are no part."""
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
    checks = [outcome.checks for outcome in outcomes]
    means = np.mean([one.similarity for one in checks], 0), np.mean([one.folds for one in checks])
    return f"mean of {len(outcomes)} frames: {_line(*means)}"


def verdict_status(flags: Iterable[str], fail_on: str) -> int:
    """`FAILED_VERDICT` if a verdict is as bad as `fail_on` or worse, else 0.

    Args:
        flags: flags of the verdicts.
        fail_on: "review", "reject", or "never".
    """
    bad = () if fail_on == NEVER else FLAGS[FLAGS.index(fail_on) :]
    return FAILED_VERDICT if any(flag in bad for flag in flags) else 0


def _line(similarity, folds: float, first: str = "undeformed") -> str:
    before, after = similarity
    return f"similarity (local correlation) {before:.3f} {first}, {after:.3f} registered; folds {folds:.3f} %"


def _optimised(result: Registration, after: float) -> dict[str, tuple[float, float]]:
    parts = result.refinements
    starts = [part.start.moved for part in parts]
    moved = np.stack(starts, -1) if result.by_slice else starts[0]
    loss, folds = (np.mean(x, 0) for x in ([(p.losses[0], p.loss) for p in parts], [p.folds for p in parts]))
    return {
        "loss": tuple(loss),
        "similarity": (similarity(result.seen[1], moved, result.prediction.across), after),
        "folds in percent": tuple(folds),
    }


def _dice(result: Registration, fixed: Image, labels: Image, target: Image) -> dict[str, dict[int, float]]:
    """Of each label: before, registered, by the model alone if that moves anything and was optimised, and placed."""
    there = resample(target.array, matched_grid(target, fixed), fixed.grid, "nearest")
    own = matched_grid(labels, fixed)
    if result.undeformed is None:
        ways = {"before": resample(labels.array, own, fixed.grid, "nearest")}
    else:  # as the registered ones are, or the difference would be that of two interpolations
        ways = {"before": warp_labels(Chain([result.undeformed], fixed.grid).transform, labels.array, own)}
    ways["registered"] = result.labels(labels, fixed)
    if any(part.start.displacement.any() for part in result.refinements):
        ways["model"] = result.labels(labels, fixed, start=True)
    if result.affine is not None:  # without that stage; nowhere if the images do not meet
        ways["placed"] = np.zeros_like(there)
        with suppress(ValueError):
            ways["placed"] = resample(labels.array, own, fixed.grid, "nearest", through=result.affine.earlier)
    values = [int(value) for value in np.unique(there) if value != 0]
    return {name: {value: dice(there == value, way == value) for value in values} for name, way in ways.items()}
