"""What files say of a pair besides its images: a mask of either, and the same landmarks in both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hetmorph.io.errors import DataError
from hetmorph.io.geometry import Grid
from hetmorph.io.images import Image, matched_grid
from hetmorph.io.points import read_points, world_points


def check_mask(mask: Image, image: Image) -> None:
    """Refuse what is no mask of an image.

    Args:
        mask: not 0 where the image counts.
        image: the image.

    Raises:
        DataError: a mask on another grid, or one in which nothing counts.
    """
    if mask.array.ndim != image.array.ndim or not matched_grid(mask, image).same(image.grid):
        raise DataError(
            f"{mask.path}: expected a mask on the grid of {image.path}, {_described(image.grid)}, received "
            f"{_described(mask.grid)}."
        )
    if not mask.array.any():
        raise DataError(f"{mask.path}: the mask is empty, so that no voxel would count.")


def read_landmarks(files: Sequence[Path], grids: Sequence[Grid], frame: str = "LPS") -> list[np.ndarray]:
    """Places of the same points in both images, `[P, 3]` RAS+ mm each.

    Args:
        files: tables of points, `.csv` or `.vtk`, of either image.
        grids: the grids of the two images, for points in voxels and of 2-D images.
        frame: frame of the points: "LPS", "RAS" or "voxel".

    Raises:
        DataError: a file that cannot be read, points that are not as many, not called alike, or not in this frame.
    """
    sets = [read_points(path) for path in files]
    counts = [len(one.coordinates) for one in sets]
    if counts[0] != counts[1]:
        raise DataError(f"{files[0]} holds {counts[0]} points, {files[1]} {counts[1]}: expected the same in both.")
    _check_names(files, *(one.names for one in sets))
    try:
        return [world_points(one.coordinates, grid, frame) for one, grid in zip(sets, grids, strict=True)]
    except ValueError as error:
        raise DataError(f"{files[0]}, {files[1]}: {error}.") from error


def _check_names(files: Sequence[Path], ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> None:
    if ours is None or theirs is None:
        return
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if one != other:
            raise DataError(
                f"{files[0]}, {files[1]}: expected the same points in the same order, received {one!r} and {other!r} "
                f"as number {number}."
            )


def _described(grid: Grid) -> str:
    origin = ", ".join(f"{value:.4g}" for value in grid.affine[:3, 3])
    spacing = " × ".join(f"{size:.4g}" for size in grid.spacing)
    return f"{' × '.join(map(str, grid.shape))} voxels of {spacing} mm from ({origin})"
