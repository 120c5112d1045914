"""Images on disk in, arrays with geometry out, and back; whatever is wrong with a file is said with its name."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from hetmorph.io.atomic import replacing, suffix_of, write_bytes
from hetmorph.io.geometry import NO_HEADER, Grid

SUFFIXES = (".nii.gz", ".nii")
_NUMPY = (".npz", ".npy")
_ITK = (".mha", ".mhd", ".nrrd")
READABLE = (*SUFFIXES, *_ITK, *_NUMPY, ".png")
_UNREADABLE = (
    EOFError,
    HeaderDataError,
    ImageFileError,
    MemoryError,
    OSError,
    SyntaxError,  # Pillow's word for a damaged PNG
    ValueError,
    WrapStructError,
    zipfile.BadZipFile,
    zlib.error,
)


class DataError(ValueError):
    """A data file or folder that cannot be used; the message names it and says what would help."""


class DataWarning(UserWarning):
    """Something about data that is probably not meant, though a result is defined."""


@dataclass(frozen=True, eq=False)
class Image:
    """One image as read from disk.

    Attributes:
        array: numpy array in the file's own axis order, `(X, Y[, Z[, T]])`; scale and intercept of the header are
            applied.
        spacing: voxel size of each array axis (mm for space, the header's unit for time).
        affine: `(4, 4)`, voxel index to RAS+ millimetres.
        oriented: whether the file states an orientation; without it `affine` is only a guess.
        path: the file.
        codes: as those of `Grid`.
        time_unit: unit of the spacing of a fourth axis: "sec", "msec", "usec", or "unknown".
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray
    oriented: bool
    path: Path
    codes: tuple[int, int] = (1, 1)
    time_unit: str = "sec"

    @property
    def grid(self) -> Grid:
        """Shape and place of the spatial axes, at most three; DataError where the header gives none."""
        try:
            return Grid(self.array.shape[:3], self.affine, self.codes)
        except ValueError as error:
            raise DataError(f"{self.path}: {error}.") from error

    @property
    def in_mm(self) -> bool:
        """Whether the file says how large its voxels are; a picture without a header has ones."""
        return self.oriented or any(size != 1 for size in self.spacing)

    def frames(self, ndim: int = 3) -> list[Image]:
        """The images of a sequence, whose last axis is time; itself alone, if it has `ndim` axes and no time.

        Raises:
            DataError: it has neither `ndim` nor `ndim + 1` axes.
        """
        if self.array.ndim == ndim:
            return [self]
        if self.array.ndim != ndim + 1:
            raise DataError(f"{self.path}: expected {ndim} axes, or one more of time, received {self.array.shape}.")
        spacing = self.spacing[:ndim]
        return [replace(self, array=self.array[..., t], spacing=spacing) for t in range(self.array.shape[-1])]


def matched_grid(moving: Image, fixed: Image) -> Grid:
    """Grid of the moving image in the world of the fixed one.

    That is what its header says, unless one of the two files states no orientation: then voxel lies on voxel.

    Args:
        moving, fixed: as `read_image` returns them.

    Raises:
        DataError: one states no orientation, and their shapes differ.
    """
    if moving.oriented and fixed.oriented:
        return moving.grid
    if moving.grid.shape == fixed.grid.shape:
        return fixed.grid
    silent = fixed if moving.oriented else moving
    raise DataError(
        f"{silent.path}: states no orientation, so the images can only be matched voxel by voxel, but their shapes are "
        f"{moving.grid.shape} and {fixed.grid.shape}; set sform or qform, or resample one of them."
    )


def find_image(stem: Path | str) -> Path | None:
    """Returns the existing file `stem.nii.gz` or `stem.nii` (in this order), or None."""
    candidates = (Path(f"{stem}{suffix}") for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_image(path: Path | str, ndim: int | None = None, finite: bool = True) -> Image:
    """Reads an image completely and checks it.

    A NIfTI file is decompressed whole, so that its checksum is verified: a damaged gzip stream may otherwise
    decode to plausible voxels. MetaImage, NRRD and DICOM need SimpleITK.

    Args:
        path: `.nii`, `.nii.gz`; `.mha`, `.mhd`, `.nrrd`; `.npz` (one array, or one called `vol`; perhaps `affine`),
            `.npy`; a grey `.png`, its columns as first axis; a folder with one DICOM series, or a file of one of
            several: slices at one place become the frames of a sequence.
        ndim: number of dimensions that the array must have; None takes any.
        finite: refuse NaN and infinite voxels.

    Returns:
        An `Image`; see there for axes and units.

    Raises:
        DataError: the file is missing, damaged, of another kind, has another number of dimensions, is empty, holds
            colours or complex numbers, holds voxels that are not finite, or an affine that places no voxels.
        ImportError: the format needs SimpleITK, which is missing.

    Example:
        >>> image = read_image("patient001_frame01.nii.gz", ndim=3)
        >>> image.array.shape, image.spacing
        ((216, 256, 10), (1.5625, 1.5625, 10.0))
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    image = _reader(path)(path)
    array = image.array
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
            "replace them in the file or leave the case out."
        )
    if not np.isfinite(image.affine).all():
        raise DataError(f"{path}: the affine of the header holds NaN or infinity; set its sform and qform.")
    return replace(image, array=array.astype(array.dtype.newbyteorder("="), copy=False))


def write_image(
    path: Path | str,
    array: np.ndarray,
    like: Image | Grid,
    dtype: np.dtype | str | None = None,
    description: str = "",
) -> Path:
    """Writes an array on the grid of an image, completely or not at all.

    Args:
        path: `.nii`, `.nii.gz`; `.mha`, `.nrrd` (with SimpleITK); `.npz`, `.npy`; `.png` for 2-D of 8 or 16 bits.
        array: `[*S]`, or `[*S, T]` for a sequence.
        like: the image whose grid it lies on, as a rule the fixed one; NIfTI also takes over whether it is oriented, in
            which world, and the unit of time.
        dtype: what to store; integers are rounded and clipped to their range. None takes that of the image `like`, or
            of the array.
        description: at most 79 bytes, for the header of NIfTI.

    Returns:
        The path.

    Raises:
        ValueError: another shape than the grid's, NaN for integers, or what the format cannot hold.
        OSError: the file cannot be written; a file that was there before is then still there.
        ImportError: the format needs SimpleITK, which is missing.

    Example:
        >>> write_image("moved.nii.gz", moved, like=fixed)
    """
    path, suffix, array = Path(path), suffix_of(path), np.asarray(array)
    grid = like if isinstance(like, Grid) else like.grid
    if isinstance(like, Grid):
        like = Image(array, like.spacing, like.affine, True, Path("this grid"))
    if array.shape[: grid.ndim] != grid.shape or array.ndim > grid.ndim + 1:
        raise ValueError(f"{path}: expected {grid.shape}, as {like.path.name}, received {array.shape}")
    array = _cast(array, np.dtype(like.array.dtype if dtype is None else dtype))
    step = (like.spacing[3],) if len(like.spacing) > 3 else (1.0,)
    if suffix in SUFFIXES:
        nifti = nifti_on(array, grid, like.oriented, step)
        nifti.header.set_xyzt_units("mm", like.time_unit)
        nifti.header["descrip"] = description.encode()[:79]
        return write_nifti(path, nifti)
    if suffix in _NUMPY:
        with replacing(path) as part:
            if suffix == ".npz":
                np.savez_compressed(part, vol=array, affine=grid.affine)
            else:
                np.save(part, array)
        return path
    if suffix == ".png":
        return _write_png(path, array)
    if suffix in (".mha", ".nrrd"):
        from hetmorph.io import itk

        seconds = step[0] * {"msec": 1e-3, "usec": 1e-6}.get(like.time_unit, 1.0)  # ITK has no unit but this
        return itk.write_image(path, array, grid, seconds)
    raise ValueError(f"{path}: images are written as .nii.gz, .nii, .mha, .nrrd, .npz, .npy or .png")


def nifti_on(array: np.ndarray, grid: Grid, oriented: bool = True, further: tuple[float, ...] = ()) -> nib.Nifti1Image:
    """A NIfTI image in memory whose sform and qform both are the affine of a grid, with its codes.

    A sheared grid has no qform. Types that NIfTI has not, or few programs read, become the next larger ones.

    Args:
        array: `[*S, …]`.
        grid: where its first axes lie.
        oriented: whether the header states the affine as known.
        further: spacing of the axes after the spatial ones.
    """
    nifti = nib.Nifti1Image(array.astype(_storable(array), copy=False), grid.affine)
    if array.ndim > grid.ndim:
        zooms = (*grid.spacing, *further, *[1.0] * array.ndim)
        nifti.header.set_zooms(zooms[: array.ndim])
    sform, qform = grid.codes if oriented else (0, 0)
    nifti.set_sform(grid.affine, sform)
    nifti.set_qform(*((None, 0) if grid.sheared else (grid.affine, qform)))
    nifti.header.set_xyzt_units("mm", "sec")
    return nifti


def write_nifti(path: Path | str, nifti: nib.Nifti1Image) -> Path:
    """Writes a NIfTI image atomically; the same image gives the same bytes."""
    content = nifti.to_bytes()
    if suffix_of(path) == ".nii.gz":
        content = gzip.compress(content, 1, mtime=0)
    return write_bytes(path, content)


def decode_nifti(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """A NIfTI-1 or -2 file with all its voxels, checksum verified; DataError where that fails."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        version2 = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        nifti = (nib.Nifti2Image if version2 else nib.Nifti1Image).from_bytes(content)
        _check_size(path, nifti, len(content))
        return nifti, np.asanyarray(nifti.dataobj)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise damaged(path, "NIfTI", error) from error


def _check_size(path: Path, nifti: nib.Nifti1Image, held: int) -> None:
    """Refuse a header that promises more voxels than the file has, before memory is asked for them."""
    promised = math.prod(int(size) for size in nifti.shape) * nifti.get_data_dtype().itemsize
    held = max(held - int(nifti.dataobj.offset), 0)
    if promised > held:
        raise DataError(
            f"{path}: not a complete NIfTI file: its header promises {nifti.shape} voxels, {promised} bytes, and it "
            f"holds {held}; it is truncated or damaged, fetch it again."
        )


def load_numpy(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name; that of an `.npy` file has the name ""."""
    try:
        # from memory: where a file is damaged, numpy leaves it open
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _UNREADABLE as error:
        raise damaged(path, path.suffix, error) from error


def damaged(path: Path, kind: str, error: Exception) -> DataError:
    """The error that says why a file is not a complete one of its kind."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError):
        reason = "its header promises more than the memory holds"
    return DataError(f"{path}: not a complete {kind} file, it may be truncated or damaged ({reason}); fetch it again.")


def _reader(path: Path):
    suffix = suffix_of(path)
    series = path.is_dir() or _is_dicom(path)
    if series or suffix in _ITK:
        from hetmorph.io import itk

        return itk.read_series if series else itk.read_image
    if suffix in _NUMPY:
        return _read_numpy
    if suffix == ".png":
        return _read_png
    if suffix in SUFFIXES:
        return _read_nifti
    raise DataError(f"{path}: expected a file that ends in {', '.join(READABLE)}, or a folder with a DICOM series.")


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_nifti(path: Path) -> Image:
    nifti, array = decode_nifti(path)
    spacing = tuple(float(zoom) for zoom in nifti.header.get_zooms()[: array.ndim])
    affine, codes = np.asarray(nifti.affine, float), codes_of(nifti)
    oriented, time_unit = any(codes), nifti.header.get_xyzt_units()[1]
    return Image(array, spacing, affine, oriented, path, codes if oriented else (1, 1), time_unit)


def codes_of(nifti: nib.Nifti1Image) -> tuple[int, int]:
    """Codes of sform and qform; that of a qform which places the image elsewhere than the sform is 0."""
    sform, qform = int(nifti.header["sform_code"]), int(nifti.header["qform_code"])
    if sform and qform:
        apart = np.abs(nifti.get_sform() - nifti.get_qform()).max()
        qform = qform if apart <= 1e-3 * max(nifti.header.get_zooms()[:3]) else 0
    return sform, qform


def _read_numpy(path: Path) -> Image:
    arrays = load_numpy(path)
    affine = arrays.pop("affine", None)
    if "vol" not in arrays and len(arrays) != 1:
        raise DataError(f"{path}: expected one array, or one called vol, received {sorted(arrays)}.")
    array = arrays["vol"] if "vol" in arrays else next(iter(arrays.values()))
    oriented = affine is not None
    affine = np.asarray(affine, float) if oriented else NO_HEADER
    if affine.shape != (4, 4):
        raise DataError(f"{path}: expected an affine (4, 4), voxel to RAS+ mm, received {affine.shape}.")
    spacing = (*np.linalg.norm(affine[:3, :3], axis=0).tolist(), *[1.0] * array.ndim)
    return Image(array, spacing[: array.ndim], affine, oriented, path)


def _read_png(path: Path) -> Image:
    from PIL import Image as Picture

    try:
        with Picture.open(path, formats=("PNG",)) as picture:
            pixels = np.asarray(picture.convert("RGBA") if picture.mode == "P" else picture)
    except _UNREADABLE as error:
        raise damaged(path, "PNG", error) from error
    if pixels.ndim == 3:
        colours = pixels[..., : max(1, 3 if pixels.shape[-1] > 2 else 1)]
        if (colours != colours[..., :1]).any():
            raise DataError(f"{path}: expected a grey image, received colours; convert it to grey.")
        pixels = colours[..., 0]
    if pixels.dtype == np.int32:  # what older versions of Pillow make of 16 bits
        pixels = pixels.astype(np.uint16)
    return Image(pixels.T, (1.0, 1.0), NO_HEADER, False, path)


def _write_png(path: Path, array: np.ndarray) -> Path:
    from PIL import Image as Picture

    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: a PNG holds a 2-D image of 8 or 16 bits, received {array.shape} {array.dtype}")
    with replacing(path) as part:
        Picture.fromarray(np.ascontiguousarray(array.T)).save(part)
    return path


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f" and array.dtype.kind == "f" and dtype.itemsize < array.dtype.itemsize:
        finite = array[np.isfinite(array)]
        if finite.size and np.abs(finite).max() > np.finfo(dtype).max:
            raise ValueError(
                f"values up to {np.abs(finite).max():.3g} cannot be stored as {dtype}: give a larger dtype"
            )
    if dtype.kind not in "iu" or array.dtype == dtype:
        return array.astype(dtype, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"NaN or infinity cannot be stored as {dtype}: give a floating dtype")
    limits = np.iinfo(dtype)
    # 64-bit limits are no float64 numbers: the nearest below them are
    low, high = (np.nextafter(float(x), 0) if abs(x) > 2**53 else x for x in (limits.min, limits.max))
    return np.clip(np.rint(array), low, high).astype(dtype)


def _storable(array: np.ndarray) -> np.dtype:
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
