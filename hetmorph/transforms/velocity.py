"""Transforms by stationary velocity fields."""

from __future__ import annotations

from functools import cached_property

from hetmorph.transforms.base import Transform
from hetmorph.transforms.displacement import Displacement


class Velocity(Transform):
    """φ = exp(v): where points are after unit time in a velocity field, by scaling and squaring.

    Args:
        velocity: v, `[B, *S, N]`, voxels per unit time.
        steps: squarings, see `ops.fields.integrate`.
        spacing: voxels of the image for one voxel of the field's grid, where that is coarser: voxel i of the field lies
            on voxel i · spacing of the image.

    Raises:
        ValueError: another shape.
    """

    def __init__(self, velocity, steps: int = 7, spacing: float = 1.0):
        self.velocity, self.steps, self.spacing = velocity, steps, spacing
        self.ndims = Displacement(velocity).ndims

    @cached_property
    def integral(self) -> Displacement:
        """The displacement after unit time, on the field's grid."""
        from hetmorph.ops import fields

        return Displacement(fields.integrate(self.velocity, self.steps))

    def __call__(self, points):
        points = self._checked(points, self.integral.field)
        return self.integral(points / self.spacing) * self.spacing

    def inverse(self) -> Velocity:
        """exp(−v): exact up to the steps of the integration."""
        return Velocity(-self.velocity, self.steps, self.spacing)
