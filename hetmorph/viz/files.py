"""Figures on disk."""

from pathlib import Path

from hetmorph.io import replacing


def save(figure, path) -> Path:
    """Write a matplotlib figure, complete or not at all, and return the path; missing folders are made."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
    return Path(path)
