"""`hetmorph evaluate`: what its options (`parsers.evaluate`) ask for."""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hetmorph import config, data, evaluation, registration, uncertainty, viz
from hetmorph.cli.messages import exit_status
from hetmorph.cli.models import (
    NETWORK,
    Optimisation,
    affine_of_run,
    beside,
    calibration_of,
    find_model,
    load_model,
)
from hetmorph.cli.parsers import evaluate as parser

# Options of data.load that a training's configuration holds under the same name.
FROM_RUN = ("crop", "size", "noise", "known_warp", "rounds")


def arguments(argv=None, prog: str = "evaluate.py") -> argparse.Namespace:
    return parser(prog).parse_args(argv)


def same_set(one: str, other: str) -> bool:
    """Whether two names of `--data` mean the same; a table of pairs may be named by several paths."""
    tables = data.is_table(one) and data.is_table(other)
    return Path(one).resolve() == Path(other).resolve() if tables else one == other


def set_of_run(folder: Path) -> str | None:
    """The data set in the config.yaml of a run, for divisions that do not name theirs."""
    stored = folder / "config.yaml"
    return config.load(stored).data.name if stored.is_file() else None


def data_options(args: argparse.Namespace) -> dict:
    """Options of `data.load` from the command line, else from the model's run; the latter are printed."""
    options = {name: value for name in FROM_RUN if (value := getattr(args, name)) is not None} | affine_option(args)
    stored = beside(args.model, "config.yaml")
    if stored is None:
        return options
    settings = config.to_dict(config.load(stored))["data"]
    if not same_set(settings["name"], args.data):
        print(f"{stored} is of {settings['name']}, not of {args.data}: nothing taken from it")
        return options
    if (args.crop or settings["crop"]) == "none":
        settings["size"] = None  # the full field of view has its own
    taken = {name: value for name in FROM_RUN if name not in options and (value := settings.get(name)) is not None}
    if taken:
        print(f"as in {stored}: {', '.join(f'{name} {value}' for name, value in taken.items())}")
    return options | taken


def affine_option(args: argparse.Namespace) -> dict:
    """The affine stage of the command line, else of the model's run, whatever set that is of."""
    kind, stored = (args.affine, None) if args.affine is not None else affine_of_run(args.model)
    if stored is not None:
        print(f"as in {stored}: affine {kind}")
    return {} if kind == "none" else {"affine": kind}


def load_set(name: str, affine: str | None = None, **options) -> data.LoadedSet:
    """As `data.load`, with the affine stage by its name.

    Args:
        name: of the set.
        affine: kind of the stage, or None.
        options: of `data.load`.
    """
    return data.load(name, align=registration.aligner(affine), **options)


def split_file(args: argparse.Namespace) -> Path | None:
    if args.split_file and args.split == "all":
        raise ValueError("--split-file has no effect with --split all, which takes every patient found")
    if args.split_file or args.split == "all":
        return args.split_file
    found = division_of_run(args)
    if found:
        print(f"patients of the {args.split} split as in {found}")
    return found


def division_of_run(args: argparse.Namespace) -> Path | None:
    """The division that the model was trained by, where it is one of this data set."""
    found = beside(args.model, "splits.json")
    if found is None:
        return None
    name = data.splits_name(found) or set_of_run(found.parent)
    if name and not same_set(name, args.data):
        print(f"{found} is of {name}, not of {args.data}: not used")
        return None
    return found


def warn_of_known_patients(args: argparse.Namespace, cases: Sequence[data.Case]) -> None:
    """Every patient may hold some that the model was trained on, whose scores say nothing of others."""
    found = division_of_run(args) if args.split == "all" else None
    if found is None:
        return
    splits, patients = data.load_splits(found), {case.patient for case in cases}
    if known := patients & {*splits["train"], *splits["val"]}:
        print(
            f"warning: the model was trained or validated on {len(known)} of the {len(patients)} patients ({found}); "
            "without --split all it is scored on others",
            file=sys.stderr,
        )


def score(
    predictor, loaded, partial, convention: str, resume: bool, maps: dict, judge=None, inverse: bool = False
) -> tuple[list[dict], evaluation.Curves]:
    """The rows of all pairs in their order; those of a stopped evaluation are kept."""
    if partial.path.exists() and not resume:
        raise ValueError(f"{partial.path} is of a stopped evaluation; go on with --resume, or choose another --out")
    rows, curves = partial.read()
    done = {row["case_id"] for row in rows}
    if done:
        print(f"{len(done)} of {len(loaded.pairs)} cases are done")
    pending = [number for number, case in enumerate(loaded.cases) if case.case_id not in done]
    asked = {"labels": loaded.labels, "main": loaded.main, "curves": curves, "maps": maps, "judge": judge}
    asked["inverse"] = inverse
    try:
        for row in evaluation.evaluate_each(predictor, data.subset(loaded.pairs, pending), convention, **asked):
            rows.append(row)
            partial.write(rows, curves)
    finally:
        if rows:
            partial.write(rows, curves, now=True)
    by_case = {row["case_id"]: row for row in rows}
    return [by_case[case.case_id] for case in loaded.cases], curves


def saving(estimates: dict, folder: Path) -> dict:
    """The same estimates, which also write their map of each pair."""

    def saved(name, pair):
        result = estimates[name](pair)
        result.save(folder / f"{pair.case_id}_{name}.nii.gz", pair.spacing)
        return result

    return {name: functools.partial(saved, name) for name in estimates}


def calibration_for(args: argparse.Namespace) -> uncertainty.Calibration | None:
    """By what the cases are accepted, reviewed or rejected; it is printed."""
    if args.calibration is None and args.report is None:
        return None
    refined = args.instance_optimise is not None
    calibration, told = calibration_of(args.calibration, args.model, args.passes, refined, args.data)
    if told:
        print(told)
    return calibration


def remembered(estimate: Callable) -> Callable:
    """The same estimate of a pair, which is not made again for the pair that it was made for last."""
    last = [None, None]

    def of(pair):
        if last[0] is not pair:
            last[:] = pair, estimate(pair)
        return last[1]

    return of


def judge(maps: dict, calibration: uncertainty.Calibration | None) -> Callable:
    """Verdict and mean bound of a pair, as `evaluation.evaluate` asks for; without a calibration by plain checks."""

    def judged(pair, prediction) -> tuple[str, float | None]:
        answer = prediction.moved, prediction.displacement, prediction.determinant, prediction.across
        checks = evaluation.Checks.of(pair.moving, pair.fixed, *answer)
        said = viz.verdict(pair, {name: estimate(pair) for name, estimate in maps.items()}, calibration, checks)
        return said.flag, None if calibration is None else said.score

    return judged


def on_volumes(args: argparse.Namespace, predictor, loaded):
    """The predictor, slice by slice where it is of 2-D images and the pairs are volumes."""
    fitting = evaluation.for_cases(predictor, loaded.cases)
    if fitting is not predictor:
        if args.uncertainty or args.calibration not in (None, "none"):
            raise ValueError(
                "--uncertainty and --calibration are not for a 2-D model on volumes; of one pair, "
                "hetmorph uncertainty --moving … --fixed … gives a map slice by slice"
            )
        thick = loaded.cases[0].spacing[fitting.across]
        print(f"a 2-D model on volumes: slice by slice across axis {fitting.across} (spacing {thick:.4g} mm)")
    return fitting


def run(args: argparse.Namespace) -> tuple[dict, list[Path]] | None:
    """The summary, and the files written; None for --dry-run."""
    if (args.out / "config.yaml").exists():
        raise ValueError(f"{args.out} holds a training run, whose cases.csv would be replaced; choose another --out")
    args.model, args.ensemble = find_model(args.model), [find_model(name) for name in args.ensemble]
    options, splits = data_options(args), split_file(args)
    predictor = load_model(args.model, args.passes, args.threads, compiled=args.instance_of == NETWORK)
    predictor = Optimisation.asked(args).after(predictor)
    loaded = load_set(
        args.data,
        data_dir=args.data_dir,
        split=args.split,
        seed=args.seed,
        skip_bad=args.skip_bad,
        splits=splits,
        **options,
    )
    whole = predictor
    predictor = on_volumes(args, whole, loaded)
    others = [evaluation.load(path, passes=args.passes) for path in args.ensemble]
    estimates = uncertainty.pair_estimates(args.uncertainty, predictor, others, args.draws, args.seed)
    calibration, judging = None if predictor is not whole else calibration_for(args), {}
    if calibration is not None:
        judging = uncertainty.calibrated_estimates(calibration, predictor, others)
        judging = {name: remembered(estimate) for name, estimate in judging.items()}
        if all(calibration.about.get(name) == getattr(args, name) for name in ("draws", "seed")):
            estimates |= {name: judging[name] for name in estimates if name in judging}
    warn_of_known_patients(args, loaded.cases)
    if args.dry_run:
        print(f"would register {len(loaded.pairs)} pairs with {args.model}; would write {args.out}")
        return None
    about = {"data": args.data, "split": args.split, "model": args.model, "seed": args.seed}
    about |= {name: options.get(name) for name in FROM_RUN}
    if "affine" in options:
        about["affine"] = options["affine"]
        print(f"undeformed: after the {options['affine']} stage")
    decides = about | {
        "convention": args.convention,
        "threads": args.threads,
        "passes": args.passes,
        "instance": args.instance_optimise and [args.instance_optimise, args.instance_window, args.instance_lambda],
        "skip_bad": args.skip_bad,
    }
    if args.instance_of == NETWORK:
        decides |= {"instance_of": NETWORK}
    if args.instance_similarity:
        decides |= {"instance_similarity": args.instance_similarity}
    if args.inverse_error:
        decides |= {"inverse_error": True}
    if args.uncertainty:
        about |= {"uncertainty": args.uncertainty, "draws": args.draws}
        decides |= about | {"ensemble": [evaluation.fingerprint(path) for path in args.ensemble]}
    if calibration is not None:
        decides |= {"calibration": dataclasses.asdict(calibration)}
    elif args.report is not None:
        decides |= {"plain_checks": True}
    decides |= {"cases": [case.case_id for case in loaded.cases], "files": evaluation.fingerprint(args.model)}
    partial = evaluation.Partial(args.out / "cases.partial.json", decides)
    maps = saving(estimates, args.out / "maps")
    judged = None if calibration is None and args.report is None else judge(judging, calibration)
    rows, curves = score(predictor, loaded, partial, args.convention, args.resume, maps, judged, args.inverse_error)
    if curves:
        about["calibration"] = curves.calibration()
    summary = evaluation.summarise(rows, args.convention, loaded.main, **about, skipped=loaded.skipped_entries)
    written = viz.write_results(args.out, predictor, loaded, rows, curves, summary, "summary.png")
    partial.remove()
    if args.report is not None:
        about = {"data": args.data, "split": args.split, "model": args.model}
        shown = (estimates | judging, calibration, args.convention, args.report, about)
        written.append(viz.write_reports(args.out / "report", predictor, loaded, rows, curves, *shown)[0])
    return summary, written


def main(argv=None, prog: str = "evaluate.py") -> int:
    args = arguments(argv, prog)
    return exit_status(prog, lambda: tell(args, run(args)))


def tell(args: argparse.Namespace, done: tuple[dict, list[Path]] | None) -> None:
    """The table, and where everything is; nothing of a dry run."""
    if done is None:
        return
    summary, written = done
    print(evaluation.markdown(summary))
    if summary["skipped"]:
        print(f"{len(summary['skipped'])} patients skipped, their files are bad; reasons in summary.json")
    print(f"wrote {', '.join(str(path.relative_to(args.out)) for path in written)} in {args.out}")
    if args.uncertainty:
        print(f"maps of {', '.join(args.uncertainty)} in {args.out / 'maps'}")
