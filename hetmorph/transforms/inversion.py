"""Where a displacement field takes its points from: the inverse, searched point by point.

φ(x) = x + u(x) is solved for x with u linear between voxels and that of the nearest edge voxel outside. Such a map is
continuous and equals a translation far away, so every point has a preimage; where φ does not fold it has one only.
Outside the grid it may fold even if it does not within: of a turn, the edges go on as translations.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

TOLERANCE = 1e-5  # voxels
_STEPS, _HALVINGS = 30, 6
_TOGETHER = 2**18  # points whose cells are in memory at the same time
_VOXELS_TRIED = 2**15  # as starts within the grid
_LEFT_TOGETHER = 2**12  # points whose candidate cells are in memory at the same time


class Preimages(NamedTuple):
    """Points that a field takes to given ones.

    Attributes:
        points: `[..., N]` float64, voxels.
        residual: `[...]` how far from the given ones φ takes them, voxels.
    """

    points: np.ndarray
    residual: np.ndarray


def preimages(displacement: np.ndarray, targets: np.ndarray, tolerance: float = TOLERANCE) -> Preimages:
    """Solves x + u(x) = y for every y.

    Newton steps, halved while they lead away, find most of the points. What they leave is looked for in every cell
    between voxels whose image may hold y; there the map is a polynomial, so that no kink can stop the steps. Where
    they end outside the grid, they start once more from within.

    Args:
        displacement: u, `[*S, N]`, voxels of its own grid.
        targets: y, `[..., N]`, voxels of that grid, anywhere.
        tolerance: residual in voxels at which a point counts as found.

    Raises:
        ValueError: the number of axes or coordinates does not fit, or there is NaN or infinity.
    """
    field, targets = np.asarray(displacement, np.float64), np.asarray(targets, np.float64)
    ndims = field.ndim - 1
    if field.shape[-1] != ndims or targets.shape[-1:] != (ndims,):
        raise ValueError(
            f"expected a displacement [*S, N] and targets [..., N], received {field.shape} and {targets.shape}"
        )
    if not (np.isfinite(field).all() and np.isfinite(targets).all()):
        raise ValueError("the displacement or the targets hold NaN or infinity")
    flat = targets.reshape(-1, ndims)
    points, residual = np.empty_like(flat), np.empty(len(flat))
    for start in range(0, len(flat), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        points[part], residual[part] = _newton(
            field, flat[part], flat[part] - _evaluate(field, flat[part])[0], tolerance
        )
    _prefer_within(field, flat, points, residual, tolerance)
    left = np.flatnonzero(residual > tolerance)
    if len(left):
        _search_cells(field, flat, points, residual, left, tolerance)
    return Preimages(points.reshape(targets.shape), residual.reshape(targets.shape[:-1]))


def _newton(
    field: np.ndarray, targets: np.ndarray, start: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton steps; a point rests once no fraction of its step lessens the residual."""
    points = start.copy()
    shift, slope = _evaluate(field, points)
    error = points + shift - targets
    residual = np.linalg.norm(error, axis=-1)
    active = np.flatnonzero(residual > tolerance)
    for _ in range(_STEPS):
        if not len(active):
            break
        step = _solve(slope[active], error[active])
        waiting, fraction = np.arange(len(active)), 1.0
        for _ in range(_HALVINGS):
            rows = active[waiting]
            tried = points[rows] - fraction * step[waiting]
            tried_shift, tried_slope = _evaluate(field, tried)
            tried_error = tried + tried_shift - targets[rows]
            tried_residual = np.linalg.norm(tried_error, axis=-1)
            better = tried_residual < residual[rows]
            kept = rows[better]
            points[kept], error[kept], slope[kept] = tried[better], tried_error[better], tried_slope[better]
            residual[kept] = tried_residual[better]
            waiting, fraction = waiting[~better], fraction / 2
            if not len(waiting):
                break
        rests = np.zeros(len(active), bool)
        rests[waiting] = True
        active = active[~rests & (residual[active] > tolerance)]
    return points, residual


def _prefer_within(field, targets, points, residual, tolerance) -> None:
    """Replaces in place points outside the grid, where steps from the nearest of some voxels end within it."""
    last = np.array(field.shape[:-1]) - 1
    step = math.ceil((math.prod(last + 1) / _VOXELS_TRIED) ** (1 / len(last)))
    voxels = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in last + 1), indexing="ij"), -1).reshape(-1, len(last))
    images = voxels + field[tuple(voxels.T)]
    reach = step + np.ptp(field.reshape(-1, len(last)), axis=0)
    near = ((targets >= images.min(0) - reach) & (targets <= images.max(0) + reach)).all(-1)
    rows = np.flatnonzero(near & _outside(points, last))
    tree = cKDTree(images) if len(rows) else None
    for start in range(0, len(rows), _TOGETHER):
        some = rows[start : start + _TOGETHER]
        nearest = voxels[tree.query(targets[some])[1]]
        found, left = _newton(field, targets[some], nearest.astype(float), tolerance)
        better = (left <= tolerance) & ~_outside(found, last)
        points[some[better]], residual[some[better]] = found[better], left[better]


def _outside(points: np.ndarray, last: np.ndarray) -> np.ndarray:
    return ((points < 0) | (points > last)).any(-1)


def _search_cells(field, targets, points, residual, left, tolerance) -> None:
    """Improves the points numbered `left` in place, trying every cell whose image may hold their target."""
    size = np.array(field.shape[:-1])
    around = np.stack(np.meshgrid(*(np.arange(-1, n) for n in size), indexing="ij"), -1).reshape(-1, len(size))
    # Beyond the grid the field is that of its edge: the cells of the border go on outwards, as far as u reaches.
    outwards = np.ceil(np.abs(field).max()) + 1
    values = np.stack(_corner_values(field, around), 1)
    ends = [np.where(around < 0, -outwards, around), np.where(around >= size - 1, size - 1 + outwards, around + 1)]
    sides = np.array(list(itertools.product((0, 1), repeat=len(size))))
    images = values + np.where(sides[None] == 1, ends[1][:, None], ends[0][:, None])
    centre = images.mean(1)
    radius = np.linalg.norm(images - centre[:, None], axis=-1).max(1)
    octave = np.ceil(np.log2(np.maximum(radius, 1e-3))).astype(int)
    for level in np.unique(octave):
        cells = np.flatnonzero(octave == level)
        tree = cKDTree(centre[cells])
        for start in range(0, len(left), _LEFT_TOGETHER):
            rows = left[start : start + _LEFT_TOGETHER]
            rows = rows[residual[rows] > tolerance]
            near = tree.query_ball_point(targets[rows], radius[cells].max() * (1 + 1e-9))
            whose = np.repeat(rows, [len(one) for one in near])
            if not len(whose):
                continue
            cell = cells[np.concatenate([np.asarray(one, np.intp) for one in near if one])]
            holds = np.linalg.norm(targets[whose] - centre[cell], axis=-1) <= radius[cell] * (1 + 1e-9)
            _keep_best(field, around[cell[holds]], whose[holds], targets, points, residual)


def _keep_best(field, lower, whose, targets, points, residual) -> None:
    """Tries cells for the points `whose`, and keeps for each the place with the smallest residual."""
    found, error = _in_cell(field, lower, targets[whose])
    for candidate in np.argsort(-error):  # the best comes last
        row = whose[candidate]
        if error[candidate] < residual[row]:
            points[row], residual[row] = found[candidate], error[candidate]


def _in_cell(field: np.ndarray, lower: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps on the polynomial of one cell for each target, kept within the cell; points and true residuals."""
    values = _corner_values(field, lower)
    size = np.array(field.shape[:-1])
    low = np.where(lower < 0, -np.inf, 0.0)
    high = np.where(lower >= size - 1, np.inf, 1.0)
    place = np.full(targets.shape, 0.5)
    for _ in range(_STEPS // 2):
        shift, slope = _contract(values, place)
        place = np.clip(place - _solve(slope, lower + place + shift - targets), low, high)
    points = lower + place
    return points, np.linalg.norm(points + _evaluate(field, points)[0] - targets, axis=-1)


def _evaluate(field: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u `[P, N]` and the Jacobian I + ∇u `[P, N, N]` of x + u(x) at points `[P, N]`."""
    last = np.array(field.shape[:-1]) - 1
    clipped = np.clip(points, 0, last)
    lower = np.minimum(np.floor(clipped).astype(np.intp), np.maximum(last - 1, 0))
    shift, slope = _contract(_corner_values(field, lower), clipped - lower)
    still = (points < 0) | (points > last)  # there u is constant along the axis
    if still.any():
        gradient = slope - np.eye(len(last))
        slope = np.eye(len(last)) + np.where(still[:, None, :], 0, gradient)
    return shift, slope


def _corner_values(field: np.ndarray, lower: np.ndarray) -> list[np.ndarray]:
    """u at the 2^N corners of cells, the last axis fastest; outside the grid, that of the nearest edge voxel."""
    last = np.array(field.shape[:-1]) - 1
    flat = field.reshape(-1, field.shape[-1])
    ends = [np.clip(lower + side, 0, last) for side in (0, 1)]
    strides = [math.prod(field.shape[axis + 1 : -1]) for axis in range(len(last))]
    rows = [[end[:, axis] * strides[axis] for end in ends] for axis in range(len(last))]
    return [flat[sum(corner)] for corner in itertools.product(*rows)]


def _contract(values: list[np.ndarray], place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multilinear interpolation at fractions `place`, and I + its derivative."""
    ndims = place.shape[-1]
    slope = np.empty((*place.shape, ndims))
    for axis in range(ndims):
        bit = 2 ** (ndims - 1 - axis)
        steps = [values[k + bit] - values[k] for k in range(len(values)) if not k & bit]
        slope[..., axis] = _along([place[:, other, None] for other in range(ndims) if other != axis], steps)
    return _along([place[:, axis, None] for axis in range(ndims)], values), slope + np.eye(ndims)


def _along(fractions: list[np.ndarray], values: list[np.ndarray]) -> np.ndarray:
    for f in reversed(fractions):
        values = [low + f * (high - low) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _solve(matrices: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Newton steps; where the matrix is nearly singular, the error itself, which is a fixed-point step."""
    singular = np.abs(np.linalg.det(matrices)) < 1e-6
    safe = np.where(singular[:, None, None], np.eye(errors.shape[-1]), matrices)
    return np.linalg.solve(safe, errors[..., None])[..., 0]
