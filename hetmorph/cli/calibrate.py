"""`hetmorph calibrate`: what its options (`parsers.calibrate`) ask for."""

import argparse
import collections

import numpy as np
from tqdm import tqdm

from hetmorph import data, evaluation, uncertainty
from hetmorph.cli import evaluate
from hetmorph.cli.messages import exit_status
from hetmorph.cli.models import find_model, identity, load_model
from hetmorph.cli.options import CALIBRATED
from hetmorph.cli.parsers import calibrate as parser


def arguments(argv=None, prog: str = "hetmorph calibrate") -> argparse.Namespace:
    return parser(prog).parse_args(argv)


def load_pairs(args: argparse.Namespace) -> tuple[list[data.Pair], dict]:
    """The pairs, without noise, and the options of `data.load` that decide them."""
    taken = evaluate.data_options(args) | {"known_warp": 0.0}
    options = taken | {"noise": 0.0, "data_dir": args.data_dir, "seed": args.seed, "skip_bad": args.skip_bad}
    found = args.split_file or evaluate.division_of_run(args)
    options["splits"] = None if "all" in args.split else found
    splits = ["all"] if "all" in args.split else args.split
    pairs = [
        pair for split in splits for pair in evaluate.load_set(args.data, split=split, **options).pairs[:: args.every]
    ]
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
    names = args.estimates or [*CALIBRATED]
    maps = uncertainty.pair_estimates(names, predictor, (), args.draws, args.seed)
    patients = {pair.patient for pair in pairs}
    uncertainty.divide(patients, args.coverage, args.seed, len(names) > 1)  # before the long part: are they enough?
    if args.dry_run:
        return (
            f"would register {len(pairs) * len(args.kinds)} cases of {len(patients)} patients; would write {args.out}"
        )
    about = identity(args.model, args.passes) | {"data": args.data, "split": args.split, "region": args.region}
    about |= {"kinds": [*args.kinds]}
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
    return exit_status(prog, lambda: print(run(args)))
