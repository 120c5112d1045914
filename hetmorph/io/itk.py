"""What goes through SimpleITK, an extra: MetaImage, NRRD and others, DICOM series, and ITK's transform files."""

import importlib
import locale
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hetmorph.io.atomic import replacing, suffix_of
from hetmorph.io.errors import DataError, damaged, last_line
from hetmorph.io.foreign import check_not_foreign
from hetmorph.io.geometry import RAS_TO_LPS, Grid
from hetmorph.io.images import Image
from hetmorph.io.nrrd import check_frame, unit_of
from hetmorph.io.vectors import from_lps, to_lps

EXTRA = 'pip install "hetmorph[formats]"'
_LPS = np.diag([*RAS_TO_LPS, 1.0])
# DICOM tags
_POSITION, _ORIENTATION, _TRIGGER_TIME, _INSTANCE, _SERIES = (
    "0020|0032",
    "0020|0037",
    "0018|1060",
    "0020|0013",
    "0020|000e",
)


def read_image(path: Path) -> Image:
    """An image of any format that SimpleITK knows, in mm; DataError where it cannot read it."""
    sitk = package()
    image = _read(sitk, path)
    return _image(sitk, _in_mm(image, path), path)


def read_field(path: Path, frame_given: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `[*S, N]` as the file holds them, and its affine, of an image of vectors.

    Args:
        path: `.mha`, `.mhd`, `.nrrd`, `.nhdr` …
        frame_given: the frame of the vectors is known from elsewhere; else it must be that of ITK, LPS mm.

    Raises:
        DataError: not an image of real vectors with a component for each axis, or one whose vectors may be of another
            frame or unit.
    """
    sitk = package()
    image = _read(sitk, path)
    if not frame_given:
        check_frame(path, unit_of(path, _said(image)))
    count, ndim = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
    array = _array(sitk, image, vectors=count > 1)
    if count == 1 and frame_given and ndim in (3, 4) and array.shape[-1] == ndim - 1:
        count, ndim = ndim - 1, ndim - 1  # the components as a last axis
    if count != ndim or array.dtype.kind != "f":
        raise DataError(
            f"{path}: expected displacements, a real vector of {ndim} components at each voxel, received {count} of "
            f"{array.dtype}."
        )
    return array, _affine(_in_mm(image, path))


def write_image(path: Path, array: np.ndarray, grid: Grid, step: float = 1.0) -> Path:
    """Writes an array `[*S]` or `[*S, T]`, frames `step` apart, in the format that the name says, atomically."""
    sitk = package()
    image = _to_itk(sitk, array.astype(np.uint8) if array.dtype == bool else array, grid, step=step)
    with replacing(path) as part:
        _write(sitk.WriteImage, image, part, path, True)
    return path


def read_series(path: Path) -> Image:
    """The DICOM series in a folder, or that of one of its files.

    Several images at the same place are frames of a sequence, ordered by trigger time, else by their number.

    Raises:
        DataError: no series, more than one in the folder, slices missing or unevenly spaced, or a sequence with
            another number of frames at some slice.
    """
    sitk = package()
    names = _names_of_series(sitk, path)
    try:
        if len(names) == 1:
            return _image(sitk, sitk.ReadImage(names[0]), path)
        frames = _sorted(path, names, [_header(sitk, name) for name in names])
        images = [_image(sitk, sitk.ReadImage(list(frame)), path) for frame in frames]
    except RuntimeError as error:
        raise damaged(path, "DICOM series", error) from error
    if len(images) == 1:
        return images[0]
    array = np.stack([image.array for image in images], axis=-1)
    return Image(array, (*images[0].spacing, 1.0), images[0].affine, True, path)


def read_transform(path: Path, fixed: Grid | None) -> tuple[np.ndarray, Grid]:
    """Displacement in voxels, and its grid, of any transform that ITK reads.

    Args:
        path: `.h5`, `.hdf5`, `.tfm`, `.txt`, `.mat`.
        fixed: grid to evaluate the transform on; None takes the grid of a file that holds a single field.

    Raises:
        DataError: not a transform, one of another dimension, or no `fixed` for one without a grid.
    """
    sitk = package()
    check_not_foreign(path)
    try:
        transform = _simplest(sitk, sitk.ReadTransform(str(path)))
        field, grid = _field(sitk, transform, path, fixed)
        vectors = _array(sitk, field, vectors=True)
    except RuntimeError as error:  # ITK reads half a text file without complaint, and fails when asked for the field
        raise damaged(path, "ITK transform", error) from error
    if not np.isfinite(vectors).all():
        raise DataError(f"{path}: the displacement holds NaN or infinity.")
    return from_lps(vectors, grid).astype(np.float32), grid


def has_grid(path: Path) -> bool:
    """Whether a file holds a single displacement field, whose grid is known."""
    sitk = package()
    try:
        return _simplest(sitk, sitk.ReadTransform(str(path))).GetTransformEnum() == sitk.sitkDisplacementField
    except RuntimeError as error:
        raise damaged(path, "ITK transform", error) from error


def read_linear(path: Path) -> np.ndarray | None:
    """`(4, 4)`, RAS+ mm to RAS+ mm, of a file that holds a linear transform; None for others.

    Raises:
        DataError: not a transform.
    """
    sitk = package()
    check_not_foreign(path)
    try:
        transform = sitk.ReadTransform(str(path))
        if not transform.IsLinear():
            return None
        n = transform.GetDimension()
        corners = [transform.TransformPoint(corner.tolist()) for corner in np.vstack([np.zeros(n), np.eye(n)])]
    except RuntimeError as error:
        raise damaged(path, "ITK transform", error) from error
    matrix = np.eye(4)
    matrix[:n, 3], matrix[:n, :n] = corners[0], np.subtract(corners[1:], corners[0]).T
    return _LPS @ matrix @ _LPS


def write_linear(path: Path, matrix: np.ndarray, ndim: int = 3) -> Path:
    """Writes a matrix `(4, 4)`, RAS+ mm to RAS+ mm, as ITK's affine transform.

    Args:
        path: `.h5`, `.tfm`, `.txt`, `.mat`.
        matrix: fixed to moving.
        ndim: 2 for images that ITK takes for 2-D, whose plane is one of constant z.

    Raises:
        OSError: it cannot be written; nothing is left half-written.
    """
    sitk = package()
    lps, transform = _LPS @ matrix @ _LPS, sitk.AffineTransform(ndim)
    transform.SetMatrix(lps[:ndim, :ndim].ravel().tolist())
    transform.SetTranslation(lps[:ndim, 3].tolist())
    with replacing(path) as part:
        _write(sitk.WriteTransform, transform, part, path)
        written = read_linear(part)
        if written is None or not np.allclose(written[:ndim], matrix[:ndim], rtol=1e-6, atol=1e-6):
            raise OSError(f"{path}: does not hold what was written; is the disk full?")
    return path


def write_transform(path: Path, displacement: np.ndarray, grid: Grid) -> Path:
    """Writes a displacement `[*S, N]` in voxels as ITK's displacement field transform, in double precision.

    It is the only part of a composite transform, which nitransforms expects; `.mat` knows no composites.

    Raises:
        ValueError: a grid that ITK has not: sheared, or 2-D in a plane that is not one of constant z.
    """
    sitk = package()
    transform = sitk.DisplacementFieldTransform(_to_itk(sitk, to_lps(displacement, grid), grid, vectors=True))
    if suffix_of(path) != ".mat":
        transform = sitk.CompositeTransform([transform])
    with replacing(path) as part:
        _write(sitk.WriteTransform, transform, part, path)
        if suffix_of(path) != ".h5":
            _check_complete(part, path, displacement)
    return path


def _check_complete(part: Path, path: Path, displacement: np.ndarray) -> None:
    """OSError for a file that lacks its end: ITK's writers of text and Matlab files do not notice a full disk."""
    try:
        written, _ = read_transform(part, None)
    except DataError as error:
        raise OSError(f"{path}: not written completely; is the disk full?") from error
    if not np.allclose(written, displacement, rtol=1e-4, atol=1e-4):
        raise OSError(f"{path}: does not hold what was written; is the disk full?")


def package(who: str = "MetaImage, NRRD, DICOM and ITK transforms need"):
    """SimpleITK; ImportError, which says who needs it, where it is not installed."""
    try:
        return importlib.import_module("SimpleITK")
    except ImportError as error:
        raise ImportError(f"{who} SimpleITK: {EXTRA}") from error


def _write(function, what, part: Path, path: Path, *arguments) -> None:
    try:
        function(what, str(part), *arguments)
    except RuntimeError as error:
        raise OSError(f"{path}: not written ({last_line(error)})") from error


def _read(sitk, path: Path):
    before = locale.setlocale(locale.LC_ALL)
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise damaged(path, "image", error) from error
    finally:  # ITK's reader of VTK leaves it at "C", and with it ASCII as the encoding of every file opened later
        locale.setlocale(locale.LC_ALL, before)


def _said(image) -> str:
    """The unit that ITK has found in the header."""
    return image.GetMetaData("ITK_VoxelUnits") if image.HasMetaDataKey("ITK_VoxelUnits") else ""


def _in_mm(image, path: Path):
    """The image with the first three axes in mm, which ITK leaves in the unit of the header."""
    factor, n = unit_of(path, _said(image)), min(image.GetDimension(), 3)
    if factor != 1:
        image.SetSpacing([*(factor * size for size in image.GetSpacing()[:n]), *image.GetSpacing()[n:]])
        image.SetOrigin([*(factor * place for place in image.GetOrigin()[:n]), *image.GetOrigin()[n:]])
    return image


def _image(sitk, image, path: Path) -> Image:
    count = image.GetNumberOfComponentsPerPixel()
    if count != 1:
        raise DataError(f"{path}: expected one number a voxel, received {count}: colours or vectors.")
    return Image(_array(sitk, image), image.GetSpacing(), _affine(image), True, path)


def _array(sitk, image, vectors: bool = False) -> np.ndarray:
    """The voxels of an image in order (X, Y, Z), its vectors last."""
    array = sitk.GetArrayFromImage(image)
    axes = range(image.GetDimension() - 1, -1, -1)
    return array.transpose(*axes, *([array.ndim - 1] if vectors else []))


def _affine(image) -> np.ndarray:
    """Voxel index to RAS+ mm of the spatial axes of an ITK image."""
    count = image.GetDimension()
    direction, n = np.reshape(image.GetDirection(), (count, count)), min(count, 3)
    affine = np.eye(4)
    affine[:n, :n] = direction[:n, :n] * image.GetSpacing()[:n]
    affine[:n, 3] = image.GetOrigin()[:n]
    return _LPS @ affine


def _to_itk(sitk, array: np.ndarray, grid: Grid, vectors: bool = False, step: float = 1.0):
    image = sitk.GetImageFromArray(np.ascontiguousarray(_reversed(array, vectors)), isVector=vectors)
    direction, spacing, origin = _itk_geometry(grid)
    extra = image.GetDimension() - grid.ndim  # time
    full = np.eye(image.GetDimension())
    full[: grid.ndim, : grid.ndim] = direction
    image.SetDirection(full.ravel().tolist())
    image.SetSpacing([*spacing, *[step] * extra])
    image.SetOrigin([*origin, *[0.0] * extra])
    return image


def _reversed(array: np.ndarray, vectors: bool) -> np.ndarray:
    axes = range(array.ndim - 1 - vectors, -1, -1)
    return array.transpose(*axes, *([array.ndim - 1] if vectors else []))


def _itk_geometry(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direction (N, N), spacing and origin in LPS mm."""
    if grid.sheared:
        raise ValueError("the grid is sheared, which ITK's images cannot be; resample the fixed image first")
    n = grid.ndim
    if n == 2 and not grid.in_xy_plane:
        raise ValueError("ITK's 2-D images lie in a plane of constant z, this one does not; write NIfTI (.nii.gz)")
    spacing, affine = np.array(grid.spacing), _LPS @ grid.affine
    return affine[:n, :n] / spacing, spacing, affine[:n, 3]


def _simplest(sitk, transform):
    """The transform itself, taken out of composites that hold nothing else."""
    while transform.GetTransformEnum() == sitk.sitkComposite:
        parts = sitk.CompositeTransform(transform)
        if parts.GetNumberOfTransforms() != 1:
            break
        transform = parts.GetNthTransform(0)
    return transform


def _field(sitk, transform, path: Path, fixed: Grid | None):
    """The transform as ITK's image of vectors, and its grid."""
    if fixed is None:
        if transform.GetTransformEnum() != sitk.sitkDisplacementField:
            raise DataError(f"{path}: {transform.GetName()} has no grid of its own; give the fixed image.")
        field = sitk.DisplacementFieldTransform(transform).GetDisplacementField()
        if not all(field.GetSize()):
            raise DataError(f"{path}: the displacement field is empty, the file may be truncated; fetch it again.")
        return field, Grid(field.GetSize(), _affine(field))
    if transform.GetDimension() != fixed.ndim:
        raise DataError(f"{path}: a {transform.GetDimension()}-D transform for a fixed image {fixed.shape}.")
    return _evaluated(sitk, transform, fixed), fixed


def _evaluated(sitk, transform, grid: Grid):
    direction, spacing, origin = _itk_geometry(grid)
    evaluate = sitk.TransformToDisplacementFieldFilter()
    evaluate.SetSize(grid.shape)
    evaluate.SetOutputDirection(direction.ravel().tolist())
    evaluate.SetOutputSpacing(spacing.tolist())
    evaluate.SetOutputOrigin(origin.tolist())
    return evaluate.Execute(transform)


def _names_of_series(sitk, path: Path) -> Sequence[str]:
    reader, folder = sitk.ImageSeriesReader, path if path.is_dir() else path.parent
    found = reader.GetGDCMSeriesIDs(str(folder))
    if path.is_file():
        wanted = _header(sitk, str(path)).get(_SERIES)
        found = [series for series in found if series == wanted]
    if not found:
        raise DataError(f"{path}: holds no DICOM series that SimpleITK can read.")
    if len(found) > 1:
        firsts = [Path(reader.GetGDCMSeriesFileNames(str(folder), series)[0]).name for series in found]
        raise DataError(
            f"{path}: holds {len(found)} DICOM series; name a file of the one you want, e.g. {', '.join(firsts[:5])}."
        )
    return reader.GetGDCMSeriesFileNames(str(folder), found[0])


def _header(sitk, name: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(Path(name), "DICOM", error) from error
    tags = (_POSITION, _ORIENTATION, _TRIGGER_TIME, _INSTANCE, _SERIES)
    return {tag: reader.GetMetaData(tag).strip("\x00 ") for tag in tags if reader.HasMetaDataKey(tag)}


def _sorted(path: Path, names: Sequence[str], headers: list[dict[str, str]]) -> list[list[str]]:
    """The files of each frame, from one end of the stack to the other."""
    if not all(_POSITION in header and _ORIENTATION in header for header in headers):
        raise DataError(f"{path}: some slices state no position or orientation in space.")
    row, column = np.array(headers[0][_ORIENTATION].split("\\"), float).reshape(2, 3)
    normal = np.cross(row, column)
    slices = defaultdict(list)
    for name, header in zip(names, headers, strict=True):
        height = round(float(np.array(header[_POSITION].split("\\"), float) @ normal), 2)
        order = (float(header.get(_TRIGGER_TIME) or 0), float(header.get(_INSTANCE) or 0))
        slices[height].append((order, name))
    counts = {len(one) for one in slices.values()}
    if len(counts) > 1:
        raise DataError(f"{path}: a sequence with {min(counts)} to {max(counts)} frames a slice; files are missing.")
    gaps = np.diff(sorted(slices))
    if len(gaps) and np.ptp(gaps) > 0.01 * gaps.mean() + 0.02:
        raise DataError(f"{path}: slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart; some are missing.")
    ordered = [sorted(slices[height]) for height in sorted(slices)]
    return [[one[t][1] for one in ordered] for t in range(counts.pop())]
