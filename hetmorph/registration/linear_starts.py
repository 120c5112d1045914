"""Where the search for a linear transform starts: a gradient leads to the truth only from nearby."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hetmorph.io import Grid
from hetmorph.io.chain import Linear
from hetmorph.registration.linear_search import Level
from hetmorph.transforms.sampling import inside

STARTS = ("best", "header", "centre")
TURNED = "turned or shifted"
_WIDEST = 32  # voxels along the longest axis of the images that are looked through
_TURNS = {2: (15, 30, 45), 3: (15, 30)}  # degrees, each way
_SHIFTS = (0.15, 0.3)  # of the extent, each way
_INSIDE = 0.5  # of the fixed image, the part that has to meet the moving one
_KEPT = 3
_POINTS = 7  # along each axis, by which that is found


def starts_of(images: Level, start: str) -> dict[str, np.ndarray]:
    """Matrices `(4, 4)`, RAS+ mm of the fixed image to those of the moving one, by the names of these starts."""
    shift, moving, fixed = np.eye(4), images.moving, images.fixed
    if images.seen is not None and images.counts is not None:
        moving, fixed = moving * images.seen, fixed * images.counts
    shift[:3, 3] = _centre_of_mass(moving, images.own) - _centre_of_mass(fixed, images.grid)
    both = {"header": np.eye(4), "centre": shift}
    return both if start == "best" else {start: both[start]}


def further(starts: dict[str, np.ndarray], level: Level, metric: str) -> dict[str, np.ndarray]:
    """The turns and shifts of these starts after which coarse images look most alike.

    Args:
        starts: matrices by names.
        level: both images, at any resolution.
        metric: one of `METRICS`.

    Returns:
        Up to three matrices by names, "turned or shifted 1" and so on.
    """
    coarse = level.at(max(np.array(level.grid.shape) * level.grid.spacing) / _WIDEST)
    tried = [start @ motion for start, motion in itertools.product(starts.values(), _motions(coarse.grid))]
    scored = [(coarse.score(matrix, metric, within=True), matrix) for matrix in tried if _meets(matrix, coarse)]
    best = sorted(scored, key=lambda one: -one[0])[:_KEPT]
    return {f"{TURNED} {number}": matrix for number, (_, matrix) in enumerate(best, 1)}


def best_of(ends: dict[str, np.ndarray], level: Level, metric: str) -> str:
    """The start whose end is most alike; one turned or shifted has to be it over all of the image and where they meet.

    What has left the moving image counts against a shift that is true, and what meets can look alike by chance.
    """
    scores = {name: [level.score(end, metric, within) for within in (False, True)] for name, end in ends.items()}
    plain = max((name for name in ends if not name.startswith(TURNED)), key=scores.get, default=None)
    if plain is None:
        return max(ends, key=scores.get)

    def better(name: str) -> bool:
        return name.startswith(TURNED) and _meets(ends[name], level) and np.all(np.greater(scores[name], scores[plain]))

    return max(filter(better, ends), key=scores.get, default=plain)


def _motions(grid: Grid) -> list[np.ndarray]:
    """Turns about the middle of a grid, each alone and with shifts along one axis."""
    axes = grid.linear / grid.spacing
    about = axes if grid.ndim == 3 else np.cross(axes[:, 0], axes[:, 1])[:, None]
    angles = [way * degrees for degrees in _TURNS[grid.ndim] for way in (-1, 1)]
    turns = [np.eye(3), *(Rotation.from_rotvec(a * n, degrees=True).as_matrix() for n in about.T for a in angles)]
    extents = (axes * np.array(grid.shape) * grid.spacing).T
    shifts = [np.zeros(3), *(way * part * extent for extent in extents for part in _SHIFTS for way in (-1, 1))]
    return [_about(grid.middle, turn, shift) for turn in turns for shift in shifts]


def _about(centre: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, centre + shift - turn @ centre
    return matrix


def _meets(matrix: np.ndarray, level: Level) -> bool:
    """Whether enough of the fixed image meets the moving one, by few points."""
    shape = np.array(level.grid.shape)
    points = np.stack(np.meshgrid(*(np.linspace(0, n - 1, _POINTS) for n in shape), indexing="ij"), -1)
    there = Linear(matrix).world(level.grid.world(points))
    return inside(level.own.index(there), level.own.shape).mean() >= _INSIDE


def _centre_of_mass(array: np.ndarray, grid: Grid) -> np.ndarray:
    return grid.world(ndimage.center_of_mass(array))
