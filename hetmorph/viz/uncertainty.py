"""Picture of maps of uncertainty beside each other, where the truth is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hetmorph.metrics.calibration import Sparsification
from hetmorph.viz.curves import BLUE, GREEN, GREY
from hetmorph.viz.files import save

FLAG_COLOURS = {"accept": GREEN, "review": "#ffb703", "reject": "#ef476f"}


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
