"""Registrations whose answer to every transform is known: they are told what was drawn."""

import numpy as np

from hetmorph.data.transforms import Family
from hetmorph.io.geometry import grid_points


class Recorded(Family):
    """A family that remembers the maps it has drawn."""

    def __init__(self, inner):
        self.inner, self.maps = inner, []

    def draw(self, rng, shape):
        self.maps.append(self.inner.draw(rng, shape))
        return self.maps[-1]


class Linear(Family):
    """Always the same matrix about the first voxel."""

    def __init__(self, matrix, offset=0.0):
        self.matrix, self.offset = np.asarray(matrix, float), offset

    def draw(self, rng, shape):
        return lambda points: points @ self.matrix.T + self.offset


def linear_part(transform, ndims):
    """Matrix and offset of an affine map of points, read off at the origin and the unit vectors."""
    offset = transform(np.zeros((1, ndims)))[0]
    return (transform(np.eye(ndims)) - offset).T, offset


def smooth_map(shape):
    """φ*: a map of points that bends, `[*S, N]`."""
    points = grid_points(shape)
    return points + np.stack([np.sin(points[..., (d + 1) % len(shape)] / 5 + d) for d in range(len(shape))], -1)


class Equivariant:
    """φ = τ⁻¹∘φ* + ε for the affine τ that a recorded family has drawn, in its order.

    Args:
        recorded: the family.
        target: φ*, `[*S, N]`.
        error: function of the number of the call that returns ε, voxels.
        samples: calls for each τ.
    """

    def __init__(self, recorded, target, error=lambda call: 0.0, samples=1):
        self.recorded, self.target, self.error, self.samples = recorded, target, error, samples
        self.calls = 0

    def __call__(self, moving, fixed):
        transform = self.recorded.maps[self.calls // self.samples]
        matrix, offset = linear_part(transform, moving.ndim)
        answer = (self.target - offset) @ np.linalg.inv(matrix).T + self.error(self.calls)
        self.calls += 1
        return answer - grid_points(moving.shape)


def blob(shape, centre, width=2.0):
    """A Gaussian blob `[*S]` in [0, 1], cut off to 0 away from its centre."""
    distance = np.square(grid_points(shape) - np.asarray(centre)).sum(-1)
    return (np.exp(-distance / (2 * width**2)) * (distance < (3 * width) ** 2)).astype(np.float32)


def by_centre_of_mass(moving, fixed):
    """Shift the moving image's centre of mass onto the fixed one's: exactly equivariant to translations."""
    points = grid_points(moving.shape)
    centres = [
        np.tensordot(np.float64(one), points, moving.ndim) / one.sum(dtype=np.float64) for one in (moving, fixed)
    ]
    return np.broadcast_to(centres[0] - centres[1], points.shape)
