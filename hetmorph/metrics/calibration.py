"""Does the predicted uncertainty rank the voxels by their error?"""

from typing import NamedTuple

import numpy as np


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
    error, uncertainty = _checked(sq_error, uncertainty, mask)
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
        curves: of `sparsification`.
    """
    if curves is None:
        return float("nan")
    gap = np.abs(curves.curve - curves.oracle)
    return float(np.sum(np.diff(curves.fraction) * (gap[1:] + gap[:-1]) / 2))


def _checked(sq_error, uncertainty, mask) -> tuple[np.ndarray, np.ndarray]:
    error = np.asarray(sq_error, dtype=np.float64)
    uncertainty = np.asarray(uncertainty, dtype=np.float64)
    if error.shape != uncertainty.shape:
        raise ValueError(f"error and uncertainty must have the same shape, got {error.shape}, {uncertainty.shape}")
    if mask is not None:
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != error.shape:
            raise ValueError(f"mask must have the shape of the error {error.shape}, got {mask.shape}")
        error, uncertainty = error[mask], uncertainty[mask]
    if not (np.isfinite(error).all() and np.isfinite(uncertainty).all()):
        raise ValueError("squared error and uncertainty must be finite, got NaN or infinity")
    if (error < 0).any():
        raise ValueError(f"squared error cannot be negative, got {error.min()}")
    return error.ravel(), uncertainty.ravel()


def _average_ties(error: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Errors from the most certain to the most uncertain voxel, averaged over voxels of equal uncertainty."""
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(group.ravel(), weights=error) / size, size)
