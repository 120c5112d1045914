"""What every adapter does with folders and files: find patients, read frames and labels, compare grids."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from hetmorph.io import DataError, Image, read_image
from hetmorph.io.images import find_image

ENVIRONMENT = "HETMORPH_DATA"


def root_folder(data_dir: Path | str | None, what: str, help_text: str) -> Path:
    """The folder given, else that of the environment variable HETMORPH_DATA.

    Args:
        data_dir: or None.
        what: entry that it should hold, e.g. "folder patientNNN of ACDC", for messages.
        help_text: how to get the data, for messages.

    Raises:
        DataError: neither is given or the folder does not exist.
    """
    given = data_dir or os.environ.get(ENVIRONMENT)
    if not given:
        raise DataError(f"no data folder was given, expected one with a {what}.\n{help_text}")
    root = Path(given).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder ({'--data-dir' if data_dir else ENVIRONMENT}).\n{help_text}")
    return root


def find_entries(
    data_dir: Path | str | None,
    pattern: str,
    inner: tuple[str, ...],
    what: str,
    help_text: str,
    kind: Callable[[Path], bool] = Path.is_dir,
) -> dict[str, Path]:
    """Finds what is named like a patient, in a folder or the first of some folders inside it that has any.

    Args:
        data_dir: see `root_folder`.
        pattern: regular expression of the whole file name; its first group is the patient's name.
        inner: folders to look into when the one given holds nothing, e.g. ("CAMUS", "CAMUS/database_nifti").
        what: what is looked for, as in `root_folder`.
        help_text: how to get the data, for messages.
        kind: what a path with a fitting name must be besides, e.g. `Path.is_dir`.

    Returns:
        {patient: path}, ordered by name.

    Raises:
        DataError: nothing is named so.
    """
    root = root_folder(data_dir, what, help_text)
    for folder in (root, *(root / name for name in inner)):
        if not folder.is_dir():
            continue
        found = ((re.fullmatch(pattern, path.name), path) for path in sorted(folder.iterdir()))
        entries = {match[1]: path for match, path in found if match and kind(path)}
        if entries:
            return entries
    raise nothing_found(root, what, help_text)


def nothing_found(root: Path, what: str, help_text: str) -> DataError:
    """The error that says what a folder holds instead of `what`."""
    entries = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    return DataError(f"{root}: found no {what}, it holds {entries}.\n{help_text}")


def read_array(path: Path, ndims: tuple[int, ...]) -> Image:
    """Reads an image whose file may carry more axes of length 1 than it has dimensions.

    Args:
        path: a file that `read_image` reads.
        ndims: numbers of dimensions it may have; last axes of length 1 are dropped down to the smallest.

    Raises:
        DataError: as `hetmorph.io.read_image`, or another number of dimensions.
    """
    image = read_image(path)
    array, spacing = image.array, image.spacing
    while array.ndim > min(ndims) and array.shape[-1] == 1:
        array, spacing = array[..., 0], spacing[:-1]
    if array.ndim not in ndims:
        expected = " or ".join(map(str, ndims))
        raise DataError(
            f"{path}: expected an image with {expected} dimensions, received shape {image.array.shape}; "
            "save one frame or one channel a file."
        )
    return replace(image, array=array, spacing=spacing)


def read_frame(stem: Path, ndim: int, what: str) -> Image:
    """Reads `stem.nii.gz` or `stem.nii`; DataError says what is missing."""
    path = find_image(stem)
    if path is None:
        raise DataError(f"{stem}.nii.gz: no such file ({what}); add it or leave the case out (--skip-bad).")
    return read_array(path, (ndim,))


def frame_of(cine: Image, number: int, name: str) -> Image:
    """One frame, counted from 1, of a cine `(X, Y, Z, T)`; DataError where there are fewer."""
    if number > cine.array.shape[3]:
        raise DataError(f"{cine.path}: {name} is frame {number}, the file holds {cine.array.shape[3]} frames.")
    return replace(cine, array=cine.array[..., number - 1], spacing=cine.spacing[:3])


def read_labels(stem: Path, frame: Image, labels: Mapping[str, int]) -> np.ndarray | None:
    """Reads the segmentation of a frame.

    Args:
        stem: path without suffix.
        frame: the image that it belongs to.
        labels: {structure: value} that may occur beside 0.

    Returns:
        uint8 array of the frame's shape, or None where the file does not exist.

    Raises:
        DataError: it lies on another grid or holds other values.
    """
    path = find_image(stem)
    if path is None:
        return None
    image = read_array(path, (frame.array.ndim,))
    check_same_grid(frame, image)
    return checked_labels(path, image.array, labels)


def checked_labels(path: Path, array: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
    """The array as uint8; DataError where it holds values other than 0 and those of `labels`."""
    values = np.unique(array)
    if not np.isin(values, (0, *labels.values())).all():
        shown = ", ".join(f"{value:g}" for value in values[:8])
        expected = ", ".join(["0 background", *(f"{value} {name}" for name, value in labels.items())][:6])
        more = f" … {max(labels.values())}" if len(labels) > 5 else ""
        raise DataError(f"{path}: expected the labels {expected}{more}; received values {shown}.")
    return array.astype(np.uint8)


def check_same_grid(one: Image, other: Image) -> None:
    """The same shape, voxel size, orientation and place, as far as the headers state them."""
    for what, expected, received in (
        ("shape", one.array.shape, other.array.shape),
        ("spacing (mm)", one.spacing, other.spacing),
    ):
        if len(expected) != len(received) or not np.allclose(expected, received, rtol=0.01 * (what != "shape"), atol=0):
            raise DataError(
                f"{other.path}: expected {what} {expected} as in {one.path.name}, received {received}. "
                "Resample it onto the grid of that file."
            )
    if not (one.oriented and other.oriented):
        return
    ends = [(0, length - 1) for length in one.array.shape] + [(0,)] * (3 - one.array.ndim)
    corners = np.array([(*corner, 1) for corner in product(*ends)])
    apart = np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1).max()
    if apart > max(one.spacing[:2]):
        raise DataError(
            f"{other.path}: lies elsewhere than {one.path.name}, corners are up to {apart:.1f} mm apart: axes are "
            "flipped, turned or shifted. Give both files the same affine."
        )
