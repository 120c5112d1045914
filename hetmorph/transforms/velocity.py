"""Transforms by stationary velocity fields."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hetmorph.transforms.arrays import is_tensor, sample, voxels
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
        ValueError: another shape, or steps below 0.
    """

    def __init__(self, velocity, steps: int = 7, spacing: float = 1.0):
        if steps < 0:
            raise ValueError(f"steps must be 0 or more, got {steps}")
        self.velocity, self.steps, self.spacing = velocity, steps, spacing
        self.ndims = Displacement(velocity).ndims

    @cached_property
    def integral(self) -> Displacement:
        """The displacement after unit time, on the field's grid."""
        if is_tensor(self.velocity):
            from hetmorph.ops import fields

            return Displacement(fields.integrate(self.velocity, self.steps))
        displacement = np.asarray(self.velocity, np.float64) / 2.0**self.steps
        points = voxels(displacement.shape[1:-1])
        for _ in range(self.steps):
            displacement = displacement + sample(displacement, points + displacement)
        return Displacement(displacement)

    def __call__(self, points):
        points = self._checked(points, self.integral.field)
        return self.integral(points / self.spacing) * self.spacing

    def inverse(self) -> Velocity:
        """exp(−v): exact up to the steps of the integration."""
        return Velocity(-self.velocity, self.steps, self.spacing)
