"""Where voxels lie: grids in the world, images and displacements from one grid to another.

World coordinates are RAS+ millimetres, as in NIfTI headers. A voxel index x lies at `affine @ (x, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import nibabel as nib
import numpy as np
from scipy import ndimage

from hetmorph.transforms.sampling import inside, sampler

# ITK's coordinates: x and y run the other way.
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
# Voxel to RAS+ millimetres of an image without header, as ITK takes it: unit voxels along the axes of LPS.
NO_HEADER = np.diag([-1.0, -1.0, 1.0, 1.0])
_SNAP = 1e-6  # voxels; the rounding of affines in float32 must not blur what is a plain reordering of voxels
_SAME = 1e-4  # voxels between two grids that count as one
# A grid may have so many voxels for each of the image's along an axis, and in all whatever the image has.
_FINEST, _ALWAYS_FINE = 4, 2**24
_SLAB = 2**21  # voxels of which positions exist at the same time


class SupportsWorld(Protocol):
    """Anything that takes places `[…, 3]` to places, RAS+ mm."""

    def world(self, places: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and place of an image.

    Attributes:
        shape: voxels along 2 or 3 array axes.
        affine: `(4, 4)`, voxel index to RAS+ millimetres. A 2-D grid is the plane of index 0 along the third axis.
        codes: NIfTI's codes of sform and qform, which say what the world is: 1 the scanner's, 2 another image's, 3
            Talairach's, 4 MNI's; 0 is not stated.

    Raises:
        ValueError: another number of axes, an affine with NaN or infinity, or one whose axes are parallel or zero.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    codes: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        shape, affine = tuple(int(n) for n in self.shape), np.array(self.affine, float)
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"a grid has 2 or 3 axes of at least one voxel, received shape {shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"expected a finite affine (4, 4), voxel to RAS+ mm, received {affine.tolist()}")
        if len(shape) == 2 and not _independent(affine[:3, :3]):
            affine[:3, 2] = np.cross(_unit(affine[:3, 0]), _unit(affine[:3, 1]))
        if not _independent(affine[:3, :3]):
            raise ValueError(f"the voxel axes of the affine are parallel or zero: {affine.tolist()}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def linear(self) -> np.ndarray:
        """`(3, N)`: millimetres in RAS+ for one voxel along each axis."""
        return self.affine[:3, : self.ndim]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres from one voxel to the next along each axis."""
        return tuple(float(length) for length in np.linalg.norm(self.linear, axis=0))

    @property
    def sheared(self) -> bool:
        """Whether the axes are not at right angles; ITK knows no such image."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)

    @property
    def in_xy_plane(self) -> bool:
        """Whether a 2-D grid lies in a plane of constant z, the only ones that ITK's 2-D images know."""
        return self.ndim == 2 and bool(np.abs(self.affine[2, :2]).max() < 1e-4 * min(self.spacing))

    def world(self, index: np.ndarray) -> np.ndarray:
        """Places `[…, 3]` of voxel indices `[…, N]`, RAS+ mm."""
        return np.asarray(index, float) @ self.linear.T + self.affine[:3, 3]

    def index(self, world: np.ndarray) -> np.ndarray:
        """Voxel indices `[…, N]` of places `[…, 3]`, RAS+ mm; a 2-D grid projects onto its plane."""
        return (np.asarray(world, float) - self.affine[:3, 3]) @ np.linalg.pinv(self.linear).T

    def indices(self) -> np.ndarray:
        """Index of every voxel, `[*S, N]`, float64."""
        return grid_points(self.shape)

    def corners(self) -> np.ndarray:
        """Indices of the corner voxels, `[2^N, N]`."""
        return np.array(list(product(*((0, n - 1) for n in self.shape))), float)

    @property
    def middle(self) -> np.ndarray:
        """The place of its centre, `(3,)` RAS+ mm."""
        return self.world((np.array(self.shape) - 1) / 2)

    def part(self, low: Sequence[int], high: Sequence[int]) -> Grid:
        """The grid of its voxels from index `low` to before `high`, either of which may lie beyond it."""
        affine = self.affine.copy()
        affine[:3, 3] = self.world(low)
        return Grid(tuple(np.subtract(high, low)), affine)

    def same(self, other: Grid) -> bool:
        """Whether both have the same shape and their voxels lie on each other."""
        if self.shape != other.shape:
            return False
        apart = np.linalg.norm(self.world(self.corners()) - other.world(self.corners()), axis=-1).max()
        return bool(apart <= _SAME * min(self.spacing))


def model_grid(
    fixed: Grid,
    spacing: float | Sequence[float | None] | None = None,
    shape: Sequence[int | None] | None = None,
    orientation: str | None = None,
    slice_axis: int | None = None,
) -> Grid:
    """The grid on which a model sees an image: other axis order, voxel size or field of view, the same centre.

    Axes are permuted and flipped only, never turned: an oblique image stays oblique, and with neither `spacing` nor
    `shape` not a single voxel is interpolated.

    Args:
        fixed: grid of the fixed image.
        spacing: millimetres, one number or one for each axis of the result; None keeps the image's.
        shape: voxels for each axis of the result, about the same centre; None covers the image.
        orientation: what the axes of the result shall run towards, as nearly as they do, e.g. "RAS" or "LPS".
        slice_axis: axis of `fixed` that becomes the last; for 2-D models, which then take one slice after another.

    Returns:
        A grid of as many axes.

    Raises:
        ValueError: both `orientation` and `slice_axis`, a number of axes, spacing or shape out of range, or a spacing
            that leaves a single voxel along an axis, or makes hundreds of each.

    Example:
        >>> grid = model_grid(fixed.grid, spacing=1.0, orientation="LPS")
        >>> moving_array, fixed_array = (resample(i.array, i.grid, grid) for i in (moving, fixed))
    """
    turned = _reordered(fixed, orientation, slice_axis)
    n = fixed.ndim
    spacings = (spacing,) * n if spacing is None or np.isscalar(spacing) else tuple(spacing)
    shapes = (None,) * n if shape is None else tuple(shape)
    if len(spacings) != n or len(shapes) != n:
        raise ValueError(f"a {n}-D grid needs {n} spacings and sizes, received {spacings} and {shapes}")
    old = np.array(turned.spacing)
    new = np.array([own if wanted is None else wanted for own, wanted in zip(old, spacings, strict=True)], float)
    if not (np.isfinite(new).all() and new.min() > 0 and all(size is None or size > 0 for size in shapes)):
        raise ValueError(f"spacing (mm) and shape must be above 0, received {spacings} and {shapes}")
    covering = np.maximum(np.ceil(np.array(turned.shape) * old / new - 1e-3), 1)
    size = [int(cover if wanted is None else wanted) for cover, wanted in zip(covering, shapes, strict=True)]
    if spacing is not None:
        _check_spacing(turned, new, size)
    affine = turned.affine.copy()
    affine[:3, :n] *= new / old
    affine[:3, 3] = turned.middle - affine[:3, :n] @ ((np.array(size) - 1) / 2)
    return Grid(tuple(size), affine)


def _check_spacing(grid: Grid, spacing: np.ndarray, size: Sequence[int]) -> None:
    """Refuse a spacing that cannot be meant: a typing error would take all memory, or all of the image."""
    given = f"a spacing of {' × '.join(f'{step:.4g}' for step in spacing)} mm"
    image = f"an image of {grid.shape} voxels of {' × '.join(f'{step:.4g}' for step in grid.spacing)} mm"
    if math.prod(size) > max(_FINEST**grid.ndim * math.prod(grid.shape), _ALWAYS_FINE):
        raise ValueError(f"{given} makes {' × '.join(map(str, size))} voxels of {image}; give one near those")
    if any(new == 1 < old for new, old in zip(size, grid.shape, strict=True)):
        raise ValueError(f"{given} leaves a single voxel along an axis of {image}; give one near those")


def through_plane(grid: Grid) -> int:
    """The axis across the slices of a stack: that of the largest spacing, the last of equal ones.

    Args:
        grid: grid of a volume, or anything else with `spacing`.
    """
    spacing = np.round(grid.spacing, 3)
    return int(np.flatnonzero(spacing == spacing.max())[-1])


def resample(
    array: np.ndarray,
    source: Grid,
    target: Grid,
    method: str = "linear",
    outside: float = 0.0,
    through: SupportsWorld | None = None,
) -> np.ndarray:
    """An image on another grid, voxels matched by their place in the world.

    Where the target is coarser, the image is first averaged with a triangle as wide as a target voxel, so that nothing
    aliases. Between equal grids, or where only the order of the axes changes, voxels are copied as they are.

    Args:
        array: `[*S]` or `[*S, C]` on `source`.
        source, target: grids of as many axes.
        method: as `sampling.sampler`.
        outside: value of target voxels more than half a voxel outside the source, as ITK counts it.
        through: a transform, whose `world` takes places of the target to those of the source; None: they are the same.

    Returns:
        `[*T]` or `[*T, C]`: the array's own type for "nearest" and reorderings, else float32, or float64 as the array.

    Raises:
        ValueError: unknown method, the shape is not that of `source`, or no voxel of the target lies in it.
    """
    _check_shape(array, source)
    if through is None and source.same(target):
        return array
    matrix, offset = index_map(source, target)
    overlap = []

    def where(index: np.ndarray, rows: slice) -> np.ndarray:
        there = index @ matrix.T + offset if through is None else source.index(through.world(target.world(index)))
        overlap.append(inside(there, source.shape).any())
        return there

    whole = not (np.abs(matrix - np.round(matrix)).any() or np.abs(offset - np.round(offset)).any())
    reordering = through is None and whole and np.abs(matrix).max() == 1
    if method != "nearest" and not reordering:
        array = _smoothed(array, np.abs(matrix).max(1))
    there = pull_on(array, target.shape, where, "nearest" if reordering else method, outside)
    if not any(overlap):
        raise ValueError(
            f"the images do not overlap: none of the {target.shape} target voxels lies in the {source.shape} voxels of "
            "the source; their headers place them apart"
        )
    return there


def pull_on(
    array: np.ndarray,
    shape: tuple[int, ...],
    where: Callable[[np.ndarray, slice], np.ndarray],
    method: str = "linear",
    outside: float | None = None,
) -> np.ndarray:
    """Values of an image for every voxel of another grid, slab by slab: positions take more memory than the images.

    Args:
        array: `[*S]` or `[*S, C]`.
        shape: voxels of the other grid, `(*T)`.
        where: positions in the array, `[*R, N]`, for the indices `[*R, N]` of a slab and its rows of the first axis.
        method, outside: as for `sampling.sampler`.

    Returns:
        `[*T]` or `[*T, C]`.
    """
    values = sampler(array, len(shape), method, outside)
    return np.concatenate([values(where(index, rows)) for index, rows in slabs(shape)])


def slabs(shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, slice]]:
    """Voxel indices `[*R, N]` of one part of a grid after another, and its rows of the first axis."""
    step = max(1, _SLAB // math.prod(shape[1:]))
    for first in range(0, shape[0], step):
        rows = slice(first, min(first + step, shape[0]))
        index = grid_points((rows.stop - rows.start, *shape[1:]))
        index[..., 0] += rows.start
        yield index, rows


def convert_displacement(displacement: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """A displacement on another grid, its vectors in that grid's voxels; the mapping of the world stays the same.

    u_t(x) = L_t⁻¹·L_s·u_s(y), y the source index of the place of x, L voxels to millimetres. Linear between source
    voxels; outside the source the nearest edge vector.

    Args:
        displacement: `[*S, N]`, voxels of `source`.
        source, target: grids of N axes.

    Returns:
        `[*T, N]`, voxels of `target`, float32 or float64 as given.

    Raises:
        ValueError: the shapes do not fit.
    """
    n = source.ndim
    _check_shape(displacement, source)
    if displacement.shape[n:] != (n,):
        raise ValueError(f"expected a displacement {(*source.shape, n)} in voxels, received {displacement.shape}")
    if source.same(target):
        return displacement
    matrix, offset = index_map(source, target)
    vectors = pull_on(displacement, target.shape, lambda index, _: index @ matrix.T + offset)
    return (vectors @ np.linalg.pinv(matrix).T).astype(displacement.dtype)


def from_slices(displacements: Sequence[np.ndarray]) -> np.ndarray:
    """Displacements `[X, Y, 2]` of the slices of a stack as one `[X, Y, Z, 3]`, zero across the slices; voxels.

    Args:
        displacements: one displacement for each slice, in voxels of the slice.
    """
    stack = np.stack(displacements, axis=2)
    return np.concatenate([stack, np.zeros_like(stack[..., :1])], axis=-1)


def index_map(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Matrix M and offset t with y = M·x + t, x a target index and y the source index of the same place.

    Raises:
        ValueError: different numbers of axes, or planes more than a voxel apart.
    """
    if source.ndim != target.ndim:
        raise ValueError(f"expected two grids of as many axes, received shapes {source.shape} and {target.shape}")
    if source.ndim == 2:
        places = target.world(target.corners())
        apart = np.linalg.norm(source.world(source.index(places)) - places, axis=-1).max()
        if apart > max(source.spacing):
            raise ValueError(f"the two 2-D images lie in different planes, up to {apart:.1f} mm apart")
    inverse = np.linalg.pinv(source.linear)
    matrix, offset = inverse @ target.linear, inverse @ (target.affine[:3, 3] - source.affine[:3, 3])
    return tuple(np.where(np.abs(x - np.round(x)) < _SNAP, np.round(x), x) for x in (matrix, offset))


def grid_points(shape: Sequence[int]) -> np.ndarray:
    """Index of every voxel, `[*S, N]` float64."""
    return np.stack(np.indices(shape, dtype=np.float64), -1)


def _reordered(grid: Grid, orientation: str | None, slice_axis: int | None) -> Grid:
    """The same voxels with their axes permuted and flipped."""
    n, affine = grid.ndim, grid.affine.copy()
    if orientation is not None and slice_axis is not None:
        raise ValueError("orientation and slice_axis both choose the order of the axes: give one")
    if slice_axis is not None:
        if not 0 <= slice_axis < n:
            raise ValueError(f"a {n}-D grid has slice_axis 0 to {n - 1}, received {slice_axis}")
        order = [axis for axis in range(n) if axis != slice_axis] + [slice_axis]
        affine[:3, :n] = affine[:3, order]
        return Grid(tuple(grid.shape[axis] for axis in order), affine)
    if orientation is None:
        return grid
    if n != 3:
        raise ValueError(f"orientation {orientation!r} is for 3-D grids, received shape {grid.shape}")
    codes = orientation.upper()
    if len(codes) != 3 or any(len(set(pair) & set(codes)) != 1 for pair in ("RL", "AP", "SI")):
        raise ValueError(f"orientation must be three letters such as 'RAS' or 'LPS', received {orientation!r}")
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    shape = tuple(grid.shape[int(axis)] for axis in np.argsort(turn[:, 0]))
    return Grid(shape, affine @ nib.orientations.inv_ornt_aff(turn, grid.shape))


def _smoothed(array: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Each spatial axis averaged with a triangle of `steps` voxels to either side, where that is more than one."""
    for axis, step in enumerate(steps):
        if step > 1 + 1e-3:
            reach = np.arange(-int(np.floor(step)), int(np.floor(step)) + 1)
            weights = np.maximum(0, 1 - np.abs(reach) / step)
            kind = array.dtype if array.dtype.kind == "f" else np.float32
            array = ndimage.correlate1d(array.astype(kind), weights / weights.sum(), axis, mode="nearest")
    return array


def _check_shape(array: np.ndarray, grid: Grid) -> None:
    if array.shape[: grid.ndim] != grid.shape or array.ndim > grid.ndim + 1:
        raise ValueError(f"expected an array {grid.shape} on its grid, or with one more axis, received {array.shape}")


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(np.linalg.norm(vector), 1e-30)


def _independent(matrix: np.ndarray) -> bool:
    lengths = np.linalg.norm(matrix, axis=0)
    return bool(lengths.min() > 1e-12 and abs(np.linalg.det(matrix / lengths)) > 1e-4)
