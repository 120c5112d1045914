"""Evaluate a registration model, or a classical program, on a data set.

Direction: the moving image (end-diastole, ED, moving, in a heart) is registered to the fixed one (end-systole, ES,
fixed). The displacement u lives on the grid of the fixed image, in voxels, and pulls: moved(x) = moving(x + u(x)).
Distances named _px are in voxels, _mm in millimetres; intensities are in [0, 1] per image. Every score stands beside
the one of the undeformed pair.

Writes cases.csv, summary.json and summary.png; for a model that predicts a variance also curves.csv (sparsification),
sparsification.png and calibration.png. --uncertainty adds columns to cases.csv, and a map for each pair on the grid of
its fixed image: maps/<case>_<estimate>.nii.gz, the standard deviation of the displacement in millimetres (variance and
residual are in intensity, dissimilarity has no unit), NaN where it is not known. --report adds report/index.html, a
page of all cases, and one for each of the worst, to be opened in any browser. With a calibration, cases.csv says for
each case whether to accept, review or reject it, and the mean bound of the error, voxels.

How the images are cut and what is added to them is read from the config.yaml of the model's run, if it was trained on
the same data set, as far as the command line does not say otherwise; what was read is printed.

A model of 2-D images takes volumes slice by slice, across their thickest voxels; what is said of a case is then said of
the volume.

Examples:
    python training/evaluate.py --data acdc --data-dir ~/ACDC --model runs/het/model.keras --out runs/het/test
    python training/evaluate.py --data acdc --data-dir ~/ACDC --model demons --out runs/demons/test
    python training/evaluate.py --data acdc --model runs/het/model.keras --out runs/het/maps --uncertainty equivariance
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hetmorph.cli.models import INSTANCE_LAMBDA, INSTANCE_LAMBDA_SQUARES
from hetmorph.cli.names import CONVENTIONS, CROPS, DATASETS, ESTIMATES, PROGRAMS
from hetmorph.cli.options import odd_or_none


def parser(prog: str = "evaluate.py") -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--data", required=True, help=f"data set: {', '.join(DATASETS)}; or a table of pairs, pairs.csv"
    )
    result.add_argument("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    result.add_argument(
        "--model",
        required=True,
        help="a .keras file, a SavedModel folder, the name of a shipped model, a model on a server "
        f"(grpc://host:8500/name or http://host:8501/name), or a classical program: {', '.join(PROGRAMS)}",
    )
    result.add_argument("--out", required=True, type=Path, help="folder for the results")
    result.add_argument(
        "--split",
        default="test",
        choices=("train", "val", "test", "all"),
        help='patients to evaluate (default: test); "all" takes every patient found',
    )
    result.add_argument(
        "--split-file",
        type=Path,
        help="splits.json of a training run, so that its test patients are those it never saw "
        "(default: the one beside --model, if it is of the same data set)",
    )
    result.add_argument(
        "--convention",
        default="hetmorph",
        choices=CONVENTIONS,
        help="hetmorph: warped labels count from 0.5 on, failures are shown; "
        "official: above 0, failed slices are left out, as in the paper (default: hetmorph)",
    )
    result.add_argument(
        "--crop",
        help=f"how the images are cut: {', '.join(CROPS)}; each set has its own (default: as the model's run, or "
        "the set's own)",
    )
    result.add_argument("--size", type=int, nargs="+", metavar="N", help="voxels along each axis (default: likewise)")
    result.add_argument("--noise", type=float, help="mean level of Rician noise to add (default: likewise, or none)")
    result.add_argument(
        "--known-warp",
        type=float,
        help="replace the fixed images by known warps of the moving ones of this amplitude, voxels (default: likewise)",
    )
    result.add_argument("--rounds", type=int, help="sets of subjects: how often each is moving and fixed")
    result.add_argument(
        "--passes", type=int, default=1, help="how often a .keras model is applied to what it has moved (default: 1)"
    )
    result.add_argument(
        "--uncertainty",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"estimates of uncertainty of each pair: {', '.join(ESTIMATES)} (default: none)",
    )
    result.add_argument("--draws", type=int, default=50, help="registrations of an estimate that draws (default: 50)")
    result.add_argument(
        "--ensemble", nargs="+", default=[], metavar="MODEL", help="further models, of ensemble; of --passes too"
    )
    result.add_argument(
        "--instance-optimise",
        type=int,
        metavar="N",
        help="go on from each answer on that pair alone, by up to N iterations (L-BFGS) at each of up to three "
        "resolutions, on local correlation",
    )
    result.add_argument(
        "--instance-window",
        type=odd_or_none,
        metavar="W",
        help="in windows of W voxels a side (default: 9 in 2-D, 7 in 3-D, a quarter of an axis at most); 0: on mean "
        "squares instead",
    )
    result.add_argument(
        "--instance-lambda",
        type=float,
        metavar="λ",
        help=f"its weight of smoothness, as in training (default: {INSTANCE_LAMBDA:g}; of mean squares "
        f"{INSTANCE_LAMBDA_SQUARES:g})",
    )
    result.add_argument(
        "--report",
        nargs="?",
        type=int,
        const=20,
        metavar="N",
        help="write report/index.html with all cases, and a page for each of the N worst (default without N: 20)",
    )
    result.add_argument(
        "--calibration",
        metavar="FILE|none",
        help="calibration.json of hetmorph calibrate, by which every case is accepted, reviewed or rejected (default: "
        "with --report the one beside the model, if it is of the same data set)",
    )
    result.add_argument("--threads", type=int, help="of a classical program (default: 1)")
    result.add_argument("--skip-bad", action="store_true", help="go on without the cases whose files are bad")
    result.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    result.add_argument("--resume", action="store_true", help="go on with a stopped evaluation in --out, or start it")
    result.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the split, when no split file is used, and of noise and warps (default: 0)",
    )
    return result
