"""What a verb is going to read and write, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

IMAGES = (".nii.gz", ".nii", ".mgz", ".mgh", ".mha", ".nrrd", ".npz", ".npy")
PICTURES = (*IMAGES, ".png")
POINTS = (".csv", ".vtk")


def check_files(inputs: Mapping[str, Path | None], outputs: Mapping[str, tuple[Path, tuple[str, ...]]]) -> None:
    """Says what is missing, in the way, or of an ending that cannot be written.

    Args:
        inputs: paths by their option.
        outputs: path and possible endings by their option.

    Raises:
        ValueError: with the option and the path.
    """
    from hetmorph.io import sidecar_of
    from hetmorph.io.atomic import suffix_of

    if not outputs:
        raise ValueError("nothing to write: name at least one result (see --help)")
    for option, path in inputs.items():
        if path is not None and not path.exists():
            raise ValueError(f"{option} {path}: no such file")
    read = {path.resolve(): option for option, path in inputs.items() if path is not None}
    written = {}
    for option, (path, endings) in outputs.items():
        if suffix_of(path) not in endings:
            raise ValueError(f"{option} {path}: expected a name that ends in {', '.join(endings)}")
        if path.is_dir():
            raise ValueError(f"{option} {path}: is a folder; give the name of a file")
        for place in {path.resolve(), sidecar_of(path).resolve()}:
            if place in read:
                raise ValueError(f"{option} {path}: would overwrite {read[place]} {place}")
            if place in written:
                raise ValueError(f"{option} {path}: is the same file as {written[place]}, or would share {place.name}")
            written[place] = option


def transform_endings(format: str | None) -> tuple[str, ...]:
    """Endings that a transform may have: of its format, or those from which the format is known."""
    from hetmorph.io import FORMATS

    return FORMATS[format] if format else (*FORMATS["nifti"], *FORMATS["itk"])


def transform_inputs(words: Sequence[str]) -> dict[str, Path]:
    """Files of `--transform`, given once or more, for `check_files`."""
    from hetmorph.io.chain import path_of

    return {f"--transform{f' {word}' if count else ''}": path_of(word)[0] for count, word in enumerate(words)}


def stored_type(array: np.ndarray) -> np.dtype:
    """The type that the moved image is stored with: that of the moving one, in single precision where that suffices."""
    if array.dtype.kind != "f":
        return array.dtype
    fits = np.abs([array.min(), array.max()]).max() <= np.finfo(np.float32).max
    return np.dtype(np.float32 if fits else np.float64)


def summary(role: str, image) -> str:
    """One line on an image."""
    spacing = " × ".join(f"{size:.4g}" for size in image.grid.spacing)
    oriented = "" if image.oriented else ", no orientation"
    return f"{role}: {image.path}, {' × '.join(map(str, image.array.shape))} voxels of {spacing} mm{oriented}"
