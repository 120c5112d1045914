"""Images and labels through a transform, interpolated once, from their own grid to that of the fixed image."""

from collections.abc import Callable
from itertools import product

import numpy as np

from hetmorph.io.geometry import Grid, pull_on, slabs
from hetmorph.io.transforms import Transform
from hetmorph.transforms.sampling import inside

LABEL_METHODS = ("linear", "nearest")
_TIE = 1e-9


def warp_image(
    transform: Transform, array: np.ndarray, moving: Grid, method: str = "linear", outside: float | None = 0.0
) -> np.ndarray:
    """The moving image on the grid of the fixed one.

    Args:
        transform: fixed to moving.
        array: `[*S]` or `[*S, T]` on `moving`; every frame goes through the same transform.
        moving: grid of the array, which may differ from the fixed one.
        method: "linear", "nearest", "cubic" or "sinc"; see `sampling.sampler`.
        outside: value where the moving image has no voxel within half a voxel, as ITK counts it; None repeats its edge.

    Returns:
        Array of the fixed shape; of the array's own type for "nearest", else float32, or float64 as the array.

    Raises:
        ValueError: the shape is not that of `moving`, a number of axes that is not the transform's, or no voxel of the
            fixed image comes to lie in the moving one.
    """
    _check(transform, array, moving)
    return pull_on(array, transform.grid.shape, _meeting(transform, moving), method, outside)


def warp_labels(transform: Transform, labels: np.ndarray, moving: Grid, method: str = "linear") -> np.ndarray:
    """The segmentation of the moving image on the grid of the fixed one; 0 where there is none.

    "linear" interpolates the mask of each label by itself and takes the largest, background included; it follows a
    boundary between voxels, where "nearest" makes steps. Equal ones go to the smaller value.

    Args:
        transform: fixed to moving.
        labels: `[*S]` whole numbers on `moving`.
        moving: grid of the labels.
        method: "linear" or "nearest".

    Returns:
        Labels of the fixed shape, of the type given.

    Raises:
        ValueError: values that are no whole numbers, an unknown method, shapes that do not fit, or no voxel of the
            fixed image comes to lie among the labels.
    """
    _check(transform, labels, moving)
    if labels.ndim != moving.ndim:
        raise ValueError(f"expected labels {moving.shape}, received {labels.shape}")
    if method not in LABEL_METHODS:
        raise ValueError(f"labels are warped by one of {LABEL_METHODS}, received {method!r}")
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ValueError("labels must be whole numbers; warp probabilities as an image")
    shape, where = transform.grid.shape, _meeting(transform, moving)
    if method == "nearest":
        return pull_on(labels, shape, where, "nearest", 0)
    return np.concatenate([_largest_share(labels, where(index, rows)) for index, rows in slabs(shape)])


def _largest_share(labels: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The label with the largest sum of linear weights among the voxels round each position.

    The weights of the 2^N corners are compared with each other, so that the number of labels does not matter.
    """
    upper = np.array(labels.shape) - 1
    clipped = np.clip(positions, 0, upper)
    low = np.floor(clipped).astype(np.intp)
    part, high = clipped - low, np.minimum(low + 1, upper)
    values, weights = [], []
    for corner in product((False, True), repeat=len(upper)):
        values.append(labels[tuple(np.moveaxis(np.where(corner, high, low), -1, 0))])
        weights.append(np.where(corner, part, 1 - part).prod(-1))
    best, share = np.zeros(positions.shape[:-1], labels.dtype), np.zeros(positions.shape[:-1])
    for value in values:
        total = sum(np.where(other == value, weight, 0) for other, weight in zip(values, weights, strict=True))
        wins = (total > share + _TIE) | ((total > share - _TIE) & (value < best))
        best, share = np.where(wins, value, best), np.where(wins, total, share)
    return np.where(inside(positions, labels.shape), best, 0).astype(labels.dtype)


def _meeting(transform: Transform, moving: Grid) -> Callable[[np.ndarray, slice], np.ndarray]:
    """`transform.where(moving)`; ValueError after the last rows, if no voxel came to lie in the moving image."""
    where, last, met = transform.where(moving), transform.grid.shape[0], []

    def checked(index: np.ndarray, rows: slice) -> np.ndarray:
        positions = where(index, rows)
        met.append(inside(positions, moving.shape).any())
        if rows.stop == last and not any(met):
            raise ValueError(
                f"nothing to warp: none of the {transform.grid.shape} voxels of the fixed image is taken into the "
                f"{moving.shape} voxels of what is to be moved; their headers place them apart"
            )
        return positions

    return checked


def _check(transform: Transform, array: np.ndarray, moving: Grid) -> None:
    if moving.ndim != transform.grid.ndim:
        raise ValueError(f"a {transform.grid.ndim}-D transform for a moving image {moving.shape}")
    if array.shape[: moving.ndim] != moving.shape or array.ndim > moving.ndim + 1:
        raise ValueError(f"expected an array {moving.shape}, the grid of the moving image, received {array.shape}")
