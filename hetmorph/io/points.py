"""Points through a transform, and the tables and meshes that hold them.

Points go the other way than images: a transform that brings the moving image onto the fixed one takes a point of the
fixed image to where it lies in the moving one. For points of the moving image, use the inverse transform.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from hetmorph.io.atomic import write_bytes
from hetmorph.io.chain import Chain
from hetmorph.io.errors import DataError, DataWarning
from hetmorph.io.geometry import RAS_TO_LPS, Grid
from hetmorph.io.transforms import Transform

FRAMES = ("LPS", "RAS", "voxel")
_SIGNS = {"LPS": RAS_TO_LPS, "RAS": np.ones(3)}
_AXES = ("x", "y", "z")
_NAMES = ("name", "label")


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a file; it does not say in which frame they are.

    Attributes:
        coordinates: `[P, N]`, N = 2 or 3.
        suffix: ending of the file they came from.
        encode: the content of that file with other coordinates `[P, N]` in their place.
        names: the names of the points, from a column `name` or `label`; None for a file without.
    """

    coordinates: np.ndarray
    suffix: str
    encode: Callable[[np.ndarray], bytes]
    names: tuple[str, ...] | None = None

    def moved_to(self, coordinates: np.ndarray) -> Points:
        """The same file with other coordinates."""
        return replace(self, coordinates=coordinates)


def transform_points(
    transform: Transform | Chain, coordinates: np.ndarray, frame: str = "LPS", moving: Grid | None = None
) -> np.ndarray:
    """Where points of the fixed image lie in the moving image.

    A point outside the fixed image moves as the nearest voxel of its edge does; a `DataWarning` tells of those further
    than the image is large.

    Args:
        transform: fixed to moving, or a `Chain`.
        coordinates: `[P, 3]` mm, or `[P, 2]` for a 2-D image in a plane of constant z; for "voxel" `[P, N]`.
        frame: "LPS" as ITK, ANTs and DICOM have it, "RAS" as NIfTI, both mm; "voxel": indices, those of the fixed image
            in, those of the moving one out.
        moving: grid of the moving image, for "voxel"; None: the same as the fixed one.

    Returns:
        Coordinates of the same shape and frame, float64.

    Raises:
        ValueError: unknown frame, another shape, or NaN.
    """
    grid, width = transform.grid, np.shape(coordinates)[-1] if np.ndim(coordinates) else 0
    there = transform.world(world_points(coordinates, grid, frame))
    return (moving or grid).index(there) if frame == "voxel" else (there * _SIGNS[frame])[:, :width]


def world_points(coordinates: np.ndarray, grid: Grid, frame: str = "LPS") -> np.ndarray:
    """Places `[P, 3]` of points, RAS+ mm; a `DataWarning` tells of those further outside than the image is large.

    Args:
        coordinates: `[P, 3]` mm, or `[P, 2]` for a 2-D image in a plane of constant z; for "voxel" `[P, N]`.
        grid: the grid of the image that they lie in.
        frame: "LPS", "RAS" or "voxel".

    Raises:
        ValueError: unknown frame, another shape, or NaN.
    """
    points = np.asarray(coordinates, float)
    if frame not in FRAMES:
        raise ValueError(f"points have one of the frames {', '.join(FRAMES)}, received {frame!r}")
    widths = (grid.ndim,) if frame == "voxel" else (2, 3) if grid.in_xy_plane else (3,)
    if points.ndim != 2 or points.shape[1] not in widths:
        raise ValueError(f"expected points [P, {' or '.join(map(str, widths))}] ({frame}), received {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("a point has NaN or infinity as coordinate")
    if frame == "voxel":
        _tell_far(grid, points)
        return grid.world(points)
    plane = np.full((len(points), 3 - points.shape[1]), grid.affine[2, 3])
    places = np.hstack([points, plane]) * _SIGNS[frame]
    _tell_far(grid, grid.index(places))
    return places


def _tell_far(grid: Grid, index: np.ndarray) -> None:
    """Warn of points, voxels of the grid, that lie further outside than it is large: probably another frame or unit."""
    size = np.array(grid.shape)
    beyond = np.maximum(np.maximum(-index, index - (size - 1)), 0)
    far = (beyond > size).any(-1)
    if far.any():
        mm = np.linalg.norm(beyond * grid.spacing, axis=-1).max()
        warnings.warn(
            f"{far.sum()} of {len(index)} points lie up to {mm:.0f} mm outside the image, further than it is "
            "large: is this their frame? Each moves as the nearest voxel of the edge",
            DataWarning,
            stacklevel=4,
        )


def read_points(path: Path | str) -> Points:
    """Reads points from a table or a mesh.

    - `.csv`: columns x, y and perhaps z, in any order among others; without a line of names, the first columns. ANTs'
      tables (x, y, z, t, in LPS) are such.
    - `.vtk`: VTK's legacy format, text or binary.

    Args:
        path: the file; its ending says which of the two.

    Raises:
        DataError: no such file, another format, no such columns, no points, or coordinates that are no finite numbers.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path}: expected points in a file ending in {', '.join(_READERS)}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: no points can be read, {error.strerror}.") from error
    return _READERS[path.suffix.lower()](path, content)


def write_points(path: Path | str, points: Points) -> Path:
    """Writes points in the format they came in, everything else in the file as it was, atomically.

    Args:
        path: `.csv` or `.vtk`.
        points: as `read_points` returns them.

    Raises:
        ValueError: a path with another ending.
        OSError: the file cannot be written.
    """
    if Path(path).suffix.lower() != points.suffix:
        raise ValueError(f"{path}: these points were read from a {points.suffix} file, and are written to one")
    return write_bytes(path, points.encode(points.coordinates))


def _read_csv(path: Path, content: bytes) -> Points:
    try:
        text = content.decode("utf-8-sig")
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text)) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a table of points (CSV, UTF-8), received {error}.") from error
    columns, rows = (lines[0], lines[1:]) if lines and not _is_number(lines[0][0]) else ([], lines)
    if not rows:
        raise DataError(f"{path}: holds no point.")
    names = [name.lower() for name in columns]
    if columns and not {"x", "y"} <= set(names):
        raise DataError(f"{path}: expected columns x, y and perhaps z, received {', '.join(columns)}.")
    places = [names.index(axis) for axis in _AXES if axis in names] if columns else list(range(min(3, len(rows[0]))))
    first = 2 if columns else 1
    coordinates = [_numbers(path, first + number, row, places) for number, row in enumerate(rows)]

    def encode(coordinates: np.ndarray) -> bytes:
        stream = io.StringIO()
        table = csv.writer(stream, lineterminator="\n")
        if columns:
            table.writerow(columns)
        for row, values in zip(rows, coordinates, strict=True):
            moved = dict(zip(places, (_text(value) for value in values), strict=True))
            table.writerow([moved.get(place, cell) for place, cell in enumerate(row)])
        return stream.getvalue().encode()

    named = next((names.index(name) for name in _NAMES if name in names), None)
    called = None if named is None else tuple(row[named] if named < len(row) else "" for row in rows)
    return Points(np.array(coordinates), ".csv", encode, called)


def _read_vtk(path: Path, content: bytes) -> Points:
    header = re.match(rb"# vtk DataFile[^\n]*\n[^\n]*\n\s*(ASCII|BINARY)", content)
    block = re.search(rb"\nPOINTS\s+(\d+)\s+(float|double)[ \t\r]*\n", content)
    if not header or not block:
        raise DataError(f"{path}: expected VTK's legacy format with POINTS of float or double.")
    count, kind = int(block[1]), np.dtype(">f8" if block[2] == b"double" else ">f4")
    rest, text = content[block.end() :], header[1] == b"ASCII"
    if text:
        words = list(islice(re.finditer(rb"\S+", rest), 3 * count))
        used = words[-1].end() if words else 0
    else:
        used = 3 * count * kind.itemsize
    try:
        values = (
            np.array([word[0] for word in words], float) if text else np.frombuffer(rest[:used], kind).astype(float)
        )
    except ValueError:
        values = np.empty(0)
    if count == 0 or values.size != 3 * count or not np.isfinite(values).all():
        raise DataError(f"{path}: expected {count} points, three finite numbers each; the file may be truncated.")

    def encode(coordinates: np.ndarray) -> bytes:
        lines = (" ".join(map(_text, point)) for point in coordinates)
        body = "\n".join(lines).encode() if text else np.ascontiguousarray(coordinates, kind).tobytes()
        return content[: block.end()] + body + rest[used:]

    return Points(values.reshape(count, 3), ".vtk", encode)


_READERS = {".csv": _read_csv, ".vtk": _read_vtk}


def _text(value: float) -> str:
    return repr(round(float(value), 9))


def _numbers(path: Path, line: int, row: list[str], places: list[int]) -> list[float]:
    try:
        values = [float(row[place]) for place in places]
    except (ValueError, IndexError):
        values = [np.nan]
    if len(values) < 2 or not np.isfinite(values).all():
        raise DataError(f"{path}, line {line}: expected numbers as coordinates, received {','.join(row)}.")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
