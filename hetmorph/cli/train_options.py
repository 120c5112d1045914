"""Train a registration model, evaluate it on the test patients, draw it and export it.

Direction: the moving image is registered to the fixed one; of a heart, end-diastole (ED, moving) to end-systole
(ES, fixed). Intensities are in [0, 1] per image, displacements in voxels on the grid of the fixed image:
moved(x) = moving(x + u(x)).

The run folder receives config.yaml, splits.json, log.csv, tensorboard/, checkpoints/, best.keras (highest validation
Dice), and at the end model.keras (the last weights, or the best ones with --keep best), cases.csv, summary.json,
report.png and saved_model/1 of that model. A run that was stopped, however, goes on with --resume and ends as if it had
not been.

Examples:
    python training/train.py --data phantom --steps 300
    python training/train.py --data acdc --data-dir ~/ACDC --objective het --steps 4000 --out runs/acdc-het
    python training/train.py --config training/configs/acdc_het.yaml --data-dir ~/ACDC
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hetmorph.cli.names import CROPS, DATASETS, OBJECTIVES
from hetmorph.cli.options import odd
from hetmorph.config import TrainConfig

# flag: (section of the configuration, key, type, help); a flag that is not given leaves the configuration as it is
FLAGS = {
    "--data": (
        "data",
        "name",
        str,
        f"data set: {', '.join(DATASETS)}, or a .csv of pairs",
    ),
    "--data-dir": ("data", "dir", str, "its folder; otherwise the environment variable HETMORPH_DATA"),
    "--crop": (
        "data",
        "crop",
        str,
        f"how the images are cut: {', '.join(CROPS)}; each set has its own",
    ),
    "--noise": ("data", "noise", float, "mean σ of added heteroscedastic Rician noise; 1 is the intensity range"),
    "--known-warp": ("data", "known_warp", float, "fixed image: the moving one, warped by up to so many voxels"),
    "--rounds": ("data", "rounds", int, "pairs a subject, for sets of pairs between subjects"),
    "--memory": ("data", "memory", float, "GiB of images of a split that stay in memory; others are read when needed"),
    "--objective": ("objective", "name", str, f"method: {', '.join(OBJECTIVES)}"),
    "--arch": ("network", "arch", str, "network: vxm, transmorph; of several steps: gradicon, constricon"),
    "--width": ("network", "width", float, "gradicon, constricon: features, as a multiple of the published ones"),
    "--init": (
        "network",
        "init",
        str,
        "start from the weights of a .keras or .h5 file, a SavedModel, or a shipped model",
    ),
    "--int-steps": ("network", "int_steps", int, "squarings of a velocity; default 7, transmorph 0: a displacement"),
    "--precision": ("network", "precision", str, "float32, or bfloat16: faster where the processor computes with it"),
    "--slabs": ("network", "slabs", int, "gradient checkpointing: more slabs take less memory and more time"),
    "--repeats": ("network", "repeats", int, "how often the network is applied in turn, trained through all of them"),
    "--passes": ("network", "passes", int, "how often the trained network is applied to what it has moved so far"),
    "--lambda": (
        "objective",
        "smoothness",
        float,
        "weight λ of the velocity's squared gradient (default: 0.01), or of the inverse consistency (default: 1000 of "
        "icon, 1.5 of gradicon)",
    ),
    "--similarity": ("objective", "similarity", str, "diffusion, icon, gradicon: mse, ncc, lncc, lncc2 or mind"),
    "--sigma": ("objective", "sigma", float, "lncc, lncc2: standard deviation of the Gaussian window, voxels"),
    "--delta": ("objective", "delta", float, "gradicon: length of a difference, as a share of the image"),
    "--window": ("objective", "window", odd, "ncc, het-ncc: side of the window, voxels"),
    "--bins": ("objective", "bins", int, "mi: bins of the histograms"),
    "--prior-lambda": ("objective", "prior_lambda", float, "vxm-diff: precision of the prior"),
    "--alpha": ("objective", "alpha", float, "het-z: weight of the velocity's uncertainty"),
    "--gamma": ("objective", "gamma", float, "het: exponent of the signal-to-noise ratio"),
    "--beta": ("objective", "beta", float, "het, beta-nll: exponent of the variance in the β-NLL"),
    "--snr": ("objective", "snr", str, "het: paper, official or inverse"),
    "--relative": ("objective", "relative", str, "het: sample, proportional, or official as the authors' code"),
    "--variance-pass": ("objective", "variance_pass", str, "het: reuse the warped images, or recompute as published"),
    "--foreground": ("objective", "foreground", bool, "het: the weight has mean 1 where either image is not zero"),
    "--residual-smoothing": (
        "objective",
        "residual_smoothing",
        float,
        "mse, het, het-z: scale of a Gaussian over the difference before it is squared, voxels; for noisy images",
    ),
    "--variance-resolution": ("objective", "variance_resolution", int, "het, nll: voxel size of the variance's grid"),
    "--warm-start": ("objective", "warm_start", int, "het: epochs displacement only, then as many variance only"),
    "--lr": ("optimizer", "learning_rate", float, "peak learning rate of Adam"),
    "--lr-decay": ("optimizer", "decay", str, "cosine, poly or none"),
    "--batch-size": ("schedule", "batch_size", int, "pairs a batch"),
    "--pre-registered": (
        "schedule",
        "pre_registered",
        float,
        "share of the training pairs that the network has registered once before, as further --passes meet them",
    ),
    "--steps": ("schedule", "steps", int, "batches in all; instead of --epochs"),
    "--steps-per-epoch": ("schedule", "steps_per_epoch", int, "batches between two validations"),
    "--keep": (
        "schedule",
        "keep",
        str,
        "weights to score and export: last, or best (by the validation Dice of one pass)",
    ),
}


def parser(prog: str = "train.py") -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--config", type=Path, help="YAML or JSON file; flags given beside it take precedence")
    for flag, (section, key, kind, text) in FLAGS.items():
        default = _default(section, key)
        shown = "" if default is None or kind is bool else f" (default: {default})"
        how = {"action": "store_const", "const": True} if kind is bool else {"type": kind}
        result.add_argument(flag, dest=f"{section}.{key}", help=text + shown, **how)
    result.add_argument("--size", type=int, nargs="+", help="of the samples, voxels per axis (default: the set's own)")
    result.add_argument("--epochs", type=int, help="epochs of --steps-per-epoch batches; instead of --steps")
    result.add_argument("--bidir", action="store_const", const=True, help="both directions, each weighted by half")
    result.add_argument("--no-augment", action="store_const", const=True, help="train on the pairs as they are")
    result.add_argument("--skip-bad", action="store_const", const=True, help="go on without unreadable cases")
    result.add_argument("--seed", type=int, help="of weights, order and augmentation (default: 0)")
    result.add_argument("--out", type=Path, help="run folder (default: runs/<data>-<objective>)")
    result.add_argument("--resume", action="store_true", help="go on with the run in --out, or start it")
    result.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    return result


def _default(section: str, key: str):
    return getattr(getattr(TrainConfig(), section), key)
