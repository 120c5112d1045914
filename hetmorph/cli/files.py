"""What a verb is going to read and write, checked before anything is computed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

IMAGES = (".nii.gz", ".nii", ".mgz", ".mgh", ".mha", ".nrrd", ".npz", ".npy")
PICTURES = (*IMAGES, ".png")
POINTS = (".csv", ".vtk")


def option(name: str) -> str:
    """The option that an argument of this name comes from."""
    return f"--{name.replace('_', '-')}"


def refuse(rules: Mapping[str, object]) -> None:
    """Raise ValueError with the first message of which the rule is broken.

    Args:
        rules: by message, whether it holds of what was given.
    """
    if message := next((message for message, broken in rules.items() if broken), None):
        raise ValueError(message)


def read_images(paths: Mapping[str, Path | None]) -> dict:
    """Images by their role, all with the axes of the "fixed" one, if there is one; None where there is no path."""
    from hetmorph.io import read_image

    images = {role: None if path is None else read_image(path) for role, path in paths.items()}
    if fixed := images["fixed"]:
        images |= {role: image.with_axes_of(fixed) for role, image in images.items() if image is not None}
    return images


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
