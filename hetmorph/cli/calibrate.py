"""Learn from patients what bounds the error of a model, and which cases to accept, review or reject.

Each image is warped by known random transforms of four kinds and registered again: fixed(x) = moving(τ(x)). So the
error of the displacement u is known at every voxel. Direction: u lies on the grid of the fixed image and pulls,
moved(x) = moving(x + u(x)). The patients are divided by themselves: a third of them choose the combination of the maps
of uncertainty, on the others bound and limits are calibrated. Bounds and errors are in voxels.

Writes one file. Beside the model, as calibration.json, evaluate --report, report and register --report find it by
themselves. Printed is how bound and limits do on each patient when they come from the others.

Examples:
    hetmorph calibrate --data pairs.csv --model runs/mine/model.keras --out runs/mine/calibration.json
    hetmorph calibrate --data acdc --data-dir ~/ACDC --model acdc_vxm_het --split train val --every 10 --out c.json
"""

import argparse
import collections
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hetmorph import data, evaluation, serving, uncertainty
from hetmorph.cli import evaluate
from hetmorph.cli.calibrations import identity
from hetmorph.cli.models import find_model, load_model
from hetmorph.evaluation import known_truth

ESTIMATES = ("equivariance", "dissimilarity", "residual", "variance")


def arguments(argv=None, prog: str = "hetmorph calibrate") -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help=f"data set: {', '.join(data.datasets())}; or a table of pairs, pairs.csv")
    add("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    add("--model", required=True, help="as for evaluate")
    add("--out", required=True, type=Path, help="file to write, calibration.json")
    add(
        "--split",
        nargs="+",
        default=["all"],
        choices=("train", "val", "test", "all"),
        help="patients, by the division that the model was trained by (default: all found)",
    )
    add("--split-file", type=Path, help="splits.json of that division (default: the one beside --model)")
    add(
        "--estimates",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"maps to combine, of {', '.join(uncertainty.estimate_names())} (default: {', '.join(ESTIMATES)}, the "
        "last of a model that predicts it); one alone leaves nothing to choose, and every patient to the bound",
    )
    add("--draws", type=int, default=50, help="registrations of an estimate that draws (default: 50)")
    add("--every", type=int, default=1, metavar="K", help="take every K-th pair of a split (default: 1)")
    add("--kinds", nargs="+", default=evaluation.KINDS, choices=evaluation.KINDS, help="of transforms (default: all)")
    add(
        "--region",
        default="foreground",
        choices=known_truth.REGIONS,
        help="voxels that count: where an image is not 0, or where the fixed one is labelled (default: foreground)",
    )
    add("--coverage", type=float, default=0.9, help="share of the voxels the bound is to hold (default: 0.9)")
    add("--tolerance", type=float, default=2.0, help="mean error above which a case is bad, voxels (default: 2)")
    add("--crop", help="how the images are cut (default: as the model's run, or the set's own)")
    add("--size", type=int, nargs="+", metavar="N", help="voxels along each axis (default: likewise)")
    add("--noise", type=float, help="mean level of Rician noise added after warping (default: likewise, or none)")
    add("--rounds", type=int, help="sets of subjects: how often each is moving and fixed")
    add("--passes", type=int, default=1, help="how often a .keras model is applied to what it has moved (default: 1)")
    add("--skip-bad", action="store_true", help="go on without the cases whose files are bad")
    add("--dry-run", action="store_true", help="read and check everything, write nothing")
    add("--seed", type=int, default=0, help="of transforms, draws, noise and the division (default: 0)")
    # What `evaluate`, whose functions read the run, asks of its command line besides.
    parser.set_defaults(known_warp=None)
    return parser.parse_args(argv)


def load_pairs(args: argparse.Namespace) -> tuple[list[data.Pair], dict]:
    """The pairs, without noise, and the options of `data.load` that decide them."""
    taken = evaluate.data_options(args) | {"known_warp": 0.0}
    options = taken | {"noise": 0.0, "data_dir": args.data_dir, "seed": args.seed, "skip_bad": args.skip_bad}
    found = args.split_file or evaluate.division_of_run(args)
    options["splits"] = None if "all" in args.split else found
    splits = ["all"] if "all" in args.split else args.split
    pairs = [pair for split in splits for pair in data.load(args.data, split=split, **options).pairs[:: args.every]]
    if "all" in splits and found:
        evaluate.warn_of_known_patients(argparse.Namespace(**vars(args) | {"split": "all"}), pairs)
    return pairs, taken


def measured(pairs: list[data.Pair], predictor, maps: dict, args: argparse.Namespace, noise: float) -> list:
    """A case of known error for each pair and kind of transform."""
    jobs = [(pair, kind) for pair in pairs for kind in args.kinds]
    return [
        evaluation.measure(predictor, evaluation.known_pair(pair, kind, args.seed, noise), maps, kind, args.region)
        for pair, kind in tqdm(jobs, desc="calibrating", unit="case")
    ]


def report(calibration, coverages: list[dict], flags: list[dict]) -> str:
    """What was found, and how it does on patients that took no part."""
    bound, triage = calibration.bound, calibration.triage
    shares = [row["coverage"] for row in coverages]
    errors = collections.defaultdict(list)
    for row in flags:
        errors[row["flag"]].append(row["epe"])
    counted = [
        f"{flag} {len(errors[flag])}" + (f" (mean error {np.mean(errors[flag]):.2f} voxels)" if errors[flag] else "")
        for flag in uncertainty.FLAGS
    ]
    return "\n".join(
        [
            f"bound: {bound.scale:.3g} · {calibration.combination.name}, of {bound.patients} patients",
            f"accept up to a mean bound of {triage.accept:.2f} voxels, reject from {triage.reject:.2f} on",
            f"each patient by a calibration on the others: {np.mean(shares):.1%} of the voxels within the bound "
            f"({min(shares):.1%} … {max(shares):.1%}), stated {bound.coverage:.0%}",
            f"cases likewise: {', '.join(counted)}; bad is above {triage.tolerance:g}",
        ]
    )


def run(args: argparse.Namespace) -> str:
    """Measure and calibrate; the report."""
    args.model = find_model(args.model)
    predictor = load_model(args.model, args.passes)
    pairs, taken = load_pairs(args)
    names = args.estimates or [name for name in ESTIMATES if name != "variance" or _predicts(predictor, pairs[0])]
    maps = uncertainty.pair_estimates(names, predictor, (), args.draws, args.seed)
    patients = {pair.patient for pair in pairs}
    uncertainty.divide(patients, args.coverage, args.seed, len(names) > 1)  # before the long part: are they enough?
    if args.dry_run:
        return (
            f"would register {len(pairs) * len(args.kinds)} cases of {len(patients)} patients; would write {args.out}"
        )
    about = identity(args.model, args.passes) | {"data": args.data, "split": args.split, "region": args.region}
    about |= {
        "draws": args.draws,
        "seed": args.seed,
        **{name: taken[name] for name in ("crop", "size") if name in taken},
    }
    cases = measured(pairs, predictor, maps, args, taken.get("noise") or 0.0)
    calibration, *told = uncertainty.calibrate(cases, names, args.coverage, args.tolerance, args.seed, about)
    calibration.save(args.out)
    return report(calibration, *told) + f"\nwrote {args.out}"


def main(argv=None, prog: str = "hetmorph calibrate") -> int:
    args = arguments(argv, prog)
    try:
        print(run(args))
    except (data.DataError, serving.ServingError, ValueError, OSError, ImportError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _predicts(predictor, pair: data.Pair) -> bool:
    return predictor(pair.moving, pair.fixed).log_variance is not None
