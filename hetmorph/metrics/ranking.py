"""Does a map of uncertainty point at the errors? Correlations, and the area under the risk–coverage curve.

The risk–coverage curve is the sparsification curve of `metrics.calibration` read the other way round: the mean error of
the voxels that are kept, against the share of them. Errors here are lengths (voxels), not squares.
"""

import math

import numpy as np
from scipy import stats

from hetmorph.metrics.calibration import sparsification


def pearson(a, b, mask=None) -> float:
    """Pearson's correlation of two maps over the voxels of a mask; NaN where either is constant, or of fewer than two.

    Args:
        a, b: `[*S]`.
        mask: `[*S]` booleans, voxels that take part. None takes all.

    Raises:
        ValueError: shapes differ, or values that are not finite.
    """
    a, b = _checked(a, b, mask)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a, b, mask=None) -> float:
    """Spearman's rank correlation, ties at their mean rank. Arguments and errors as `pearson`."""
    return pearson(*(stats.rankdata(one) for one in _checked(a, b, mask)))


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


def _checked(a, b, mask) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or (mask is not None and np.shape(mask) != a.shape):
        shapes = [np.shape(one) for one in (a, b, mask) if one is not None]
        raise ValueError(f"maps and mask must have the same shape, got {shapes}")
    if mask is not None:
        a, b = a[np.asarray(mask, bool)], b[np.asarray(mask, bool)]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("maps must be finite where they are compared, got NaN or infinity")
    return a.ravel(), b.ravel()
