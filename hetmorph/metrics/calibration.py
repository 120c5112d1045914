"""Is the predicted σ as large as the residuals are?

If the residual r of every voxel is drawn from N(0, σ²), then z = r / σ is standard normal, 68.3 % of the residuals lie
within ±σ and 95.4 % within ±2σ, and among voxels of like σ the root mean square residual equals σ.
`ranking.sparsification` asks for the order of the voxels only; these ask for the size.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from hetmorph.metrics.ranking import compared

BINS = 10


class Reliability(NamedTuple):
    """Predicted against observed spread in bins of σ, from the smallest to the largest; empty bins are left out.

    Attributes:
        predicted: root mean square σ of the voxels of a bin.
        observed: root mean square residual of the same voxels.
        count: number of voxels.
    """

    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray


def standardised(residual, sigma, mask=None) -> np.ndarray:
    """Residuals in units of their predicted standard deviation, z = r / σ, of the voxels that take part, flat.

    Args:
        residual: `[*S]`, fixed − moved.
        sigma: `[*S]`, predicted standard deviation, above 0, in the unit of the residual.
        mask: `[*S]` booleans, voxels that take part. None takes all.

    Raises:
        ValueError: shapes differ, values that are not finite, or a σ that is not positive.

    Example:
        >>> standardised([0.2, -0.1], [0.1, 0.1])
        array([ 2., -1.])
    """
    residual, sigma = _checked(residual, sigma, mask)
    return residual / sigma


def coverage(z, multiple: float = 1.0) -> float:
    """Share of the residuals within ±`multiple` σ; .683 for 1 and .954 for 2 where σ is right. NaN without voxels.

    Args:
        z: standardised residuals, as `standardised` returns them.
        multiple: half the width of the interval, in σ.
    """
    z = np.asarray(z)
    return float(np.mean(np.abs(z) <= multiple)) if z.size else float("nan")


def normal_distance(z) -> float:
    """Largest distance between the distribution function of z and that of N(0, 1): Kolmogorov's statistic.

    Between 0 and 1, without a p-value: neighbouring voxels are not independent. NaN without voxels.

    Args:
        z: standardised residuals of any shape, as `standardised` returns them.
    """
    z = np.sort(np.ravel(z))
    if not z.size:
        return float("nan")
    normal, steps = special.ndtr(z), np.arange(z.size + 1) / z.size
    return float(max(np.max(steps[1:] - normal), np.max(normal - steps[:-1])))


def reliability_curve(residual, sigma, mask=None, bins: int = BINS) -> Reliability | None:
    """Root mean square residual of voxels of like σ.

    Bins lie between quantiles of σ, so that they hold about as many voxels each; voxels of equal σ share a bin, and
    a constant map has one.

    Args:
        residual, sigma, mask: as in `standardised`.
        bins: number of bins.

    Returns:
        The curve, or None when the mask is empty.

    Raises:
        ValueError: as `standardised`, or bins < 1.

    Reference:
        Levi et al., Sensors 2022, doi:10.3390/s22155540.
    """
    residual, sigma = _checked(residual, sigma, mask)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not sigma.size:
        return None
    edges = np.unique(np.quantile(sigma, np.arange(1, bins) / bins))
    return binned(residual, sigma, edges)


def binned(residual, sigma, edges) -> Reliability:
    """The curve between given edges of σ; below the first and above the last are bins as well.

    Args:
        residual, sigma: flat, one of each voxel, as `standardised` takes them.
        edges: inner edges of the bins, ascending, in the unit of σ.
    """
    place = np.searchsorted(edges, sigma, side="right")
    counts, squares, errors = (
        np.bincount(place, weights, len(edges) + 1) for weights in (None, np.square(sigma), np.square(residual))
    )
    return from_sums(counts, squares, errors)


def from_sums(count, sigma_squares, residual_squares) -> Reliability:
    """The curve from sums over the voxels of each bin.

    Args:
        count: number of voxels.
        sigma_squares, residual_squares: sums of σ² and of r².
    """
    filled = np.asarray(count) > 0
    count = np.asarray(count)[filled]
    predicted, observed = (np.sqrt(np.asarray(x)[filled] / count) for x in (sigma_squares, residual_squares))
    return Reliability(predicted, observed, count)


def calibration_error(curve: Reliability | None) -> float:
    """Expected calibration error: mean |observed − predicted| over the bins, weighted by their voxels.

    In the unit of the residual; 0 where σ is right in every bin. NaN for None.

    Args:
        curve: what `reliability_curve` returned.

    Example:
        >>> calibration_error(reliability_curve([0.1, -0.1], [0.1, 0.1]))
        0.0
    """
    if curve is None:
        return float("nan")
    return float(np.average(np.abs(curve.observed - curve.predicted), weights=curve.count))


def _checked(residual, sigma, mask) -> tuple[np.ndarray, np.ndarray]:
    residual, sigma = compared(residual, sigma, mask, "residual and sigma")
    if (sigma <= 0).any():
        raise ValueError(f"sigma must be positive, got {sigma.min()}")
    return residual, sigma
