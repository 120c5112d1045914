"""Transforms by stationary velocity fields."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hetmorph.transforms.arrays import is_tensor, sample, voxels
from hetmorph.transforms.base import Transform
from hetmorph.transforms.displacement import Displacement

INTEGRATIONS = {"squaring": 0, "midpoint": 1}  # and the fewest steps that each takes


def check_integration(method: str, steps: int) -> None:
    """Refuse a method of integration that does not exist, and too few steps of one that does."""
    if method not in INTEGRATIONS:
        raise ValueError(f"expected an integration by {' or '.join(INTEGRATIONS)}, got {method!r}")
    if steps < INTEGRATIONS[method]:
        raise ValueError(f"steps must be {INTEGRATIONS[method]} or more, got {steps}")


class Velocity(Transform):
    """φ = exp(v): where points are after unit time in a velocity field.

    Args:
        velocity: v, `[B, *S, N]`, voxels per unit time.
        steps: number of steps of the integration.
        spacing: voxels of the image for one voxel of the field's grid, where that is coarser: voxel i of the field lies
            on voxel i · spacing of the image.
        method: "squaring" integrates on the field's grid, see `ops.fields.integrate`, and interpolates the result: one
            reading a point is all it takes afterwards, but exp(−v) misses the inverse of exp(v) by what interpolation
            loses in each squaring. "midpoint" follows each point by itself through v, linear between voxels, by Runge
            and Kutta's method of second order: 2 · steps readings a point, and exp(−v) misses by the order of the
            integration alone.

    Raises:
        ValueError: another shape or method, or too few steps: squaring takes 0 or more, the midpoint's method 1.
    """

    def __init__(self, velocity, steps: int = 7, spacing: float = 1.0, method: str = "squaring"):
        check_integration(method, steps)
        self.velocity, self.steps, self.spacing, self.method = velocity, steps, spacing, method
        self.ndims, self.arrays = Displacement(velocity).ndims, (velocity,)

    @cached_property
    def integral(self) -> Displacement:
        """The displacement after unit time, on the field's grid, by squaring."""
        if is_tensor(self.velocity):
            from hetmorph.ops import fields

            return Displacement(fields.integrate(self.velocity, self.steps))
        displacement = np.asarray(self.velocity, np.float64) / 2.0**self.steps
        points = voxels(displacement.shape[1:-1])
        for _ in range(self.steps):
            displacement = displacement + sample(displacement, points + displacement)
        return Displacement(displacement)

    def __call__(self, points):
        points = self._checked(points, self.velocity)
        place = points / self.spacing
        return (self._followed(place) if self.method == "midpoint" else self.integral(place)) * self.spacing

    def _followed(self, points):
        for _ in range(self.steps):
            middle = points + sample(self.velocity, points) / (2 * self.steps)
            points = points + sample(self.velocity, middle) / self.steps
        return points

    def inverse(self) -> Velocity:
        """exp(−v): exact up to the integration."""
        return Velocity(-self.velocity, self.steps, self.spacing, self.method)
