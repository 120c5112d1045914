"""`hetmorph register`: one pair, one sequence, or a table of pairs; `report` and `uncertainty` of one pair."""

from pathlib import Path

import click

from hetmorph.cli import options
from hetmorph.cli.messages import Verb
from hetmorph.cli.options import FILE
from hetmorph.cli.phases import phase, verbose
from hetmorph.cli.shards import ShardType
from hetmorph.cohort.shards import WHOLE


@click.command(
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  hetmorph register --moving m.nii.gz --fixed f.nii.gz --moved moved.nii.gz --transform warp.nii.gz\n"
    "  hetmorph register --moving cine.nii.gz --reference ED --moved moved.nii.gz \\\n"
    "      --labels-moving ed_labels.nii.gz --labels-out labels.nii.gz --curve curve.csv\n"
    "  hetmorph register --pairs pairs.csv --out results --moved moved.nii.gz --transform warp.nii.gz --resume\n"
    "  hetmorph register --moving m.nii.gz --fixed f.nii.gz --affine rigid --affine-out rigid.mat --moved moved.nii.gz",
)
@click.option(
    "--moving",
    type=FILE,
    help="Image to be moved: NIfTI, .mgz, MINC, AFNI, MetaImage, NRRD, DICOM series (folder), .npz, .npy, 2-D .png.",
)
@click.option("--fixed", type=FILE, help="Image it is moved onto, of any of these formats and any grid.")
@click.option("--moved", type=FILE, help="Write: moving image on the grid of the fixed one, its own intensities.")
@click.option(
    "--transform", type=FILE, help="Write: u, on the grid of the fixed image; takes its points to the moving one."
)
@click.option(
    "--inverse",
    type=FILE,
    help="Write: the inverse, on the grid of the moving image; takes its points to the fixed one.",
)
@options.inverse_tolerance
@click.option(
    "--format",
    type=options.FORMATS,
    help="Of both. Default: nifti (LPS, mm, intent 1007) for .nii.gz, itk for .h5, .tfm, .txt, .mat.",
)
@click.option(
    "--uncertainty", type=FILE, help="Write: error of the displacement that is to be expected, or another --method, mm."
)
@click.option(
    "--variance", type=FILE, help="Write: variance of the noise σ², images in 0 … 1; of models that predict it."
)
@click.option(
    "--jacobian", type=FILE, help="Write: volume in the moving image per volume in the fixed one; folds are <= 0."
)
@click.option("--labels-moving", type=FILE, help="Labels of the moving image, on any grid.")
@click.option("--labels-out", type=FILE, help="Write: these labels on the grid of the fixed image.")
@click.option(
    "--labels-fixed",
    type=FILE,
    help="Labels of the fixed image: with --labels-moving, Dice is printed, and scores are in --report.",
)
@click.option(
    "--report", type=FILE, help="Write: a page on the pair, .html, for any browser; with --draws registrations more."
)
@click.option(
    "--initial",
    metavar="PATH|[PATH,inverse]",
    help="Transform, fixed to moving, that the moving image is taken through first; the results are both together.",
)
@options.field_convention
@options.affine_options
@options.model_options
@options.guidance
@options.estimate_options
@options.calibration
@click.option(
    "--reference",
    metavar="ED|INDEX",
    help="--moving is a sequence (X, Y, Z, T); this frame (from 0; ED is the first) is moved onto every frame. Results "
    "are sequences, transforms are numbered files.",
)
@click.option(
    "--curve",
    type=FILE,
    help="Write, of a sequence with labels: volumes (ml) and strains of each frame, .csv and .png.",
)
@click.option(
    "--bids",
    type=FILE,
    metavar="DIR",
    help="Write moved, transform, inverse, jacobian (and labels) into DIR under BIDS names.",
)
@click.option(
    "--pairs",
    type=FILE,
    help="Table of pairs (.csv): moving, fixed, perhaps moving_labels, fixed_labels, mask, case; paths relative to the "
    "table.",
)
@click.option(
    "--out", type=FILE, help="Of --pairs: a folder for each case goes here; results are file names inside it."
)
@click.option("--resume", is_flag=True, help="Of --pairs: do only what is missing.")
@click.option(
    "--shard",
    type=ShardType(),
    help="Of --pairs: do the I-th of N parts of the table, from 1 on; hetmorph merge puts their tables together.",
)
@options.workers
@options.fail_on
@verbose
@options.dry_run
@click.pass_obj
def register(command: list[str], fail_on: str, dry_run: bool, **choices) -> int:
    """Register images: moving to fixed, back onto the grid of the fixed image.

    Direction: moved(x) = moving(x + u(x)), x in the fixed image. Images are matched by their headers, resampled to what
    the model needs, and the result lies on the fixed image's own grid. A model of slices takes a volume one by one.
    Units and frame: displacements are in millimetres, LPS, in the formats nifti and itk, in voxels in the others
    (docs/files.md). Beside each result a .json says where it comes from.
    """
    with phase("imports"):
        from hetmorph.cli import batch
        from hetmorph.cli.register_job import RESULTS, Job, Settings, default_curve
        from hetmorph.cohort import engine
        from hetmorph.io import describe_dataset

    def taken(names) -> dict:
        return {name: choices.pop(name) for name in names if name in choices}

    outputs = {name: path for name, path in taken(RESULTS).items() if path is not None}
    settings = Settings(**taken(Settings.__dataclass_fields__))
    inputs = taken(Job.__dataclass_fields__)
    pairs, out, resume, bids, shard = (choices.pop(name) for name in ("pairs", "out", "resume", "bids", "shard"))
    by_workers = [choices.pop(name) for name in ("workers", "scheduler")]
    if pairs is not None:
        if any((*inputs.values(), bids, settings.reference)):
            raise click.UsageError(
                "--pairs names the inputs; of the other options only results and settings go with it."
            )
        if out is None:
            raise click.UsageError("--pairs needs --out, the folder for the results.")
        done_by = shard or WHOLE, engine(*by_workers)
        return batch.run(pairs, out, outputs, settings, command, resume, dry_run, fail_on, *done_by)
    if out is not None or resume or shard or by_workers != [None, None]:
        raise click.UsageError("--out, --resume, --shard, --workers and --scheduler are for --pairs.")
    if inputs["moving"] is None or (inputs["fixed"] is None and settings.reference is None):
        raise click.UsageError("--moving and --fixed are needed (or --moving and --reference, or --pairs).")
    labels = inputs["labels_moving"]
    if bids is not None:
        outputs = _bids(bids, inputs["moving"], labels) | outputs
    if settings.reference is not None and labels is not None and outputs:
        inputs["curve"] = inputs["curve"] or default_curve(next(iter(outputs.values())))
    job = Job(outputs=outputs, **inputs)
    status = run(job, settings, command, dry_run, fail_on)
    if bids is not None and not dry_run and (path := describe_dataset(bids)):
        click.echo(f"wrote {path}")
    return status


@click.command(
    cls=Verb, epilog="\b\nExample:\n  hetmorph report --moving m.nii.gz --fixed f.nii.gz --out report.html --draws 20"
)
@click.option("--moving", required=True, type=FILE, help="Image to be moved; formats as for register.")
@click.option("--fixed", required=True, type=FILE, help="Image it is moved onto.")
@click.option("--out", required=True, type=FILE, help="Write: the page, .html, one file that loads nothing.")
@click.option("--labels-moving", type=FILE, help="Labels of the moving image; with those of the fixed one, for scores.")
@click.option("--labels-fixed", type=FILE, help="Labels of the fixed image.")
@options.model_options
@options.estimate_options
@options.calibration
@options.fail_on
@verbose
@options.dry_run
@click.pass_obj
def report(
    command: list[str], moving, fixed, out, labels_moving, labels_fixed, fail_on: str, dry_run: bool, **choices
) -> int:
    """Register a pair and write a page on it: verdict, images, deformation, uncertainty, scores; nothing else.

    Direction and frame: u in moved(x) = moving(x + u(x)), on the grid that the model saw, in the world of the fixed
    image. Units stand beside each picture. For a page on all cases of a data set: hetmorph evaluate --report.
    """
    with phase("imports"):
        from hetmorph.cli.register_job import Job, Settings

    mask = choices.pop("mask")
    job = Job(moving, fixed, labels_moving, mask, report=out, labels_fixed=labels_fixed, result_option="--out")
    return run(job, Settings(**choices), command, dry_run, fail_on)


@click.command(
    cls=Verb, epilog="\b\nExample:\n  hetmorph uncertainty --moving m.nii.gz --fixed f.nii.gz --out u.nii.gz"
)
@click.option("--moving", required=True, type=FILE, help="Image to be moved; formats as for register.")
@click.option("--fixed", required=True, type=FILE, help="Image it is moved onto.")
@click.option("--out", required=True, type=FILE, help="Write: the map, .nii.gz as a rule.")
@options.model_options
@options.estimate_options
@verbose
@options.dry_run
@click.pass_obj
def uncertainty(command: list[str], moving, fixed, out, dry_run: bool, **choices) -> int:
    """Map of the uncertainty of a registration, without its results.

    Direction and frame: the uncertainty of u in moved(x) = moving(x + u(x)), at each voxel x of the fixed image, on its
    grid. Unit: millimetres, the length of the error that is to be expected, where a calibration tells it, else the root
    of the trace of the covariance; NaN where it is not known. What estimates can and cannot see: docs/uncertainty.md.
    """
    with phase("imports"):
        from hetmorph.cli.register_job import Job, Settings

    job = Job(moving, fixed, mask=choices.pop("mask"), outputs={"uncertainty": out}, result_option="--out")
    return run(job, Settings(**choices), command, dry_run)


def run(job, settings, command: list[str], dry_run: bool, fail_on: str = "never") -> int:
    """Check and do one job; its exit status."""
    from hetmorph.cli.models import described, find_model
    from hetmorph.cli.outcome import verdict_status

    job.check(settings)
    predictor = settings.predictor(few=job.once(settings))
    if dry_run:
        click.echo("\n".join(job.preview(settings, predictor)))
        return 0
    click.echo(described(find_model(settings.model)))
    done = job.run(settings, predictor, command)
    click.echo("\n".join(done.lines()))
    for warning in done.warnings():
        click.echo(f"{' '.join(command[:2])}: warning: {warning}", err=True)
    return verdict_status([done.verdict.flag], fail_on)


def _bids(folder: Path, moving: Path, labels: Path | None) -> dict[str, Path]:
    from hetmorph.io import bids_names

    names = bids_names(moving)
    wanted = {name: name for name in ("moved", "transform", "inverse", "jacobian")}
    wanted |= {"labels_out": "labels"} if labels else {}
    return {name: folder / names[called] for name, called in wanted.items()}
