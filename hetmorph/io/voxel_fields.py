"""Displacements in voxels, as VoxelMorph's scripts and the Learn2Reg challenge keep them.

Both mean index(moving) = index(fixed) + u, in the voxels of the two arrays, and look at no header.

- VoxelMorph: `[*S, N]`, NIfTI with the affine of the fixed image, or `.npz` under the name `vol` (others: `warp`).
- Learn2Reg: NIfTI `[X, Y, Z, 3]` likewise, or `.npz` `[3, X, Y, Z]`; some of its tasks at half the resolution, vectors
  still in whole voxels, which its evaluation enlarges by a spline of order 2.

References:
    Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538.
    Hering et al., Learn2Reg, IEEE TMI 2023, doi:10.1109/TMI.2022.3213983.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from hetmorph.io.atomic import replacing, suffix_of
from hetmorph.io.errors import DataError
from hetmorph.io.geometry import Grid
from hetmorph.io.images import load_numpy
from hetmorph.io.nifti import nifti_on, place_of, write_nifti

_MARK = b"hetmorph: displacement in voxels"
_NAMES = ("vol", "warp", "displacement", "arr_0")


def write(path: Path, displacement: np.ndarray, grid: Grid, learn2reg: bool) -> Path:
    """Writes a displacement `[*S, N]`, voxels, as NIfTI or `.npz`, whichever the name says."""
    displacement = displacement.astype(np.float32)
    if suffix_of(path) != ".npz":
        nifti = nifti_on(displacement, grid)
        nifti.header["descrip"] = _MARK
        return write_nifti(path, nifti)
    with replacing(path) as part:
        if learn2reg:
            np.savez_compressed(part, np.moveaxis(displacement, -1, 0))
        else:
            np.savez_compressed(part, vol=displacement)
    return path


def read_npz(path: Path, fixed: Grid | None, learn2reg: bool | None) -> tuple[np.ndarray, Grid]:
    """Displacement `[*S, N]` in voxels, of an `.npz` or `.npy` file.

    Args:
        path: the file.
        fixed: grid of the fixed image, of which the file says nothing.
        learn2reg: whether the components are the first axis; None finds out.

    Raises:
        DataError: no `fixed`, more than one array and none of a known name, another shape, or NaN.
    """
    if fixed is None:
        raise DataError(f"{path}: says nothing about where its voxels lie; give the fixed image.")
    arrays = load_numpy(path)
    names = [name for name in _NAMES if name in arrays] or list(arrays)
    array = arrays[names[0]]
    if len(arrays) > 1 and names[0] not in _NAMES:
        raise DataError(f"{path}: expected one array, or one called {', '.join(_NAMES)}, received {sorted(arrays)}.")
    n, shape = fixed.ndim, fixed.shape
    half = tuple(2 * size for size in array.shape[1:]) == shape
    last, first = (*shape, n), (n, *shape)
    if learn2reg is not True and array.shape == last:
        return _checked(path, array), fixed
    if learn2reg is not False and array.ndim == n + 1 and array.shape[0] == n and (half or array.shape == first):
        array = _checked(path, array)
        if half:
            array = np.stack([ndimage.zoom(component, 2, order=2) for component in array])
        return np.moveaxis(array, 0, -1), fixed
    expected = {True: f"{first}", False: f"{last}", None: f"{last} or {first}"}[learn2reg]
    raise DataError(f"{path}: expected displacements {expected} for this fixed image, received {array.shape}.")


def decode(path: Path, nifti: nib.Nifti1Image, array: np.ndarray) -> tuple[np.ndarray, Grid]:
    """Displacement in voxels and its grid, of a NIfTI file `[*S, N]` that is in memory.

    Raises:
        DataError: another shape, NaN, or a header that says these are no voxels.
    """
    n = array.ndim - 1
    if n not in (2, 3) or array.shape[-1] != n:
        raise DataError(f"{path}: expected displacements (X, Y, Z, 3) or (X, Y, 2) in voxels, received {array.shape}.")
    intent = int(nifti.header["intent_code"])
    if intent:
        raise DataError(f"{path}: expected displacements in voxels, without intent; the header has intent {intent}.")
    try:
        place = place_of(path, nifti)
        return _checked(path, array), Grid(array.shape[:-1], place.affine, place.codes if any(place.codes) else (1, 1))
    except ValueError as error:
        raise error if isinstance(error, DataError) else DataError(f"{path}: {error}.") from error


def check_meant(path: Path, nifti: nib.Nifti1Image, array: np.ndarray) -> None:
    """Refuse what may as well be an image of two slices or a sequence of three frames, unless its format was given.

    Raises:
        DataError: no file of hetmorph's, and whole numbers, two components, a unit of time, or vectors as no image is
            large.
    """
    if nifti.header["descrip"].item() == _MARK or array.ndim - 1 not in (2, 3) or array.shape[-1] != array.ndim - 1:
        return
    timed = nifti.header.get_xyzt_units()[1] in ("sec", "msec", "usec")
    if array.dtype.kind != "f" or array.ndim == 3 or timed or np.nanmax(np.abs(array)) > sum(array.shape[:-1]):
        what = "an image of two slices" if array.ndim == 3 else "a sequence of three frames"
        raise DataError(
            f"{path}: expected displacements, received {array.shape}, which may be {what}; if they are displacements "
            "in voxels, say that their format is voxelmorph or learn2reg; if in mm, say with field_convention "
            "(--field-convention) whether they are lps or ras."
        )


def _checked(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise DataError(f"{path}: the displacement holds NaN, infinity or no real numbers.")
    return array.astype(np.float32)
