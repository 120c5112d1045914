"""Distances between the surfaces of two masks.

The surface of a mask is the set of its own voxels that have at least one face neighbour (4 in 2-D, 6 in 3-D)
outside the mask; beyond the border of the image counts as outside. Distances are Euclidean between voxel
centres, in the unit of `spacing`, or in voxels when no spacing is given. A mask without voxels has no
surface: every distance to or from it is NaN.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from hetmorph.metrics.overlap import binary_pair


def surface_distances(a, b, spacing: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every surface voxel of one mask to the nearest surface voxel of the other.

    Args:
        a: `[*S]`, False/True or 0/1.
        b: same shape.
        spacing: voxel size along each axis, for instance in mm. None measures in voxels.

    Returns:
        Distances from the surface of `a` to `b`, and from the surface of `b` to `a`; both empty when either
        mask is.

    Raises:
        ValueError: shapes differ, a mask is not binary, or the spacing does not fit.
    """
    a, b = binary_pair(a, b)
    spacing = _checked_spacing(spacing, a.ndim)
    if not (a.any() and b.any()):
        return np.empty(0), np.empty(0)
    points_a, points_b = _surface_points(a) * spacing, _surface_points(b) * spacing
    return cKDTree(points_b).query(points_a)[0], cKDTree(points_a).query(points_b)[0]


def surface_distance_map(a, b, spacing: Sequence[float] | None = None) -> np.ndarray:
    """The distances of the surface voxels of one mask to the other's, where they lie: `[*S]`, NaN elsewhere.

    Arguments and errors as `surface_distances`.
    """
    a, b = binary_pair(a, b)
    distances = np.full(a.shape, np.nan)
    if a.any() and b.any():
        distances[tuple(_surface_points(a).T)] = surface_distances(a, b, spacing)[0]
    return distances


def surface_scores(truth, prediction, spacing: Sequence[float] | None = None) -> dict[str, float]:
    """All the scores of this module, for two surfaces whose distances are computed once.

    Args:
        truth, prediction: masks `[*S]`, False/True or 0/1.
        spacing: as `surface_distances`.

    Returns:
        `hd`, `hd95`, `assd` and `asd`, as the functions of these names give them.

    Raises:
        ValueError: as `surface_distances`.
    """
    distances = surface_distances(truth, prediction, spacing)
    return {
        "hd": _directed_maximum(distances, 100),
        "hd95": _directed_maximum(distances, 95),
        "assd": _mean(np.concatenate(distances)),
        "asd": _mean(distances[0]),
    }


def hausdorff(a, b, spacing: Sequence[float] | None = None) -> float:
    """Hausdorff distance: the largest distance from either surface to the other (maximum of both directions).

    One stray voxel decides it; see `hausdorff95` for the robust form. Arguments as `surface_distances`.

    Example:
        >>> hausdorff([1, 1, 0, 0, 0], [1, 1, 1, 1, 0], spacing=[0.5])
        1.0
    """
    return _directed_maximum(surface_distances(a, b, spacing), 100)


def hausdorff95(a, b, spacing: Sequence[float] | None = None) -> float:
    """95th percentile Hausdorff distance: the larger of the two directed 95th percentiles.

    Pooling both directions before taking the percentile (MedPy) gives slightly smaller values. Arguments as
    `surface_distances`.

    Reference:
        Maier-Hein et al., Metrics reloaded, Nature Methods 2024, doi:10.1038/s41592-023-02151-z.
    """
    return _directed_maximum(surface_distances(a, b, spacing), 95)


def assd(a, b, spacing: Sequence[float] | None = None) -> float:
    """Average symmetric surface distance: mean over the surface voxels of both masks together.

    Arguments as `surface_distances`.

    Reference:
        Maier-Hein et al., Metrics reloaded, Nature Methods 2024, doi:10.1038/s41592-023-02151-z.
    """
    return _mean(np.concatenate(surface_distances(a, b, spacing)))


def asd(truth, prediction, spacing: Sequence[float] | None = None) -> float:
    """Average surface distance, one way: mean over the surface voxels of the truth of the distance to the
    prediction.

    Surplus in the prediction, far from any truth, does not count. Errors as `surface_distances`.

    Args:
        truth, prediction: masks `[*S]`, False/True or 0/1.
        spacing: voxel size along each axis, for instance in mm. None measures in voxels.
    """
    return _mean(surface_distances(truth, prediction, spacing)[0])


def _checked_spacing(spacing, ndims: int) -> np.ndarray:
    if spacing is None:
        return np.ones(ndims)
    checked = np.asarray(spacing, dtype=float)
    if checked.shape != (ndims,) or not (np.isfinite(checked).all() and (checked > 0).all()):
        raise ValueError(f"spacing must hold {ndims} positive numbers, one per axis, got {spacing!r}")
    return checked


def _surface_points(mask: np.ndarray) -> np.ndarray:
    # Erosion of the bounding box alone: a structure is usually a small part of the image.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inner = ndimage.binary_erosion(mask[box])
    return np.argwhere(mask[box] & ~inner) + [s.start for s in box]


def _directed_maximum(distances: tuple[np.ndarray, np.ndarray], percentile: float) -> float:
    if not distances[0].size:
        return float("nan")
    return float(max(np.percentile(d, percentile) for d in distances))


def _mean(distances: np.ndarray) -> float:
    return float(distances.mean()) if distances.size else float("nan")
