"""NIfTI files: read completely or refused, their places in millimetres, written atomically."""

import gzip
import math
import warnings
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from hetmorph.io.atomic import suffix_of, write_bytes
from hetmorph.io.errors import UNREADABLE, DataError, DataWarning, damaged
from hetmorph.io.geometry import Grid

SUFFIXES = (".nii.gz", ".nii")
PAIRS = (".hdr", ".img")  # header and voxels in files of their own; Analyze has these endings too
_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}  # what does not say its unit is in mm, as every program takes it
_APART = 0.1  # voxels between sform and qform that are rounding


class Place(NamedTuple):
    """Where a header puts the voxels.

    Attributes:
        affine: `(4, 4)`, voxel index to RAS+ mm, whatever the unit of the header is.
        spacing: voxel size of each array axis, mm for space, `time_unit` for time.
        codes: those of sform and qform; that of a qform which names another place than the sform is 0.
        qform: such a qform, `(4, 4)` in mm, and its own code; else None.
        unit: unit of the header: "mm", "meter", "micron" or "unknown".
        time_unit: "sec", "msec", "usec" or "unknown".
    """

    affine: np.ndarray
    spacing: tuple[float, ...]
    codes: tuple[int, int]
    qform: tuple[np.ndarray, int] | None
    unit: str
    time_unit: str


def decode_nifti(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """A NIfTI-1 or -2 file, or pair, with all its voxels, checksum verified; DataError where that fails."""
    try:
        if suffix_of(path) in PAIRS:
            nifti = nib.load(path, mmap=False)
            if not isinstance(nifti, nib.Nifti1Pair):
                raise ValueError("the header is Analyze's")
            return nifti, np.asanyarray(nifti.dataobj)
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        version2 = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        nifti = (nib.Nifti2Image if version2 else nib.Nifti1Image).from_bytes(content)
        check_size(path, "NIfTI", nifti, len(content))
        return nifti, np.asanyarray(nifti.dataobj)
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, "NIfTI", error) from error


def check_size(path: Path, kind: str, image: nib.spatialimages.SpatialImage, held: int) -> None:
    """Refuse a header that promises more voxels than the file has, before memory is asked for them."""
    promised = math.prod(int(size) for size in image.shape) * image.get_data_dtype().itemsize
    held = max(held - int(image.dataobj.offset), 0)
    if promised > held:
        raise DataError(
            f"{path}: not a complete {kind} file: its header promises {image.shape} voxels, {promised} bytes, and it "
            f"holds {held}; it is truncated or damaged, fetch it again."
        )


def place_of(path: Path, nifti: nib.Nifti1Image) -> Place:
    """Where a NIfTI header puts its voxels; a `DataWarning` says where its fields contradict each other."""
    header = nifti.header
    unit, time_unit = _units(header)
    factor = _MM.get(unit, 1.0)
    zooms = [float(zoom) for zoom in header.get_zooms()]
    spacing = (*(zoom * factor for zoom in zooms[:3]), *zooms[3:])
    affine = _scaled(nifti.affine, factor)
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    place = Place(affine, spacing, (sform, qform), None, unit, time_unit)
    if not sform or not np.isfinite(affine).all():
        return place
    lengths = np.linalg.norm(affine[:3, :3], axis=0)[: len(spacing)]
    if not np.allclose(lengths, spacing[:3], rtol=1e-3, atol=0):
        _warn(f"{path}: pixdim says voxels of {_by(spacing[:3])} mm, the sform of {_by(lengths)} mm; the sform counts.")
        return place._replace(spacing=(*lengths.tolist(), *spacing[3:]), codes=(sform, 0))
    other = _qform(header, factor) if qform else affine
    apart = np.inf if other is None else _furthest(nifti.shape, affine - other)
    if apart <= _APART * lengths.min():
        return place
    where = "and its qform is no rotation" if other is None else f"its qform (code {qform}) {apart:.3g} mm from there"
    _warn(f"{path}: its sform (code {sform}) places the image, {where}; the sform counts.")
    return place._replace(codes=(sform, 0), qform=None if other is None else (other, qform))


def nifti_on(
    array: np.ndarray,
    grid: Grid,
    oriented: bool = True,
    further: tuple[float, ...] = (),
    qform: tuple[np.ndarray, int] | None = None,
) -> nib.Nifti1Image:
    """A NIfTI image in memory whose sform and qform both are the affine of a grid, with its codes, in mm.

    A sheared grid has no qform. Types that NIfTI has not, or few programs read, become the next larger ones.

    Args:
        array: `[*S, …]`.
        grid: where its first axes lie.
        oriented: whether the header states the affine as known.
        further: spacing of the axes after the spatial ones.
        qform: a qform of another place, and its code, to be kept beside the sform.
    """
    nifti = nib.Nifti1Image(array.astype(storable(array), copy=False), grid.affine)
    if array.ndim > grid.ndim:
        zooms = (*grid.spacing, *further, *[1.0] * array.ndim)
        nifti.header.set_zooms(zooms[: array.ndim])
    sform_code, qform_code = grid.codes if oriented else (0, 0)
    nifti.set_sform(grid.affine, sform_code)
    nifti.set_qform(*(qform or ((None, 0) if grid.sheared else (grid.affine, qform_code))))
    nifti.header.set_xyzt_units("mm", "sec")
    return nifti


def write_nifti(path: Path | str, nifti: nib.Nifti1Image) -> Path:
    """Writes a NIfTI image atomically; the same image gives the same bytes."""
    content = nifti.to_bytes()
    if suffix_of(path) == ".nii.gz":
        content = gzip.compress(content, 1, mtime=0)
    return write_bytes(path, content)


def _units(header: nib.Nifti1Header) -> tuple[str, str]:
    """Units of space and time; a number that NIfTI does not know is "unknown"."""
    code = int(header["xyzt_units"])
    units = nib.nifti1.unit_codes
    return tuple(units.label[part] if part in units.code else "unknown" for part in (code % 8, code - code % 8))


def _qform(header: nib.Nifti1Header, factor: float) -> np.ndarray | None:
    try:
        return _scaled(header.get_qform(), factor)
    except ValueError:  # a quaternion longer than 1
        return None


def _scaled(affine: np.ndarray, factor: float) -> np.ndarray:
    affine = np.array(affine, float)
    affine[:3] *= factor
    return affine


def _furthest(shape: tuple[int, ...], difference: np.ndarray) -> float:
    """The largest distance between where two affines place a corner voxel, mm."""
    ends = [*((0, size - 1) for size in shape[:3]), *[(0,)] * (3 - len(shape))]
    corners = np.array([(*corner, 1) for corner in product(*ends)])
    return float(np.linalg.norm(corners @ difference[:3].T, axis=1).max())


def _warn(text: str) -> None:
    warnings.warn(text, DataWarning, stacklevel=4)


def _by(lengths: tuple[float, ...] | np.ndarray) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)


def storable(array: np.ndarray) -> np.dtype:
    """The type that NIfTI stores: no booleans, half precision, or 64-bit integers where 32 bits do."""
    if array.dtype == bool:
        return np.dtype(np.uint8)
    if array.dtype == np.float16:
        return np.dtype(np.float32)
    if array.dtype in (np.int64, np.uint64):
        narrow = np.iinfo(np.int32)
        fits = array.size == 0 or (array.min() >= narrow.min and array.max() <= narrow.max)
        return np.dtype(np.int32 if fits else np.float64)
    return array.dtype
