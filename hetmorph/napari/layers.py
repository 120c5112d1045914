"""A registration as the layers of a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hetmorph.napari.lines import arrows, deformed_grid
from hetmorph.napari.world import layer_affine

if TYPE_CHECKING:
    from hetmorph.napari.work import Found

KEY = "hetmorph"  # of what the plug-in keeps in a layer's metadata


def layers_of(found: Found, names: tuple[str, str], units: str | None = None) -> list[tuple]:
    """Data, options and type of each layer, as `napari.layers.Layer.create` takes them, the lowest first.

    The moved image and the arrows keep in their metadata `displacement`, `[…, Y, X, N]`, voxels of the fixed layer in
    the order of its axes, and under `hetmorph` what `files.write_displacement` takes.

    Args:
        found: what `work.steps` returned.
        names: the names of the moving and the fixed layer.
        units: units of the world; None leaves them to napari.
    """
    transform, pair = found.transform, f"{names[0]} → {names[1]}"
    n = transform.grid.ndim
    place = {"affine": layer_affine(transform.grid)} | ({} if units is None else {"units": [units] * n})
    kept = {
        "displacement": np.moveaxis(transform.displacement[..., ::-1], -1, 0).T,
        KEY: {"transform": transform, "moving": found.moving, "about": found.about},
    }
    made = [(found.moved.T, {"name": f"moved: {pair}", "colormap": "gray", "metadata": kept}, "image")]
    for values, name, colours in (
        (found.uncertainty_mm, "uncertainty, mm", "magma"),
        (found.bound_mm, "bound of the error, mm", "viridis"),
    ):
        if values is not None and np.isfinite(values).any():
            limits = (0.0, float(np.nanmax(values)) or 1.0)
            look = {"colormap": colours, "contrast_limits": limits, "opacity": 0.6, "visible": False}
            made.append((values.T, {"name": f"{name}: {pair}", **look}, "image"))
    line = {"vector_style": "line", "edge_width": 0.3}
    grid = {"name": f"deformation grid: {pair}", "edge_color": "cyan", "opacity": 0.6, **line}
    made.append((deformed_grid(transform.displacement), grid, "vectors"))
    arrow = {"name": f"displacement: {pair}", "edge_color": "yellow", "vector_style": "arrow", "visible": False}
    made.append((arrows(transform.displacement), {**arrow, "metadata": kept}, "vectors"))
    return [(data, {**look, **place}, kind) for data, look, kind in made]
