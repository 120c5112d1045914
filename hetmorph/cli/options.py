"""Options that several verbs share, and the names that their helps list."""

import argparse
from collections.abc import Callable
from pathlib import Path

import click

from hetmorph.cli.models import INSTANCE_LAMBDA, INSTANCE_OF, SHIPPED
from hetmorph.cohort.shards import Shard

# As the registries have them: to ask those would import TensorFlow.
DATASETS = (
    "acdc",
    "camus",
    "echo",
    "hippocampus",
    "oasis2d",
    "oasis2d-tissue",
    "phantom",
    "sunnybrook",
    "triangles",
    "triangles-hollow",
)
CROPS = ("paper", "center", "none", "aspect", "middle", "resize")
OBJECTIVES = (
    *("mse", "ncc", "mi", "nll", "beta-nll", "adaframe", "adareg"),
    *("vxm-diff", "het", "het-ncc", "het-z"),
    *("diffusion", "velocity-diffusion", "icon", "gradicon", "het-gradicon", "nephi"),
)
MODALITIES = ("ct", "mri")  # of hetmorph.data.scale
PROGRAMS = ("undeformed", "demons", "bspline", "ants-syn", "ants-syn-mse", "ants-syn-tuned")
CONVENTIONS = ("hetmorph", "official")
_FAMILIES = ("translation", "shear", "scale", "rotation", "affine", "bspline", "smooth-bspline", "composition")
ESTIMATES = (
    *("equivariance", "variance", "posterior", "dropout", "ensemble", "noise", "residual", "dissimilarity"),
    *("incoherence", "inverse"),
    *(f"equivariance-{family}" for family in _FAMILIES),
)
CALIBRATED = ("equivariance", "dissimilarity", "residual", "incoherence")  # what calibrate combines unless told
KINDS = ("translation", "affine", "bspline", "composition")
MOTION = "motion"
REGIONS = ("foreground", "labels")
NOISE_KINDS = ("rician", "void", "flow", "ghost", "band", "speckle")
NOISE_IN = ("both", "moving", "fixed")
AFFINE = ("none", "rigid", "similarity", "affine")
AFFINE_STARTS = ("best", "header", "centre")
AFFINE_METRICS = ("mi", "correlation")
WINDOWS = (15, 7)  # of `instance.window_of`, in 2-D and in 3-D
POINTS_WEIGHT = 0.01  # of `evaluation.Guide`

FILE = click.Path(path_type=Path)


def combined(*options: Callable) -> Callable:
    """Several options as one decorator, in the order in which --help shall show them."""

    def decorate(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def odd(text: str | int) -> int:
    """The side of a window, for argparse: one of an even number of voxels has no middle."""
    side = int(text)
    if side < 1 or side % 2 == 0:
        raise argparse.ArgumentTypeError(f"expected an odd number of voxels, received {side}: it has no middle voxel")
    return side


def odd_or_none(text: str | int) -> int:
    """The same, where 0 stands for no window."""
    return 0 if int(text) == 0 else odd(text)


def part(text: str) -> Shard:
    """A part of a cohort, for argparse."""
    try:
        return Shard.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str | int) -> int:
    """A number of things of which there is at least one, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, received {number}")
    return number


def _odd_or_none(ctx: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    """The same for click."""
    try:
        return None if value is None else odd_or_none(value)
    except argparse.ArgumentTypeError as error:
        raise click.BadParameter(str(error)) from error


# Of the optimisation of a pair, by flag: metavar and help.
INSTANCE = {
    "--instance-optimise": (
        "N",
        "Go on from the model's answer on the pair alone: a velocity, by up to N iterations (L-BFGS) at each of up to "
        "three resolutions, coarse to fine, on local correlation; 0 leaves it.",
    ),
    "--instance-of": (
        None,
        "... or, on what the model was trained by, the weights of a copy of its network, or the codes that nephi's "
        "networks of coordinates read; of a .keras file (default: field).",
    ),
    "--instance-similarity": (
        None,
        "... on another image loss: mse, mean squares; of different modalities mind, self-similarities, mi, mutual "
        "information, ngf, directions of edges; lncc, local correlation in Gaussian windows, lncc2, the same squared "
        "(default: ncc, squared local correlation; of network and codes the model's own).",
    ),
    "--instance-window": (
        "W",
        f"... in windows of W voxels a side (default: {WINDOWS[0]} in 2-D, {WINDOWS[1]} in 3-D; a quarter of an axis "
        "at most); 0: on mean squares instead.",
    ),
    "--instance-lambda": (
        "λ",
        "... with this weight of smoothness (default: "
        f"{', '.join(f'{name} {value:g}' for name, value in INSTANCE_LAMBDA.items())}).",
    ),
}


def _instance(flag: str, **how) -> Callable:
    metavar, text = INSTANCE[flag]
    return click.option(flag, metavar=metavar, help=text, **how)


points_frame = click.option(
    "--points-frame",
    type=click.Choice(("LPS", "RAS", "voxel")),  # of hetmorph.io
    default="LPS",
    show_default=True,
    help="Of points: LPS mm (ITK, ANTs, DICOM), RAS mm (NIfTI), or voxel indices.",
)
FORMATS = click.Choice(("nifti", "itk", "learn2reg", "voxelmorph"))  # of hetmorph.io, which a help need not import
inverse_tolerance = click.option(
    "--inverse-tolerance",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="VOXELS",
    help="Of an inverse: an error if both ways in turn miss a point by more, voxels of the transform that is inverted.",
)
transform = combined(
    click.option(
        "--transform",
        "-t",
        required=True,
        multiple=True,
        metavar="PATH|[PATH,inverse]",
        help="Transform, fixed to moving: .nii.gz, .h5, .tfm, .txt, .mat, .npz, .npy, .mha, .nrrd, .mgz. Several are "
        "taken as antsApplyTransforms takes them: points of the fixed image go through the first one first, images "
        "through the last. [PATH,inverse], or ANTs' [PATH,1], is the inverse.",
    ),
    inverse_tolerance,
)
transform_format = click.option("--format", type=FORMATS, help="Of the transforms. Default: found out.")
field_convention = click.option(
    "--field-convention",
    type=click.Choice(("lps", "ras", "voxel")),  # of hetmorph.io
    help="What the vectors in an image are: displacements in lps or ras, mm, or in voxels. Default: what the file says "
    "(docs/files.md); what it leaves open is an error.",
)


def _bounds(flag: str, metavar: str, text: str) -> Callable:
    """An option of two numbers; a list, as files of JSON have it."""
    return click.option(
        flag, nargs=2, type=float, metavar=metavar, help=text, callback=lambda *given: given[-1] and list(given[-1])
    )


intensity_options = combined(
    click.option(
        "--modality-moving",
        type=click.Choice(MODALITIES),
        help="Scale the moving image to [0, 1] as uniGradICON does: ct from -1000 to 1000 Hounsfield units, mri from "
        "its minimum to its quantile 0.99. Default: from its minimum to its maximum.",
    ),
    click.option("--modality-fixed", type=click.Choice(MODALITIES), help="... and the fixed one."),
    _bounds("--ct-window", "MIN MAX", "... of ct: these Hounsfield units instead."),
    _bounds("--mri-quantiles", "LOWER UPPER", "... of mri: these quantiles instead, 0 to 1."),
)

model_options = combined(
    click.option(
        "--model",
        default=SHIPPED,
        show_default=True,
        metavar="NAME|PATH",
        help="A .keras file; a SavedModel folder; the name of a folder of saved_models/ (of this clone, or of the "
        "folders in HETMORPH_MODELS); a program such as demons, ants-syn; or grpc://host:8500/name on a server.",
    ),
    click.option(
        "--passes", type=click.IntRange(1), default=1, help="How often a .keras model is applied to what it moved."
    ),
    click.option(
        "--spacing",
        type=click.FloatRange(0, min_open=True),
        metavar="MM",
        help="Voxel size that the model sees, mm; in the slices for a 2-D model. Default: that of the fixed image.",
    ),
    click.option(
        "--mask",
        type=FILE,
        help="Region of interest in the fixed image, not 0: the model sees the box round it. Outside the box, u is "
        "that of its nearest voxel.",
    ),
    _instance("--instance-optimise", type=click.IntRange(0)),
    _instance("--instance-of", type=click.Choice(INSTANCE_OF)),
    _instance("--instance-similarity", type=click.Choice(tuple(INSTANCE_LAMBDA))),
    _instance("--instance-window", type=click.IntRange(0), callback=_odd_or_none),
    _instance("--instance-lambda", type=click.FloatRange(0)),
    intensity_options,
)

affine_options = combined(
    click.option(
        "--affine",
        type=click.Choice(AFFINE),
        help="Before the model: bring the moving image near by a rotation and a shift (rigid), also one scale "
        "(similarity), or scales and shears (affine), found in the world of the headers, in mm. All results are both "
        "together; the image is interpolated once. It looks at the voxels of --mask alone. Needs SimpleITK. Default: "
        "as the model was trained, by the config.yaml of its run; else none.",
    ),
    click.option(
        "--affine-start",
        type=click.Choice(AFFINE_STARTS),
        help="... from where the headers place the images, from centre of mass on centre of mass, or from both "
        "and turns and shifts of them, the best taken (default: best). With an initial transform, it starts there.",
    ),
    click.option(
        "--affine-metric",
        type=click.Choice(AFFINE_METRICS),
        help="... by mutual information, for any modalities, or by correlation, for one (default: mi).",
    ),
    click.option(
        "--affine-out",
        type=FILE,
        help="Write: what it found alone, .mat, .tfm, .txt or .h5 of ITK; points of the fixed image to the moving one, "
        "LPS, mm. With an initial transform that is linear, both together.",
    ),
)

guidance = combined(
    click.option(
        "--mask-fixed",
        type=FILE,
        help="Of --affine and --instance-optimise: only where this mask on the grid of the fixed image is not 0, the "
        "images are compared. Unlike --mask it crops nothing.",
    ),
    click.option(
        "--mask-moving", type=FILE, help="... and where this one, on the grid of the moving image and moved with it."
    ),
    click.option(
        "--mask-input",
        is_flag=True,
        help="Show the model 0 outside --mask-fixed and --mask-moving; then they need no --instance-optimise.",
    ),
    click.option(
        "--points-fixed",
        type=FILE,
        help="Of --instance-optimise: points of the fixed image, .csv or .vtk, that are to come to those of "
        "--points-moving.",
    ),
    click.option("--points-moving", type=FILE, help="... the same points in the moving image, in the same order."),
    click.option(
        "--points-weight",
        type=click.FloatRange(0),
        metavar="W",
        help="... weight of their mean squared distance, mm², in the loss; 0: they are only measured (default: "
        f"{POINTS_WEIGHT:g}).",
    ),
    points_frame,
    click.option(
        "--dice-weight",
        type=click.FloatRange(0),
        metavar="W",
        help="Of --instance-optimise: add W times 1 − Dice of the structures of --labels-moving and --labels-fixed to "
        "the loss. Without it, labels are for scores alone.",
    ),
    click.option(
        "--conserve-mass",
        is_flag=True,
        help="Of --instance-optimise, of CT volumes of one body, such as lungs at two breaths: multiply the moved "
        "image by the Jacobian determinant before it is compared, since tissue that is compressed becomes denser. "
        "Needs --modality-moving ct and --modality-fixed ct, in a window from -1000 Hounsfield units, air.",
    ),
)

estimate_options = combined(
    click.option(
        "--method",
        metavar="NAME",
        help="Estimate of uncertainty: equivariance, equivariance-<transforms>, inverse, noise, dropout or posterior "
        "(docs/uncertainty.md). Default: the error to be expected, by the calibration.json beside the model; without "
        "one, equivariance.",
    ),
    click.option(
        "--draws",
        type=click.IntRange(2),
        default=50,
        show_default=True,
        help="Registrations it takes; a calibration has its own.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of its draws, likewise."),
)

calibration = click.option(
    "--calibration",
    metavar="FILE|none",
    help="calibration.json of hetmorph calibrate, by which a pair is accepted, reviewed or rejected; its maps are made "
    "with its own draws and seed. Default: with --report, the one beside the model; without one, plain checks decide.",
)

WORKERS = (
    'so many processes at once here, by Dask (pip install "hetmorph[cohort]"); what is killed is done again '
    "(docs/cohorts.md)"
)
SCHEDULER = "on a cluster: the scheduler's address, tcp://host:8786, or slurm, with a job for each worker"
workers = combined(
    click.option("--workers", type=click.IntRange(1), metavar="N", help=f"Of --pairs: {WORKERS}."),
    click.option("--scheduler", metavar="ADDRESS|slurm", help=f"... {SCHEDULER}."),
)

fail_on = click.option(
    "--fail-on",
    type=click.Choice(("review", "reject", "never")),
    default="reject",
    show_default=True,
    help="Exit with status 3 where the verdict is this or worse. Results are written all the same.",
)

dry_run = click.option(
    "--dry-run", is_flag=True, help="Read and check everything, say what would be done, write nothing."
)
