"""`hetmorph calibrate`: what its options (`parsers.calibrate`) ask for."""

import argparse
import collections
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hetmorph import cohort, data, evaluation, uncertainty
from hetmorph.cli import evaluate
from hetmorph.cli.measuring import Measuring
from hetmorph.cli.messages import exit_status
from hetmorph.cli.models import find_model, identity, load_model
from hetmorph.cli.options import CALIBRATED
from hetmorph.cli.parsers import calibrate as parser
from hetmorph.data.pair import cases_of


def arguments(argv=None, prog: str = "hetmorph calibrate") -> argparse.Namespace:
    return parser(prog).parse_args(argv)


def load_pairs(args: argparse.Namespace) -> tuple[list[Sequence[data.Pair]], dict]:
    """The pairs of each split, without noise, and the options of `data.load` that decide them."""
    taken = evaluate.data_options(args) | {"known_warp": 0.0}
    clean = {name: value for name, value in taken.items() if name not in evaluate.NOISE}
    options = clean | {"data_dir": args.data_dir, "seed": args.seed, "skip_bad": args.skip_bad}
    found = args.split_file or evaluate.division_of_run(args)
    options["splits"] = None if "all" in args.split else found
    splits = ["all"] if "all" in args.split else args.split
    pairs = [evaluate.load_set(args.data, split=split, **options).pairs[:: args.every] for split in splits]
    if "all" in splits and found:
        evaluate.warn_of_known_patients(argparse.Namespace(**vars(args) | {"split": "all"}), cases_of(pairs[0]))
    return pairs, taken


def measured(pairs: list[Sequence[data.Pair]], work: Measuring, args: argparse.Namespace, decides: dict) -> list:
    """A case of known error for each pair and kind of transform; those of a stopped calibration are kept.

    Args:
        pairs: the pairs of each split.
        work: what measures a case.
        args: arguments of the command line.
        decides: whatever the cases depend on.
    """
    folder = kept_in(args)
    tasks = {
        f"{case.case_id}_{kind}": (data.subset(own, [number]), kind, folder / f"{case.case_id}_{kind}.npz")
        for own in pairs
        for number, case in enumerate(cases_of(own))
        for kind in args.kinds
    }
    by = cohort.engine(args.workers, args.scheduler)
    with cohort.Journal(folder / "cases.partial.jsonl", decides) as journal:
        pending = [(case, row) for case, row in tasks.items() if not (case in journal and row[-1].exists())]
        results = by.each(work, pending, lambda _: cohort.LARGE)
        try:
            for case, result in tqdm(results, desc="calibrating", unit="case", total=len(pending)):
                journal.add(case, result)
        except OSError as error:
            told = (
                f"stopped after {len(journal)} of {len(tasks)} cases: {error}; they are kept, the same command goes on"
            )
            raise type(error)(told) from error
    return [evaluation.Case.load(path) for *_, path in tasks.values()]


def kept_in(args: argparse.Namespace) -> Path:
    """The folder of what is measured, while the calibration is not done."""
    return args.out.with_name(f"{args.out.name}.cases")


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
    patients = {case.patient for own in pairs for case in cases_of(own)}
    uncertainty.divide(patients, args.coverage, args.seed, len(names) > 1)  # before the long part: are they enough?
    if args.dry_run:
        count = sum(map(len, pairs)) * len(args.kinds)
        return f"would register {count} cases of {len(patients)} patients; would write {args.out}"
    about = identity(args.model, args.passes) | {"data": args.data, "split": args.split, "region": args.region}
    about |= {"kinds": [*args.kinds]}
    about |= {
        "draws": args.draws,
        "seed": args.seed,
        **{name: taken[name] for name in ("crop", "size") if name in taken},
    }
    work = Measuring([args.model], args.passes, names, args.draws, args.seed, args.region, evaluate.noise_of(taken))
    work.known = predictor, maps  # as they are loaded here; workers load their own
    cases = measured(pairs, work, args, about | taken | {"estimates": names})
    calibration, *told = uncertainty.calibrate(cases, names, args.coverage, args.tolerance, args.seed, about)
    calibration.save(args.out)
    shutil.rmtree(kept_in(args))
    return report(calibration, *told) + f"\nwrote {args.out}"


def main(argv=None, prog: str = "hetmorph calibrate") -> int:
    args = arguments(argv, prog)
    return exit_status(prog, lambda: print(run(args)))
