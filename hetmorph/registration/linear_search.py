"""The linear transform that makes two images most alike, from coarse to fine, by SimpleITK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hetmorph.evaluation import RegistrationFailed
from hetmorph.io import Grid, itk, model_grid, resample
from hetmorph.io.chain import Linear
from hetmorph.io.errors import last_line

KINDS = ("rigid", "similarity", "affine")
METRICS = ("mi", "correlation")
NEEDS = "a rigid, similarity or affine stage needs"
_BINS = 32
_FINEST = 2**18  # voxels of the finest level; the optimum of so many is known to a fraction of their distance
_COARSER = (4, 2, 1)  # of the levels, against the finest
_FEWEST = 8  # voxels that an axis keeps, where it has them
_ITERATIONS = 100  # a level
_SMALLEST = 1e-4  # of the steps, part of the first
_OVERLAP = 0.25  # of two masks, part of the smaller


@dataclass(frozen=True, eq=False)
class Level:
    """Both images at one resolution.

    Attributes:
        moving, own: `[*M]` float32 and its grid.
        fixed, grid: `[*S]` float32 and its grid.
        counts: `[*S]` the voxels of the fixed image that are looked at; None for all.
        seen: `[*M]` those of the moving image; None for all.
    """

    moving: np.ndarray
    own: Grid
    fixed: np.ndarray
    grid: Grid
    counts: np.ndarray | None = None
    seen: np.ndarray | None = None

    def box(self) -> Level:
        """The fixed image round the voxels that count, and a voxel more."""
        if self.counts is None:
            return self
        found = np.argwhere(self.counts)
        low, high = np.maximum(found.min(0) - 1, 0), np.minimum(found.max(0) + 2, self.counts.shape)
        part = tuple(map(slice, low, high))
        grid = self.grid.part(low, high)
        return Level(self.moving, self.own, self.fixed[part], grid, self.counts[part], self.seen)

    def at(self, spacing: float) -> Level:
        """The same with voxels of `spacing` mm, where they are smaller."""
        own, grid = (_coarser(one, spacing) for one in (self.own, self.grid))
        masks = (
            None if mask is None else resample(mask.astype(np.float32), old, new) >= 0.5
            for mask, old, new in ((self.counts, self.grid, grid), (self.seen, self.own, own))
        )
        return Level(resample(self.moving, self.own, own), own, resample(self.fixed, self.grid, grid), grid, *masks)

    def score(self, matrix: np.ndarray, metric: str, within: bool = False) -> float:
        """How alike the fixed image is to the moving one through a matrix; beyond its edges that is dark.

        Or only where they meet, with `within`.

        Normalised mutual information (Studholme et al., Pattern Recognition 1999, doi:10.1016/S0031-3203(98)00091-0),
        1 to 2, or squared correlation, 0 to 1. Unlike the metric that is searched by, it knows what has left the image.
        """
        nothing, through = 0.0 if metric == "correlation" else 1.0, Linear(matrix)
        counts = np.ones(self.grid.shape, bool) if self.counts is None else self.counts
        try:
            outside = np.nan if within else float(self.moving.min())
            moved = resample(self.moving, self.own, self.grid, outside=outside, through=through)
            counts = counts & np.isfinite(moved)  # all of them, unless `within`
            if self.seen is not None:
                fewest = _OVERLAP * min(_volume(counts, self.grid), _volume(self.seen, self.own))
                counts = counts & resample(self.seen, self.own, self.grid, "nearest", through=through)
                if _volume(counts, self.grid) < fewest:  # few voxels look alike by chance
                    return nothing
        except ValueError:  # the images do not meet
            return nothing
        if not counts.any():
            return nothing
        pair = self.fixed[counts], moved[counts]
        return _correlation(*pair) if metric == "correlation" else _information(*pair)


def levels(images: Level) -> list[Level]:
    """The levels of a search, coarse to fine."""
    spacing = min(images.grid.spacing)
    while np.prod(_coarser(images.grid, spacing).shape) > _FINEST:
        spacing *= 1.05
    return [images.at(spacing * factor) for factor in _COARSER]


def search(level: Level, kind: str, matrix: np.ndarray, metric: str = "mi") -> np.ndarray:
    """The matrix that is best at one level, `(4, 4)`, RAS+ mm of the fixed image to those of the moving one.

    Args:
        level: both images.
        kind: one of `KINDS`.
        matrix: where it starts; of this kind, or of one with fewer parameters.
        metric: one of `METRICS`.

    Raises:
        RegistrationFailed: what SimpleITK says, as where the images do not meet.
        ImportError: no SimpleITK.
    """
    sitk = itk.package(NEEDS)
    with _one_thread(sitk):
        return _searched(sitk, level, kind, matrix, metric)


def _searched(sitk, level: Level, kind: str, matrix: np.ndarray, metric: str) -> np.ndarray:
    n, frame = level.grid.ndim, _frame(level.grid)
    transform = _transform(sitk, kind, n)
    transform.SetCenter((level.grid.middle @ frame).tolist())
    _set(sitk, transform, frame.T @ matrix[:3, :3] @ frame, frame.T @ matrix[:3, 3])
    method = sitk.ImageRegistrationMethod()
    if metric == "correlation":
        method.SetMetricAsCorrelation()
    else:
        method.SetMetricAsMattesMutualInformation(_BINS)
    if level.counts is not None:
        method.SetMetricFixedMask(_to_itk(sitk, level.counts.astype(np.uint8), level.grid, frame))
    if level.seen is not None:
        method.SetMetricMovingMask(_to_itk(sitk, level.seen.astype(np.uint8), level.own, frame))
    # Gradients between neighbouring voxels: those of a recursive filter need four along each axis.
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetInterpolator(sitk.sitkLinear)
    # The first step takes no point further than a voxel; it is halved wherever the gradient turns round.
    farthest = {"estimateLearningRate": method.Once, "maximumStepSizeInPhysicalUnits": min(level.grid.spacing)}
    method.SetOptimizerAsRegularStepGradientDescent(1.0, _SMALLEST, _ITERATIONS, 0.5, 1e-8, **farthest)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(*(_to_itk(sitk, *one, frame) for one in ((level.fixed, level.grid), (level.moving, level.own))))
    except RuntimeError as error:
        raise RegistrationFailed(last_line(error)) from error
    return _matrix(transform, frame)


@contextmanager
def _one_thread(sitk) -> Iterator[None]:
    """Sums in one order, so the same result each time; a method's own number of threads does not reach its metric."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _coarser(grid: Grid, spacing: float) -> Grid:
    own, shape = np.array(grid.spacing), np.array(grid.shape)
    return model_grid(grid, np.clip(spacing, own, own * np.maximum(1, shape / _FEWEST)))


def _volume(there: np.ndarray, grid: Grid) -> float:
    """Of the voxels that count, mm³ or mm²."""
    return float(there.sum() * np.prod(grid.spacing))


def _frame(grid: Grid) -> np.ndarray:
    """`(3, N)`: the axes of the coordinates that ITK is given: those of the world, or two in the plane of the image."""
    return np.eye(3) if grid.ndim == 3 else np.linalg.qr(grid.linear)[0]


def _to_itk(sitk, array: np.ndarray, grid: Grid, frame: np.ndarray):
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(grid.spacing)
    image.SetDirection((frame.T @ grid.linear / grid.spacing).ravel().tolist())
    image.SetOrigin((frame.T @ grid.affine[:3, 3]).tolist())
    return image


def _transform(sitk, kind: str, n: int):
    if kind == "affine":
        return sitk.AffineTransform(n)
    return getattr(sitk, {"rigid": "Euler", "similarity": "Similarity"}[kind] + f"{n}DTransform")()


def _set(sitk, transform, linear: np.ndarray, offset: np.ndarray) -> None:
    """Make a transform with a centre c that of A·x + b: its translation is A·c + b − c."""
    centre = np.array(transform.GetCenter())
    transform.SetMatrix(linear.ravel().tolist(), *([] if isinstance(transform, sitk.AffineTransform) else [1e-6]))
    transform.SetTranslation((linear @ centre + offset - centre).tolist())


def _matrix(transform, frame: np.ndarray) -> np.ndarray:
    """`(4, 4)` in the world; across the plane of a 2-D image nothing moves."""
    n = transform.GetDimension()
    linear, centre = np.reshape(transform.GetMatrix(), (n, n)), np.array(transform.GetCenter())
    offset = np.array(transform.GetTranslation()) + centre - linear @ centre
    matrix = np.eye(4)
    matrix[:3, :3] += frame @ (linear - np.eye(n)) @ frame.T
    matrix[:3, 3] = frame @ offset
    return matrix


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1] ** 2)


def _information(first: np.ndarray, second: np.ndarray) -> float:
    """(H(A) + H(B)) / H(A, B)."""
    joint = np.histogram2d(first, second, _BINS)[0] / first.size
    both = _entropy(joint)
    return 1.0 if both == 0 else (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both


def _entropy(shares: np.ndarray) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())
