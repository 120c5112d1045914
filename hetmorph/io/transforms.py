"""Registrations on disk, in the formats of other programs.

A transform maps the world of the fixed image to that of the moving image: the point at x, an index of the fixed grid,
goes to the place of x + u(x), an index of the same grid continued. That is the mapping in millimetres, and whoever has
it needs no third image: the header of the moving image says which of its voxels lies there. A model that got the
moving image resampled onto the fixed grid predicts just this u.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hetmorph.io import freesurfer, images, itk, vectors, voxel_fields
from hetmorph.io.atomic import suffix_of
from hetmorph.io.errors import DataError
from hetmorph.io.foreign import check_ending
from hetmorph.io.geometry import Grid, convert_displacement, from_slices
from hetmorph.io.nifti import PAIRS, SUFFIXES, decode_nifti
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
        understood: how the file that it was read from was understood; "" for one that was not read.

    Raises:
        ValueError: the shapes do not fit, or the displacement holds NaN or infinity.
    """

    displacement: np.ndarray
    grid: Grid
    understood: str = ""

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
        return replace(self, displacement=convert_displacement(self.displacement, self.grid, grid), grid=grid)

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
        return np.linalg.det(matrices).astype(np.float32)

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places in the moving image of places `[…, 3]` in the fixed one, both RAS+ mm.

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
    path: Path | str,
    fixed: Grid | None = None,
    moving: Grid | None = None,
    format: str | None = None,
    field_convention: str | None = None,
) -> Transform:
    """Reads a transform of any format of `FORMATS`, every other kind that ITK reads, and fields of other programs.

    Args:
        path: `.nii.gz`, `.nii`, `.h5`, `.hdf5`, `.tfm`, `.txt`, `.mat`, `.npz`, `.npy`; an image of vectors in `.mha`,
            `.mhd`, `.nrrd` or `.nhdr`; a warp of FreeSurfer's in `.mgz`.
        fixed: grid of the fixed image: needed where the file has none (`.npz`, affine transforms); else the field is
            brought onto it.
        moving: grid of the moving image, for files in voxels; None: the same as `fixed`.
        format: a name of `FORMATS`; None finds out.
        field_convention: what the vectors of an image are, a name of `CONVENTIONS`: displacements in "lps" or "ras"
            millimetres, or in voxels; None: what the file says.

    Returns:
        The transform, on `fixed` if given, else on the grid of the file; it says how it was understood.

    Raises:
        DataError: the file is missing, damaged, of another kind or shape, holds NaN, needs `fixed`, or may be
            understood in more than one way.
        ImportError: an ITK file without SimpleITK.

    Example:
        >>> transform = read_transform("warp.h5", fixed=read_image("fixed.nii.gz").grid)
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown format of transforms {format!r}, expected one of {', '.join(FORMATS)}")
    if field_convention is not None and field_convention not in vectors.CONVENTIONS:
        expected = ", ".join(vectors.CONVENTIONS)
        raise ValueError(f"unknown convention of fields {field_convention!r}, expected one of {expected}")
    transform = _read(path, fixed, moving, format, field_convention)
    if fixed is None:
        return transform
    try:
        return _like(transform, fixed).on(fixed)
    except ValueError as error:
        raise DataError(f"{path}: does not belong to this fixed image: {error}.") from error


def _read(path: Path, fixed: Grid | None, moving: Grid | None, format: str | None, convention: str | None) -> Transform:
    """The transform of a file, on `fixed` or on a grid of its own."""
    suffix = suffix_of(path)
    if suffix in ITK:
        return Transform(*itk.read_transform(path, fixed), understood="ITK transform, LPS mm")
    if suffix in NUMPY:
        learn2reg = None if format is None else format == "learn2reg"
        return _of_voxels(*voxel_fields.read_npz(path, fixed, learn2reg), moving)
    if suffix in (*SUFFIXES, *PAIRS):
        nifti, array = decode_nifti(path)
        in_voxels = format in ("learn2reg", "voxelmorph") and convention is None
        field = None if in_voxels else vectors.decode(path, nifti, array, convention)
        if field is not None:
            return _of_field(path, field, moving)
        if not in_voxels:
            voxel_fields.check_meant(path, nifti, array)
        return _of_voxels(*voxel_fields.decode(path, nifti, array), moving)
    if suffix in freesurfer.SUFFIXES:
        return _of_field(path, vectors.read_mgh(path, convention), moving)
    if suffix in images.ITK:
        meaning = vectors.Meaning(convention or "lps", "field convention" if convention else "image of vectors, as ITK")
        return _of_field(path, vectors.checked(path, *itk.read_field(path, convention is not None), meaning), moving)
    check_ending(path)
    expected = (*SUFFIXES, *PAIRS, *ITK, *NUMPY, *freesurfer.SUFFIXES, *images.ITK)
    raise DataError(f"{path}: expected a transform ending in {', '.join(expected)}.")


def convert(
    source: Path | str,
    target: Path | str,
    format: str | None = None,
    fixed: Grid | None = None,
    moving: Grid | None = None,
    provenance: Mapping | None = None,
    field_convention: str | None = None,
) -> Path:
    """Reads a transform and writes it in another format; returns the path written.

    Args:
        source: file to read.
        target: file to write.
        format, provenance: format and origin of the target, as `write_transform` takes them.
        fixed, moving: grids, as `read_transform`.
        field_convention: convention of the source, as `read_transform`.
    """
    transform = read_transform(source, fixed, moving, field_convention=field_convention)
    if provenance is not None:
        provenance = {"understood": transform.understood, **provenance}
    return write_transform(target, transform, format, moving, provenance)


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


def _like(transform: Transform, fixed: Grid) -> Transform:
    """The same for a 2-D image or a volume of a single slice, whichever the fixed image is; else itself."""
    u, grid = transform.displacement, transform.grid
    if grid.ndim == 2 and fixed.ndim == 3 and fixed.shape[2] == 1:
        u, grid = from_slices([u]), Grid((*grid.shape, 1), grid.affine, grid.codes)
    elif grid.ndim == 3 and grid.shape[2] == 1 and fixed.ndim == 2:
        u, grid = u[:, :, 0, :2], Grid(grid.shape[:2], grid.affine, grid.codes)
    return replace(transform, displacement=u, grid=grid)


def _of_field(path: Path, field: vectors.Field, moving: Grid | None) -> Transform:
    """The transform of an image of vectors."""
    meaning, grid = field.meaning, field.grid
    if meaning.frame != "voxel":
        return Transform(vectors.from_lps(vectors.in_lps(field), grid).astype(np.float32), grid, str(meaning))
    if field.vectors.shape[-1] != grid.ndim:
        raise DataError(
            f"{path}: expected vectors of {grid.ndim} voxels, received {field.vectors.shape[-1]} components."
        )
    shift = field.vectors - grid.indices() if meaning.absolute else field.vectors.astype(float)
    own = meaning.moving or moving
    if own is None and meaning.absolute:
        raise DataError(f"{path}: holds voxels of the moving image without saying where they lie; give that image.")
    return replace(_of_voxels(shift, grid, own), understood=str(meaning))


def _of_voxels(displacement: np.ndarray, grid: Grid, moving: Grid | None) -> Transform:
    """The transform of what `Transform.voxels` gives."""
    understood = "displacements, voxels of the moving image"
    if moving is None or moving.same(grid):
        return Transform(displacement, grid, understood)
    places = moving.world(grid.indices() + displacement)
    return Transform((grid.index(places) - grid.indices()).astype(np.float32), grid, understood)
