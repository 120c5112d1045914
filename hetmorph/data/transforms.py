"""Random spatial transforms that are known everywhere, not only at voxels: families that draw maps of points.

A map τ takes points `[..., N]`, voxel coordinates in array order, to points. An image is perturbed by pulling it
through, (A∘τ)(x) = A(τ(x)), see `displacement_of`. Affine maps are taken about the middle of the image, (size − 1)/2;
they act on voxels, so that on voxels that are no cubes a rotation is one of the grid and not of the anatomy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation as Orientation

from hetmorph import transforms
from hetmorph.transforms import Affine, Transform

Map = Callable[[np.ndarray], np.ndarray]
_CHUNK = 2**16  # points that a spline is evaluated at together


class Family:
    """A distribution of maps. Subclasses give `draw`; any function of points `[..., N]` will do as a map.

    Example:
        >>> class Flip(Family):
        ...     def draw(self, rng, shape):
        ...         return lambda points: np.asarray(shape) - 1 - points
    """

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> Map:
        """One map.

        Args:
            rng: source of the numbers.
            shape: spatial size of the image, voxels.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Translation(Family):
    """Shift along each axis, uniform in ± `fraction` of the image's size.

    Attributes:
        fraction: largest shift, as a share of the size.
    """

    fraction: float = 0.01

    def draw(self, rng, shape):
        return _affine(np.eye(len(shape)), shape, rng.uniform(-1, 1, len(shape)) * self.fraction * np.asarray(shape))


@dataclass(frozen=True)
class Shear(Family):
    """Every entry beside the diagonal uniform in ± `limit`.

    Attributes:
        limit: largest entry.
    """

    limit: float = 0.02

    def draw(self, rng, shape):
        ndims = len(shape)
        entries = rng.uniform(-self.limit, self.limit, (ndims, ndims))
        return _affine(np.where(np.eye(ndims, dtype=bool), 1, entries), shape)


@dataclass(frozen=True)
class Scale(Family):
    """One factor for all axes, uniform from `low` to `high`.

    Attributes:
        low, high: range of the factor.
    """

    low: float = 0.9
    high: float = 1.1

    def draw(self, rng, shape):
        return _affine(rng.uniform(self.low, self.high) * np.eye(len(shape)), shape)


@dataclass(frozen=True)
class Rotation(Family):
    """An angle uniform in ± `degrees`; in 3-D about an axis of any direction.

    Attributes:
        degrees: largest angle.
    """

    degrees: float = 5.0

    def draw(self, rng, shape):
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        if len(shape) == 2:
            cosine, sine = np.cos(angle), np.sin(angle)
            return _affine(np.array([[cosine, -sine], [sine, cosine]]), shape)
        if len(shape) != 3:
            raise ValueError(f"rotations are of 2-D and 3-D images, got shape {tuple(shape)}")
        axis = rng.normal(size=3)
        return _affine(Orientation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix(), shape)


@dataclass(frozen=True)
class BSpline(Family):
    """Displacement by uniform cubic B-splines, x + Σ cₖ β(x/spacing − k), each cₖ uniform in ± `amplitude` per axis.

    Exact at any point; beyond the border the displacement of the border holds. The map is one-to-one for certain only
    while the amplitude is below 0.4 of the spacing (Rueckert et al., MICCAI 2006, doi:10.1007/11866763_86). The
    defaults are those published for the perturbation, and fold.

    Attributes:
        spacing: between control points, voxels.
        amplitude: voxels.
    """

    spacing: float = 10.0
    amplitude: float = 12.5

    def draw(self, rng, shape):
        counts = [max(int(np.ceil((size - 1) / self.spacing)), 1) + 3 for size in shape]
        return Spline(rng.uniform(-self.amplitude, self.amplitude, (*counts, len(shape))), self.spacing)


@dataclass(frozen=True)
class Composition(Family):
    """One map of each family, the last applied first: τ(x) = τ₁(τ₂(… x)).

    (A∘τ₁)∘τ₂ = A∘(τ₁∘τ₂): an image is perturbed by the first of them first.

    Attributes:
        families: in the order of τ₁, τ₂, ….
    """

    families: tuple[Family, ...]

    def draw(self, rng, shape):
        maps = [family.draw(rng, shape) for family in self.families]
        if all(isinstance(one, Transform) for one in maps):
            return transforms.Composition(*maps)

        def composed(points):
            for one in reversed(maps):
                points = one(points)
            return points

        return composed


AFFINE = Composition((Translation(), Rotation(), Shear(), Scale()))
FAMILIES = {
    "translation": Translation(),
    "shear": Shear(),
    "scale": Scale(),
    "rotation": Rotation(),
    "affine": AFFINE,
    "bspline": BSpline(),
    "smooth-bspline": BSpline(spacing=16.0, amplitude=5.0),
    "composition": Composition((AFFINE, BSpline(spacing=16.0, amplitude=5.0))),
}


def family(transforms: str | Family | Sequence) -> Family:
    """A family by its name in `FAMILIES`, as it is, or composed of several.

    Raises:
        ValueError: no such name, or something else.
    """
    if isinstance(transforms, str) and transforms in FAMILIES:
        return FAMILIES[transforms]
    if isinstance(transforms, Family):
        return transforms
    if isinstance(transforms, (list, tuple)) and transforms:
        return Composition(tuple(family(one) for one in transforms))
    raise ValueError(f"transforms must be a Family, several, or one of {', '.join(FAMILIES)}; got {transforms!r}")


def displacement_of(transform: Map, points: np.ndarray) -> np.ndarray:
    """τ(x) − x at the voxels of an image, float32: `ops.warp` by it pulls the image through τ.

    Args:
        transform: a map of points.
        points: `grid_points` of the image.

    Raises:
        ValueError: the map returns another shape, NaN or infinity.
    """
    if isinstance(transform, (Spline, transforms.Composition)):
        return transform.displacement(points.shape[:-1])[0].astype(np.float32)
    moved = np.asarray(transform(points))
    if moved.shape != points.shape or not np.isfinite(moved).all():
        raise ValueError(
            f"a transform must take points {points.shape} to finite points of that shape, got {moved.shape}"
            + ("" if moved.shape != points.shape else " with NaN or infinity")
        )
    return (moved - points).astype(np.float32)


def _affine(matrix: np.ndarray, shape: Sequence[int], shift=0.0) -> Affine:
    """A matrix about the middle of an image, and a shift in voxels."""
    return Affine.about((np.asarray(shape) - 1) / 2, matrix, shift)


class Spline(Transform):
    """A transform by cubic B-splines; `BSpline` draws them.

    Args:
        coefficients: `[*K, N]` voxels; the first control point of an axis lies one spacing before its first voxel.
        spacing: between control points, voxels.
    """

    def __init__(self, coefficients: np.ndarray, spacing: float):
        self.spacing, self.ndims = spacing, coefficients.shape[-1]
        self._cells = [count - 3 for count in coefficients.shape[:-1]]
        strides = np.cumprod([1, *coefficients.shape[-2:0:-1]])[::-1]
        self._strides = [int(stride) for stride in strides]
        self._coefficients = np.ascontiguousarray(np.moveaxis(coefficients, -1, 0)).reshape(coefficients.shape[-1], -1)

    def __call__(self, points):
        flat = points.reshape(-1, points.shape[-1])
        moved = np.empty(flat.shape)
        for start in range(0, len(flat), _CHUNK):
            chunk = flat[start : start + _CHUNK]
            moved[start : start + _CHUNK] = chunk + self._displacement(chunk)
        return moved.reshape(points.shape)

    def displacement(self, shape: Sequence[int]) -> np.ndarray:
        """The displacement at the voxels of an image, `[1, *S, N]`: a product of matrices along each axis."""
        field = self._coefficients.reshape(-1, *(cells + 3 for cells in self._cells))
        for axis, size in enumerate(shape):
            cell, weights = self._place(np.arange(size), axis)
            matrix = np.zeros((size, field.shape[1]))
            for tap, along in enumerate(weights):
                matrix[np.arange(size), cell + tap] = along
            field = np.tensordot(field, matrix, (1, 1))  # the axis of the voxels comes last
        return np.moveaxis(field, 0, -1)[None]

    def _place(self, coordinates: np.ndarray, axis: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """First of the four control points of each coordinate along an axis, and their weights."""
        cells = self._cells[axis]
        place = np.clip(coordinates / self.spacing, 0, cells)
        cell = np.minimum(place.astype(np.intp), cells - 1)
        return cell, _basis(place - cell)

    def _displacement(self, points: np.ndarray) -> np.ndarray:
        row, weights = 0, []
        for axis, stride in enumerate(self._strides):
            cell, along = self._place(points[:, axis], axis)
            weights.append(along)
            row = row + cell * stride
        total = [0.0] * len(self._coefficients)
        for taps in itertools.product(range(4), repeat=len(weights)):
            where = row + sum(tap * stride for tap, stride in zip(taps, self._strides, strict=True))
            weight = 1.0
            for tap, along in zip(taps, weights, strict=True):
                weight = weight * along[tap]
            total = [one + weight * table[where] for one, table in zip(total, self._coefficients, strict=True)]
        return np.stack(total, -1)


def _basis(t: np.ndarray) -> list[np.ndarray]:
    """The four cubic B-splines that do not vanish at the fraction t of a cell."""
    s, square = 1 - t, t * t
    cube = square * t
    return [s * s * s / 6, (3 * cube - 6 * square + 4) / 6, (-3 * cube + 3 * square + 3 * t + 1) / 6, cube / 6]
