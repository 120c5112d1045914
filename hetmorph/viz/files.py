"""Figures on disk."""

import os
from pathlib import Path


def save(figure, path) -> Path:
    """Write a matplotlib figure, complete or not at all, and return the path; missing folders are made."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    figure.savefig(part, dpi=110)
    part.replace(path)
    return path
