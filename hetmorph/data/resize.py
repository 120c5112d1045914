"""Images and labels on a grid of another size, for sets whose files differ in size and voxel."""

from __future__ import annotations

import numpy as np

from hetmorph.data.normalise import minmax
from hetmorph.data.pair import Pair
from hetmorph.io import Image

CROPS = ("paper", "aspect")


def resize(array: np.ndarray, size: tuple[int, ...], step: tuple[float, ...], nearest: bool = False) -> np.ndarray:
    """Samples an array on a grid with the same centre, as TensorFlow's `image.resize` with antialiasing does.

    Published models of such sets were trained on images made so; `io.resample` matches voxels by their headers instead.

    Linear, with a triangle as wide as the step where the grid becomes coarser, so that nothing aliases;
    voxels whose centre lies outside the array are 0.

    Args:
        array: `[*S]`.
        size: shape of the result.
        step: voxels of the array from one voxel of the result to the next, for each axis.
        nearest: take the nearest value instead, for labels.

    Returns:
        Array of shape `size`; float64, or the array's type if `nearest`.

    Example:
        >>> resize(np.arange(4.0), (2,), (2,))
        array([0.75, 2.25])
    """
    for axis, (wanted, one) in enumerate(zip(size, step, strict=True)):
        length = array.shape[axis]
        where = (np.arange(wanted) - (wanted - 1) / 2) * one + (length - 1) / 2
        inside = np.abs(where - (length - 1) / 2) <= length / 2
        if nearest:
            index = np.clip(np.floor(where + 0.5), 0, length - 1).astype(int)
            array = np.take(array, index, axis)
            array[(slice(None),) * axis + (~inside,)] = 0
        else:
            weights = np.maximum(0, 1 - np.abs(np.arange(length) - where[:, None]) / max(1, one))
            weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
            array = np.moveaxis(np.tensordot(weights * inside[:, None], array, (1, axis)), 0, axis)
    return array


def whole_view(
    shape: tuple[int, ...], spacing: tuple[float, ...], size: tuple[int, ...], crop: str
) -> tuple[float, ...]:
    """Voxel size that shows a whole image in `size` voxels.

    Args:
        shape: voxels of the image along each axis.
        spacing: millimetres per axis.
        size: voxels of the result along each axis.
        crop: "paper": every axis is stretched to its size; "aspect": voxels become cubes, so that the shape
            stays true, and what remains of the size is background.

    Returns:
        Millimetres per axis of the result.

    Raises:
        ValueError: `crop` is neither.
    """
    if crop not in CROPS:
        raise ValueError(f"expected crop to be one of {CROPS}, received {crop!r}.")
    stretched = tuple(length * width / wanted for length, width, wanted in zip(shape, spacing, size, strict=True))
    return (max(stretched),) * len(stretched) if crop == "aspect" else stretched


def resized_pair(
    case_id: str,
    patient: str,
    frames: list[Image],
    labels: list[np.ndarray | None],
    size: tuple[int, ...],
    crop: str,
) -> Pair:
    """A pair of two frames on one grid, resampled whole to `size`; each image is stretched to [0, 1] afterwards."""
    frame = frames[0]
    spacing = whole_view(frame.array.shape, frame.spacing, size, crop)
    step = tuple(new / old for new, old in zip(spacing, frame.spacing, strict=True))
    # stretched before as well: 0 outside the image is then its own darkest value
    images = [minmax(resize(minmax(one.array), size, step)) for one in frames]
    masks = [one if one is None else resize(one, size, step, nearest=True) for one in labels]
    return Pair(case_id, patient, None, None, *images, *masks, spacing)
