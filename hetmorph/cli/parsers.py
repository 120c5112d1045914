"""Options of the verbs of many words, `train`, `evaluate` and `calibrate`, which scripts read as well.

They are read without TensorFlow, so that a help is shown and a mistake is told at once. The help of a verb is the
docstring of its function.
"""

import argparse
import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from hetmorph.cli import options
from hetmorph.cli.messages import import_tensorflow, warning_in_a_line
from hetmorph.cli.models import INSTANCE_LAMBDA, INSTANCE_OF
from hetmorph.cohort.shards import WHOLE
from hetmorph.config import TrainConfig

# flag: (place in the configuration, type, help); True and False are what the flag alone stands for. A flag that is not
# given leaves the configuration as it is.
FLAGS = {
    "--data": (
        "data.name",
        str,
        f"data set: {', '.join(options.DATASETS)}; several, acdc+oasis2d, sampled in balance; or a .csv of pairs",
    ),
    "--data-dir": (
        "data.dir",
        str,
        "its folder, of several sets one that holds theirs or acdc=DIR,oasis2d=DIR; otherwise the environment variable "
        "HETMORPH_DATA",
    ),
    "--crop": ("data.crop", str, f"how the images are cut: {', '.join(options.CROPS)}; each set has its own"),
    "--size": ("data.size", list, "of the samples, voxels per axis (default: the set's own)"),
    "--noise": (
        "data.noise",
        float,
        "mean σ of added Rician noise, or strength of an artefact; 1 is the intensity range",
    ),
    "--noise-kind": ("data.noise_kind", str, f"what --noise adds: {', '.join(options.NOISE_KINDS)}"),
    "--noise-in": ("data.noise_in", str, f"the image that an artefact goes into: {', '.join(options.NOISE_IN)}"),
    "--known-warp": ("data.known_warp", float, "fixed image: the moving one, warped by up to so many voxels"),
    "--rounds": ("data.rounds", int, "pairs a subject, for sets of pairs between subjects"),
    "--patients": ("data.patients", int, "train on so many patients of the training part, of each set (default: all)"),
    "--memory": ("data.memory", float, "GiB of images of a split that stay in memory; others are read when needed"),
    "--affine": ("data.affine", str, f"bring each moving image near first: {', '.join(options.AFFINE)}"),
    "--no-augment": ("data.augment", False, "train on the pairs as they are"),
    "--augment-affine": ("data.augment_affine", float, "random affine maps, each image its own; uniGradICON: 0.05"),
    "--skip-bad": ("data.skip_bad", True, "go on without unreadable cases"),
    "--objective": ("objective.name", str, f"method: {', '.join(options.OBJECTIVES)}"),
    "--arch": (
        "network.arch",
        str,
        "network: vxm, transmorph; of several steps: gradicon, constricon, unigradicon, carl, carl-rot, unicarl; "
        "of coordinates: nephi",
    ),
    "--width": (
        "network.width",
        float,
        "of networks of several steps and nephi: features, as a multiple of the published ones",
    ),
    "--stage": (
        "network.stage",
        int,
        "gradicon, unigradicon, carl: 1 trains the first three networks, 2 all four, with --init from those of stage 1",
    ),
    "--init": ("network.init", str, "start from the weights of a .keras or .h5 file, a SavedModel, or a shipped model"),
    "--int-steps": (
        "network.int_steps",
        int,
        "squarings of a velocity (default: 7; transmorph 0, a displacement), or steps of constricon's integration (4)",
    ),
    "--resolution": ("network.resolution", int, "voxel size of the images that the network sees, image voxels"),
    "--bidir": ("network.bidir", True, "both directions, each weighted by half; icon and gradicon register both"),
    "--precision": (
        "network.precision",
        str,
        "float32; bfloat16: faster where the processor computes with it; or exact: float32 without a GPU's TF32",
    ),
    "--slabs": ("network.slabs", int, "gradient checkpointing: more slabs take less memory and more time"),
    "--repeats": ("network.repeats", int, "how often the network is applied in turn, trained through all of them"),
    "--passes": ("network.passes", int, "how often the trained network is applied to what it has moved so far"),
    "--lambda": (
        "objective.smoothness",
        float,
        "weight λ of the velocity's squared gradient (default: 0.01; diffusion 1, velocity-diffusion 5), or of the "
        "inverse consistency (default: icon 1000, gradicon 1.5, het-gradicon 0.05, nephi 10)",
    ),
    "--similarity": (
        "objective.similarity",
        str,
        "diffusion, velocity-diffusion, icon, gradicon: mse, ncc, lncc, lncc2, mind or ngf",
    ),
    "--sigma": ("objective.sigma", float, "lncc, lncc2: standard deviation of the Gaussian window, voxels"),
    "--delta": ("objective.delta", float, "gradicon, het-gradicon: length of a difference, as a share of the image"),
    "--points": (
        "objective.points",
        int,
        "nephi: random points where images are compared (default: one for 50 voxels, from 1024 to 100,000)",
    ),
    "--points-regular": (
        "objective.points_regular",
        int,
        "nephi: random points where Jacobians are (default: one for 10,000 voxels, from 64 to 500)",
    ),
    "--code-weight": ("objective.code_weight", float, "nephi: of the length of the codes (default: 0.01)"),
    "--window": ("objective.window", options.odd, "ncc, het-ncc: side of the window, voxels"),
    "--bins": ("objective.bins", int, "mi: bins of the histograms"),
    "--prior-lambda": ("objective.prior_lambda", float, "vxm-diff: precision of the prior"),
    "--alpha": ("objective.alpha", float, "het-z: weight of the velocity's uncertainty"),
    "--landmark-weight": ("objective.landmark_weight", float, "of landmarks' mean squared distance, voxels²"),
    "--dice-weight": (
        "objective.dice_weight",
        float,
        "of 1 − Dice of the training pairs' warped labels; the trained model needs no labels",
    ),
    "--gamma": ("objective.gamma", float, "het: exponent of the signal-to-noise ratio"),
    "--beta": ("objective.beta", float, "het, beta-nll: exponent of the variance in the β-NLL"),
    "--snr": ("objective.snr", str, "het: paper, official or inverse"),
    "--relative": ("objective.relative", str, "het: sample, proportional, or official as the authors' code"),
    "--variance-pass": ("objective.variance_pass", str, "het: reuse the warped images, or recompute as published"),
    "--foreground": ("objective.foreground", True, "het: the weight has mean 1 where either image is not zero"),
    "--residual-smoothing": (
        "objective.residual_smoothing",
        float,
        "mse, het, het-z: scale of a Gaussian over the difference before it is squared, voxels; for noisy images",
    ),
    "--variance-resolution": ("objective.variance_resolution", int, "het, nll: voxel size of the variance's grid"),
    "--warm-start": ("objective.warm_start", int, "het: epochs displacement only, then as many variance only"),
    "--lr": ("optimizer.learning_rate", float, "peak learning rate of Adam"),
    "--lr-decay": ("optimizer.decay", str, "cosine, poly or none"),
    "--batch-size": ("schedule.batch_size", int, "pairs a batch"),
    "--pre-registered": (
        "schedule.pre_registered",
        float,
        "share of the training pairs that the network has registered once before, as further --passes meet them",
    ),
    "--steps": ("schedule.steps", int, "batches in all; instead of --epochs"),
    "--minutes": (
        "schedule.minutes",
        float,
        "end by the clock instead, the learning rate decaying over so long; --steps is then the most",
    ),
    "--steps-per-epoch": ("schedule.steps_per_epoch", int, "batches between two validations"),
    "--keep": ("schedule.keep", str, "weights to score and export: last, or best (by the validation Dice of one pass)"),
    "--seed": ("seed", int, "of weights, order and augmentation"),
}

# Of the commands that apply a model to a data set.
SHARED = {
    "--data": {
        "required": True,
        "help": f"data set: {', '.join(options.DATASETS)}; several, acdc+oasis2d; or a table of pairs, pairs.csv",
    },
    "--data-dir": {"type": Path, "help": "its folder (default: environment variable HETMORPH_DATA)"},
    "--model": {
        "required": True,
        "help": "a .keras file, a SavedModel folder, the name of a shipped model, a model on a server "
        f"(grpc://host:8500/name or http://host:8501/name), or a classical program: {', '.join(options.PROGRAMS)}",
    },
    "--out": {"required": True, "type": Path, "help": "folder for the results"},
    "--split-file": {
        "type": Path,
        "help": "splits.json of a training run, so that its test patients are those it never saw (default: the one "
        "beside the model, if it is of the same data set)",
    },
    "--crop": {
        "help": f"how the images are cut: {', '.join(options.CROPS)}; each set has its own (default: as the model's "
        "run, or the set's own)"
    },
    "--size": {"type": int, "nargs": "+", "metavar": "N", "help": "voxels along each axis (default: likewise)"},
    "--noise": {
        "type": float,
        "help": "mean level of Rician noise to add, or strength of an artefact (default: likewise, or none)",
    },
    "--noise-kind": {"choices": options.NOISE_KINDS, "help": "what --noise adds (default: likewise, or rician)"},
    "--noise-in": {
        "choices": options.NOISE_IN,
        "help": "the image that an artefact goes into (default: likewise, or both)",
    },
    "--affine": {
        "choices": options.AFFINE,
        "help": "bring each moving image near by such a transform first (default: as the model's run, or none)",
    },
    "--rounds": {"type": int, "help": "sets of subjects: how often each is moving and fixed"},
    "--passes": {
        "type": int,
        "default": 1,
        "help": "how often a .keras model is applied to what it has moved (default: 1)",
    },
    "--draws": {"type": int, "default": 50, "help": "registrations of an estimate that draws (default: 50)"},
    "--ensemble": {
        "nargs": "+",
        "default": [],
        "metavar": "MODEL",
        "help": "further models, of the estimate ensemble; of --passes too",
    },
    "--estimates": {"nargs": "+", "default": [], "metavar": "NAME"},
    "--every": {"type": int, "default": 1, "metavar": "K", "help": "take every K-th pair of a split (default: 1)"},
    "--kinds": {
        "nargs": "+",
        "default": options.KINDS,
        "choices": (*options.KINDS, options.MOTION),
        "help": "of transforms (default: the four known ones); motion is that of the pair itself, whose error is the "
        "distance of moved contours to those of the fixed image, voxels",
    },
    "--region": {
        "default": "foreground",
        "choices": options.REGIONS,
        "help": "voxels that count: where an image is not 0, or where the fixed one is labelled (default: foreground)",
    },
    "--coverage": {"type": float, "default": 0.9, "help": "share of the voxels the bound is to hold (default: 0.9)"},
    "--tolerance": {"type": float, "default": 2.0, "help": "mean error above which a case is bad, voxels (default: 2)"},
    "--skip-bad": {"action": "store_true", "help": "go on without the cases whose files are bad"},
    "--dry-run": {"action": "store_true", "help": "read and check everything, write nothing"},
    "--seed": {"type": int, "default": 0},
    "--workers": {"type": options.positive, "metavar": "N", "help": options.WORKERS},
    "--scheduler": {"metavar": "ADDRESS|slurm", "help": options.SCHEDULER},
    "--shard": {
        "type": options.part,
        "default": WHOLE,
        "metavar": "I/N",
        "help": "do the I-th of N parts of the cases, from 1 on; when all are done, the same command without it ends "
        "the work",
    },
}
NOISE = ("--noise", "--noise-kind", "--noise-in")
COHORT = ("--workers", "--scheduler", "--shard")
KNOWN_TRUTH = ("--draws", "--every", "--kinds", "--region", "--coverage", "--tolerance")
AS_THE_RUN = ("--crop", "--size", *NOISE, "--affine", "--rounds", "--passes")


def describe(prog: str | None, description: str) -> tuple[argparse.ArgumentParser, Callable]:
    """A parser, and a function that adds flags to it, those of `SHARED` with what is said there.

    Args:
        prog: what the program is called; None takes the name of the script.
        description: for the help, its line breaks kept.
    """
    result = argparse.ArgumentParser(
        prog, description=inspect.cleandoc(description), formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(*flags: str, **how) -> None:
        for flag in flags:
            result.add_argument(flag, **{**SHARED.get(flag, {}), **how})

    return result, add


def train(prog: str = "train.py") -> argparse.ArgumentParser:
    """Train a registration model, evaluate it on the test patients, draw it and export it.

    Direction: the moving image is registered to the fixed one; of a heart, end-diastole (ED, moving) to end-systole
    (ES, fixed). Intensities are in [0, 1] per image, displacements in voxels on the grid of the fixed image:
    moved(x) = moving(x + u(x)).

    The run folder receives config.yaml, splits.json, log.csv, tensorboard/, checkpoints/, best.keras (highest
    validation Dice), and at the end model.keras (the last weights, or the best ones with --keep best), cases.csv,
    summary.json, report.png and saved_model/1 of that model. A run that was stopped, however, goes on with --resume and
    ends as if it had not been.

    Several devices, or hosts, share each batch and end where one device ends. Hosts are those of the
    variable TF_CONFIG, which TensorFlow documents, or the tasks of a step of SLURM; the same command runs on each, and
    all see one run folder.

    Examples:
        python training/train.py --data phantom --steps 300
        python training/train.py --data acdc --data-dir ~/ACDC --objective het --steps 4000 --out runs/acdc-het
        python training/train.py --config training/configs/acdc_het.yaml --data-dir ~/ACDC
    """
    result, add = describe(prog, train.__doc__)
    add("--config", type=Path, help="YAML or JSON file; flags given beside it take precedence")
    for flag, (place, kind, text) in FLAGS.items():
        default = functools.reduce(getattr, place.split("."), TrainConfig())
        shown = "" if default is None or isinstance(kind, bool) else f" (default: {default})"
        how = {"action": "store_const", "const": kind} if isinstance(kind, bool) else {"type": kind}
        how = {"type": int, "nargs": "+"} if kind is list else how
        result.add_argument(flag, dest=place, help=text + shown, **how)
    add("--epochs", type=int, help="epochs of --steps-per-epoch batches; instead of --steps")
    add("--out", required=False, help="run folder (default: runs/<data>-<objective>)")
    add("--resume", action="store_true", help="go on with the run in --out, or start it")
    add(
        "--devices",
        type=int,
        default=1,
        help="GPUs, of each host, that share a batch; without a GPU, cores (default: 1)",
    )
    add(
        "--no-jit-compile",
        action="store_true",
        help="on a GPU, where Keras has XLA compile the whole update: let it compile kernels alone; starts sooner, but "
        "a small update takes several times as long",
    )
    add("--slurm", action="store_true", help="train together with the other tasks of this step of srun")
    add("--wait", type=float, default=300.0, metavar="S", help="seconds to wait for the other hosts (default: 300)")
    add("--dry-run")
    return result


def evaluate(prog: str = "evaluate.py") -> argparse.ArgumentParser:
    """Evaluate a registration model, or a classical program, on a data set.

    Direction: the moving image (end-diastole, ED, moving, in a heart) is registered to the fixed one (end-systole, ES,
    fixed). The displacement u lives on the grid of the fixed image, in voxels, and pulls: moved(x) = moving(x + u(x)).
    Distances named _px are in voxels, _mm in millimetres; intensities are in [0, 1] per image. Every score stands
    beside the one of the undeformed pair.

    Writes cases.csv, summary.json and summary.png; for a model that predicts a variance also curves.csv
    (sparsification), sparsification.png and calibration.png. --uncertainty adds columns to cases.csv, and a map for
    each pair on the grid of its fixed image: maps/<case>_<estimate>.nii.gz, the standard deviation of the displacement
    in millimetres (variance and residual are in intensity, dissimilarity has no unit), NaN where it is not known.
    --report adds report/index.html, a page of all cases, and one for each of the worst, to be opened in any browser.
    With a calibration, cases.csv says for each case whether to accept, review or reject it, and the mean bound of the
    error, voxels.

    How the images are cut and what is added to them is read from the config.yaml of the model's run, if it was trained
    on the same data set, as far as the command line does not say otherwise; what was read is printed.

    A model of 2-D images takes volumes slice by slice, across their thickest voxels; what is said of a case is then
    said of the volume.

    Examples:
        python training/evaluate.py --data acdc --data-dir ~/ACDC --model runs/het/model.keras --out runs/het/test
        python training/evaluate.py --data acdc --data-dir ~/ACDC --model demons --out runs/demons/test
        python training/evaluate.py --data acdc --model runs/het/model.keras --out maps --uncertainty equivariance
    """
    result, add = describe(prog, evaluate.__doc__)
    add("--data", "--data-dir", "--model", "--out")
    add(
        "--split",
        default="test",
        choices=("train", "val", "test", "all"),
        help='patients to evaluate (default: test); "all" takes every patient found',
    )
    add("--split-file")
    add(
        "--convention",
        default="hetmorph",
        choices=options.CONVENTIONS,
        help="hetmorph: warped labels count from 0.5 on, failures are shown; "
        "official: above 0, failed slices are left out, as in the paper (default: hetmorph)",
    )
    add(
        "--inverse-error",
        action="store_true",
        help="also register the other way round: how far the two registrations are from undoing each other",
    )
    add(*AS_THE_RUN)
    add(
        "--known-warp",
        type=float,
        help="replace the fixed images by known warps of the moving ones of this amplitude, voxels (default: likewise)",
    )
    add(
        "--uncertainty",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"estimates of uncertainty of each pair: {', '.join(options.ESTIMATES)} (default: none)",
    )
    add("--draws", "--ensemble")
    kinds = {
        "--instance-optimise": {"type": int},
        "--instance-similarity": {"choices": tuple(INSTANCE_LAMBDA)},
        "--instance-of": {"choices": INSTANCE_OF},
        "--instance-window": {"type": options.odd_or_none},
        "--instance-lambda": {"type": float},
    }
    for flag, (metavar, text) in options.INSTANCE.items():
        add(flag, **kinds[flag], metavar=metavar, help=text)
    add(
        "--report",
        nargs="?",
        type=int,
        const=20,
        metavar="N",
        help="write report/index.html with all cases, and a page for each of the N worst (default without N: 20)",
    )
    add(
        "--calibration",
        metavar="FILE|none",
        help="calibration.json of hetmorph calibrate, by which every case is accepted, reviewed or rejected (default: "
        "with --report the one beside the model, if it is of the same data set)",
    )
    add("--threads", type=int, help="of a classical program (default: 1)")
    add("--skip-bad", "--dry-run")
    add("--resume", action="store_true", help="go on with a stopped evaluation in --out, or its parts, or start it")
    add(*COHORT)
    add("--seed", help="of the split, when no split file is used, and of noise and warps (default: 0)")
    return result


def calibrate(prog: str = "hetmorph calibrate") -> argparse.ArgumentParser:
    """Learn from patients what bounds the error of a model, and which cases to accept, review or reject.

    Each image is warped by known random transforms of four kinds and registered again: fixed(x) = moving(τ(x)). So the
    error of the displacement u is known at every voxel. Direction: u lies on the grid of the fixed image and pulls,
    moved(x) = moving(x + u(x)). The patients are divided by themselves: a third of them choose the combination of the
    maps of uncertainty, on the others bound and limits are calibrated. Bounds and errors are in voxels.

    Writes one file. Beside the model, as calibration.json, evaluate --report, report and register --report find it by
    themselves. Printed is how bound and limits do on each patient when they come from the others. What is measured is
    kept in a folder beside the file, <out>.cases, until it is written: the same command goes on where it was stopped.

    Examples:
        hetmorph calibrate --data pairs.csv --model runs/mine/model.keras --out runs/mine/calibration.json
        hetmorph calibrate --data acdc --data-dir ~/ACDC --model acdc_vxm_het --split train val --every 10 --out c.json
    """
    result, add = describe(prog, calibrate.__doc__)
    add("--data", "--data-dir", "--model")
    add("--out", help="file to write, calibration.json")
    add(
        "--split",
        nargs="+",
        default=["all"],
        choices=("train", "val", "test", "all"),
        help="patients, by the division that the model was trained by (default: all found)",
    )
    add("--split-file", help="splits.json of that division (default: the one beside --model)")
    add(
        "--estimates",
        help=f"maps to combine, of {', '.join(options.ESTIMATES)} (default: {', '.join(options.CALIBRATED)}); "
        "one alone leaves nothing to fit, and every patient to the bound",
    )
    add(*KNOWN_TRUTH, *AS_THE_RUN, "--skip-bad", "--workers", "--scheduler", "--dry-run")
    add("--seed", help="of transforms, draws, noise and the division (default: 0)")
    # What the functions of `evaluate` that read the run ask of its command line besides.
    result.set_defaults(known_warp=None)
    return result


def uncertainty(description: str) -> argparse.ArgumentParser:
    """The options of training/uncertainty.py."""
    result, add = describe(None, description)
    add("--data", "--data-dir", "--model", "--out")
    add("--estimates", help=f"{', '.join(options.ESTIMATES)} (default: those that the model can give)")
    add("--ensemble", *KNOWN_TRUTH, "--split-file", *AS_THE_RUN, "--skip-bad", *COHORT)
    add("--seed", help="of transforms, draws and noise (default: 0)")
    result.set_defaults(known_warp=None, split="val")
    return result


def run(verb: str, words: Sequence[str], prog: str) -> int:
    """A verb with its words; its help is shown, and mistakes are told, without waiting for TensorFlow.

    Args:
        verb: "train", "evaluate" or "calibrate".
        words: what was typed after it.
        prog: what the program is called.
    """
    {"train": train, "evaluate": evaluate, "calibrate": calibrate}[verb](prog).parse_args(words)
    import_tensorflow()
    with warning_in_a_line(verb):
        return importlib.import_module(f"hetmorph.cli.{verb}").main(list(words), prog)


def verb(name: str, summary: str) -> click.Command:
    """A verb whose words all go to `run`."""
    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        {"ignore_unknown_options": True},
        lambda words: run(name, words, f"hetmorph {name}"),
        [words],
        short_help=summary,
        add_help_option=False,
    )


VERBS = (
    verb("train", "Train a model on a data set or a table of pairs."),
    verb("evaluate", "Score a model, or a program, on a data set."),
    verb("calibrate", "Learn from patients a bound of a model's error, and its verdicts."),
)
