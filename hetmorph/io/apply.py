"""Images and labels through a transform, interpolated once, from their own grid to that of the fixed image."""

from __future__ import annotations

import numpy as np

from hetmorph.io.geometry import Grid, pull_on
from hetmorph.io.transforms import Transform

LABEL_METHODS = ("linear", "nearest")


def warp_image(
    transform: Transform, array: np.ndarray, moving: Grid, method: str = "linear", outside: float | None = 0.0
) -> np.ndarray:
    """The moving image on the grid of the fixed one.

    Args:
        transform: fixed to moving.
        array: `[*S]` or `[*S, T]` on `moving`; every frame goes through the same transform.
        moving: grid of the array, which may differ from the fixed one.
        method: "linear" or "nearest".
        outside: value where the moving image has no voxel within half a voxel, as ITK counts it; None repeats its edge.

    Returns:
        Array of the fixed shape; of the array's own type for "nearest", else float32, or float64 as the array.

    Raises:
        ValueError: the shape is not that of `moving`, or a number of axes that is not the transform's.
    """
    _check(transform, array, moving)
    return pull_on(array, transform.grid.shape, transform.where(moving), method, outside)


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
        ValueError: values that are no whole numbers, an unknown method, or shapes that do not fit.
    """
    _check(transform, labels, moving)
    if labels.ndim != moving.ndim:
        raise ValueError(f"expected labels {moving.shape}, received {labels.shape}")
    if method not in LABEL_METHODS:
        raise ValueError(f"labels are warped by one of {LABEL_METHODS}, received {method!r}")
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ValueError("labels must be whole numbers; warp probabilities as an image")
    shape, where = transform.grid.shape, transform.where(moving)
    if method == "nearest":
        return pull_on(labels, shape, where, "nearest", 0)
    best = pull_on((labels == 0).astype(np.float32), shape, where, outside=0.0)
    moved = np.zeros(best.shape, labels.dtype)
    for value in np.unique(labels[labels != 0]):
        share = pull_on((labels == value).astype(np.float32), shape, where, outside=0.0)
        moved[share > best] = value
        best = np.maximum(best, share)
    return moved


def _check(transform: Transform, array: np.ndarray, moving: Grid) -> None:
    if moving.ndim != transform.grid.ndim:
        raise ValueError(f"a {transform.grid.ndim}-D transform for a moving image {moving.shape}")
    if array.shape[: moving.ndim] != moving.shape or array.ndim > moving.ndim + 1:
        raise ValueError(f"expected an array {moving.shape}, the grid of the moving image, received {array.shape}")
