"""Images of vectors: what their numbers mean, and the NIfTI file that SimpleITK, ANTsPy and nitransforms read alike.

The file has shape (X, Y, Z, 1, 3), intent 1007 (vector), vectors in LPS millimetres, sform and qform of the fixed
image. A 2-D image in a plane of constant z gives (X, Y, 1, 1, 2), which ITK reads as 2-D. Every reader drops a last
axis of length 1, so that a single slice is written twice, one behind the other, and the header's description says so.

Fields of other programs are understood by intent, name of the intent and extensions of the header, see `docs/files.md`.
"""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from hetmorph.io import freesurfer
from hetmorph.io.errors import DataError
from hetmorph.io.foreign import check_intent
from hetmorph.io.geometry import RAS_TO_LPS, Grid
from hetmorph.io.nifti import Place, nifti_on, place_of, write_nifti

CONVENTIONS = ("lps", "ras", "voxel")
_DISPLACEMENTS, _VECTORS = 1006, 1007  # intents
_AFNI = 4  # code of AFNI's extensions of NIfTI headers
_NIFTYREG = {0: True, 1: False}  # kinds of NiftyReg's transforms that are fields, and whether these hold places
_ONE_SLICE = b"hetmorph: one slice, written twice"
_PLANE = b"hetmorph: 2-D image, written twice"
CHOICE = "say with field_convention (--field-convention) whether they are lps or ras, in mm, or voxel"


class Meaning(NamedTuple):
    """What the vectors of a file are.

    Attributes:
        frame: "lps" or "ras", both in mm, or "voxel": those of the moving image.
        why: how that is known.
        absolute: whether they are places in the moving image; else displacements.
        moving: grid of the moving image, where the file tells; of interest for "voxel".
    """

    frame: str
    why: str
    absolute: bool = False
    moving: Grid | None = None

    def __str__(self) -> str:
        unit = "voxels of the moving image" if self.frame == "voxel" else f"{self.frame.upper()} mm"
        return f"{'places' if self.absolute else 'displacements'}, {unit} ({self.why})"


class Field(NamedTuple):
    """An image of vectors.

    Attributes:
        vectors: `[*S, N]`, or `[*S, 3]` of a 2-D image that is not in a plane of constant z.
        grid: where they lie, that of the fixed image.
        meaning: what they are.
    """

    vectors: np.ndarray
    grid: Grid
    meaning: Meaning


def to_lps(displacement: np.ndarray, grid: Grid) -> np.ndarray:
    """Vectors in LPS mm of a displacement in voxels of its grid.

    Args:
        displacement: `[*S, N]`, voxels.
        grid: what it lies on.

    Returns:
        `[*S, 3]`, or `[*S, 2]` for a 2-D grid in a plane of constant z; float64.
    """
    vectors = (displacement.astype(float) @ grid.linear.T) * RAS_TO_LPS
    return vectors[..., :2] if grid.in_xy_plane else vectors


def from_lps(vectors: np.ndarray, grid: Grid) -> np.ndarray:
    """The inverse of `to_lps`; of a 2-D grid, what points out of its plane is dropped."""
    count = vectors.shape[-1]
    to_voxels = np.linalg.pinv(grid.linear[:count])
    return (vectors.astype(float) * RAS_TO_LPS[:count]) @ to_voxels.T


def write(path: Path, displacement: np.ndarray, grid: Grid) -> Path:
    """Writes a displacement `[*S, N]` in voxels; see the module for the file."""
    vectors = to_lps(displacement, grid).astype(np.float32)
    vectors = vectors.reshape(*grid.shape, *[1] * (4 - grid.ndim), vectors.shape[-1])
    description = b""
    if vectors.shape[-1] == 3 and vectors.shape[2] == 1:
        vectors = np.repeat(vectors, 2, axis=2)
        description = _PLANE if grid.ndim == 2 else _ONE_SLICE
    nifti = nifti_on(vectors, Grid(vectors.shape[:3], grid.affine, grid.codes))
    nifti.header.set_intent("vector")
    nifti.header["descrip"] = description
    return write_nifti(path, nifti)


def decode(path: Path, nifti: nib.Nifti1Image, vectors: np.ndarray, convention: str | None = None) -> Field | None:
    """The field of a NIfTI file; None for one that only its shape may make a field of voxels, as VoxelMorph writes it.

    Args:
        path: the file.
        nifti, vectors: it in memory, with all its voxels.
        convention: one of `CONVENTIONS`, of displacements; None: what the header says.

    Raises:
        DataError: not a displacement field as the module describes, or one that may be understood in two ways.
    """
    intent = int(nifti.header["intent_code"])
    if convention is None and vectors.ndim != 5:
        check_intent(path, intent)
        if not intent and not _extensions(nifti, freesurfer.EXTENSION):
            return None
    vectors, flat = _components(path, nifti, vectors)
    place = place_of(path, nifti)
    meaning = _meaning(path, nifti, place, vectors.shape, convention)
    if not any(place.codes):
        raise DataError(f"{path}: the header states no place (sform and qform are 0), so the vectors have no frame.")
    vectors = vectors[:, :, 0] if flat else vectors
    return checked(path, vectors, place.affine, meaning, place.codes)


def read_mgh(path: Path, convention: str | None = None) -> Field:
    """The field of a `.mgz` or `.mgh` file: one of FreeSurfer's warps, or with a convention any of three frames.

    Args:
        path: the file.
        convention: one of `CONVENTIONS`, of displacements; None: what the file says.

    Raises:
        DataError: not a field, or one that does not say what its vectors are.
    """
    volume = freesurfer.decode(path)
    shape = volume.array.shape
    if len(shape) != 4 or shape[3] not in (3, 4):  # the fourth frame of a warp holds labels
        raise DataError(f"{path}: expected a warp (X, Y, Z, 3), received shape {shape}.")
    if not volume.oriented:
        raise DataError(f"{path}: the header states no place (goodRASFlag is 0), so the vectors have no frame.")
    if convention is not None:
        meaning = Meaning(convention, "field convention")
    elif warp := freesurfer.warp_of(volume.tags, shape[:3]):
        meaning = _of_freesurfer(warp)
    else:
        raise DataError(f"{path}: says nothing of its vectors, if it is a warp at all; {CHOICE}.")
    return checked(path, volume.array[..., :3], volume.image.affine, meaning)


def checked(
    path: Path, vectors: np.ndarray, affine: np.ndarray, meaning: Meaning, codes: tuple[int, int] = (1, 1)
) -> Field:
    """The field of vectors `[*S, N]`; DataError for NaN, or an affine that places no voxels."""
    if vectors.dtype.kind not in "fiu" or not np.isfinite(vectors).all():
        raise DataError(f"{path}: the displacement holds NaN, infinity or no real numbers.")
    try:
        return Field(vectors, Grid(vectors.shape[:-1], affine, codes), meaning)
    except ValueError as error:
        raise DataError(f"{path}: {error}.") from error


def in_lps(field: Field) -> np.ndarray:
    """Displacements of a field in mm as LPS vectors, like `to_lps`."""
    grid, count = field.grid, field.vectors.shape[-1]
    to_lps = RAS_TO_LPS[:count]
    vectors = field.vectors * (to_lps if field.meaning.frame == "ras" else np.ones(count))
    return vectors - grid.world(grid.indices())[..., :count] * to_lps if field.meaning.absolute else vectors


def _components(path: Path, nifti: nib.Nifti1Image, vectors: np.ndarray) -> tuple[np.ndarray, bool]:
    """The vectors `(X, Y, Z, N)` of a file, a slice that was written twice once; and whether the image is 2-D."""
    shape = vectors.shape
    if vectors.ndim == 4 and shape[3] == 3:
        return vectors, False
    if vectors.ndim == 3 and shape[2] == 2:
        return vectors[:, :, None], True
    if vectors.ndim != 5 or shape[3] != 1 or shape[4] not in (2, 3):
        raise DataError(f"{path}: expected a displacement field (X, Y, Z, 1, 3), received shape {shape}.")
    if shape[4] == 2 and shape[2] != 1:
        raise DataError(f"{path}: vectors of two components belong to a 2-D image, received shape {shape}.")
    vectors, description = vectors[:, :, :, 0], nifti.header["descrip"].item()
    if description in (_ONE_SLICE, _PLANE):
        vectors = vectors[:, :, :1]
    return vectors, description == _PLANE or shape[4] == 2


def _meaning(
    path: Path, nifti: nib.Nifti1Image, place: Place, shape: tuple[int, ...], convention: str | None
) -> Meaning:
    """What the vectors of a NIfTI file are, by intent, name and extensions."""
    header = nifti.header
    intent, name = int(header["intent_code"]), header["intent_name"].item().decode("latin-1")
    if convention is not None:
        return Meaning(convention, "field convention")
    check_intent(path, intent)
    for content in _extensions(nifti, freesurfer.EXTENSION):
        if warp := freesurfer.warp_of(content, shape[:-1]):
            return _of_freesurfer(warp)
    if intent not in (_DISPLACEMENTS, _VECTORS):
        raise DataError(
            f"{path}: expected intent 1007 (vectors, in LPS mm) or 1006 (displacements, in RAS mm), received {intent}: "
            f"a field of another program, or no displacement at all; if it is one, {CHOICE}."
        )
    if place.unit in ("meter", "micron"):
        raise DataError(f"{path}: its header is in {place.unit}s, and its vectors may be in mm or in these; {CHOICE}.")
    if name == "NREG_TRANS":
        kind = int(header["intent_p1"])
        if kind not in _NIFTYREG:
            raise DataError(f"{path}: a transform of NiftyReg of kind {kind}; reg_transform -disp makes a field of it.")
        return Meaning("ras", "NiftyReg", absolute=_NIFTYREG[kind])
    if name == "Mapping":
        return Meaning("ras", "deformation field of SPM", absolute=True)
    if intent == _VECTORS and nifti.ndim == 5:
        return Meaning("lps", "intent 1007")
    if intent == _VECTORS or shape[-1] == 2 or _extensions(nifti, _AFNI):
        raise DataError(f"{path}: programs understand such vectors (intent {intent}) in different ways; {CHOICE}.")
    return Meaning("ras", "intent 1006")


def _of_freesurfer(warp: freesurfer.Warp) -> Meaning:
    return Meaning("voxel" if warp.voxel else "ras", "warp of FreeSurfer", warp.absolute, warp.moving)


def _extensions(nifti: nib.Nifti1Image, code: int) -> list[bytes]:
    """What the extensions of one program in a header hold."""
    contents = [one.get_content() for one in nifti.header.extensions if one.get_code() == code]
    return [content if isinstance(content, bytes) else str(content).encode() for content in contents]
