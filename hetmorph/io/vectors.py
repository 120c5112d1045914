"""Displacements as vectors in millimetres, and the NIfTI file that SimpleITK, ANTsPy and nitransforms read alike.

The file has shape (X, Y, Z, 1, 3), intent 1007 (vector), vectors in LPS millimetres, sform and qform of the fixed
image. A 2-D image in a plane of constant z gives (X, Y, 1, 1, 2), which ITK reads as 2-D. Every reader drops a last
axis of length 1, so that a single slice is written twice, one behind the other, and the header's description says so.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from hetmorph.io.geometry import RAS_TO_LPS, Grid
from hetmorph.io.images import DataError, codes_of, decode_nifti, nifti_on, write_nifti

_INTENTS = {1006, 1007}  # displacement vector, vector
_ONE_SLICE = b"hetmorph: one slice, written twice"
_PLANE = b"hetmorph: 2-D image, written twice"


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


def read(path: Path) -> tuple[np.ndarray, Grid]:
    """Displacement in voxels and its grid.

    Raises:
        DataError: not a displacement field as the module describes.
    """
    nifti, vectors = decode_nifti(path)
    return decode(path, nifti, vectors)


def decode(path: Path, nifti: nib.Nifti1Image, vectors: np.ndarray) -> tuple[np.ndarray, Grid]:
    """As `read`, of a file that is in memory."""
    intent = int(nifti.header["intent_code"])
    if vectors.ndim != 5 or vectors.shape[3] != 1 or vectors.shape[4] not in (2, 3):
        raise DataError(f"{path}: expected a displacement field (X, Y, Z, 1, 3), received shape {vectors.shape}.")
    if vectors.shape[4] == 2 and vectors.shape[2] != 1:
        raise DataError(f"{path}: vectors of two components belong to a 2-D image, received shape {vectors.shape}.")
    if intent not in _INTENTS:
        raise DataError(
            f"{path}: expected intent 1007 (vectors, in LPS mm), received {intent}: a field of another program, or no "
            "displacement at all."
        )
    if not (nifti.header["sform_code"] > 0 or nifti.header["qform_code"] > 0):
        raise DataError(f"{path}: the header states no place (sform and qform are 0), so the vectors have no frame.")
    if vectors.dtype.kind not in "fiu" or not np.isfinite(vectors).all():
        raise DataError(f"{path}: the displacement holds NaN, infinity or no real numbers.")
    vectors, description = vectors[:, :, :, 0], nifti.header["descrip"].item()
    if description in (_ONE_SLICE, _PLANE):
        vectors = vectors[:, :, :1]
    flat = description == _PLANE or vectors.shape[-1] == 2
    vectors = vectors[:, :, 0] if flat else vectors
    try:
        grid = Grid(vectors.shape[:-1], nifti.affine, codes_of(nifti))
    except ValueError as error:
        raise DataError(f"{path}: {error}.") from error
    return from_lps(vectors, grid).astype(np.float32), grid
