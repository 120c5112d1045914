"""Transforms one after the other."""

from __future__ import annotations

from hetmorph.transforms.affine import Affine
from hetmorph.transforms.arrays import as_points, voxels
from hetmorph.transforms.base import Transform
from hetmorph.transforms.displacement import Displacement


class Composition(Transform):
    """φ₁∘φ₂∘…∘φₙ: points go through the last first. An image is warped by the first first.

    Points go through all of them, so that a field is read where the one before it leads, and nothing is interpolated
    twice. Affine neighbours become one.

    Args:
        transforms: φ₁, φ₂, …, of one number of axes, each from the frame that the next one leads to.

    Raises:
        ValueError: none, or of different numbers of axes.
    """

    def __init__(self, *transforms: Transform):
        dimensions = {transform.ndims for transform in transforms}
        if len(dimensions) != 1:
            raise ValueError(f"expected transforms of one number of axes, received {sorted(dimensions)}")
        self.ndims = dimensions.pop()
        self.transforms: list[Transform] = []
        for transform in transforms:
            for part in parts(transform):
                if self.transforms and isinstance(part, Affine) and isinstance(self.transforms[-1], Affine):
                    part = self.transforms.pop().after(part)
                self.transforms.append(part)

    @property
    def arrays(self) -> tuple:
        return sum((transform.arrays for transform in self.transforms), ())

    def __call__(self, points):
        points = self._checked(points)
        for transform in reversed(self.transforms):
            points = transform(points)
        return points

    def displacement(self, shape):
        """φ(x) − x at every voxel of a grid; a field on that grid need not be read between its voxels."""
        *outer, innermost = self.transforms
        start = voxels(shape, *self.arrays)
        points = start + innermost.displacement(shape) if isinstance(innermost, Displacement) else innermost(start)
        for transform in reversed(outer):
            points = transform(points)
        return points - as_points(start, points)

    def jacobian(self, points, step: float = 1e-3):
        """By the chain rule: as exact as those of the parts.

        Args:
            points: `[B, *T, N]`.
            step: as of the parts.
        """
        points, whole = as_points(self._checked(points), *self.arrays), None
        for transform in reversed(self.transforms):
            own = transform.jacobian(points, step)
            whole = own if whole is None else own @ whole
            points = transform(points)
        return whole

    def inverse(self) -> Composition:
        """The inverses in reverse order."""
        return Composition(*(transform.inverse() for transform in reversed(self.transforms)))


def parts(transform: Transform) -> list[Transform]:
    """What a composition is made of, φ₁, φ₂, …; of any other transform itself.

    Args:
        transform: any.
    """
    return transform.transforms if isinstance(transform, Composition) else [transform]
