"""Points through a transform, and the tables that hold them.

Points go the other way than images: a transform that brings the moving image onto the fixed one takes a point of the
fixed image to where it lies in the moving one. For points of the moving image, use the inverse transform.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hetmorph.io.atomic import write_bytes
from hetmorph.io.geometry import RAS_TO_LPS, Grid
from hetmorph.io.images import DataError
from hetmorph.io.transforms import Transform

FRAMES = ("LPS", "RAS", "voxel")
_AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class Points:
    """A table of points.

    Attributes:
        coordinates: `[P, N]`, N = 2 or 3; the table does not say in which frame.
        columns: names of all columns; empty for a table without a first line of names.
        rows: all cells as text, those of the coordinates included.
        places: which columns the coordinates are.
    """

    coordinates: np.ndarray
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    places: tuple[int, ...]

    def moved_to(self, coordinates: np.ndarray) -> Points:
        """The same table with other coordinates."""
        return replace(self, coordinates=coordinates)


def transform_points(
    transform: Transform, coordinates: np.ndarray, frame: str = "LPS", moving: Grid | None = None
) -> np.ndarray:
    """Where points of the fixed image lie in the moving image.

    Args:
        transform: fixed to moving.
        coordinates: `[P, 3]` mm, or `[P, 2]` for a 2-D image in a plane of constant z; for "voxel" `[P, N]`.
        frame: "LPS" as ITK, ANTs and DICOM have it, "RAS" as NIfTI, both mm; "voxel": indices, those of the fixed image
            in, those of the moving one out.
        moving: grid of the moving image, for "voxel"; None: the same as the fixed one.

    Returns:
        Coordinates of the same shape and frame, float64.

    Raises:
        ValueError: unknown frame, another shape, or NaN.
    """
    points, grid = np.asarray(coordinates, float), transform.grid
    if frame not in FRAMES:
        raise ValueError(f"points have one of the frames {', '.join(FRAMES)}, received {frame!r}")
    widths = (grid.ndim,) if frame == "voxel" else (2, 3) if grid.in_xy_plane else (3,)
    if points.ndim != 2 or points.shape[1] not in widths:
        raise ValueError(f"expected points [P, {' or '.join(map(str, widths))}] ({frame}), received {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("a point has NaN or infinity as coordinate")
    if frame == "voxel":
        return (moving or grid).index(transform.world(grid.world(points)))
    sign, width = RAS_TO_LPS if frame == "LPS" else np.ones(3), points.shape[1]
    plane = np.full((len(points), 3 - width), grid.affine[2, 3])
    return (transform.world(np.hstack([points, plane]) * sign) * sign)[:, :width]


def read_points(path: Path | str) -> Points:
    """Reads a CSV table with columns x, y and perhaps z, in any order among others; or without names, then the first.

    ANTs' tables (x, y, z, t, in LPS) are such.

    Raises:
        DataError: no such file, no such columns, no rows, or cells that are no finite numbers; the line is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [tuple(cell.strip() for cell in line) for line in csv.reader(io.StringIO(text)) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a table of points (CSV, UTF-8), received {error}.") from error
    columns, rows = (lines[0], lines[1:]) if lines and not _is_number(lines[0][0]) else ((), lines)
    if not rows:
        raise DataError(f"{path}: holds no point.")
    names = [name.lower() for name in columns]
    if columns and not {"x", "y"} <= set(names):
        raise DataError(f"{path}: expected columns x, y and perhaps z, received {', '.join(columns)}.")
    places = tuple(names.index(a) for a in _AXES if a in names) if columns else tuple(range(min(3, len(rows[0]))))
    first = 2 if columns else 1
    coordinates = [_numbers(path, first + number, row, places) for number, row in enumerate(rows)]
    return Points(np.array(coordinates), tuple(columns), tuple(rows), places)


def write_points(path: Path | str, points: Points) -> Path:
    """Writes a table of points as CSV, its other columns as they were read, atomically."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    if points.columns:
        table.writerow(points.columns)
    for row, coordinates in zip(points.rows, points.coordinates, strict=True):
        cells = list(row)
        for place, value in zip(points.places, coordinates, strict=True):
            cells[place] = repr(round(float(value), 9))
        table.writerow(cells)
    return write_bytes(path, stream.getvalue().encode())


def _numbers(path: Path, line: int, row: tuple[str, ...], places: tuple[int, ...]) -> list[float]:
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
