"""Anyone's NIfTI files, listed in a table: `load("pairs.csv")`.

One row is one pair. Columns `moving` and `fixed` name images; optional: `moving_labels`, `fixed_labels`,
`mask_moving`, `mask_fixed` (where an image counts), `points_moving`, `points_fixed` (landmarks, in the frame that
`points_frame` says: LPS, RAS or voxel), `modality_moving`, `modality_fixed` or `modality` of both (ct or mri, by which
intensities are scaled; else each image is stretched from its smallest to its largest), `split` (train, val or test, in
every row), `patient`, `case`, `dataset` (which set a row is of: each is divided, sampled and scored by itself). Paths
are relative to the table, or to `data_dir`. The images of a pair are matched by their headers: where the moving one
lies on another grid, it is resampled onto the fixed one, as `hetmorph register` does, and so are labels (nearest value)
and masks.
"""

from __future__ import annotations

import csv
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hetmorph.data.crop import fit, lost, origin
from hetmorph.data.dataset import Dataset, Found, Options
from hetmorph.data.files import read_array
from hetmorph.data.normalise import minmax
from hetmorph.data.pair import MASKS, POINTS, Pair
from hetmorph.data.scale import MODALITIES, Scale
from hetmorph.data.splits import NAMES
from hetmorph.io import DataError, DataWarning, Grid, Image, check_mask, matched_grid, read_landmarks, resample
from hetmorph.io.chain import Linear
from hetmorph.io.field_of_view import fitted_grid, onto, resized
from hetmorph.io.points import FRAMES
from hetmorph.ops.points import outside

_LOG = logging.getLogger(__name__)
REQUIRED = ("moving", "fixed")
LABEL_COLUMNS = ("moving_labels", "fixed_labels")
FILES = (*REQUIRED, *LABEL_COLUMNS, *MASKS, *POINTS)
MODALITY = ("modality_moving", "modality_fixed")
COLUMNS = (*FILES, "points_frame", *MODALITY, "modality", "split", "patient", "case", "dataset")
CROPS = MIDDLE, RESIZE = ("middle", "resize")


@dataclass(frozen=True)
class Row:
    """One line of the table, its paths resolved; empty cells are None."""

    line: int
    case: str
    patient: str | None
    split: str | None
    files: dict[str, Path | None]
    points_frame: str = FRAMES[0]
    scales: tuple[Scale | None, Scale | None] = (None, None)

    @property
    def images(self) -> tuple[Path, ...]:
        """Moving and fixed image, however the table spells their paths."""
        return tuple(self.files[name].resolve() for name in REQUIRED)


def dataset(table: Path | str, only: str | None = None) -> Dataset:
    """The data set that a table describes, or one of those in its column `dataset`; labels are discovered in its files.

    Args:
        table: the CSV file.
        only: name of the one; None takes all rows.
    """
    return Dataset(
        name=str(table) if only is None else only,
        labels=None,
        main=None,
        size=None,
        find=partial(find, Path(table), only),
        read=read,
        crops=CROPS,
        pieces=lambda rows: [[row] for row in rows],  # all rows with one atlas are one patient
        aligns=True,
    )


def datasets(table: Path | str) -> list[str]:
    """The sets in the column `dataset` of a table, in the order of their first rows.

    Args:
        table: the CSV file.

    Returns:
        Their names; none without that column, or with one set in it.

    Raises:
        DataError: as `find`, or the column is filled in some rows only.
    """
    found = {}
    for line, cells in read_table(Path(table), warn=False):
        if "dataset" not in cells:
            return []
        name = cells["dataset"]
        if name is None:
            raise DataError(f"{table}, line {line}: the cell dataset is empty; fill it, or drop the whole column.")
        if set(name) & set("/\\") or name.startswith("."):
            raise DataError(
                f"{table}, line {line}: expected a name of a set that a folder can have, received {name!r}."
            )
        found[name] = None
    return list(found) if len(found) > 1 else []


def find(table: Path, only: str | None, data_dir: Path | str | None) -> Found:
    """Reads the table.

    Without a column `patient`, rows that share an image belong to one patient, so that no image is in two
    parts of the division; a column `split` may put it there, with a warning.

    Args:
        table: the CSV file.
        only: name of a set, whose rows alone are taken; None takes all.
        data_dir: folder that paths start from; None: the folder of the table.

    Returns:
        {patient: rows}, and the division where the table has a column `split`.

    Raises:
        DataError: the table is missing, lacks a column or a cell, has a row or case twice, or puts a patient
            into two parts.
    """
    base = table.parent if data_dir is None else Path(data_dir).expanduser()
    lines = read_table(table, warn=False)
    if only in (None, lines[0][1].get("dataset")):  # once for all sets
        _warn_of_unknown(table, lines[0][1], COLUMNS)
    rows = [_row(table, base, *line) for line in lines if only is None or line[1]["dataset"] == only]
    _check_unique(table, rows)
    _warn_of_shared(table, rows)
    patients: dict[str, list[Row]] = {}
    for owner, row in zip(_owners(table, rows), rows, strict=True):
        patients.setdefault(owner, []).append(replace(row, patient=owner))
    return Found(patients, splits=_division(table, patients))


def read(rows: list[Row], options: Options) -> tuple[list[Pair], dict[str, int]]:
    """Reads the pairs of one patient; each image is scaled to [0, 1] by itself.

    Args:
        rows: rows of the table.
        options: with `size`, images are cropped or padded round their middle; otherwise kept as they are. With `crop`
            "resize" each is resized to `size` instead, from its own field of view, as `hetmorph register` shows images
            to a model of one size. With `align`, moving images are seen through what it finds.

    Raises:
        DataError: a file is missing, damaged, or its header does not match its partner's; it is named.
    """
    pairs, cut = [], {}
    for row in rows:
        pair, gone = _read_row(row, options)
        pairs.append(pair)
        if gone:
            cut[row.case] = gone
    return pairs, cut


def read_table(
    table: Path, columns: Sequence[str] = COLUMNS, broken: dict[int, str] | None = None, warn: bool = True
) -> list[tuple[int, dict[str, str | None]]]:
    """Number of the line and cells by column of each row of a table of pairs; empty cells are None.

    Args:
        table: the CSV file.
        columns: names of the known columns, beside the required `moving` and `fixed`; others are told of.
        broken: gets what is wrong with a row by its line, and the row is left out; None raises instead.
        warn: tell of unknown columns.

    Raises:
        DataError: no such table, it holds no row, or lacks a column or a cell.
    """
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            lines = [(reader.line_num, entry) for entry in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{table}: expected a table of pairs (CSV, UTF-8), received: {reason}.") from error
    further = ", ".join(name for name in columns if name not in REQUIRED)
    if missing := [name for name in REQUIRED if name not in header]:
        raise DataError(
            f"{table}: expected a first line with the columns moving,fixed (and perhaps {further}), separated by "
            f"commas; {', '.join(missing)} not among {header}."
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{table}: the columns {twice} are there twice; keep one of each.")
    if warn:
        _warn_of_unknown(table, header, columns)
    if not lines:
        raise DataError(f"{table}: holds no row; expected one for each pair.")
    rows = []
    for line, entry in lines:
        try:
            rows.append((line, _cells(table, line, entry)))
        except DataError as error:
            if broken is None:
                raise
            broken[line] = str(error)
    return rows


def _warn_of_unknown(table: Path, header: Iterable[str], columns: Sequence[str]) -> None:
    if ignored := [name for name in header if name not in columns]:
        _LOG.warning("%s: the columns %s are not used; those known are %s.", table, ignored, ", ".join(columns))


def _cells(table: Path, line: int, entry: dict) -> dict[str, str | None]:
    if None in entry or None in entry.values():
        raise DataError(f"{table}, line {line}: expected as many cells as the first line has; check commas and quotes.")
    cells = {name: (text.strip() or None) for name, text in entry.items()}
    if empty := [name for name in REQUIRED if cells[name] is None]:
        raise DataError(f"{table}, line {line}: the cell {' and '.join(empty)} is empty; name a file or drop the row.")
    return cells


def _row(table: Path, base: Path, line: int, cells: dict[str, str | None]) -> Row:
    split = cells.get("split")
    if "split" in cells and split not in NAMES:
        raise DataError(f"{table}, line {line}: expected split to be one of {NAMES}, received {split!r}.")
    if "patient" in cells and cells["patient"] is None:
        raise DataError(f"{table}, line {line}: the cell patient is empty; fill it, or drop the whole column.")
    alone = [name for name in POINTS if cells.get(name) is not None]
    if len(alone) == 1:
        raise DataError(
            f"{table}, line {line}: {alone[0]} is there, {' and '.join(set(POINTS) - set(alone))} is not; landmarks "
            "are the same points in either image."
        )
    frame = cells.get("points_frame") or FRAMES[0]
    if frame not in FRAMES:
        raise DataError(f"{table}, line {line}: expected points_frame to be one of {FRAMES}, received {frame!r}.")
    paths = {name: None if cells.get(name) is None else base / cells[name] for name in FILES}
    scales = tuple(_scale(table, line, cells.get(name) or cells.get("modality")) for name in MODALITY)
    return Row(line, cells.get("case") or f"line{line:04d}", cells.get("patient"), split, paths, frame, scales)


def _scale(table: Path, line: int, modality: str | None) -> Scale | None:
    if modality not in (None, *MODALITIES):
        raise DataError(f"{table}, line {line}: expected a modality of {', '.join(MODALITIES)}, received {modality!r}.")
    return None if modality is None else Scale(modality)


def _check_unique(table: Path, rows: list[Row]) -> None:
    seen: dict[object, int] = {}
    for row in rows:
        for key, what in (
            (row.images, "the same moving and fixed image"),
            (row.case, f"the case {row.case!r}"),
        ):
            if key in seen:
                raise DataError(f"{table}, line {row.line}: {what} as in line {seen[key]}; keep one of the two.")
            seen[key] = row.line


def _warn_of_shared(table: Path, rows: list[Row]) -> None:
    places: dict[Path, set[str | None]] = {}
    for row in rows:
        for image in row.images:
            places.setdefault(image, set()).add(row.split)
    if shared := [str(image) for image, splits in places.items() if len(splits) > 1]:
        _LOG.warning("%s: in more than one split: %s; harmless for an atlas.", table, ", ".join(shared[:3]))


def _owners(table: Path, rows: list[Row]) -> list[str]:
    """Patient of each row: the column, else the first row of those of its split that hang together by shared images."""
    if rows[0].patient is not None:
        return [row.patient for row in rows]
    parts: list[tuple[set[tuple], str]] = []
    for row in rows:
        images = {(row.split, image) for image in row.images}
        touching = [part for part in parts if part[0] & images]
        parts = [part for part in parts if not part[0] & images]
        name = touching[0][1] if touching else row.case
        parts.append((images.union(*(part[0] for part in touching)), name))
    if len(parts) == 1 < len(rows) and rows[0].split is None:
        _LOG.warning(
            "%s: every row is connected to the others by shared images, so all are one patient; a column patient "
            "or split says how to divide them.",
            table,
        )
    return [next(name for images, name in parts if (row.split, row.images[0]) in images) for row in rows]


def _division(table: Path, patients: dict[str, list[Row]]) -> dict[str, list[str]] | None:
    division: dict[str, list[str]] = {name: [] for name in NAMES}
    for patient, rows in patients.items():
        wanted = {row.split for row in rows}
        if len(wanted) > 1:
            lines = ", ".join(str(row.line) for row in rows[:8])
            raise DataError(
                f"{table}: patient {patient!r} is in more than one split, {sorted(wanted)} (lines {lines}); rows of a "
                "patient belong into one."
            )
        split = wanted.pop()
        if split is None:
            return None
        division[split].append(patient)
    return {name: sorted(part) for name, part in division.items()}


@dataclass(frozen=True)
class _View:
    """Where the images of a row are seen.

    Attributes:
        fixed: the fixed image.
        grid: onto which both are brought.
        size: voxels of a window round its middle; None keeps it whole.
        places: grids of the moving and of the fixed image in the world of the fixed one.
        through: what takes places of `grid` to those of either image; None: they are the same.
        resizes: whether each is resized from its own field of view.
    """

    fixed: Image
    grid: Grid
    size: tuple[int, ...] | None
    places: tuple[Grid, Grid]
    through: tuple[Linear | None, None]
    resizes: bool = False

    @classmethod
    def of(cls, moving: Image, fixed: Image, options: Options) -> _View:
        """As the options say."""
        through = None if options.align is None else options.align(moving, fixed)
        places, resizes = (matched_grid(moving, fixed), fixed.grid), options.crop == RESIZE
        if not resizes:
            return cls(fixed, fixed.grid, options.size, places, (through, None))
        if through is None:
            through = onto(matched_grid(moving.with_axes_of(fixed), fixed), fixed.grid, options.size)
        return cls(fixed, fitted_grid(fixed.grid, options.size), None, places, (through, None), resizes)

    def image(self, side: int, image: Image, scale: Scale | None) -> np.ndarray:
        """The moving (0) or fixed (1) image in [0, 1], float32."""
        if scale is None and not self.resizes:
            return fit(self._pull(side, image, image.array, outside=float(image.array.min())), self.size, minmax)
        seen = minmax(image.array) if scale is None else scale.of(image)
        if self.resizes:
            return resized(seen, self.places[side], self.grid, self.through[side])
        return fit(self._pull(side, image, seen), self.size)

    def labels(self, side: int, image: Image, own: Grid | None = None) -> np.ndarray:
        """Labels of either image before the window, which may lie on a grid of their own."""
        return self._pull(side, image, image.array, "nearest", place=own)

    def _pull(self, side: int, image: Image, array: np.ndarray, method: str = "linear", outside=0.0, place=None):
        source = self.places[side] if place is None else place
        try:
            return resample(array, source, self.grid, method, outside=outside, through=self.through[side])
        except ValueError as error:
            raise DataError(f"{image.path}: {error} (fixed image {self.fixed.path.name}).") from error


def _read_row(row: Row, options: Options) -> tuple[Pair, int]:
    images = moving, fixed = tuple(read_array(row.files[name], (2, 3)) for name in REQUIRED)
    shape, size = fixed.array.shape, options.size
    if size is not None and len(size) != len(shape):
        raise DataError(f"{fixed.path}: expected {len(size)} dimensions as in size {size}, received shape {shape}.")
    view = _View.of(moving, fixed, options)
    arrays = [view.image(side, images[side], row.scales[side]) for side in (0, 1)]
    labels = [_labels(row.files[name], side, images[side], view) for side, name in enumerate(LABEL_COLUMNS)]
    kept = [one if one is None else fit(one, view.size) for one in labels]
    gone = sum(lost(one, part) for one, part in zip(labels, kept, strict=True) if one is not None)
    known = {name: _mask(row.files[name], side, images[side], view) for side, name in enumerate(MASKS)}
    known |= _landmarks(row, images, view)
    spacing = view.grid.spacing if view.resizes else fixed.spacing
    return Pair(row.case, row.patient, None, None, *arrays, *kept, spacing, in_mm=fixed.in_mm, **known), gone


def _mask(path: Path | None, side: int, image: Image, view: _View) -> np.ndarray | None:
    """Where an image counts, as it is seen."""
    if path is None:
        return None
    mask = read_array(path, (image.array.ndim,))
    check_mask(mask, image)
    whole = replace(mask, array=(mask.array != 0).astype(np.uint8))
    seen = fit(view.labels(side, whole), view.size) != 0
    if not seen.any():
        raise DataError(f"{path}: nothing of the mask lies in the {'crop' if view.size else 'fixed image'}.")
    return seen


def _landmarks(row: Row, images: Sequence[Image], view: _View) -> dict:
    """Landmarks of both images, voxels of what is seen; those that a crop leaves outside are left out."""
    if row.files[POINTS[0]] is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of points that lie far outside: below they are an error
        moving, fixed = read_landmarks([row.files[name] for name in POINTS], view.places, row.points_frame)
    for name, places, image, grid in zip(POINTS, (moving, fixed), images, view.places, strict=True):
        if (beyond := outside(grid.index(places), grid.shape)).any():
            number = int(np.argmax(beyond))
            at = ", ".join(f"{value:.1f}" for value in grid.index(places)[number])
            raise DataError(
                f"{row.files[name]}: point {number + 1} lies at voxel ({at}), outside {image.path.name} of "
                f"{grid.shape} voxels; the table's points_frame is {row.points_frame}."
            )
    if view.through[0] is not None:
        moving = view.through[0].inverse().world(moving)
    grid, shift = view.grid, origin(view.grid.shape, view.size)
    points = [(grid.index(places) + shift).astype(np.float32) for places in (moving, fixed)]
    kept = ~outside(points[1], grid.shape if view.size is None else view.size)
    return dict(zip(POINTS, (places[kept] for places in points), strict=True)) if kept.any() else {}


def _labels(path: Path | None, side: int, image: Image, view: _View) -> np.ndarray | None:
    """Labels of an image as it is seen, before the window; their own grid may be another."""
    if path is None:
        return None
    labels = read_array(path, (image.array.ndim,))
    low, high = labels.array.min(), labels.array.max()
    if low < 0 or high > 65535 or (labels.array != np.round(labels.array)).any():
        raise DataError(
            f"{path}: expected whole label values from 0 to 65535, received values from {low:g} to {high:g}; "
            "write a segmentation, not probabilities."
        )
    own = matched_grid(labels, image)
    whole = replace(labels, array=labels.array.astype(np.uint8 if high < 256 else np.uint16))
    return view.labels(side, whole, None if own.same(image.grid) else own)
