"""Registrations on disk, in the formats of other programs.

A transform maps the world of the fixed image to that of the moving image: the point at x, an index of the fixed grid,
goes to the place of x + u(x), an index of the same grid continued. That is the mapping in millimetres, and whoever has
it needs no third image: the header of the moving image says which of its voxels lies there. A model that got the
moving image resampled onto the fixed grid predicts just this u.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hetmorph.io import itk, vectors, voxel_fields
from hetmorph.io.atomic import suffix_of
from hetmorph.io.geometry import Grid, convert_displacement
from hetmorph.io.images import SUFFIXES, DataError, decode_nifti
from hetmorph.io.sidecar import write_sidecar
from hetmorph.transforms.sampling import pull

NUMPY, ITK = (".npz", ".npy"), (".h5", ".hdf5", ".tfm", ".txt", ".mat")
# what each format is called, and the file endings it is written with
FORMATS = {
    "nifti": SUFFIXES,
    "itk": (".h5", ".tfm", ".txt", ".mat"),
    "learn2reg": (".npz", *SUFFIXES),
    "voxelmorph": (".npz", *SUFFIXES),
}


@dataclass(frozen=True, eq=False)
class Transform:
    """Where each point of the fixed image lies in the moving one.

    Attributes:
        displacement: `[*S, N]`, voxels of `grid`; moved(x) = moving(x + u(x)).
        grid: grid of the fixed image.

    Raises:
        ValueError: the shapes do not fit, or the displacement holds NaN or infinity.
    """

    displacement: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        displacement, expected = np.asarray(self.displacement), (*self.grid.shape, self.grid.ndim)
        if displacement.shape != expected:
            raise ValueError(f"expected a displacement {expected} in voxels, received {displacement.shape}")
        if displacement.dtype.kind != "f" or displacement.dtype.itemsize < 4:
            displacement = displacement.astype(np.float32)
        if not np.isfinite(displacement).all():
            raise ValueError("the displacement holds NaN or infinity")
        object.__setattr__(self, "displacement", displacement)

    def on(self, grid: Grid) -> Transform:
        """The same mapping of the world on another grid; see `convert_displacement`."""
        return Transform(convert_displacement(self.displacement, self.grid, grid), grid)

    def positions(self, moving: Grid) -> np.ndarray:
        """Index in the moving image of each voxel of the fixed one, `[*S, N]`, float64."""
        return self.where(moving)(self.grid.indices(), slice(None))

    def where(self, moving: Grid) -> Callable[[np.ndarray, slice], np.ndarray]:
        """The index in the moving image, as a function of indices of some rows of the first axis; see `pull_on`."""
        return lambda index, rows: moving.index(self.grid.world(index + self.displacement[rows]))

    def voxels(self, moving: Grid) -> np.ndarray:
        """index(moving) − index(fixed), `[*S, N]`: what programs use that look at no header."""
        return self.positions(moving) - self.grid.indices()

    def jacobian(self) -> np.ndarray:
        """det(∂φ/∂x) at each voxel, `[*S]` float32: volume in the moving image per volume in the fixed one.

        At 0 or below, the transform folds. By central differences, one-sided at the borders. An axis of a single voxel
        has no extent, and counts as 1.
        """
        n, shape = self.grid.ndim, self.grid.shape
        matrices = np.zeros((*shape, n, n)) + np.eye(n)
        for axis in (axis for axis in range(n) if shape[axis] > 1):
            matrices[..., axis] += np.gradient(self.displacement.astype(float), axis=axis)
        flat = [axis for axis in range(n) if shape[axis] == 1]
        matrices[..., flat, :] = np.eye(n)[flat]
        return np.linalg.det(matrices).astype(np.float32)

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places in the moving image of places `[P, 3]` in the fixed one, both RAS+ mm.

        u is linear between voxels; outside the grid it is that of the nearest edge voxel.
        """
        places = np.asarray(places, float)
        shift = pull(self.displacement.astype(float), self.grid.index(places))
        return places + shift @ self.grid.linear.T


def write_transform(
    path: Path | str,
    transform: Transform,
    format: str | None = None,
    moving: Grid | None = None,
    provenance: Mapping | None = None,
) -> Path:
    """Writes a transform, completely or not at all.

    Args:
        path: file to write, whose ending must be one of `FORMATS[format]`.
        transform: what to write.
        format: a name of `FORMATS`; None: "nifti" for `.nii.gz` and `.nii`, "itk" for `.h5`, `.tfm`, `.txt`, `.mat`.
        moving: grid of the moving image, for "learn2reg" and "voxelmorph", whose voxels are those of both arrays; None:
            it has been resampled onto the fixed grid.
        provenance: written with frame and unit into a JSON file beside; see `hetmorph.io.sidecar`.

    Returns:
        The path.

    Raises:
        ValueError: unknown format, an ending it has not, or a grid that it cannot hold.
        OSError: the file cannot be written; nothing is left half-written.
        ImportError: "itk" without SimpleITK.

    Example:
        >>> write_transform("warp.nii.gz", Transform(displacement, fixed.grid))
    """
    path, suffix = Path(path), suffix_of(path)
    format = format or {**dict.fromkeys(SUFFIXES, "nifti"), **dict.fromkeys(FORMATS["itk"], "itk")}.get(suffix)
    if format not in FORMATS:
        raise ValueError(f"{path}: expected the format of the transform to be one of {', '.join(FORMATS)}; give it")
    if suffix not in FORMATS[format]:
        raise ValueError(f"{path}: the format {format} is written to files ending in {', '.join(FORMATS[format])}")
    if format == "nifti":
        vectors.write(path, transform.displacement, transform.grid)
    elif format == "itk":
        itk.write_transform(path, transform.displacement, transform.grid)
    else:
        voxels = transform.voxels(moving or transform.grid)
        voxel_fields.write(path, voxels, transform.grid, format == "learn2reg")
    if provenance is not None:
        write_sidecar(path, {**provenance, "transform": description(transform, format)})
    return path


def read_transform(
    path: Path | str, fixed: Grid | None = None, moving: Grid | None = None, format: str | None = None
) -> Transform:
    """Reads a transform of any format of `FORMATS`, and every other kind that ITK reads.

    Args:
        path: `.nii.gz`, `.nii`, `.h5`, `.hdf5`, `.tfm`, `.txt`, `.mat`, `.npz`, `.npy`.
        fixed: grid of the fixed image: needed where the file has none (`.npz`, affine transforms); else the field is
            brought onto it.
        moving: grid of the moving image, for files in voxels; None: the same as `fixed`.
        format: a name of `FORMATS`; None finds out.

    Returns:
        The transform, on `fixed` if given, else on the grid of the file.

    Raises:
        DataError: the file is missing, damaged, of another kind or shape, holds NaN, or needs `fixed`.
        ImportError: an ITK file without SimpleITK.

    Example:
        >>> transform = read_transform("warp.h5", fixed=read_image("fixed.nii.gz").grid)
    """
    path, suffix = Path(path), suffix_of(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown format of transforms {format!r}, expected one of {', '.join(FORMATS)}")
    if suffix in ITK:
        return Transform(*itk.read_transform(path, fixed))
    if suffix in NUMPY:
        learn2reg = None if format is None else format == "learn2reg"
        transform = _of_voxels(*voxel_fields.read_npz(path, fixed, learn2reg), moving)
    elif suffix in SUFFIXES:
        nifti, array = decode_nifti(path)
        if format in ("learn2reg", "voxelmorph") or (format is None and array.ndim < 5):
            if format is None:
                voxel_fields.check_meant(path, nifti, array)
            transform = _of_voxels(*voxel_fields.decode(path, nifti, array), moving)
        else:
            transform = Transform(*vectors.decode(path, nifti, array))
    else:
        raise DataError(f"{path}: expected a transform ending in {', '.join((*SUFFIXES, *ITK, *NUMPY))}.")
    if fixed is None:
        return transform
    try:
        return transform.on(fixed)
    except ValueError as error:
        raise DataError(f"{path}: does not belong to this fixed image: {error}.") from error


def convert(
    source: Path | str,
    target: Path | str,
    format: str | None = None,
    fixed: Grid | None = None,
    moving: Grid | None = None,
    provenance: Mapping | None = None,
) -> Path:
    """Reads a transform and writes it in another format; returns the path written.

    Args:
        source: file to read.
        target: file to write.
        format, provenance: format and origin of the target, as `write_transform` takes them.
        fixed, moving: grids, as `read_transform`.
    """
    return write_transform(target, read_transform(source, fixed, moving), format, moving, provenance)


def description(transform: Transform, format: str) -> dict:
    """What a reader of the file has to know: direction, frame, unit and grid."""
    physical = format in ("nifti", "itk")
    return {
        "format": format,
        "direction": "fixed to moving: moved(x) = moving(x + u(x))",
        "frame": "LPS" if physical else "array axes",
        "unit": "mm" if physical else "voxel",
        "shape": list(transform.grid.shape),
        "affine_ras_mm": transform.grid.affine.tolist(),
    }


def _of_voxels(displacement: np.ndarray, grid: Grid, moving: Grid | None) -> Transform:
    """The transform of what `Transform.voxels` gives."""
    if moving is None or moving.same(grid):
        return Transform(displacement, grid)
    places = moving.world(grid.indices() + displacement)
    return Transform((grid.index(places) - grid.indices()).astype(np.float32), grid)
