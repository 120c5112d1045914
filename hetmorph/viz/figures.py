"""The picture of a run: its median and its worst case."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hetmorph.evaluation.cases import NO_LABELS, identity
from hetmorph.evaluation.predictor import Prediction, RegistrationFailed
from hetmorph.evaluation.summary import pick_cases
from hetmorph.evaluation.table import FEW, structure_heading
from hetmorph.viz import panels
from hetmorph.viz.files import save as _save
from hetmorph.viz.rasters import spread
from hetmorph.viz.slices import Shown, show


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
    shown = [
        show(name, pairs[i], rows[i], _prediction(predictor, pairs[i]), convention, labels, main)
        for name, i in chosen.items()
    ]
    return _save(_figure(shown, labels, main), Path(path))


def _prediction(predictor: Callable[..., Prediction], pair) -> Prediction:
    """A pair without registration is shown undeformed."""
    try:
        return predictor(pair.moving, pair.fixed)
    except RegistrationFailed:
        return identity(pair)


def _figure(shown: Sequence[Shown], labels: Mapping[str, int], main: str | None):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.4 * len(shown)), layout="constrained")
    limits = _limits(shown)
    blocks = np.atleast_1d(figure.subfigures(len(shown), 1, hspace=0.03))
    for block, case in zip(blocks, shown, strict=True):
        block.suptitle(_title(case, main), fontsize=12, fontweight="bold")
        axes = block.subplots(2, 5)
        _draw_images(axes[0], case, limits)
        _draw_maps(axes[1, :3], case, limits)
        _draw_labels(axes[1, 3:], case, labels, main)
    return figure


def _draw_images(axes, case: Shown, limits: dict) -> None:
    panels.picture(axes[0], case.moving, "moving", case.spacing)
    panels.picture(axes[1], case.fixed, "fixed", case.spacing)
    panels.picture(axes[2], case.moved, "moved", case.spacing)
    before, after = case.fixed - case.moving, case.fixed - case.moved
    panels.picture(axes[3], before, "difference before", case.spacing, limits["difference"], "RdBu_r")
    shown = panels.picture(axes[4], after, "difference after", case.spacing, limits["difference"], "RdBu_r")
    _colour_bar(shown, axes[3:], "fixed − moving or moved, intensity")


def _draw_maps(axes, case: Shown, limits: dict) -> None:
    title = f"grid x + u(x), |u| ≤ {case.longest:.1f} px"
    panels.grid(axes[0], case.moving, case.displacement, title, case.spacing, folds=case.folds)
    if case.sigma is None:
        panels.blank(axes[1], "σ_I", "the model gives\nno variance")
    else:
        shown = panels.picture(axes[1], case.sigma, "σ_I", case.spacing, limits["sigma"], "viridis")
        _colour_bar(shown, axes[1], "intensity")
    if case.weight is None:
        panels.blank(axes[2], "weight", "the model gives\nno weight")
    else:
        shown = panels.picture(axes[2], case.weight, "weight", case.spacing, limits["weight"], "magma")
        _colour_bar(shown, axes[2], "relative, no unit")


def _draw_labels(axes, case: Shown, labels: Mapping[str, int], main: str | None) -> None:
    if case.truth is None:
        for panel, when in zip(axes, ("before", "after"), strict=True):
            panels.blank(panel, f"labels {when}", "no labels")
        return
    for panel, masks, block, when in (
        (axes[0], case.before, "undeformed", "before"),
        (axes[1], case.after, "registered", "after"),
    ):
        title = _scores(case.row, block, when, labels, main)
        panels.contours(panel, case.fixed, [*case.truth.values()], [*masks.values()], title, case.spacing)
    _legend(axes[1], labels)


def _legend(axes, labels: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    # Of many structures the outlines are told apart by their place; a legend would hide them.
    colours = zip(labels, panels.structure_colours(len(labels)), strict=True) if len(labels) <= FEW else ()
    handles = [Line2D([], [], color=colour, label=structure_heading(name)) for name, colour in colours]
    handles.append(Line2D([], [], color="white", linestyle="dotted", label="truth"))
    axes.legend(handles=handles, loc="lower right", fontsize=7, facecolor="0.25", labelcolor="white", framealpha=0.8)


def _limits(shown: Sequence[Shown]) -> dict[str, tuple[float, float]]:
    """Colour limits over all the cases shown, between percentiles so that single voxels do not flatten the rest."""
    difference = spread([case.fixed - case.moving for case in shown], 0.25, 99.75)
    largest = max(map(abs, difference))
    return {
        "difference": (-largest, largest),
        "sigma": (0.0, spread([case.sigma for case in shown], 0, 99.5)[1]),
        "weight": spread([case.weight for case in shown], 0.5, 99.5),
    }


def _title(case: Shown, main: str | None) -> str:
    row = case.row
    title = f"{case.name} case: {row['case_id']}"
    if row.get("group"):
        title += f" ({row['group']})"
    if case.index is not None:
        title += f" · slice {case.index}"
    if f"registered_dice_{main}" in row:
        dice = [row[f"{block}_dice_{main}"] for block in ("undeformed", "registered")]
        title += f" · Dice {structure_heading(main)} {dice[0]:.3f} → {dice[1]:.3f}"
        title += f" · HD {row['undeformed_hd_px']:.1f} → {row['registered_hd_px']:.1f} px"
    return f"{title} · folds {row['registered_folds_percent']:.2f} %"


def _scores(row: dict, block: str, when: str, labels: Mapping[str, int], main: str | None) -> str:
    names = [*labels] if len(labels) <= FEW else [main, "mean"]
    scores = {structure_heading(name): row[f"{block}_dice_{name}"] for name in names}
    # A structure that is in only one of the images, or in none, has no score.
    shown = [f"{name} {score:.2f}" for name, score in scores.items() if np.isfinite(score)]
    return " ".join([f"labels {when}:", *shown])


def _colour_bar(shown, axes, label: str) -> None:
    axes_list = np.atleast_1d(axes)
    bar = axes_list[0].figure.colorbar(shown, ax=[*axes_list], shrink=0.75, pad=0.02, fraction=0.05)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=8)
