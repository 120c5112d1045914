"""`hetmorph report`: a page on the registration of one pair."""

from __future__ import annotations

import click

from hetmorph.cli.options import FILE, calibration, dry_run, estimate_options, model_options
from hetmorph.cli.quiet import Verb


@click.command(
    cls=Verb, epilog="\b\nExample:\n  hetmorph report --moving m.nii.gz --fixed f.nii.gz --out report.html --draws 20"
)
@click.option("--moving", required=True, type=FILE, help="Image to be moved; formats as for register.")
@click.option("--fixed", required=True, type=FILE, help="Image it is moved onto.")
@click.option("--out", required=True, type=FILE, help="Write: the page, .html, one file that loads nothing.")
@click.option("--labels-moving", type=FILE, help="Labels of the moving image; with those of the fixed one, for scores.")
@click.option("--labels-fixed", type=FILE, help="Labels of the fixed image.")
@model_options
@estimate_options
@calibration
@dry_run
@click.pass_obj
def report(command: list[str], moving, fixed, out, labels_moving, labels_fixed, dry_run: bool, **options) -> int:
    """Register a pair and write a page on it: verdict, images, deformation, uncertainty, scores; nothing else.

    Direction and frame: u in moved(x) = moving(x + u(x)), on the grid that the model saw, in the world of the fixed
    image. Units stand beside each picture. For a page on all cases of a data set: hetmorph evaluate --report.
    """
    from hetmorph.cli.job import Job, Settings
    from hetmorph.cli.register import run

    mask = options.pop("mask")
    job = Job(moving, fixed, labels_moving, mask, report=out, labels_fixed=labels_fixed, result_option="--out")
    return run(job, Settings(**options), command, dry_run)
