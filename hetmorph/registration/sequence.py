"""A sequence, such as a cine of the heart: its reference frame registered to each of its frames, and what that says.

Volumes and strains of the labels tell how an organ moves.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hetmorph.evaluation import wrap, write_cases
from hetmorph.io import DataError, Grid, Image, Transform, replacing
from hetmorph.registration.intensities import Intensities
from hetmorph.registration.pair import Registration, register

ED = "ED"


def register_sequence(
    sequence: Image,
    reference: int,
    model,
    spacing: float | None = None,
    mask: Image | None = None,
    estimate: Callable | None = None,
    intensities: Intensities | None = None,
) -> Iterator[Registration]:
    """Registers the reference frame, moving, to each frame, fixed, in their order, itself included.

    So the models of `hetmorph.data.acdc` are trained, end-diastole moving, and the labels of the reference frame are
    warped onto every frame.

    Args:
        sequence: `[X, Y, Z, T]`.
        reference: index of the moving frame.
        model, spacing, mask, estimate, intensities: as for `register`.

    Raises:
        DataError: no sequence.
    """
    predictor, frames = wrap(model), sequence.frames(3)
    for frame in frames:
        yield register(frames[reference], frame, predictor, spacing, mask, estimate, intensities=intensities)


def reference_frame(sequence: Image, reference: str) -> int:
    """The index that "ED" or a number means: cine images start with end-diastole, the trigger being the R wave.

    Args:
        sequence: with frames along its last axis.
        reference: "ED", the first, or a number from 0.

    Raises:
        DataError: no sequence, or it has no such frame.
    """
    if sequence.array.ndim != 4:
        raise DataError(f"{sequence.path}: expected a sequence (X, Y, Z, T), received shape {sequence.array.shape}.")
    count = sequence.array.shape[-1]
    if reference.upper() == ED:
        return 0
    if not reference.isdecimal() or int(reference) >= count:
        raise DataError(f"{sequence.path}: expected a reference frame ED or 0 to {count - 1}, received {reference!r}.")
    return int(reference)


def volumes_ml(labels: np.ndarray, grid: Grid, values: Sequence[int]) -> dict[int, float]:
    """Volume of each label, millilitres: its voxels times their volume.

    Args:
        labels: `[*S]` whole values.
        grid: grid of the labels; its spacing is in mm.
        values: the labels to measure.
    """
    voxel = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    return {value: float((labels == value).sum()) * voxel for value in values}


def strains(transform: Transform, region: np.ndarray, axis: int) -> tuple[float, float]:
    """Mean circumferential and radial strain of a region, in the planes across an axis.

    With φ = id + u in millimetres, from this frame to the reference, a line element d of this frame was ∇φ·d in the
    reference: strain = 1/|∇φ·d| − 1 (engineering strain; 0 at rest, below 0 where shortened). d is the radial or the
    circumferential direction about the centroid of the region in each slice.

    Args:
        transform: takes the frame, fixed, to the reference, moving.
        region: `[X, Y, Z]` booleans on the grid of the frame.
        axis: across the slices.

    Returns:
        Circumferential and radial mean over the voxels of the region; NaN where it is empty, or a slice one voxel wide.
    """
    plane = [i for i in range(3) if i != axis]
    region = np.moveaxis(region, axis, -1)
    if not region.any() or min(region.shape[:2]) < 2:
        return float("nan"), float("nan")
    size = np.array(transform.grid.spacing)[plane]
    shift = np.moveaxis(transform.displacement, axis, 2)[..., plane] * size
    # [..., i, j] = dφ_i / dx_j in the plane
    gradient = np.stack([np.gradient(shift, size[j], axis=j) for j in range(2)], -1) + np.eye(2)
    places = np.argwhere(region)
    radial = _radial(places, size)
    along = np.stack([-radial[:, 1], radial[:, 0]], -1)
    local = gradient[tuple(places.T)]
    return tuple(
        float(np.mean(1 / np.linalg.norm(np.einsum("pij,pj->pi", local, d), axis=-1) - 1)) for d in (along, radial)
    )


def curve(
    transforms: Sequence[Transform], labels: Sequence[np.ndarray], step: float, values: Sequence[int], axis: int
) -> list[dict]:
    """One row a frame: volume and strains of each label.

    Args:
        transforms: one for each frame, which takes it to the reference.
        labels: `[X, Y, Z]` of the reference, warped onto each frame.
        step: time from frame to frame, in the unit of the header.
        values: labels to report.
        axis: across the slices, see `strains`.
    """
    rows = []
    for frame, (transform, warped) in enumerate(zip(transforms, labels, strict=True)):
        row = {"frame": frame, "time": frame * step}
        volumes = volumes_ml(warped, transform.grid, values)
        for value in values:
            around, across = strains(transform, warped == value, axis)
            row[f"volume_ml_{value}"] = volumes[value]
            row[f"circumferential_strain_{value}"], row[f"radial_strain_{value}"] = around, across
        rows.append(row)
    return rows


def write_curve(path: Path | str, rows: list[dict]) -> Path:
    """Writes the rows as CSV; an empty cell is not defined.

    Args:
        path: `.csv`.
        rows: what `curve` returned.
    """
    write_cases(path, [{name: _cell(value) for name, value in row.items()} for row in rows])
    return Path(path)


def draw_curve(path: Path | str, rows: list[dict], values: Sequence[int]) -> Path:
    """Draws volumes and circumferential strains over time as PNG.

    Args:
        path: `.png`.
        rows: what `curve` returned.
        values: the labels to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    time = [row["time"] for row in rows]
    for place, (name, title) in enumerate(
        (("volume_ml", "volume, ml"), ("circumferential_strain", "circumferential strain")), start=1
    ):
        axes = figure.add_subplot(1, 2, place)
        for value in values:
            axes.plot(time, [row[f"{name}_{value}"] for row in rows], label=f"label {value}")
        axes.set(xlabel="time, as the header counts it", ylabel=title)
        axes.legend(frameon=False)
    with replacing(path) as part:
        figure.savefig(part, dpi=120, metadata={"Software": None})
    return Path(path)


def _radial(places: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Unit vectors `[P, 2]`, in millimetres, from the centroid of each slice to its voxels `[P, 3]`."""
    arrows = places[:, :2] * size
    for z in np.unique(places[:, 2]):
        here = places[:, 2] == z
        arrows[here] -= arrows[here].mean(0)
    length = np.linalg.norm(arrows, axis=-1, keepdims=True)
    # a voxel on the centroid has no direction: any will do
    return np.where(length > 1e-9, arrows / np.maximum(length, 1e-9), [1.0, 0.0])


def _cell(value):
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value
