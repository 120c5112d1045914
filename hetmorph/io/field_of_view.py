"""Images resized to the voxels that a model takes, each from its own field of view."""

from __future__ import annotations

import numpy as np

from hetmorph.io.chain import Linear
from hetmorph.io.geometry import Grid, SupportsWorld, model_grid, pull_on


def fitted_grid(grid: Grid, shape: tuple[int, ...]) -> Grid:
    """The grid of so many voxels that covers the same box, edge to edge.

    Args:
        grid: the grid of the image.
        shape: voxels along each axis.
    """
    spacing = np.array(grid.spacing) * grid.shape / np.array(shape)
    return model_grid(grid, spacing=tuple(spacing), shape=shape)


def onto(moving: Grid, fixed: Grid, shape: tuple[int, ...]) -> Linear | None:
    """What takes the field of view of the fixed image to that of the moving one; None where they are the same.

    The point at a voxel of the fixed image, resized, goes to the point at the same voxel of the moving image, resized.

    Args:
        moving, fixed: the grids of the images, axes in the same order.
        shape: voxels that both are resized to.
    """
    there, here = (fitted_grid(grid, shape) for grid in (moving, fixed))
    if there.same(here):
        return None
    return Linear(there.affine @ np.linalg.inv(here.affine))


def resized(array: np.ndarray, grid: Grid, target: Grid, through: SupportsWorld | None = None) -> np.ndarray:
    """An image on other voxels, linear between its own, and not smoothed where they are coarser, as `io.resample` does.

    So the published models were trained.

    Args:
        array: `[*S]` on `grid`, 0 outside.
        grid: the grid of the array.
        target: grid of the result.
        through: from places of the target to those of the array; None: they are the same.

    Returns:
        `[*T]` float32.
    """

    def where(index: np.ndarray, _) -> np.ndarray:
        places = target.world(index.reshape(-1, target.ndim))
        return grid.index(places if through is None else through.world(places)).reshape(index.shape)

    return pull_on(array.astype(np.float32), target.shape, where, outside=0.0)
