"""Images on disk in, arrays with geometry out, and back; whatever is wrong with a file is said with its name."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from hetmorph.io import freesurfer
from hetmorph.io.atomic import replacing, suffix_of, write_bytes
from hetmorph.io.errors import UNREADABLE, DataError, damaged
from hetmorph.io.geometry import NO_HEADER, Grid
from hetmorph.io.nifti import PAIRS, SUFFIXES, decode_nifti, nifti_on, place_of, write_nifti

_NUMPY = (".npz", ".npy")
_NIBABEL = (*PAIRS, ".hdr.gz", ".img.gz", ".mnc", ".head", ".brik", ".brik.gz", ".par", ".rec")
ITK = (".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".gipl.gz", ".vtk")
_PICTURES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
READABLE = (*SUFFIXES, *freesurfer.SUFFIXES, *_NIBABEL, *ITK, *_NUMPY, *_PICTURES)
_SECONDS = {"msec": 1e-3, "usec": 1e-6}


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
        qform: a qform of NIfTI that places the image elsewhere than its sform, `(4, 4)` in mm, and its code; it counts
            for nothing, and is written as it was read.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray
    oriented: bool
    path: Path
    codes: tuple[int, int] = (1, 1)
    time_unit: str = "sec"
    qform: tuple[np.ndarray, int] | None = None

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

    def trimmed(self) -> Image:
        """Without last axes of length 1 after the third: (X, Y, Z, 1) is the volume that it is."""
        kept = self.array.ndim
        while kept > 3 and self.array.shape[kept - 1] == 1:
            kept -= 1
        first = (..., *[0] * (self.array.ndim - kept))
        return self if kept == self.array.ndim else replace(self, array=self.array[first], spacing=self.spacing[:kept])

    def with_axes_of(self, other: Image) -> Image:
        """The same as 2-D image or as volume of a single slice, whichever the other is; else itself."""
        array, theirs = self.array, other.array
        if array.ndim == 2 and theirs.ndim == 3 and theirs.shape[2] == 1:
            affine = self.grid.affine
            thickness = float(np.linalg.norm(affine[:3, 2]))
            return replace(self, array=array[..., None], spacing=(*self.spacing, thickness), affine=affine)
        if array.ndim == 3 and theirs.ndim == 2 and array.shape[2] == 1:
            return replace(self, array=array[..., 0], spacing=self.spacing[:2])
        return self

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

    A NIfTI or MGH file is decompressed whole, so that its checksum is verified: a damaged gzip stream may otherwise
    decode to plausible voxels. MetaImage, NRRD, DICOM, GIPL and VTK need SimpleITK.
    Last axes of length 1 after the third are left out, as many converters write them.

    Args:
        path: `.nii`, `.nii.gz`, `.hdr` and `.img`; `.mgz`, `.mgh`; `.mnc`; AFNI's `.HEAD`; Philips' `.PAR`; `.mha`,
            `.mhd`, `.nrrd`, `.nhdr`, `.gipl`, `.vtk`; `.npz` (one array, or one called `vol`; perhaps `affine`),
            `.npy`; a grey `.png`, `.tif`, `.bmp` or `.jpg`, its columns as first axis; a folder with one DICOM series,
            or a file of one of several: slices at one place become the frames of a sequence.
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
    image = _reader(path)(path).trimmed()
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
        path: `.nii`, `.nii.gz`; `.mgz`, `.mgh`; `.mha`, `.nrrd` (with SimpleITK); `.npz`, `.npy`; `.png` for 2-D of 8
            or 16 bits.
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
    seconds = step[0] * _SECONDS.get(like.time_unit, 1.0)  # other formats have no unit but their own
    if suffix in SUFFIXES:
        nifti = nifti_on(array, grid, like.oriented, step, like.qform)
        nifti.header.set_xyzt_units("mm", like.time_unit)
        nifti.header["descrip"] = description.encode()[:79]
        return write_nifti(path, nifti)
    if suffix == ".npz":
        with replacing(path) as part:
            np.savez_compressed(part, vol=array, affine=grid.affine)
        return path
    if suffix == ".npy":
        content = io.BytesIO()  # of a file that it writes by itself, numpy does not say that the disk is full
        np.save(content, array)
        return write_bytes(path, content.getbuffer())
    if suffix == ".png":
        return _write_png(path, array)
    if suffix in freesurfer.SUFFIXES:
        return freesurfer.write(path, array, grid, like.oriented, 1000 * seconds)
    if suffix in (".mha", ".nrrd"):
        from hetmorph.io import itk

        return itk.write_image(path, array, grid, seconds)
    raise ValueError(f"{path}: images are written as .nii.gz, .nii, .mgz, .mgh, .mha, .nrrd, .npz, .npy or .png")


def load_numpy(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name; that of an `.npy` file has the name ""."""
    try:
        # from memory: where a file is damaged, numpy leaves it open
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded as arrays:
            return {name: arrays[name] for name in arrays.files}
    except UNREADABLE as error:
        raise damaged(path, path.suffix, error) from error


def _reader(path: Path):
    suffix = suffix_of(path)
    series = path.is_dir() or _is_dicom(path)
    if series or suffix in ITK:
        from hetmorph.io import itk

        return itk.read_series if series else itk.read_image
    readers = {
        **dict.fromkeys(SUFFIXES, _read_nifti),
        **dict.fromkeys(freesurfer.SUFFIXES, _read_mgh),
        **dict.fromkeys(_NIBABEL, _read_other),
        **dict.fromkeys(_NUMPY, _read_numpy),
        **dict.fromkeys(_PICTURES, _read_picture),
    }
    if suffix in readers:
        return readers[suffix]
    raise DataError(f"{path}: expected a file that ends in {', '.join(READABLE)}, or a folder with a DICOM series.")


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_nifti(path: Path) -> Image:
    return _of_nifti(path, *decode_nifti(path))


def _of_nifti(path: Path, nifti: nib.Nifti1Pair, array: np.ndarray) -> Image:
    place = place_of(path, nifti)
    oriented = any(place.codes)
    codes = place.codes if oriented else (1, 1)
    return Image(
        array, place.spacing[: array.ndim], place.affine, oriented, path, codes, place.time_unit, qform=place.qform
    )


def _read_mgh(path: Path) -> Image:
    volume = freesurfer.decode(path)
    spacing = tuple(float(zoom) for zoom in volume.image.header.get_zooms())
    affine = np.asarray(volume.image.affine, float)
    return Image(volume.array, spacing, affine, volume.oriented, path, time_unit="msec")


def _read_other(path: Path) -> Image:
    """What nibabel reads besides: NIfTI and Analyze in two files, MINC, AFNI, Philips' PAR/REC."""
    try:
        image = nib.load(path, mmap=False)
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # each of nibabel's readers has errors of its own
        raise damaged(path, "image", error) from error
    left_open = getattr(image.dataobj, "file_like", None)
    if hasattr(left_open, "close"):  # of Philips' files
        left_open.close()
    if isinstance(image, nib.Nifti1Pair):
        return _of_nifti(path, image, array)
    spacing = [float(zoom) for zoom in image.header.get_zooms()]
    if isinstance(image, nib.Minc1Image) and array.ndim == 4:  # its time comes first
        array, spacing = np.moveaxis(array, 0, -1), [*spacing[1:], spacing[0]]
    # Analyze says nothing of places, but SPM does in a file beside it
    oriented = not isinstance(image, nib.AnalyzeImage) or path.with_suffix(".mat").is_file()
    return Image(array, tuple(spacing[: array.ndim]), np.asarray(image.affine, float), oriented, path)


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


def _read_picture(path: Path) -> Image:
    from PIL import Image as Picture

    try:
        with Picture.open(path, formats=("PNG", "TIFF", "BMP", "JPEG")) as picture:
            pages, mode = getattr(picture, "n_frames", 1), {"P": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
            pixels = np.asarray(picture.convert(mode.get(picture.mode, picture.mode)))
    except UNREADABLE as error:
        raise damaged(path, "picture", error) from error
    if pages != 1:
        raise DataError(f"{path}: expected one picture, received {pages} pages; save them as a volume.")
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
