"""FreeSurfer's volumes, `.mgz` and `.mgh`, and what it writes into these and into NIfTI to say what a warp means.

A warp of FreeSurfer or SynthMorph lies on the grid of the fixed image (its target, or atlas) and holds one of four
things in the moving image (its source, or image): places or displacements, in voxels of the moving image (CRS) or in
RAS mm. A tag behind the voxels (`.mgz`), or in a header extension (NIfTI), says which of them, another where the voxels
of the moving image lie.

Reference: freesurfer/utils/warpfield.cpp and fstagsio.cpp, https://github.com/freesurfer/freesurfer
"""

import gzip
import re
import struct
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from hetmorph.io.atomic import suffix_of, write_bytes
from hetmorph.io.errors import UNREADABLE, DataError, damaged
from hetmorph.io.geometry import Grid
from hetmorph.io.nifti import check_size, storable

SUFFIXES = (".mgz", ".mgh", ".mgh.gz")
TYPES = (np.uint8, np.int16, np.int32, np.float32)  # that every version of FreeSurfer reads
EXTENSION = 14  # the code of FreeSurfer's extensions of NIfTI headers
_WARP = 6  # intent of a warp
_META = re.compile(rb"\0\0\0\x0d\0{7}[\x0c-\x10]\0\0\0([\0-\x03])", re.DOTALL)
_GEOMETRY, _SHEARED = re.compile(rb"\0\0\0[\x0a\x0f]"), b"\0\0\0\x0f"
_NAME = 512  # bytes of the name of a file


class Volume(NamedTuple):
    """A file of FreeSurfer's.

    Attributes:
        image: nibabel's, its header in memory.
        array: the voxels.
        oriented: whether the header says where they lie.
        warp: whether the file is said to be a warp.
        tags: what follows the voxels.
    """

    image: nib.MGHImage
    array: np.ndarray
    oriented: bool
    warp: bool
    tags: bytes


class Warp(NamedTuple):
    """What a warp holds: `voxel` or RAS mm, places (`absolute`) or displacements; the moving grid, where it is told."""

    voxel: bool
    absolute: bool
    moving: Grid | None


def decode(path: Path) -> Volume:
    """A file with all its voxels, checksum verified.

    nibabel refuses warps, whose version has their intent in its upper bytes.

    Raises:
        DataError: it is damaged, or no such file.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        version = int.from_bytes(content[:4], "big")
        if version % 256 != 1:
            raise ValueError(f"version {version}")
        image = nib.MGHImage.from_bytes(b"\0\0\0\1" + content[4:])
        check_size(path, "MGH", image, len(content))
        array = np.asanyarray(image.dataobj)
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, "MGH", error) from error
    end = int(image.dataobj.offset) + array.nbytes
    return Volume(image, array, content[28:30] != b"\0\0", version >> 8 == _WARP, content[end:])


def write(path: Path, array: np.ndarray, grid: Grid, oriented: bool, step: float) -> Path:
    """Writes an array `[*S]` or `[*S, T]`, its frames `step` milliseconds apart, atomically.

    Raises:
        ValueError: a grid that is sheared, or a type that FreeSurfer has not.
    """
    kind = storable(array)
    if kind not in TYPES:
        fitting = [one for one in TYPES if np.can_cast(kind, one)]
        if not fitting:
            raise ValueError(f"{path}: FreeSurfer stores none of {kind}; give a dtype of int16, int32 or float32")
        kind = np.dtype(fitting[0])
    if grid.sheared:
        raise ValueError(f"{path}: the grid is sheared, which FreeSurfer's volumes cannot be; write NIfTI (.nii.gz)")
    if grid.ndim == 2:
        array = array[:, :, None]
    image = nib.MGHImage(array.astype(kind, copy=False), grid.affine)
    if array.ndim == 4 and array.shape[3] > 1:
        image.header.set_zooms((*image.header.get_zooms()[:3], step))
    image.header["goodRASFlag"] = int(oriented)
    content = image.to_bytes()
    return write_bytes(path, content if suffix_of(path) == ".mgh" else gzip.compress(content, 1, mtime=0))


def warp_of(tags: bytes, shape: tuple[int, ...]) -> Warp | None:
    """What the tags of a warp say of it; None where they do not.

    Args:
        tags: what follows the voxels, or the content of the extension.
        shape: voxels of the warp.
    """
    meta = _META.search(tags)
    if meta is None:
        return None
    form = meta[1][0]  # 0 places in voxels, 1 displacements in voxels, 2 places in RAS, 3 displacements in RAS
    return Warp(form < 2, form % 2 == 0, _moving_grid(tags, shape))


def _moving_grid(tags: bytes, shape: tuple[int, ...]) -> Grid | None:
    """The grid of the moving image: the first of two geometries, of which the second has the shape of the warp.

    In NIfTI, a length stands before both, and one before the name of each one's file; `.mgz` has neither, but for the
    length where shears are told.
    """
    for tag in _GEOMETRY.finditer(tags):
        shears = 3 * (tag[0] == _SHEARED)
        for start, named in ((tag.end() + 8, True), (tag.end() + 8, False), (tag.end(), False)):
            moving, end = _geometry(tags, start, shears, named)
            fixed, _ = _geometry(tags, end, shears, named)
            if moving is not None and fixed is not None and fixed.shape == tuple(shape):
                return moving
    return None


def _geometry(tags: bytes, start: int, shears: int, named: bool) -> tuple[Grid | None, int]:
    """The grid that is described at one place of the tags, None where there is none, and what place comes after it."""
    layout = struct.Struct(f">4i{15 + shears}f")  # VOL_GEOM: valid, shape, voxel size, directions, centre, shears
    end = start + layout.size
    if end + 4 > len(tags):
        return None, end
    values = layout.unpack_from(tags, start)
    valid, shape, numbers = values[0], values[1:4], np.array(values[4:19])
    end += 4 + max(int.from_bytes(tags[end : end + 4], "big", signed=True), 0) if named else _NAME
    if valid != 1 or any(values[19:]):
        return None, end
    affine = np.eye(4)
    affine[:3, :3] = numbers[3:12].reshape(3, 3).T * numbers[:3]
    affine[:3, 3] = numbers[12:] - affine[:3, :3] @ shape / 2
    try:
        return Grid(shape, affine), end
    except ValueError:  # no geometry, but bytes that look like its tag
        return None, end
