"""Between napari's world and that of the library.

The axes of a layer are (…, Z, Y, X), those of an image (X, Y, Z, …). The world of a viewer has no directions of its
own: it is taken for that of ITK, LPS, in the order of the layer's axes, as readers of ITK's images for napari do.
Where layers state a unit of length, it counts; else one is a millimetre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hetmorph.io import DataError, Grid, Image
from hetmorph.io.geometry import RAS_TO_LPS


def image_of(data, to_world: np.ndarray, name: str, units: Sequence = ()) -> Image:
    """A layer as an image.

    Args:
        data: `[Z, Y, X]` or `[Y, X]`.
        to_world: `(N+1, N+1)`, from indices of the data to the world of the viewer.
        name: the name of the layer; errors are told with it.
        units: units of the axes of the world, as of `napari.layers.Layer.units`; none, or one that is no length: mm.

    Raises:
        DataError: voxels that are not real numbers, or another number of axes.
    """
    data = np.asarray(data)
    if data.dtype.kind not in "biuf" or data.ndim not in (2, 3):
        raise DataError(f"{name}: expected a 2-D or 3-D image of real numbers, received {data.dtype} {data.shape}.")
    if not np.isfinite(data).all():
        raise DataError(f"{name}: holds NaN or infinite voxels.")
    n, reverse, affine = data.ndim, slice(None, None, -1), np.eye(4)
    scale = np.array([millimetres(unit) for unit in units] or [1.0] * n)
    affine[:n, :n] = (scale[:, None] * to_world[:n, :n])[reverse, reverse]
    affine[:n, 3] = (scale * to_world[:n, n])[reverse]
    affine[:3] *= RAS_TO_LPS[:, None]
    spacing = tuple(float(length) for length in np.linalg.norm(affine[:3, :n], axis=0))
    array = data.T.astype(np.uint8) if data.dtype == bool else data.T
    return Image(array, spacing, affine, True, Path(name))


def affine_by(place: Callable, n: int) -> np.ndarray:
    """The matrix `(N+1, N+1)` of an affine function.

    Args:
        place: a place of N numbers, as `napari.layers.Layer.data_to_world`.
        n: N.
    """
    matrix, origin = np.eye(n + 1), np.array(place([0.0] * n))
    matrix[:n, :n] = np.transpose([np.array(place(row)) - origin for row in np.eye(n).tolist()])
    matrix[:n, n] = origin
    return matrix


def layer_affine(grid: Grid, axes: int | None = None) -> np.ndarray:
    """`(N+1, N+1)`: from indices of a layer that shows an array on a grid, its axes reversed, to the world, mm.

    A 2-D image in another plane than one of constant z has no place in a 2-D layer, and keeps its voxel size alone.

    Args:
        grid: the grid of the array.
        axes: number of axes of the layer, where it has more: those before the others are of one voxel each.
    """
    n, reverse = grid.ndim, slice(None, None, -1)
    lps = RAS_TO_LPS[:, None] * grid.affine[:3]
    if n == 2 and not grid.in_xy_plane:
        lps = np.diag([*grid.spacing, 1.0, 1.0])[:3]
    matrix, more = np.eye((axes or n) + 1), (axes or n) - n
    matrix[more:-1, more:-1] = lps[:n, :n][reverse, reverse]
    matrix[more:-1, -1] = lps[:n, 3][reverse]
    return matrix


def millimetres(unit) -> float:
    """One of a unit in millimetres; 1 where it is no length, as a pixel.

    Args:
        unit: a unit of the package pint.
    """
    return float((1 * unit).to("mm").magnitude) if (1 * unit).check("[length]") else 1.0


def in_length(units: Sequence) -> bool:
    """Whether any of the units is one of length.

    Args:
        units: units of the axes of a layer.
    """
    return any((1 * unit).check("[length]") for unit in units)
