"""Where a displacement comes from: the point that it takes to a given place, to a residual that is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

_ENOUGH = 1e-5  # voxels; a residual that needs no further step
_STEPS = 30  # of Newton's method
_HALVINGS = 8  # of one step
_STARTS = 6  # from other places, where the first gets stuck
_SLAB = 2**14  # points at a time: what belongs to them shall stay in the processor's cache


class Inverse:
    """The inverse of y ↦ y + u(y), u linear between voxels, outside the grid that of the nearest edge.

    Each point is found by Newton's method on f(y) = y + u(y) − x, a step halved until |f| falls. The derivative of u
    jumps from voxel to voxel, at which a step may find no way down: then the search starts again from the voxels that
    are taken nearest to x. Of several points, one within the grid is preferred.

    Args:
        displacement: `[*S, N]`, voxels.

    Reference:
        Deuflhard, Newton Methods for Nonlinear Problems, Springer 2004, doi:10.1007/978-3-642-23899-4 (damping).
    """

    def __init__(self, displacement: np.ndarray):
        self.shape = displacement.shape[:-1]
        self.vectors = np.asarray(displacement, float).reshape(-1, len(self.shape))

    def __call__(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points `[P, N]` taken to `targets` `[P, N]`, and what is left, f `[P, N]`; all in voxels."""
        points, errors = np.empty(targets.shape), np.empty(targets.shape)
        for first in range(0, len(targets), _SLAB):
            part = slice(first, first + _SLAB)
            points[part], errors[part] = self._some(targets[part])
        return points, errors

    def _some(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, errors = self._newton(targets - self._sample(targets)[0], targets)
        for rank in range(min(_STARTS, len(self.vectors))):
            wrong = np.linalg.norm(errors, axis=-1) > _ENOUGH
            again = np.flatnonzero(wrong | self._outside(points) if rank == 0 else wrong)
            if not again.size:
                break
            others, left = self._newton(self._start(targets[again], rank), targets[again])
            closer = np.linalg.norm(left, axis=-1) < np.linalg.norm(errors[again], axis=-1)
            found = (np.linalg.norm(left, axis=-1) <= _ENOUGH) & ~self._outside(others)
            better = np.where(wrong[again], closer, found)
            points[again[better]], errors[again[better]] = others[better], left[better]
        return points, errors

    def _outside(self, points: np.ndarray) -> np.ndarray:
        return ((points < 0) | (points > np.array(self.shape) - 1)).any(-1)

    def _start(self, targets: np.ndarray, rank: int) -> np.ndarray:
        """Beside the voxel that is taken nearest, or next to it: on it, derivatives of several cells meet."""
        nearest = self._taken.query(targets, [rank + 1])[1][:, 0]
        voxel = np.stack(np.unravel_index(nearest, self.shape), -1)
        return np.clip(voxel + 0.25 * np.sign(targets - self._taken.data[nearest]), 0, np.array(self.shape) - 1)

    @cached_property
    def _taken(self) -> cKDTree:
        """Where each voxel is taken."""
        return cKDTree(np.stack(np.indices(self.shape), -1).reshape(-1, len(self.shape)) + self.vectors)

    def _newton(self, points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From a start, as long as it gets nearer; the points, and f there."""
        points = points.copy()
        shift, derivative = self._sample(points)
        error = points + shift - targets
        residuals = np.linalg.norm(error, axis=-1)
        going = np.flatnonzero(residuals > _ENOUGH)
        for _ in range(_STEPS):
            if not going.size:
                break
            step = _solved(np.eye(len(self.shape)) + derivative[going], error[going])
            moved = self._down(going, step, points, targets, error, residuals, derivative)
            going = going[moved & (residuals[going] > _ENOUGH)]
        return points, error

    def _down(self, going, step, points, targets, error, residuals, derivative) -> np.ndarray:
        """Moves each point by the largest part of its step that brings it nearer; which of them moved."""
        moved, size = np.zeros(len(going), bool), 1.0
        for _ in range(_HALVINGS):
            left = np.flatnonzero(~moved)
            if not left.size:
                break
            index = going[left]
            tried = points[index] - size * step[left]
            shift, slope = self._sample(tried)
            rest = tried + shift - targets[index]
            length = np.linalg.norm(rest, axis=-1)
            nearer = length < (1 - 0.1 * size) * residuals[index]
            good = index[nearer]
            points[good], error[good], residuals[good] = tried[nearer], rest[nearer], length[nearer]
            derivative[good] = slope[nearer]
            moved[left[nearer]] = True
            size /= 2
        return moved

    def _sample(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u `[P, N]`, and ∂u_i/∂y_j `[P, N, N]` within the voxel, at points `[P, N]`."""
        n, upper = len(self.shape), np.array(self.shape) - 1
        clipped = np.clip(points, 0, upper)
        low = np.minimum(clipped.astype(np.intp), np.maximum(upper - 1, 0))
        part = np.repeat((clipped - low).T[..., None], n, axis=-1)  # [N, P, N]: whole rows are faster than broadcasts
        first = np.ravel_multi_index(tuple(low.T), self.shape)
        value, slopes = self.vectors[self._corners[..., None] + first], []
        for axis in range(n):  # the corners' axes are the leading ones, and are used up from the first
            difference = value[1] - value[0]
            value = value[0] + part[axis] * difference
            slopes = [slope[0] + part[axis] * (slope[1] - slope[0]) for slope in slopes] + [difference]
        within = (points >= 0) & (points <= upper) & (upper > 0)
        return value, np.stack(slopes, -1) * within[:, None]

    @cached_property
    def _corners(self) -> np.ndarray:
        """From a voxel to the 2^N round it, `[2, …]`, in voxels as they lie in memory; along one voxel to itself."""
        steps = [np.array([0, math.prod(self.shape[axis + 1 :]) * (size > 1)]) for axis, size in enumerate(self.shape)]
        return sum(np.ix_(*steps))


def _solved(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions `[P, N]` of systems of 2 or 3 equations, by Cramer's rule; where one has none, the right side."""
    columns = np.moveaxis(matrices, -1, 0)
    determinant = _determinant(columns)
    largest = np.abs(matrices).max((1, 2)) ** len(columns)
    solvable = np.abs(determinant) > 1e-9 * largest
    parts = [_determinant([*columns[:axis], right, *columns[axis + 1 :]]) for axis in range(len(columns))]
    return np.where(solvable[:, None], np.stack(parts, -1) / np.where(solvable, determinant, 1)[:, None], right)


def _determinant(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Of 2 or 3 columns `[P, N]`."""
    if len(columns) == 2:
        return columns[0][:, 0] * columns[1][:, 1] - columns[0][:, 1] * columns[1][:, 0]
    return (columns[0] * np.cross(columns[1], columns[2])).sum(-1)
