"""`hetmorph jacobian`: where a transform expands, shrinks or folds."""

from __future__ import annotations

import click

from hetmorph.cli import options
from hetmorph.cli.options import FILE, dry_run
from hetmorph.cli.quiet import FileVerb


@click.command(cls=FileVerb, epilog="\b\nExample:\n  hetmorph jacobian --transform warp.nii.gz --out jacobian.nii.gz")
@options.transform
@click.option("--out", required=True, type=FILE, help="Write: the map, .nii.gz as a rule.")
@click.option("--fixed", type=FILE, help="Image whose grid the map gets; needed where the transform's file has none.")
@options.transform_format
@click.option("--log", is_flag=True, help="The natural logarithm; NaN at folds.")
@dry_run
@click.pass_obj
def jacobian(command: list[str], transform, inverse_tolerance, out, fixed, format, log: bool, dry_run: bool) -> int:
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
    loaded = read_chain(transform, grid, format=format, inverse_tolerance=inverse_tolerance)
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
    write_sidecar(out, provenance(command, inputs=inputs, what=f"logarithm of {what}" if log else what, unit="1"))
    click.echo(f"wrote {out}")
    return 0
