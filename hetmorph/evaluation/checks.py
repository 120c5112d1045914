"""Signs that a registration failed, in the images and the deformation alone: no truth, no further registration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hetmorph.metrics.deformation import scores_of_determinant
from hetmorph.ops.fields import jacobian_determinant
from hetmorph.ops.windows import local_correlation, window_of

FLAGS = ("accept", "review", "reject")  # from good to bad

# Tried on hearts, brains, hippocampi and echocardiograms, good and spoilt: docs/uncertainty.md has the table.
LOSS = (0.02, 0.05)  # of similarity: to interpolate an image costs it up to 0.02 even where nothing else is wrong
NOTHING_ALIKE = 0.05  # similarity: independent noise has 1 / (voxels of the window), and 0.03 once a model fitted it
UNLIKE = 0.5  # similarity: below it less than half of the local variance is explained, as of strangers or much noise
GAIN = 0.05  # of what was lacking of similarity 1: good pairs gained 0.08 and more, noise 0.03 at most ...
ALIKE = 0.9  # ... but images that are alike already have little to gain
UNEVEN = 0.35  # SDlogJ: noisy pairs of one patient had 0.23 at most, strangers pressed onto each other from 0.46 on
FOLDS = (0.1, 5.0)  # percent: what is meant to be one-to-one stays below the first; at one voxel of twenty it is no map
OUTSIDE = 10.0  # percent: small crops of brains lose 6 at their borders, hearts 0.1
FAR = 25.0  # percent of the image: hippocampi in tight crops moved by up to 20
INVERSE = 0.1  # voxels: below, what is missed is rounding


class Doubt(NamedTuple):
    """Something that looks wrong: "review" or "reject", and a sentence without its capital and full stop."""

    flag: str
    text: str


@dataclass(frozen=True)
class Checks:
    """What images and deformation say of a registration.

    Attributes:
        similarity: mean squared local correlation with the fixed image, 0 to 1: undeformed and registered.
        folds: percent of the voxels, det ≤ 0.
        sdlogj: standard deviation of the logarithm of the determinant: how unevenly it stretches.
        outside: percent of the voxels that come from outside the moving image.
        displacement: length that a hundredth of the voxels exceed, in percent of the image, each axis by its own size.
        inverse_error: largest residual of the inverse, voxels; None where none was made.
    """

    similarity: tuple[float, float]
    folds: float
    sdlogj: float
    outside: float
    displacement: float
    inverse_error: float | None = None

    @classmethod
    def of(
        cls, moving, fixed, moved, displacement, determinant=None, across: int | None = None, inverse_error=None
    ) -> Checks:
        """Check a registration.

        Args:
            moving, fixed, moved: `[*S]`.
            displacement: `[*S, N]`, voxels of the fixed grid.
            determinant: its Jacobian determinant on any grid; None computes it.
            across: axis across slices that were registered one by one, or None.
            inverse_error: largest residual of the inverse, voxels.
        """
        displacement = np.asarray(displacement, np.float32)
        if determinant is None:
            determinant = jacobian_determinant(displacement[None])[0].numpy()
        deformation = scores_of_determinant(determinant)
        outside, length = _travel(displacement)
        return cls(
            similarity=(similarity(fixed, moving, across), similarity(fixed, moved, across)),
            folds=deformation["folds_percent"],
            sdlogj=deformation["sdlogj"],
            outside=outside,
            displacement=length,
            inverse_error=inverse_error,
        )

    @classmethod
    def of_pair(cls, pair, prediction) -> Checks:
        """Check what a predictor says about a pair.

        Args:
            pair: a `hetmorph.data.Pair`.
            prediction: its `Prediction`.
        """
        answer = prediction.moved, prediction.displacement, prediction.determinant, prediction.across
        return cls.of(pair.moving, pair.fixed, *answer)

    @property
    def flag(self) -> str:
        """The worst of the doubts, "accept" where there is none."""
        return worst(doubt.flag for doubt in self.doubts())

    @property
    def reason(self) -> str:
        """The doubts in sentences, the worst first, or what was looked at."""
        doubts = sorted(self.doubts(), key=lambda doubt: -FLAGS.index(doubt.flag))
        if doubts:
            return " ".join(_sentence(doubt.text) for doubt in doubts)
        before, after = self.similarity
        return f"No check found a fault: local correlation {before:.3f} to {after:.3f}, folds {self.folds:.3f} %."

    def doubts(self) -> Iterator[Doubt]:
        """What looks wrong."""
        yield from self._of_the_images()
        if self.folds > FOLDS[0]:
            flag = "reject" if self.folds > FOLDS[1] else "review"
            yield Doubt(flag, f"the deformation folds at {self.folds:.2f} % of the voxels")
        if self.outside > OUTSIDE:
            yield Doubt("review", f"{self.outside:.0f} % of the voxels come from outside the moving image")
        if self.displacement > FAR:
            yield Doubt("review", f"a hundredth of the voxels move by more than {self.displacement:.0f} % of the image")
        if self.inverse_error is not None and self.inverse_error > INVERSE:
            yield Doubt("review", f"the inverse misses by up to {self.inverse_error:.2g} voxels")

    def scores(self) -> dict[str, float]:
        """Numbers by the names of columns."""
        before, after = self.similarity
        known = {} if self.inverse_error is None else {"registered_inverse_error": self.inverse_error}
        return {
            "undeformed_similarity": before,
            "registered_similarity": after,
            "registered_folds_percent": self.folds,
            "registered_sdlogj": self.sdlogj,
            "registered_outside_percent": self.outside,
            "registered_displacement_percent": self.displacement,
        } | known

    def _of_the_images(self) -> Iterator[Doubt]:
        before, after = self.similarity
        change = f"local correlation {before:.3f} to {after:.3f}"
        if after < NOTHING_ALIKE and not self.displacement:
            # Nobody registered them: `undeformed` brings an image onto another grid, which cannot fail.
            yield Doubt("review", f"the images have nothing in common, and nothing was moved ({change})")
        elif after < NOTHING_ALIKE:
            yield Doubt("reject", f"the images have nothing in common, even registered ({change})")
        elif before - after > LOSS[0]:
            flag = "reject" if before - after > LOSS[1] else "review"
            less = "the moved image is less like the fixed one than the undeformed image"
            yield Doubt(flag, f"{less} ({change}): was the model made for such images?")
        elif after < UNLIKE and self.sdlogj > UNEVEN:
            strain = (
                f"the deformation is strong (SDlogJ {self.sdlogj:.2f}), and yet the images remain unlike ({change})"
            )
            yield Doubt("reject", f"{strain}: do they show the same?")
        elif after < UNLIKE:
            yield Doubt("review", f"the images remain unlike ({change}), by noise or because they show something else")
        elif after < ALIKE and after - before < GAIN * (1 - before):
            yield Doubt("review", f"the registration made the images hardly more alike ({change})")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"


def similarity(fixed, moved, across: int | None = None) -> float:
    """Mean squared local correlation of two images, 0 to 1; of a stack of slices in windows of each slice.

    Args:
        fixed, moved: `[*S]`.
        across: axis across slices that have nothing to do with each other, or None.
    """
    shape = np.shape(fixed)
    window = window_of(np.delete(shape, [] if across is None else across).tolist())
    if across is not None:
        window.insert(across, 1)
    pair = (np.asarray(image, np.float32)[None, ..., None] for image in (fixed, moved))
    return float(np.mean(local_correlation(*pair, window)))


def worst(flags) -> str:
    """The worst of several flags, "accept" of none.

    Args:
        flags: some of `FLAGS`.
    """
    return max(flags, key=FLAGS.index, default="accept")


def _travel(displacement: np.ndarray) -> tuple[float, float]:
    """`outside` and `displacement`; an axis of a single voxel has no size to compare with."""
    sizes: Sequence[int] = displacement.shape[:-1]
    axes = [axis for axis, size in enumerate(sizes) if size > 1]
    outside, squares = np.zeros(sizes, bool), np.zeros(sizes, np.float32)
    for axis in axes:
        start = np.arange(sizes[axis], dtype=np.float32).reshape([-1 if axis == i else 1 for i in range(len(sizes))])
        there = start + displacement[..., axis]
        outside |= (there < -0.5) | (there > sizes[axis] - 0.5)
        squares += (displacement[..., axis] / sizes[axis]) ** 2
    return 100 * float(outside.mean()), 100 * float(np.sqrt(np.percentile(squares, 99)))
