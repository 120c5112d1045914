"""Transforms by displacement fields, and their inverses."""

from __future__ import annotations

import numpy as np

from hetmorph.transforms.arrays import as_points, is_tensor, library, sample
from hetmorph.transforms.base import Transform
from hetmorph.transforms.inversion import preimages


class Displacement(Transform):
    """φ(x) = x + u(x), u linear between voxels and that of the nearest edge voxel outside its grid.

    Args:
        field: u, `[B, *S, N]`, voxels of its own grid.

    Raises:
        ValueError: another shape.
    """

    def __init__(self, field):
        ndims = len(field.shape) - 2
        if ndims not in (1, 2, 3) or field.shape[-1] != ndims:
            raise ValueError(f"expected a field [B, *S, N] of 1 to 3 axes, received shape {tuple(field.shape)}")
        self.field, self.ndims, self.arrays = field, ndims, (field,)

    def __call__(self, points):
        points = self._checked(points, self.field)
        return points + sample(self.field, points)

    def displacement(self, shape):
        """φ(x) − x at every voxel of a grid; on the field's own grid, the field itself."""
        own = not is_tensor(*shape) and tuple(shape) == tuple(self.field.shape[1:-1])
        return self.field if own else super().displacement(shape)

    def inverse(self) -> InverseDisplacement:
        """Searched point by point; exact up to rounding where nothing folds. Without gradients."""
        return InverseDisplacement(self)


class ContinuedDisplacement(Displacement):
    """φ(x) = x + u(x), which outside its grid goes on as it bends inside: u(x) = 2·u(edge) − u(mirrored at the edge).

    A displacement that is linear, as that of a rotation, is so outside as well; that of a `Displacement` stays there as
    at the nearest edge voxel.

    Args:
        field: u, `[B, *S, N]`, voxels of its own grid.
    """

    def __call__(self, points):
        points = self._checked(points, self.field)
        lib = library(points)
        last = as_points(lib.shape(self.field)[1:-1], points) - 1
        beyond = points - lib.minimum(lib.maximum(points, 0), last)
        return points + 2 * sample(self.field, points) - sample(self.field, points - 2 * beyond)

    def inverse(self):
        """Not known: outside its grid nothing is searched for.

        Raises:
            NotImplementedError: always.
        """
        return Transform.inverse(self)


class InverseDisplacement(Transform):
    """The inverse of a `Displacement`: each point is searched for, see `inversion.preimages`.

    Args:
        forward: the transform whose inverse it is.

    Attributes:
        residual: what the last call left, `[B, *T]`: how far from each point the forward transform takes what was
            found, voxels. Not 0 up to rounding only where the forward transform folds.
    """

    def __init__(self, forward: Displacement):
        self.forward, self.ndims, self.residual = forward, forward.ndims, None

    def __call__(self, points):
        asked, points = points, np.asarray(self._checked(points, self.forward.field), np.float64)
        fields = np.asarray(self.forward.field, np.float64)
        count = max(len(fields), len(points))
        found = [preimages(fields[i % len(fields)], points[i % len(points)]) for i in range(count)]
        self.residual = np.stack([one.residual for one in found])
        result = np.stack([one.points for one in found])
        return as_points(result, asked) if is_tensor(asked) else result

    def inverse(self) -> Displacement:
        """The forward transform."""
        return self.forward
