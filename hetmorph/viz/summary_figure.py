"""The picture of a run: its median and its worst case.

Pictures show array axis 0 from left to right and axis 1 from top to bottom, as short-axis hearts are usually read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hetmorph.evaluation.cases import NO_LABELS, identity
from hetmorph.evaluation.predictor import Prediction, RegistrationFailed
from hetmorph.evaluation.summary import BLOCKS, pick_cases
from hetmorph.evaluation.table import FEW, structure_heading
from hetmorph.viz.case import ReportedCase, report_on, structure_colours
from hetmorph.viz.figures import save
from hetmorph.viz.rasters import spread


def summary_figure(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    rows: Sequence[dict],
    path,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = NO_LABELS,
    main: str | None = None,
) -> Path:
    """Draw the median and the worst case by the main structure's Dice into an image file.

    Per case: moving, fixed, moved, difference before and after; deformed grid, σ_I, weight, labels before and
    after. Differences, σ_I and weights share one scale over both cases. A volume shows the slice of its last axis
    through the middle of the main structure. Without any scored case the first pair is shown.

    Args:
        predictor: called as `predictor(moving, fixed)`.
        pairs: `hetmorph.data.Pair` objects, 2-D or 3-D.
        rows: rows of `evaluation.evaluate` for the same pairs in the same order.
        path: file to write; the ending says the format (.png, .pdf, .svg).
        convention: as the rows were made with, for the outlines of the warped labels.
        labels: label value of each structure.
        main: the structure that ranks the cases.

    Returns:
        The path written.

    Raises:
        ValueError: no pairs, or pairs and rows of different number.
    """
    if not pairs or len(pairs) != len(rows):
        raise ValueError(f"expected one row per pair and at least one, got {len(pairs)} pairs, {len(rows)} rows")
    chosen = pick_cases(rows, f"registered_dice_{main}") or {"first": 0}
    shown = []
    for name, i in chosen.items():
        case = report_on(
            pairs[i], _prediction(predictor, pairs[i]), rows[i], convention=convention, labels=labels, main=main
        )
        shown.append(_Shown(name, case, None if pairs[i].moving.ndim == 2 else _middle(case)))
    return save(_figure(shown), Path(path))


@dataclass(frozen=True)
class _Shown:
    """A case in the plane of a picture: an image as it is, a volume in one slice of its last axis."""

    name: str
    case: ReportedCase
    index: int | None

    def plane(self, values: np.ndarray | None) -> np.ndarray | None:
        return values if self.index is None or values is None else values[:, :, self.index]


def _prediction(predictor: Callable[..., Prediction], pair) -> Prediction:
    """A pair without registration is shown undeformed."""
    try:
        prediction = predictor(pair.moving, pair.fixed)
    except RegistrationFailed:
        return identity(pair)
    return prediction if np.isfinite(prediction.displacement).all() else identity(pair)


def _middle(case: ReportedCase) -> int:
    """The slice through the middle of the main structure in the fixed labels, or of the axis where there is none."""
    inside = np.flatnonzero(case.truth[case.main].any((0, 1))) if case.labels else np.zeros(0)
    return int(inside[inside.size // 2]) if inside.size else case.pair.moving.shape[2] // 2


def _figure(shown: Sequence[_Shown]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.4 * len(shown)), layout="constrained")
    limits = _limits([one.case for one in shown])
    blocks = np.atleast_1d(figure.subfigures(len(shown), 1, hspace=0.03))
    for block, one in zip(blocks, shown, strict=True):
        block.suptitle(_title(one), fontsize=12, fontweight="bold")
        axes = block.subplots(2, 5)
        _draw_images(axes[0], one, limits)
        _draw_maps(axes[1, :3], one, limits)
        _draw_labels(axes[1, 3:], one)
    return figure


def _draw_images(axes, one: _Shown, limits: dict) -> None:
    moving, fixed, moved = map(one.plane, (one.case.pair.moving, one.case.pair.fixed, one.case.prediction.moved))
    spacing = one.case.pair.spacing
    for panel, image, title in zip(axes, (moving, fixed, moved), ("moving", "fixed", "moved"), strict=False):
        picture(panel, image, title, spacing)
    for panel, image, when in ((axes[3], moving, "before"), (axes[4], moved, "after")):
        drawn = picture(panel, fixed - image, f"difference {when}", spacing, limits["difference"], "RdBu_r")
    _colour_bar(drawn, axes[3:], "fixed − moving or moved, intensity")


def _draw_maps(axes, one: _Shown, limits: dict) -> None:
    case, field = one.case, one.case.prediction.displacement
    title = f"grid x + u(x), |u| ≤ {np.linalg.norm(field, axis=-1).max():.1f} px"
    folds = one.plane(case.determinant) <= 0
    grid(axes[0], one.plane(case.pair.moving), one.plane(field)[..., :2], title, case.pair.spacing, folds)
    for panel, name, title, colours, unit in (
        (axes[1], "variance", "σ_I", "viridis", "intensity"),
        (axes[2], "weight", "weight", "magma", "relative, no unit"),
    ):
        values = one.plane(case.sigma if name == "variance" else case.prediction.weight)
        if values is None:
            _blank(panel, title, f"the model gives\nno {name}")
        else:
            _colour_bar(picture(panel, values, title, case.pair.spacing, limits[name], colours), panel, unit)


def _draw_labels(axes, one: _Shown) -> None:
    case = one.case
    for panel, masks, block, when in zip(axes, (case.before, case.after), BLOCKS, ("before", "after"), strict=True):
        if not case.labels:
            _blank(panel, f"labels {when}", "no labels")
            continue
        title = " ".join([f"labels {when}:", *(f"{name} {score:.2f}" for name, score in case.dices(block).items())])
        picture(panel, one.plane(case.pair.fixed), title, case.pair.spacing)
        for mask, colour in zip(masks.values(), structure_colours(len(masks)), strict=True):
            _outline(panel, one.plane(mask), colour, "solid", 1.4)
        for mask in case.truth.values():
            _outline(panel, one.plane(mask), "white", "dotted", 1.1)
    if case.labels:
        _legend(axes[1], case.labels)


def _legend(axes, labels: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    # Of many structures the outlines are told apart by their place; a legend would hide them.
    colours = zip(labels, structure_colours(len(labels)), strict=True) if len(labels) <= FEW else ()
    handles = [Line2D([], [], color=colour, label=structure_heading(name)) for name, colour in colours]
    handles.append(Line2D([], [], color="white", linestyle="dotted", label="truth"))
    axes.legend(handles=handles, loc="lower right", fontsize=7, facecolor="0.25", labelcolor="white", framealpha=0.8)


def _limits(cases: Sequence[ReportedCase]) -> dict[str, tuple[float, float]]:
    """Colour limits over all the cases shown, between percentiles so that single voxels do not flatten the rest."""
    difference = spread([case.pair.fixed - case.pair.moving for case in cases], 0.25, 99.75)
    largest = max(map(abs, difference))
    return {
        "difference": (-largest, largest),
        "variance": (0.0, spread([case.sigma for case in cases], 0, 99.5)[1]),
        "weight": spread([case.prediction.weight for case in cases], 0.5, 99.5),
    }


def _title(one: _Shown) -> str:
    row, main = one.case.row, one.case.main
    title = f"{one.name} case: {row['case_id']}"
    if row.get("group"):
        title += f" ({row['group']})"
    if one.index is not None:
        title += f" · slice {one.index}"
    if f"registered_dice_{main}" in row:
        dice, distance = ([row[f"{block}_{metric}"] for block in BLOCKS] for metric in (f"dice_{main}", "hd_px"))
        title += f" · Dice {structure_heading(main)} {dice[0]:.3f} → {dice[1]:.3f}"
        title += f" · HD {distance[0]:.1f} → {distance[1]:.1f} px"
    return f"{title} · folds {row['registered_folds_percent']:.2f} %"


def _blank(axes, title: str, note: str) -> None:
    """An empty panel with a title and a note in its middle."""
    axes.set(xticks=[], yticks=[], aspect="equal")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, fontsize=9)
    axes.text(0.5, 0.5, note, ha="center", va="center", transform=axes.transAxes, fontsize=9, color="0.4")


def picture(axes, image, title: str, spacing, limits=(0.0, 1.0), colours: str = "gray"):
    """An image `[H, W]` in fixed colour limits; returns the mappable for a colour bar."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    return axes.imshow(
        np.asarray(image).T,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        aspect=spacing[1] / spacing[0],
        interpolation="nearest",
    )


def grid(axes, image, displacement, title: str, spacing, folds, step: int = 4) -> None:
    """The grid x + u(x) over the faded moving image: where each voxel of the fixed grid is taken from.

    The voxels of `folds`, `[H, W]` booleans, are marked red.
    """
    from matplotlib.collections import LineCollection

    picture(axes, image, title, spacing, limits=(0.0, 1.6))
    position = np.moveaxis(np.indices(displacement.shape[:-1]), 0, -1) + displacement
    lines = [*position[::step], *position.swapaxes(0, 1)[::step]]
    axes.add_collection(LineCollection(lines, colors="#7ae582", linewidths=0.6))
    folded = position[folds]
    axes.scatter(folded[:, 0], folded[:, 1], s=3, color="red", zorder=3)
    axes.set(xlim=(-0.5, image.shape[0] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))


def _outline(axes, mask, colour: str, style: str, width: float) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.T.astype(float), [0.5], colors=[colour], linestyles=style, linewidths=width)


def _colour_bar(shown, axes, label: str) -> None:
    axes_list = np.atleast_1d(axes)
    bar = axes_list[0].figure.colorbar(shown, ax=[*axes_list], shrink=0.75, pad=0.02, fraction=0.05)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=8)
