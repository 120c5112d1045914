"""Windows: round the heart (the paper's, which uses the label, and one that needs none) or round the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from hetmorph.data.normalise import minmax

MYOCARDIUM = 2
_BLUR_MM = 8.0
_HEART_MM = 20.0
_REACH_MM = 55.0
_PRIOR_MM = 50.0


def take(array: np.ndarray, center: tuple[float, ...], size: tuple[int, ...]) -> np.ndarray:
    """Cuts a window out of the first axes, as many as `size` has.

    The window is moved inside the image where it would stick out; only where the image itself is smaller
    than the window is there nothing to show, and the result is smaller too (see `fill`).

    Args:
        array: `[X, Y, …]`.
        center: centre of the window, voxels.
        size: voxels of the window along each axis.

    Returns:
        A view of shape `[min(X, size[0]), min(Y, size[1]), …]`.
    """
    return array[tuple(slice(start, start + length) for start, length in _window(array.shape, center, size))]


def fill(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Pads the first axes with zeros (background in normalised images and labels), centred, to at least `size`."""
    lacking = [max(0, wanted - have) for have, wanted in zip(array.shape, size, strict=False)]
    if not any(lacking):
        return array
    return np.pad(array, [(gap // 2, gap - gap // 2) for gap in lacking] + [(0, 0)] * (array.ndim - len(size)))


def cut_out(
    array: np.ndarray,
    center: tuple[float, ...] | None,
    size: tuple[int, ...],
    adjust: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Window round `center`, adjusted, then filled to `size`; with center None the whole array, adjusted."""
    if center is None:
        return np.ascontiguousarray(adjust(array))
    return np.ascontiguousarray(fill(adjust(take(array, center, size)), size))


def fit(
    array: np.ndarray,
    size: tuple[int, ...] | None,
    adjust: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Window round the middle of the array, adjusted, then filled to `size`; with size None the whole array."""
    return cut_out(array, None if size is None else tuple(n // 2 for n in array.shape), size, adjust)


def origin(shape: tuple[int, ...], size: tuple[int, ...] | None) -> np.ndarray:
    """Where `fit` puts the first voxel of an array, voxels of the window; what points move by.

    Args:
        shape: the shape of the array.
        size: sides of the window; None keeps the whole array.
    """
    if size is None:
        return np.zeros(len(shape))
    window = _window(shape, tuple(n // 2 for n in shape), size)
    gaps = [max(0, wanted - have) // 2 for have, wanted in zip(shape, size, strict=True)]
    return np.array([gap - start for gap, (start, _) in zip(gaps, window, strict=True)], float)


def fit_all(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray | None], size: tuple[int, ...] | None
) -> tuple[list[np.ndarray], list[np.ndarray | None], int]:
    """Images, each stretched to [0, 1], and labels in a window round the middle; number of labelled voxels outside."""
    kept = [one if one is None else fit(one, size) for one in labels]
    gone = sum(lost(one, part) for one, part in zip(labels, kept, strict=True) if one is not None)
    return [fit(image, size, minmax) for image in images], kept, gone


def myocardium_center(labels: np.ndarray) -> tuple[float, float] | None:
    """Centroid of the myocardium in the middle slice, or in the slice nearest to the middle that has any.

    Args:
        labels: `[X, Y, Z]` with 2 for myocardium.

    Returns:
        Voxel coordinates along X and Y, or None where the volume has no myocardium.
    """
    middle = labels.shape[2] // 2
    for index in sorted(range(labels.shape[2]), key=lambda z: abs(z - middle)):
        where = np.nonzero(labels[:, :, index] == MYOCARDIUM)
        if len(where[0]):
            return float(where[0].mean()), float(where[1].mean())
    return None


def motion_center(moving: np.ndarray, fixed: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Finds the heart without labels: it is where end-diastole and end-systole differ most.

    The absolute difference of the two frames, averaged over the middle half of the slices, blurred and
    weighted by a wide Gaussian round the image centre, has its highest place somewhere on the heart; a
    centroid of what lies within a heart's reach is followed from there to where it rests. On ACDC it lies 8
    mm (median) from the myocardium's centroid.

    Args:
        moving: `[X, Y, Z]`, any intensity unit.
        fixed: `[X, Y, Z]`, the same unit.
        spacing: millimetres per axis.

    Returns:
        Voxel coordinates along X and Y; the image centre where nothing moves.
    """
    depth = moving.shape[2]
    middle = slice(depth // 4, max(depth // 4 + 1, depth - depth // 4))
    energy = np.abs(moving[:, :, middle].astype(np.float64) - fixed[:, :, middle]).mean(axis=2)
    step = np.asarray(spacing[:2])
    grid = np.indices(energy.shape) * step[:, None, None]
    center = (np.array(energy.shape) - 1) / 2 * step
    energy = ndimage.gaussian_filter(energy, _BLUR_MM / step)
    energy = np.clip(energy - np.median(energy), 0, None) ** 2
    energy *= np.exp(-_squared_distance(grid, center) / (2 * _PRIOR_MM**2))
    if not energy.max() > 0:
        return tuple(float(value) for value in center / step)
    peak = np.unravel_index(np.argmax(ndimage.gaussian_filter(energy, _HEART_MM / step)), energy.shape)
    place = np.array(peak) * step
    for _ in range(10):
        weight = energy * (_squared_distance(grid, place) < _REACH_MM**2)
        if not weight.sum() > 0:
            break
        place = (weight * grid).sum(axis=(1, 2)) / weight.sum()
    return tuple(float(value) for value in place / step)


def _squared_distance(grid: np.ndarray, place: np.ndarray) -> np.ndarray:
    return ((grid - place[:, None, None]) ** 2).sum(axis=0)


def lost(labels: np.ndarray, cropped: np.ndarray) -> int:
    """Number of labelled voxels that a crop leaves outside."""
    return int(np.count_nonzero(labels) - np.count_nonzero(cropped))


def _window(shape: tuple[int, ...], center: tuple[float, float], size: tuple[int, int]) -> list[tuple[int, int]]:
    window = []
    for length, middle, wanted in zip(shape, center, size, strict=False):
        wanted = min(wanted, length)
        window.append((int(np.clip(round(middle) - wanted // 2, 0, length - wanted)), wanted))
    return window
