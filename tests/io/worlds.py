"""Grids and fields for the tests of files: oblique, anisotropic, flipped, and all of it at once."""

import numpy as np
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from hetmorph.io import Grid, Transform
from tests import reference

TURN = Rotation.from_euler("xyz", [0.3, -0.5, 0.2]).as_matrix()


def turn2d(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


GRIDS_3D = {
    "plain": Grid((12, 10, 9), from_matvec(np.diag([1.0, 1, 1]), [-5, 3, 7])),
    "anisotropic": Grid((14, 11, 6), from_matvec(np.diag([1.25, 1.5, 8]), [90, -120, 40])),
    "flipped": Grid((12, 10, 9), from_matvec(np.diag([-1.5, 2, -3]), [40, -20, 11])),
    "oblique": Grid((13, 11, 8), from_matvec(TURN @ np.diag([1.5, 1.5, 4]), [-80, 33, 12])),
    "oblique flipped permuted": Grid((9, 13, 11), from_matvec(TURN @ np.diag([1.2, -2, 3])[:, [2, 0, 1]], [5, 60, -9])),
}
GRIDS_2D = {
    "plain": Grid((16, 12), from_matvec(np.diag([-1.0, -1, 1]), [0, 0, 0])),
    "anisotropic flipped": Grid((16, 12), from_matvec(np.diag([1.5, -0.7, 1]), [-30, 12, 5])),
    "oblique": Grid((15, 13), from_matvec(turn2d(0.6) @ np.diag([1.4, 2.1, 1]), [10, -20, -3])),
    "oblique flipped": Grid((15, 13), from_matvec(turn2d(-2.1) @ np.diag([-0.8, 2.1, 3]), [10, -20, 0])),
}


def moving_of(grid):
    """A moving grid of other shape, voxel size and orientation about the same place."""
    n = grid.ndim
    turn = turn2d(0.1) if n == 2 else Rotation.from_euler("xyz", [0.1, -0.05, 0.08]).as_matrix()
    scale = np.diag([0.8, -0.9, 0.7][:n] + [1] * (3 - n))
    linear = turn @ grid.affine[:3, :3] @ scale
    shape = tuple(int(1.6 * size) + 4 for size in grid.shape)
    centre = grid.world((np.array(grid.shape) - 1) / 2)
    affine = from_matvec(linear, centre - linear[:, :n] @ ((np.array(shape) - 1) / 2))
    return Grid(shape, affine)


def smooth_transform(rng, grid, amplitude=1.5):
    return Transform(reference.smooth_field(rng, grid.shape, amplitude, 2.0), grid)


def ramps(grid):
    """Images of each index: linear interpolation of them returns the position itself."""
    return [grid.indices()[..., axis] for axis in range(grid.ndim)]
