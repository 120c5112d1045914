"""Frames: which numbers a place has. Voxel indices, the unit cube, millimetres of the world."""

from collections.abc import Sequence

import numpy as np

from hetmorph.transforms.affine import Affine
from hetmorph.transforms.base import Transform
from hetmorph.transforms.composition import Composition


def unit_cube(shape: Sequence[int]) -> Affine:
    """From voxel indices to the unit cube, in which the first voxel is 0 and the last 1 along each axis.

    Args:
        shape: the shape of the grid, at least two voxels along each axis.

    Raises:
        ValueError: an axis of one voxel, which has no extent.
    """
    if min(shape) < 2:
        raise ValueError(f"the unit cube needs at least 2 voxels along each axis, received shape {tuple(shape)}")
    return Affine(np.diag(1 / (np.asarray(shape, float) - 1)), np.zeros(len(shape)))


def world(affine) -> Affine:
    """From voxel indices to millimetres of the world, by the affine of a header.

    Args:
        affine: `(N+1, N+1)`.
    """
    affine = np.asarray(affine, float)
    return Affine(affine[:-1, :-1], affine[:-1, -1])


def in_frame(transform: Transform, fixed: Affine, moving: Affine | None = None) -> Transform:
    """The same mapping of places, told in other numbers: F_moving∘φ∘F_fixed⁻¹.

    Args:
        transform: φ, from points of the fixed image to points of the moving one.
        fixed: F_fixed, from the numbers that φ takes to the others.
        moving: F_moving, from the numbers that φ gives; None if it is F_fixed.
    """
    return Composition(fixed if moving is None else moving, transform, fixed.inverse())
