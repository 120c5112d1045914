"""Figures of the uncertainty over all pairs of an evaluation, and of its maps where the truth is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hetmorph.evaluation.uncertainty import Curves
from hetmorph.io import replacing
from hetmorph.metrics.ranking import Sparsification, area

BLUE, GREEN, GREY = "#1f77b4", "#2a9d8f", "0.5"
UNITS = {"residual": "mean squared residual, intensity²", "displacement": "mean squared displacement error, px²"}
FLAG_COLOURS = {"accept": GREEN, "review": "#ffb703", "reject": "#ef476f"}


def save(figure, path) -> Path:
    """Write a matplotlib figure, complete or not at all, and return the path; missing folders are made."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
    return Path(path)


def sparsification_figure(curves: Curves, path) -> Path:
    """Draw the mean sparsification curves, a panel an error and region: by uncertainty, the oracle, at random.

    Args:
        curves: what `evaluation.evaluate` collected, not empty.
        path: file to write; the ending says the format (.png, .pdf, .svg).

    Returns:
        The path written.

    Raises:
        ValueError: no curves.
    """
    from matplotlib.figure import Figure

    _check(curves)
    names = [*curves.sparsification]
    figure = Figure(figsize=(4.6 * len(names), 4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        mean, pairs = curves.mean(name), int(curves.sparsification[name]["pairs"])
        axes.fill_between(mean.fraction, mean.oracle, mean.curve, color=BLUE, alpha=0.12)
        axes.plot(mean.fraction, mean.curve, color=BLUE, label="most uncertain by σ_I")
        axes.plot(mean.fraction, mean.oracle, color=GREEN, label="largest errors (oracle)")
        axes.axhline(mean.curve[0], color=GREY, linestyle="dashed", label="at random")
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel="removed fraction of the voxels", ylabel=UNITS[name.split("_")[0]])
        axes.set_title(f"{name.replace('_', ', ')}: area {area(mean):.2g}, {pairs} pairs", fontsize=10)
    axes.legend(fontsize=8)
    return save(figure, path)


def calibration_figure(curves: Curves, path) -> Path:
    """Draw the calibration of σ_I over all voxels, a row a region: reliability, and histogram of r/σ.

    Arguments, result and errors as `sparsification_figure`.
    """
    from matplotlib.figure import Figure

    _check(curves)
    regions = {name: values for name, values in curves.calibration().items() if values["voxels"]}
    figure = Figure(figsize=(10, 4.2 * len(regions)), layout="constrained")
    for axes, (name, values) in zip(
        np.reshape(figure.subplots(len(regions), 2), (-1, 2)), regions.items(), strict=True
    ):
        _draw_reliability(axes[0], name, values)
        _draw_histogram(axes[1], name, values)
    return save(figure, path)


def _draw_reliability(axes, name: str, values: dict) -> None:
    predicted, observed, count = (np.array(values["reliability"][key]) for key in ("predicted", "observed", "count"))
    ends = min(predicted.min(), observed[observed > 0].min(initial=1)), max(predicted.max(), observed.max())
    axes.plot(ends, ends, color=GREY, linestyle="dashed", label="calibrated")
    axes.plot(predicted, observed, color=BLUE, linewidth=1)
    axes.scatter(predicted, observed, s=4 + 80 * count / count.max(), color=BLUE, label="voxels of like σ_I")
    axes.set(
        xscale="log", yscale="log", xlabel="predicted σ_I, intensity", ylabel="root mean square residual, intensity"
    )
    axes.set_title(f"{name}: expected calibration error {values['sigma_ece']:.2g}", fontsize=10)
    axes.legend(fontsize=8)


def _draw_histogram(axes, name: str, values: dict) -> None:
    edges, count = np.array(values["histogram"]["edges"]), np.array(values["histogram"]["count"])
    width = np.diff(edges)
    # The first and last count lie beyond the edges.
    axes.stairs(count[1:-1] / (count.sum() * width), edges, fill=True, color=BLUE, alpha=0.35, label="r / σ_I")
    axes.plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), color=GREY, linestyle="dashed", label="N(0, 1)")
    axes.set(xlim=(edges[0], edges[-1]), xlabel="standardised residual", ylabel="density")
    axes.set_title(
        f"{name}: mean {values['z_mean']:.2f}, sd {values['z_sd']:.2f}\n"
        f"within σ {100 * values['coverage1']:.1f} % (68.3), 2σ {100 * values['coverage2']:.1f} % (95.4)",
        fontsize=10,
    )
    axes.legend(fontsize=8)


def known_truth_figure(
    curves: Mapping[str, Sparsification],
    risk: tuple[np.ndarray, np.ndarray],
    flags: Sequence[str],
    coverage: Mapping[str, float],
    stated: float,
    path,
) -> Path:
    """Draw three panels: how each map ranks voxels, how the best ranks cases, how often its bound holds.

    Args:
        curves: by map, error left after removing the most uncertain voxels, in units of the mean error.
        risk: share of the cases kept, the most certain first, and their mean error, voxels.
        flags: "accept", "review" or "reject" of the cases, the most certain first.
        coverage: by patient, share of the voxels within the bound; empty where there is no bound.
        stated: coverage that the bound promises.
        path: file to write.

    Returns:
        The path written.

    Raises:
        ValueError: no curves.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("expected the curve of at least one map, got none")
    figure = Figure(figsize=(16, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    _draw_curves(axes[0], curves)
    _draw_risk(axes[1], *risk, flags)
    _draw_coverage(axes[2], coverage, stated)
    return save(figure, path)


def _draw_curves(axes, curves: Mapping[str, Sparsification]) -> None:
    for name, curve in curves.items():
        axes.plot(curve.fraction, curve.curve, label=name, linewidth=1.4)
    axes.plot(curve.fraction, curve.oracle, color=GREEN, linestyle="dotted", label="largest errors (oracle)")
    axes.axhline(1, color=GREY, linestyle="dashed", label="at random")
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="removed fraction of the voxels", ylabel="error left / mean error")
    axes.set_title("voxels: the most uncertain removed", fontsize=10)
    axes.legend(fontsize=7)


def _draw_risk(axes, share: np.ndarray, error: np.ndarray, flags: Sequence[str]) -> None:
    axes.plot(share, error, color=BLUE, linewidth=1)
    for flag, colour in FLAG_COLOURS.items():
        own = np.array([one == flag for one in flags])
        axes.scatter(share[own], error[own], s=14, color=colour, label=f"{flag}: {own.sum()}", zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, None), xlabel="kept fraction of the cases", ylabel="mean error of those, px")
    axes.set_title("cases: the most certain kept", fontsize=10)
    axes.legend(fontsize=8)


def _draw_coverage(axes, coverage: Mapping[str, float], stated: float) -> None:
    axes.bar(range(len(coverage)), list(coverage.values()), color=BLUE, alpha=0.6)
    axes.axhline(stated, color=GREY, linestyle="dashed", label=f"stated: {stated:.0%}")
    axes.set_xticks(range(len(coverage)), list(coverage), rotation=90, fontsize=7)
    axes.set(ylim=(0, 1.02), ylabel="voxels within the bound")
    axes.set_title("patients: coverage of the conformal bound", fontsize=10)
    axes.legend(fontsize=8)


def _check(curves: Curves) -> None:
    if not curves:
        raise ValueError("expected curves of at least one pair with a predicted variance, got none")
