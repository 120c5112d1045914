"""`hetmorph uncertainty`: how sure a model is about one pair."""

from __future__ import annotations

import click

from hetmorph.cli.options import FILE, dry_run, estimate_options, model_options
from hetmorph.cli.quiet import Verb


@click.command(
    cls=Verb, epilog="\b\nExample:\n  hetmorph uncertainty --moving m.nii.gz --fixed f.nii.gz --out u.nii.gz"
)
@click.option("--moving", required=True, type=FILE, help="Image to be moved; formats as for register.")
@click.option("--fixed", required=True, type=FILE, help="Image it is moved onto.")
@click.option("--out", required=True, type=FILE, help="Write: the map, .nii.gz as a rule.")
@model_options
@estimate_options
@dry_run
@click.pass_obj
def uncertainty(command: list[str], moving, fixed, out, dry_run: bool, **options) -> int:
    """Map of the uncertainty of a registration, without its results.

    Direction and frame: the uncertainty of u in moved(x) = moving(x + u(x)), at each voxel x of the fixed image, on its
    grid. Unit: millimetres, the root of the trace of the covariance; NaN where it is not known. What the estimates can
    and cannot see: docs/uncertainty.md.
    """
    from hetmorph.cli.job import Job, Settings
    from hetmorph.cli.register import run

    mask = options.pop("mask")
    job = Job(moving, fixed, mask=mask, outputs={"uncertainty": out}, result_option="--out")
    return run(job, Settings(**options), command, dry_run)
