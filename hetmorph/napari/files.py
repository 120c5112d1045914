"""What the plug-in reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hetmorph.io import read_image, write_transform
from hetmorph.napari import process
from hetmorph.napari.layers import KEY
from hetmorph.napari.world import layer_affine


def reader(path: str | list[str]) -> Callable:
    """What reads an image into a layer, at the place that its header gives it.

    Args:
        path: path of a file, or several that become a layer each.
    """
    paths = [path] if isinstance(path, str) else path
    return lambda _: [_read(Path(one)) for one in paths]


def _read(path: Path) -> tuple:
    image = read_image(path)
    look = {"name": path.name, "affine": layer_affine(image.grid, image.array.ndim)}
    if image.in_mm and image.array.ndim == image.grid.ndim:
        look["units"] = ["mm"] * image.array.ndim
    return image.array.T, look, "image"


def write_layer(path: str, data, attributes: Mapping) -> list[str]:
    """Write the displacement of a registration, of which the layer shows arrows.

    Args:
        path: file, `.nii.gz` (LPS, mm, intent 1007), or of ITK's transforms `.tfm`, `.h5`, which 3D Slicer reads.
        data: data of the layer.
        attributes: attributes of the layer.

    Raises:
        ValueError: a layer that the plug-in did not make.
    """
    return [str(write_displacement(path, attributes.get("metadata", {})))]


def write_displacement(path: str | Path, metadata: Mapping) -> Path:
    """The same, of a layer's metadata; a `.json` beside the file says where it comes from.

    Args:
        path: file to write, of an ending that `io.write_transform` knows.
        metadata: metadata of a layer that shows arrows or the moved image.
    """
    if KEY not in metadata:
        raise ValueError(f"{path}: this layer holds no displacement; expected one that a registration added")
    kept = metadata[KEY]
    return write_transform(path, kept["transform"], moving=kept["moving"], provenance=kept["about"])


def phantom() -> list[tuple]:
    """A moving and a fixed image of the built-in phantom of a heart, as layers."""
    found = process.phantom()
    spacing = found.pop("spacing")
    place = {"scale": spacing[::-1], "units": ["mm"] * len(spacing)}
    return [(array.T, {"name": f"phantom, {phase}", **place}, "image") for phase, array in found.items()]
