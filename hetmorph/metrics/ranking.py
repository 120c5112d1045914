"""Does a map of uncertainty point at the errors? Sparsification, correlations, and areas under curves.

The risk–coverage curve is the sparsification curve read the other way round: the mean error of the voxels that are
kept, against the share of them. Its errors are lengths (voxels), those of `ause` squares.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


class Sparsification(NamedTuple):
    """Curves over the removed fraction, all of the same length.

    Attributes:
        fraction: removed part of the voxels, 0 … (steps − 1)/steps.
        curve: mean squared error of the voxels left after removing the most uncertain.
        oracle: the same after removing those of largest error: no ranking does better.
    """

    fraction: np.ndarray
    curve: np.ndarray
    oracle: np.ndarray


def sparsification(sq_error, uncertainty, mask=None, steps: int = 50) -> Sparsification | None:
    """Mean squared error left after removing the most uncertain 0, 1/steps, 2/steps … of the voxels.

    Voxels of equal uncertainty are removed in no particular order: the curve is the expectation over all
    orders, so a constant map gives a flat curve and the order of the voxels in memory is immaterial.

    Args:
        sq_error: `[*S]`, squared error, not negative.
        uncertainty: `[*S]`; only its order matters, so σ, σ² and log σ² give the same curve.
        mask: `[*S]` booleans, voxels that take part. None takes all.
        steps: number of points on the curve; 50 removes 0, 2, … 98 %.

    Returns:
        The curves, or None when the mask is empty.

    Raises:
        ValueError: shapes differ, values that are not finite, negative errors, or steps < 2.

    Reference:
        Ilg et al., ECCV 2018, doi:10.1007/978-3-030-01234-2_40.
    """
    error, uncertainty = compared(sq_error, uncertainty, mask, "squared error and uncertainty")
    if (error < 0).any():
        raise ValueError(f"squared error cannot be negative, got {error.min()}")
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    if not error.size:
        return None
    kept = error.size - np.arange(steps) * error.size // steps
    by_uncertainty = _average_ties(error, uncertainty)
    return Sparsification(
        fraction=np.arange(steps) / steps,
        curve=np.cumsum(by_uncertainty)[kept - 1] / kept,
        oracle=np.cumsum(np.sort(error))[kept - 1] / kept,
    )


def ause(sq_error, uncertainty, mask=None, steps: int = 50) -> float:
    """Area under the sparsification error: between the sparsification curve and its oracle.

    In units of the squared error (not normalised), by the trapezoidal rule over the removed fraction. 0 is a
    perfect ranking; a constant map scores what removing voxels at random would. NaN when the mask is empty.

    Arguments and errors as `sparsification`.
    """
    return area(sparsification(sq_error, uncertainty, mask, steps))


def area(curves: Sparsification | None) -> float:
    """The area that `ause` reports, of curves already at hand; NaN for None.

    Args:
        curves: what `sparsification` returned.
    """
    if curves is None:
        return float("nan")
    gap = np.abs(curves.curve - curves.oracle)
    return float(np.sum(np.diff(curves.fraction) * (gap[1:] + gap[:-1]) / 2))


def pearson(a, b, mask=None) -> float:
    """Pearson's correlation of two maps over the voxels of a mask; NaN where either is constant, or of fewer than two.

    Args:
        a, b: `[*S]`.
        mask: `[*S]` booleans, voxels that take part. None takes all.

    Raises:
        ValueError: shapes differ, or values that are not finite.
    """
    a, b = compared(a, b, mask, "maps")
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a, b, mask=None) -> float:
    """Spearman's rank correlation, ties at their mean rank. Arguments and errors as `pearson`."""
    return pearson(*(stats.rankdata(one) for one in compared(a, b, mask, "maps")))


def auroc(values, positive, mask=None) -> float:
    """Area under the receiver operating characteristic: how often a positive voxel has the higher of two values.

    1 where every positive voxel lies above all others, 0.5 at random; equal values count half. NaN where all voxels are
    positive, or none is.

    Args:
        values: `[*S]`; only their order matters.
        positive: `[*S]` booleans.
        mask: `[*S]` booleans, voxels that take part. None takes all.

    Raises:
        ValueError: shapes differ, or values that are not finite.

    Example:
        >>> auroc([0.1, 0.3, 0.2], [False, True, False])
        1.0
    """
    values, positive = compared(values, positive, mask, "values and classes")
    inside = positive > 0
    count, others = np.count_nonzero(inside), np.count_nonzero(~inside)
    if not (count and others):
        return math.nan
    return float((stats.rankdata(values)[inside].sum() - count * (count + 1) / 2) / (count * others))


def aurc(error, uncertainty, mask=None) -> float:
    """Area under the risk–coverage curve: mean error of the k most certain voxels, averaged over all k.

    Voxels of equal uncertainty stand in no particular order, see `sparsification`.

    Args:
        error: `[*S]`, not negative, e.g. the length of the displacement's error in voxels.
        uncertainty: `[*S]`; only its order matters.
        mask: `[*S]` booleans, voxels that take part. None takes all.

    Returns:
        In the unit of the error; NaN for fewer than two voxels.

    Raises:
        ValueError: as `sparsification`.

    Reference:
        Geifman et al., Bias-reduced uncertainty estimation, ICLR 2019, arXiv:1805.08206.
    """
    return _areas(error, uncertainty, mask)[0]


def naurc(error, uncertainty, mask=None) -> float:
    """`aurc` between its two ends, (AURC − oracle) / (random − oracle): 0 ranks as the error does, 1 at random.

    Above 1 it is worse than at random. NaN where every voxel has the same error, or for fewer than two. Arguments and
    errors as `aurc`.

    Example:
        >>> naurc([0.0, 1.0, 2.0], [5, 6, 7]), naurc([0.0, 1.0, 2.0], [1, 1, 1])
        (0.0, 1.0)
    """
    area, oracle, random = _areas(error, uncertainty, mask)
    span = random - oracle
    return (area - oracle) / span if span > 1e-12 * abs(random) else math.nan


def _areas(error, uncertainty, mask) -> tuple[float, float, float]:
    """Area by the map, by the error itself, and at random."""
    size = np.size(error) if mask is None else np.count_nonzero(mask)
    curves = sparsification(error, uncertainty, mask, steps=max(size, 2)) if size != 1 else None
    if curves is None:
        return math.nan, math.nan, math.nan
    return float(curves.curve.mean()), float(curves.oracle.mean()), float(curves.curve[0])


def compared(one, other, mask, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Two maps `[*S]` as float64, the voxels of a mask alone, flat.

    Args:
        one, other: the maps.
        mask: `[*S]` booleans; None takes all voxels.
        what: what to call the two in an error.

    Raises:
        ValueError: shapes differ, or values that are not finite.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape:
        raise ValueError(f"{what} must have the same shape, got {one.shape} and {other.shape}")
    if mask is not None:
        mask = np.asarray(mask, bool)
        if mask.shape != one.shape:
            raise ValueError(f"{what} must have the same shape as the mask, got {one.shape} and {mask.shape}")
        one, other = one[mask], other[mask]
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError(f"{what} must be finite, got NaN or infinity")
    return one.ravel(), other.ravel()


def _average_ties(error: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Errors from the most certain to the most uncertain voxel, averaged over voxels of equal uncertainty."""
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(group.ravel(), weights=error) / size, size)
