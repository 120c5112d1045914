"""`hetmorph apply`: images, labels and points through a transform; `jacobian`: where it expands, shrinks or folds."""

from pathlib import Path

import click

from hetmorph.cli import options
from hetmorph.cli.messages import FileVerb
from hetmorph.cli.options import FILE, dry_run


@click.command(
    cls=FileVerb,
    epilog="\b\nExamples:\n"
    "  hetmorph apply --transform warp.nii.gz --moving m.nii.gz --moved moved.nii.gz\n"
    "  hetmorph apply --transform warp.h5 --fixed f.nii.gz --labels seg.nii.gz --labels-out moved_seg.nii.gz\n"
    "  hetmorph apply -t warp.nii.gz -t [affine.mat,inverse] --fixed f.nii.gz --moving m.nii.gz --moved moved.nii.gz\n"
    "  hetmorph apply --transform warp.nii.gz --points landmarks_fixed.csv --points-out landmarks_moving.csv",
)
@options.transform
@click.option(
    "--fixed", type=FILE, help="Image whose grid the results get. Default: the grid of the (first) transform's file."
)
@options.transform_format
@options.field_convention
@click.option("--moving", type=FILE, help="Image, or sequence (X, Y, Z, T), to be moved.")
@click.option("--moved", type=FILE, help="Write: it, on the grid of the fixed image, interpolated once.")
@click.option(
    "--interpolation",
    type=click.Choice(("linear", "nearest", "cubic", "sinc")),  # of hetmorph.transforms.sampling
    default="linear",
    show_default=True,
    help="Of --moving; cubic and sinc may go beyond its range, integers are clipped to their type.",
)
@click.option("--fill-value", type=float, default=0.0, show_default=True, help="Where there is no moving image.")
@click.option("--labels", type=FILE, help="Labels to be moved, on any grid.")
@click.option("--labels-out", type=FILE, help="Write: them, on the grid of the fixed image.")
@click.option(
    "--nearest", is_flag=True, help="Labels by nearest neighbour; default: each label linearly, the largest wins."
)
@click.option("--points", type=FILE, help="Points of the FIXED image: .csv with columns x, y, z, or legacy .vtk.")
@click.option("--points-out", type=FILE, help="Write: where they lie in the MOVING image, in the same format.")
@options.points_frame
@dry_run
@click.pass_obj
def apply(command: list[str], **choices) -> int:
    """Bring images, labels or points through a transform.

    Direction: a transform takes points of the fixed image to the moving one, moved(x) = moving(x + u(x)). So images and
    labels come from the moving image onto the fixed one, and points go the other way: those of the fixed image come out
    as points of the moving one. For points of the moving image, give the inverse transform.

    Units: points in millimetres (frame LPS or RAS) or voxel indices, those of the fixed image in, those of the moving
    one out.
    """
    from hetmorph.cli.apply_job import Application

    dry_run = choices.pop("dry_run")
    application = Application(**choices)
    application.check()
    if dry_run:
        click.echo("\n".join(application.preview()))
        return 0
    for path in application.run(command):
        click.echo(f"wrote {Path(path)}")
    return 0


@click.command(cls=FileVerb, epilog="\b\nExample:\n  hetmorph jacobian --transform warp.nii.gz --out jacobian.nii.gz")
@options.transform
@click.option("--out", required=True, type=FILE, help="Write: the map, .nii.gz as a rule.")
@click.option("--fixed", type=FILE, help="Image whose grid the map gets; needed where the transform's file has none.")
@options.transform_format
@options.field_convention
@click.option("--log", is_flag=True, help="The natural logarithm; NaN at folds.")
@dry_run
@click.pass_obj
def jacobian(
    command: list[str], transform, inverse_tolerance, out, fixed, format, field_convention, log: bool, dry_run: bool
) -> int:
    """Map of the Jacobian determinant of a transform, and its summary.

    Direction: at each voxel of the fixed image, volume in the moving image per volume in the fixed one (area in 2-D; no
    units). Above 1, the moving image was larger there; at 0 or below, the transform folds. Frame: the voxels of the
    fixed image, whose central differences are taken.
    """
    import numpy as np

    from hetmorph.cli.files import IMAGES, check_files, transform_inputs
    from hetmorph.io import Chain, provenance, read_chain, read_image, write_image, write_sidecar

    check_files(transform_inputs(transform) | {"--fixed": fixed}, {"--out": (out, IMAGES)})
    image = None if fixed is None else read_image(fixed)
    grid = None if image is None else image.grid
    loaded = read_chain(transform, grid, None, format, inverse_tolerance, field_convention)
    understood = loaded.understood
    loaded = loaded.transform if isinstance(loaded, Chain) else loaded
    values = loaded.jacobian()
    positive = values[values > 0]
    spread = float(np.log(positive).std()) if positive.size else float("nan")
    folds = 100 * float((values <= 0).mean())
    click.echo(f"determinant {values.min():.4g} to {values.max():.4g}, folds {folds:.3g} %, sd of log {spread:.4g}")
    if dry_run:
        click.echo(f"would write {out}")
        return 0
    if log:
        values = np.where(values > 0, np.log(np.maximum(values, 1e-30)), np.nan)
    write_image(out, values, image or loaded.grid, np.float32, "log Jacobian" if log else "Jacobian")
    inputs = {"transform": ", then ".join(transform)} | ({"fixed": fixed} if fixed else {})
    what = "volume in the moving image per volume in the fixed one"
    about = {"what": f"logarithm of {what}" if log else what, "unit": "1", "transform_understood": understood}
    write_sidecar(out, provenance(command, inputs=inputs, **about))
    click.echo(f"wrote {out}")
    return 0
