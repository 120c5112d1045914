"""NIfTI images and arrays with geometry; whatever is wrong with a file is said with its name."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

SUFFIXES = (".nii.gz", ".nii")
_UNREADABLE = (
    EOFError,
    HeaderDataError,
    ImageFileError,
    MemoryError,
    OSError,
    ValueError,
    WrapStructError,
    zlib.error,
)


class DataError(ValueError):
    """A data file or folder that cannot be used; the message names it and says what would help."""


@dataclass(frozen=True, eq=False)
class Image:
    """One image as read from disk.

    Attributes:
        array: numpy array in the file's own axis order, `(X, Y, Z[, T])` for NIfTI; the header's scale and
            intercept are applied.
        spacing: voxel size of each array axis (mm for space, the header's unit for time).
        affine: `(4, 4)`, voxel index to RAS+ millimetres.
        oriented: whether the header states an orientation (sform or qform); without it `affine` is only a
            guess.
        path: the file.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray
    oriented: bool
    path: Path


def find_image(stem: Path | str) -> Path | None:
    """Returns the existing file `stem.nii.gz` or `stem.nii` (in this order), or None."""
    candidates = (Path(f"{stem}{suffix}") for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_image(path: Path | str, ndim: int | None = None, finite: bool = True) -> Image:
    """Reads a NIfTI file completely and checks it.

    The whole file is decompressed, so that its checksum is verified: a damaged gzip stream may otherwise
    decode to plausible voxels.

    Args:
        path: a `.nii` or `.nii.gz` file.
        ndim: number of dimensions that the array must have; None takes any.
        finite: refuse NaN and infinite voxels.

    Returns:
        An `Image`; see there for axes and units.

    Raises:
        DataError: the file is missing, damaged, not NIfTI, has another number of dimensions, is empty,
            holds colours or complex numbers, or holds voxels that are not finite.

    Example:
        >>> image = read_image("patient001_frame01.nii.gz", ndim=3)
        >>> image.array.shape, image.spacing
        ((216, 256, 10), (1.5625, 1.5625, 10.0))
    """
    path = Path(path)
    nifti, array = _decode(path)
    if ndim is not None and array.ndim != ndim:
        raise DataError(f"{path}: expected an image with {ndim} dimensions, received shape {array.shape}.")
    if array.dtype.kind not in "iufb":
        raise DataError(f"{path}: expected one real number a voxel, received data type {array.dtype}.")
    if array.size == 0:
        raise DataError(f"{path}: the image holds no voxel, shape {array.shape}.")
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        where = tuple(int(index) for index in bad[0])
        raise DataError(
            f"{path}: {len(bad)} voxels are NaN or infinite, the first at {where}; "
            "replace them in the file or leave the case out (--skip-bad)."
        )
    spacing = tuple(float(zoom) for zoom in nifti.header.get_zooms()[: array.ndim])
    oriented = bool(nifti.header["sform_code"] > 0 or nifti.header["qform_code"] > 0)
    return Image(array, spacing, np.asarray(nifti.affine, float), oriented, path)


def _decode(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        version2 = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        nifti = (nib.Nifti2Image if version2 else nib.Nifti1Image).from_bytes(content)
        return nifti, np.asanyarray(nifti.dataobj)
    except _UNREADABLE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{path}: not a complete NIfTI file, it may be truncated or damaged ({reason}); fetch it again."
        ) from error


def write_image(path: Path | str, array: np.ndarray, spacing, description: str = "") -> Path:
    """Writes an array as float32 NIfTI, complete or not at all; returns the path.

    Args:
        path: ends in .nii or .nii.gz; missing folders are made.
        array: `[X, Y]` or `[X, Y, Z]`; an image gets a third axis of one voxel.
        spacing: millimetres per array axis, or the affine `(N + 1, N + 1)` from voxel index to RAS+ millimetres.
        description: at most 79 bytes, for the header.

    Raises:
        ValueError: another ending or number of axes, or a spacing that does not fit.
    """
    path, array, spacing = Path(path), np.asarray(array, np.float32), np.asarray(spacing, float)
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    ndims = array.ndim
    if suffix is None or ndims not in (2, 3):
        raise ValueError(f"expected a path ending in {' or '.join(SUFFIXES)} and 2 or 3 axes, got {path} and {ndims}")
    affine = np.eye(4)
    if spacing.shape == (ndims,):
        affine[:ndims, :ndims] = np.diag(spacing)
    elif spacing.shape == (ndims + 1, ndims + 1):
        affine[:ndims, :ndims], affine[:ndims, 3] = spacing[:-1, :-1], spacing[:-1, -1]
    else:
        raise ValueError(f"expected {ndims} spacings or an affine {(ndims + 1, ndims + 1)}, got {spacing.shape}")
    nifti = nib.Nifti1Image(array[..., None] if ndims == 2 else array, affine)
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = description.encode()[:79]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name.removesuffix(suffix)}.{os.getpid()}.part{suffix}")
    nib.save(nifti, part)
    part.replace(path)
    return path
