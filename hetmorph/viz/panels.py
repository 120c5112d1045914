"""Single panels: each draws one thing about one registration into a matplotlib axes.

Pictures show array axis 0 from left to right and axis 1 from top to bottom, as short-axis hearts are usually
read.
"""

import numpy as np

from hetmorph.metrics.deformation import fold_mask

STRUCTURE_COLOURS = (
    "#4cc9f0",
    "#ffb703",
    "#ef476f",
)  # RV, myocardium, LV: told apart also by the colour-blind


def structure_colours(count: int) -> list[str]:
    """A colour for each of so many structures; beyond twenty they repeat."""
    if count <= len(STRUCTURE_COLOURS):
        return [*STRUCTURE_COLOURS[:count]]
    from matplotlib import colormaps, colors

    palette = [colors.to_hex(colour) for colour in colormaps["tab20"].colors]
    return [palette[i % len(palette)] for i in range(count)]


def blank(axes, title: str, note: str = "") -> None:
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


def grid(axes, image, displacement, title: str, spacing, step: int = 4, folds=None) -> None:
    """The grid x + u(x) over the faded moving image: where each voxel of the fixed grid is taken from.

    Voxels at which the map folds are marked red: those given as `folds`, `[H, W]` booleans, or those of the
    displacement itself.
    """
    from matplotlib.collections import LineCollection

    picture(axes, image, title, spacing, limits=(0.0, 1.6))
    position = np.moveaxis(np.indices(displacement.shape[:-1]), 0, -1) + displacement
    lines = [*position[::step], *position.swapaxes(0, 1)[::step]]
    axes.add_collection(LineCollection(lines, colors="#7ae582", linewidths=0.6))
    folded = position[fold_mask(displacement) if folds is None else folds]
    axes.scatter(folded[:, 0], folded[:, 1], s=3, color="red", zorder=3)
    axes.set(xlim=(-0.5, image.shape[0] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))


def contours(axes, image, truth, masks, title: str, spacing) -> None:
    """Outlines over an image: structures in colour, their truth dotted white.

    Args:
        axes: where to draw.
        image: `[H, W]`.
        truth: boolean masks `[H, W]`, one per structure.
        masks: the same after, or without, registration.
        title: panel title.
        spacing: mm per axis.
    """
    picture(axes, image, title, spacing)
    for mask, colour in zip(masks, structure_colours(len(masks)), strict=True):
        _outline(axes, mask, colour, "solid", 1.4)
    for mask in truth:
        _outline(axes, mask, "white", "dotted", 1.1)


def _outline(axes, mask, colour: str, style: str, width: float) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.T.astype(float), [0.5], colors=[colour], linestyles=style, linewidths=width)
