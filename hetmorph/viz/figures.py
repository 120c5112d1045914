"""The picture of a run: its median and its worst case."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hetmorph.evaluation.cases import LABELS, warp_labels
from hetmorph.evaluation.predictor import Prediction
from hetmorph.evaluation.summary import pick_cases
from hetmorph.viz import panels


def summary_figure(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    rows: Sequence[dict],
    path,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = LABELS,
) -> Path:
    """Draw the median and the worst case by myocardium Dice into an image file.

    Per case: moving, fixed, moved, difference before and after; deformed grid, σ_I, weight, labels before and
    after. Differences, σ_I and weights share one scale over both cases. Without any scored case the first
    pair is shown.

    Args:
        predictor: called as `predictor(moving, fixed)`.
        pairs: 2-D `hetmorph.data.Pair` objects.
        rows: rows of `evaluation.evaluate` for the same pairs in the same order.
        path: file to write; the ending says the format (.png, .pdf, .svg).
        convention: as the rows were made with, for the outlines of the warped labels.
        labels: label value of each structure.

    Returns:
        The path written.

    Raises:
        ValueError: no pairs, pairs and rows of different number, or pairs that are not 2-D.
    """
    if not pairs or len(pairs) != len(rows):
        raise ValueError(f"expected one row per pair and at least one, got {len(pairs)} pairs, {len(rows)} rows")
    if pairs[0].moving.ndim != 2:
        raise ValueError(f"the summary picture shows 2-D pairs, got images of shape {pairs[0].moving.shape}")
    chosen = pick_cases(rows) or {"first": 0}
    shown = [(name, pairs[i], rows[i], predictor(pairs[i].moving, pairs[i].fixed)) for name, i in chosen.items()]
    figure = _figure(shown, convention, labels)
    return _save(figure, Path(path))


def _figure(shown, convention: str, labels: Mapping[str, int]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.4 * len(shown)), layout="constrained")
    limits = _limits(shown)
    blocks = np.atleast_1d(figure.subfigures(len(shown), 1, hspace=0.03))
    for block, (name, pair, row, prediction) in zip(blocks, shown, strict=True):
        block.suptitle(_title(name, row), fontsize=12, fontweight="bold")
        axes = block.subplots(2, 5)
        _draw_images(axes[0], pair, prediction, limits)
        _draw_maps(axes[1, :3], pair, prediction, limits)
        _draw_labels(axes[1, 3:], pair, prediction, row, convention, labels)
    return figure


def _draw_images(axes, pair, prediction: Prediction, limits: dict) -> None:
    panels.picture(axes[0], pair.moving, "moving", pair.spacing)
    panels.picture(axes[1], pair.fixed, "fixed", pair.spacing)
    panels.picture(axes[2], prediction.moved, "moved", pair.spacing)
    panels.picture(axes[3], pair.fixed - pair.moving, "difference before", pair.spacing, limits["difference"], "RdBu_r")
    after = pair.fixed - prediction.moved
    shown = panels.picture(axes[4], after, "difference after", pair.spacing, limits["difference"], "RdBu_r")
    _colour_bar(shown, axes[3:], "fixed − moving or moved, intensity")


def _draw_maps(axes, pair, prediction: Prediction, limits: dict) -> None:
    longest = np.linalg.norm(prediction.displacement, axis=-1).max()
    panels.grid(axes[0], pair.moving, prediction.displacement, f"grid x + u(x), |u| ≤ {longest:.1f} px", pair.spacing)
    if prediction.log_variance is None:
        panels.blank(axes[1], "σ_I", "the model gives\nno variance")
    else:
        sigma = np.exp(0.5 * prediction.log_variance)
        shown = panels.picture(axes[1], sigma, "σ_I", pair.spacing, limits["sigma"], "viridis")
        _colour_bar(shown, axes[1], "intensity")
    if prediction.weight is None:
        panels.blank(axes[2], "weight", "the model gives\nno weight")
    else:
        shown = panels.picture(axes[2], prediction.weight, "weight", pair.spacing, limits["weight"], "magma")
        _colour_bar(shown, axes[2], "relative, no unit")


def _draw_labels(axes, pair, prediction: Prediction, row: dict, convention: str, labels: Mapping[str, int]) -> None:
    if pair.moving_labels is None or pair.fixed_labels is None:
        for panel, when in zip(axes, ("before", "after"), strict=True):
            panels.blank(panel, f"labels {when}", "no labels")
        return
    values = [*labels.values()]
    truth = [pair.fixed_labels == value for value in values]
    before = [pair.moving_labels == value for value in values]
    after = warp_labels(pair.moving_labels, prediction.displacement, values, convention)
    panels.contours(axes[0], pair.fixed, truth, before, _scores(row, "undeformed", "before"), pair.spacing)
    panels.contours(axes[1], pair.fixed, truth, after, _scores(row, "registered", "after"), pair.spacing)
    _legend(axes[1], labels)


def _legend(axes, labels: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, label=name.upper())
        for name, colour in zip(labels, panels.STRUCTURE_COLOURS, strict=False)
    ]
    handles.append(Line2D([], [], color="white", linestyle="dotted", label="truth"))
    axes.legend(handles=handles, loc="lower right", fontsize=7, facecolor="0.25", labelcolor="white", framealpha=0.8)


def _limits(shown) -> dict[str, tuple[float, float]]:
    """Colour limits over all the cases shown, between percentiles so that single voxels do not flatten the rest."""
    difference = _range([p.fixed - p.moving for _, p, _, _ in shown], 0.25, 99.75)
    largest = max(map(abs, difference))
    return {
        "difference": (-largest, largest),
        "sigma": (0.0, _range([_sigma(r) for *_, r in shown], 0, 99.5)[1]),
        "weight": _range([r.weight for *_, r in shown], 0.5, 99.5),
    }


def _range(maps, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of the voxels of all maps, at least a little apart; maps may be None."""
    values = np.concatenate([np.zeros(0), *(np.ravel(x) for x in maps if x is not None)])
    if not values.size:
        return 0.0, 1.0
    lower, upper = np.percentile(values, [low, high])
    return float(lower), float(max(upper, lower + 1e-6))


def _sigma(prediction: Prediction):
    return None if prediction.log_variance is None else np.exp(0.5 * prediction.log_variance)


def _title(name: str, row: dict) -> str:
    title = f"{name} case: {row['case_id']}"
    if row.get("group"):
        title += f" ({row['group']})"
    title += f" · Dice MYO {row['undeformed_dice_myo']:.3f} → {row['registered_dice_myo']:.3f}"
    title += f" · HD {row['undeformed_hd_px']:.1f} → {row['registered_hd_px']:.1f} px"
    return f"{title} · folds {row['registered_folds_percent']:.2f} %"


def _scores(row: dict, block: str, when: str) -> str:
    scores = {name: row[f"{block}_dice_{name.lower()}"] for name in ("RV", "MYO", "LV")}
    # A structure that is in only one of the slices, or in none, has no score.
    shown = [f"{name} {score:.2f}" for name, score in scores.items() if np.isfinite(score)]
    return " ".join([f"labels {when}:", *shown])


def _colour_bar(shown, axes, label: str) -> None:
    axes_list = np.atleast_1d(axes)
    bar = axes_list[0].figure.colorbar(shown, ax=[*axes_list], shrink=0.75, pad=0.02, fraction=0.05)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=8)


def _save(figure, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    figure.savefig(part, dpi=110)
    part.replace(path)
    return path
