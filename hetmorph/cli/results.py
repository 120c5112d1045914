"""Results of a registration as files, with what their sidecars say."""

from pathlib import Path

import click
import numpy as np

from hetmorph.cli.files import stored_type
from hetmorph.cli.phases import phase
from hetmorph.cli.settings import Settings
from hetmorph.io import Grid, Image, Inverse, Transform, itk, write_image, write_sidecar, write_transform
from hetmorph.io.chain import SMALL
from hetmorph.registration import Registration

TRANSFORMS = ("transform", "inverse")
MAPS = ("uncertainty", "variance", "jacobian")
LINEAR = "affine_out"
RESULTS = ("moved", *TRANSFORMS, *MAPS, "labels_out", LINEAR)
SAYS = {
    "moved": {"what": "moving image on the grid of the fixed one", "unit": "intensity of the moving image"},
    "uncertainty": {
        "what": "standard deviation of the displacement, or length of its expected error (see estimate), NaN where not "
        "known",
        "unit": "mm",
    },
    "variance": {"what": "variance of the noise of the fixed image", "unit": "squared intensity, images in 0 … 1"},
    "jacobian": {"what": "volume in the moving image per volume in the fixed one, folds <= 0", "unit": "1"},
    "labels_out": {"what": "labels of the moving image on the grid of the fixed one", "unit": "label"},
}


def image_of(
    name: str, result: Registration, moving: Image, fixed: Image, labels: Image | None
) -> tuple[np.ndarray, np.dtype]:
    """An array on the fixed grid, and the type to store it with.

    Args:
        name: a name of `SAYS`.
        result: the registration.
        moving, fixed: the images.
        labels: label image of the moving one.
    """
    if name == "moved":
        return result.moved, stored_type(moving.array)
    if name == "labels_out":
        return result.labels(labels, fixed), labels.array.dtype
    maps = {"uncertainty": result.uncertainty_mm, "variance": result.variance}
    values = result.transform.jacobian() if name == "jacobian" else maps[name]
    if values is None:
        raise ValueError("--variance needs a model with a variance network, such as HetVxmDense; this one has none")
    return values, np.dtype(np.float32)


@phase("writing")
def write_map(path: Path, array: np.ndarray, like: Image | Grid, kind: np.dtype, name: str, about: dict) -> Path:
    """Write an array called `name`, as `image_of` gives it, with its sidecar."""
    says = SAYS[name]
    write_image(path, array, like, kind, f"{name}, {says['unit']}")
    write_sidecar(path, {**about, "frame": "voxels and orientation of the fixed image", **says})
    return path


def transform_of(name: str, result: Registration, settings: Settings) -> Transform | Inverse:
    """The transform, or the inverse unless it is off by more than allowed, with a word on how exact it is."""
    if name == "transform":
        return result.transform
    inverse = result.inverse()
    if inverse.worst > settings.inverse_tolerance:
        raise ValueError(
            f"{inverse}; expected at most --inverse-tolerance {settings.inverse_tolerance:g}: "
            "a transform that folds has no inverse"
        )
    click.echo(f"{'warning: ' if inverse.worst > SMALL else ''}{inverse}", err=inverse.worst > SMALL)
    return inverse


@phase("writing")
def write_way(path: Path, result: Registration, what: Transform | Inverse, format: str | None, about: dict) -> Path:
    """Write the transform or the inverse, as `transform_of` gives it, with its sidecar."""
    forth = isinstance(what, Transform)
    there = result.moving if forth else result.transform.grid
    between = ("fixed", "moving") if forth else ("moving", "fixed")
    way = f"points of the {between[0]} image to the {between[1]} one; images of the {between[1]} onto the {between[0]}"
    about = {**about, "takes": way} | ({} if forth else {"inverse": what.summary()})
    return write_transform(path, what if forth else what.transform, format, moving=there, provenance=about)


@phase("writing")
def write_linear(path: Path, result: Registration, about: dict) -> Path:
    """Write what the affine stage found, by itself, with its sidecar."""
    itk.write_linear(path, result.affine.linear.matrix, 2 if result.transform.grid.in_xy_plane else 3)
    says = {"takes": "points of the fixed image to the moving one", "frame": "LPS", "unit": "mm"}
    write_sidecar(path, {**about, **says})
    return path
