"""How a grid lies on a page: which axes run across and down, from which side, and which slices are shown.

Points of a page are in *page units*: one is the smaller of the two voxel sizes, so that shapes are true.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

LONGEST = 256  # voxels of a picture's longer side; larger ones are shown in blocks
PIXELS = 400_000  # of one panel, over its slices
FEWEST_SLICES, MOST_SLICES = 5, 15
GRID_LINES, LINE_POINTS = 32, 128
MOST_POINTS = 5000  # of the contours of one map in one slice
# What lies towards the right and the bottom of the page, by the axis looked along, as radiologists read: an index into
# (right, anterior, superior) and a sign.
RADIOLOGICAL = {0: ((1, -1), (2, -1)), 1: ((0, -1), (2, -1)), 2: ((0, -1), (1, -1))}
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
OBLIQUE = 0.4  # direction cosine from which on an axis is named


@dataclass(frozen=True)
class View:
    """Planes of a grid as the page shows them.

    Attributes:
        shape: voxels of the grid along each axis.
        spacing: millimetres per array axis.
        across, down: array axes from left to right and from top to bottom.
        through: array axis of the slices; None for an image.
        flipped: whether `across` and `down` run against the array.
        slices: indices along `through` that are shown; (0,) for an image.
        start: the one shown first.
        sides: anatomical letters at "left", "right", "top" and "bottom"; empty where the orientation is not known.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    across: int
    down: int
    through: int | None
    flipped: tuple[bool, bool]
    slices: tuple[int, ...]
    start: int
    sides: dict[str, str]

    @property
    def unit_mm(self) -> float:
        """Millimetres of a page unit."""
        return min(self.spacing[self.across], self.spacing[self.down])

    @property
    def scale(self) -> tuple[float, float]:
        """Page units of a voxel, across and down."""
        return tuple(self.spacing[axis] / self.unit_mm for axis in (self.across, self.down))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture, page units."""
        return tuple(self.shape[axis] * scale for axis, scale in zip((self.across, self.down), self.scale, strict=True))

    @property
    def factor(self) -> int:
        """Voxels a side that are shown as one."""
        return math.ceil(max(self.shape[self.across], self.shape[self.down]) / LONGEST)

    @property
    def step(self) -> int:
        """Voxels between lines of a drawn grid."""
        return max(2, math.ceil(max(self.shape[self.across], self.shape[self.down]) / GRID_LINES))

    def plane(self, values: np.ndarray, index: int) -> np.ndarray:
        """A slice `[across, down, …]` of values `[*S, …]`, in the order of the array."""
        if self.through is not None:
            values = np.take(values, index, self.through)
        return values if self.across < self.down else values.swapaxes(0, 1)

    def picture(self, values: np.ndarray, index: int) -> np.ndarray:
        """The same as rows and columns of the page."""
        rows = self.plane(values, index).swapaxes(0, 1)
        return rows[:: -1 if self.flipped[1] else 1, :: -1 if self.flipped[0] else 1]

    def place(self, points: np.ndarray) -> np.ndarray:
        """Where points of the plane, `[..., 2]` voxels across and down, lie on the page."""
        lengths = np.array([self.shape[self.across], self.shape[self.down]])
        return (np.where(self.flipped, lengths - 1 - points, points) + 0.5) * self.scale

    def grid(self, displacement: np.ndarray, index: int) -> str:
        """Path of the lines x + u(x), in the plane, for every few voxels of a displacement `[*S, N]`."""
        field = self.plane(displacement, index)[..., [self.across, self.down]]
        points = self.place(np.moveaxis(np.indices(field.shape[:2]), 0, -1) + field)
        thin = math.ceil(max(field.shape[:2]) / LINE_POINTS)
        lines = [*points[:: self.step, ::thin], *points.swapaxes(0, 1)[:: self.step, ::thin]]
        return "".join(_path(line) for line in lines)

    def contour(self, values: np.ndarray, index: int, level: float) -> str:
        """Path of a contour line of values `[*S]`; "" where there is none."""
        plane = self.plane(values, index)
        lines = _contour_lines(plane.astype(float), level)
        return "".join(_path(self.place(line)) for line in _few_points(lines))

    def outline(self, mask: np.ndarray, index: int) -> str:
        """Path round a mask `[*S]`, closed where the mask meets the border."""
        plane = np.pad(self.plane(mask, index), 1).astype(float)
        return "".join(_path(self.place(line - 1)) for line in _few_points(_contour_lines(plane, 0.5)))


def view_of(shape, spacing, affine=None, region=None, start=None, axis: int | None = None) -> View:
    """The view of a grid.

    Without an affine, axes run as in the array, the first of a slice across, the second down. With one, as
    radiologists read: the patient's right on the left of axial and coronal slices, anterior on the left of sagittal.

    Args:
        shape: voxels of the grid along its two or three axes.
        spacing: millimetres per array axis.
        affine: `[4, 4]`, voxel index (a third of 0 for an image) to RAS+ millimetres; or None.
        region: `[*S]` booleans: slices are taken where there are any; None for all.
        start: index of the slice to begin with, the nearest shown is taken; None for the middle one.
        axis: array axis of the slices; None for that of the widest spacing, the last of equals.
    """
    through = None
    if len(shape) == 3:
        through = axis if axis is not None else max(range(3), key=lambda i: (spacing[i], i))
    plane = [i for i in range(len(shape)) if i != through]
    across, down, flipped, sides = *plane, (False, False), {}
    if affine is not None:
        across, down, flipped, sides = _read_as_radiologists(plane, np.asarray(affine, float))
    slices = (0,) if through is None else _slices(shape, through, region)
    middle = slices[len(slices) // 2] if start is None else min(slices, key=lambda i: abs(i - start))
    return View(tuple(shape), tuple(spacing), across, down, through, flipped, slices, middle, sides)


def _slices(shape, through: int, region) -> tuple[int, ...]:
    """Evenly spaced slices through the region, as many as keep the page small."""
    across, down = (n for axis, n in enumerate(shape) if axis != through)
    factor = math.ceil(max(across, down) / LONGEST)
    count = min(max(PIXELS * factor**2 // (across * down), FEWEST_SLICES), MOST_SLICES)
    inside = np.arange(shape[through])
    if region is not None and region.any():
        inside = np.flatnonzero(region.any(tuple(axis for axis in range(3) if axis != through)))
    chosen = np.linspace(inside[0], inside[-1], min(count, inside[-1] - inside[0] + 1)).round()
    return tuple(int(i) for i in np.unique(chosen))


def _read_as_radiologists(plane: list[int], affine: np.ndarray):
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    normal = np.cross(directions[:, plane[0]], directions[:, plane[1]])
    rightwards, downwards = RADIOLOGICAL[int(np.abs(normal).argmax())]
    across, down = sorted(plane, key=lambda axis: -abs(directions[rightwards[0], axis]))
    flipped = tuple(
        bool(directions[towards, axis] * sign < 0)
        for axis, (towards, sign) in ((across, rightwards), (down, downwards))
    )
    right, bottom = (
        directions[:, axis] * (-1 if flip else 1) for axis, flip in zip((across, down), flipped, strict=True)
    )
    ends = {"left": -right, "right": right, "top": -bottom, "bottom": bottom}
    return across, down, flipped, {side: _letters(direction) for side, direction in ends.items()}


def _letters(direction: np.ndarray) -> str:
    """Such as "R", or "RA" for an oblique direction."""
    order = np.argsort(-np.abs(direction), kind="stable")
    named = [i for i in order if abs(direction[i]) >= OBLIQUE] or order[:1]
    return "".join(LETTERS[i][int(direction[i] > 0)] for i in named)


def _few_points(lines: list[np.ndarray]) -> list[np.ndarray]:
    """The longest lines, as many as keep a page small: of noise, contours would be larger than the picture."""
    lines = sorted(lines, key=len, reverse=True)
    kept = np.cumsum([len(line) for line in lines]) <= MOST_POINTS
    return [line for line, keep in zip(lines, kept, strict=True) if keep]


def _contour_lines(plane: np.ndarray, level: float) -> list[np.ndarray]:
    """Lines `[points, 2]` in indices of `plane`."""
    if not plane.min() < level < plane.max():
        return []
    drawn = _axes().contour(plane.T, [level])
    try:
        return [line for line in drawn.allsegs[0] if len(line) > 1]
    finally:
        drawn.remove()


@functools.cache
def _axes():
    """Axes that nothing is ever shown of: making new ones takes longer than the contour."""
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def _path(points: np.ndarray) -> str:
    if not np.isfinite(points).all():
        return ""
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
