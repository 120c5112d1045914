"""`hetmorph evaluate`: what its options (`evaluate_options`) ask for."""

import argparse
import functools
import sys
from pathlib import Path

from hetmorph import config, data, evaluation, serving, uncertainty, viz
from hetmorph.cli.evaluate_options import parser
from hetmorph.cli.models import find_model, load_model, optimised

# Options of data.load that a training's configuration holds under the same name.
FROM_RUN = ("crop", "size", "noise", "known_warp", "rounds")


def arguments(argv=None, prog: str = "evaluate.py") -> argparse.Namespace:
    return parser(prog).parse_args(argv)


def beside(model: str, name: str) -> Path | None:
    """A file in the folder of the model or up to two above it, as for <run>/saved_model/1."""
    if model in evaluation.PROGRAMS:
        return None
    path = Path(model)
    for folder in [path, *path.absolute().parents[:2]]:
        if (folder / name).is_file():
            return folder / name
    return None


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
    options = {name: value for name in FROM_RUN if (value := getattr(args, name)) is not None}
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


def warn_of_known_patients(args: argparse.Namespace, pairs: list[data.Pair]) -> None:
    """Every patient may hold some that the model was trained on, whose scores say nothing of others."""
    found = division_of_run(args) if args.split == "all" else None
    if found is None:
        return
    splits, patients = data.load_splits(found), {pair.patient for pair in pairs}
    if known := patients & {*splits["train"], *splits["val"]}:
        print(
            f"warning: the model was trained or validated on {len(known)} of the {len(patients)} patients ({found}); "
            "without --split all it is scored on others",
            file=sys.stderr,
        )


def score(
    predictor, loaded, partial, convention: str, resume: bool, maps: dict
) -> tuple[list[dict], evaluation.Curves]:
    """The rows of all pairs in their order; those of a stopped evaluation are kept."""
    if partial.path.exists() and not resume:
        raise ValueError(f"{partial.path} is of a stopped evaluation; go on with --resume, or choose another --out")
    rows, curves = partial.read()
    done = {row["case_id"] for row in rows}
    if done:
        print(f"{len(done)} of {len(loaded.pairs)} cases are done")
    pending = [pair for pair in loaded.pairs if pair.case_id not in done]
    try:
        for row in evaluation.evaluate_each(
            predictor, pending, convention, labels=loaded.labels, main=loaded.main, curves=curves, maps=maps
        ):
            rows.append(row)
            partial.write(rows, curves)
    finally:
        if rows:
            partial.write(rows, curves, now=True)
    by_case = {row["case_id"]: row for row in rows}
    return [by_case[pair.case_id] for pair in loaded.pairs], curves


def saving(estimates: dict, folder: Path) -> dict:
    """The same estimates, which also write their map of each pair."""

    def saved(name, pair):
        result = estimates[name](pair)
        result.save(folder / f"{pair.case_id}_{name}.nii.gz", pair.spacing)
        return result

    return {name: functools.partial(saved, name) for name in estimates}


def report_maps(args: argparse.Namespace, predictor, others: list) -> tuple[dict, uncertainty.Calibration | None]:
    """Maps that the report shows, those of --uncertainty and those that the calibration needs, and the calibration."""
    names, draws, seed, calibration = args.uncertainty, args.draws, args.seed, None
    if args.calibration:
        calibration = uncertainty.Calibration.load(args.calibration)
        names = [*dict.fromkeys([*names, *calibration.combination.weights])]
        draws, seed = (calibration.about.get(name, value) for name, value in (("draws", draws), ("seed", seed)))
    return uncertainty.pair_estimates(names, predictor, others, draws, seed), calibration


def run(args: argparse.Namespace) -> tuple[dict, list[Path]] | None:
    """The summary, and the files written; None for --dry-run."""
    if args.calibration and args.report is None:
        raise ValueError("--calibration has no effect without --report")
    if (args.out / "config.yaml").exists():
        raise ValueError(f"{args.out} holds a training run, whose cases.csv would be replaced; choose another --out")
    args.model, args.ensemble = find_model(args.model), [find_model(name) for name in args.ensemble]
    options, splits = data_options(args), split_file(args)
    predictor = load_model(args.model, args.passes, args.threads)
    predictor = optimised(predictor, args.instance_optimise, args.instance_window, args.instance_lambda)
    others = [evaluation.load(path, passes=args.passes) for path in args.ensemble]
    estimates = uncertainty.pair_estimates(args.uncertainty, predictor, others, args.draws, args.seed)
    shown = report_maps(args, predictor, others)  # before the long part: a calibration may be unreadable
    loaded = data.load(
        args.data,
        data_dir=args.data_dir,
        split=args.split,
        seed=args.seed,
        skip_bad=args.skip_bad,
        splits=splits,
        **options,
    )
    warn_of_known_patients(args, loaded.pairs)
    if args.dry_run:
        print(f"would register {len(loaded.pairs)} pairs with {args.model}; would write {args.out}")
        return None
    about = {"data": args.data, "split": args.split, "model": args.model, "seed": args.seed}
    about |= {name: options.get(name) for name in FROM_RUN}
    decides = about | {
        "convention": args.convention,
        "threads": args.threads,
        "passes": args.passes,
        "instance": args.instance_optimise and [args.instance_optimise, args.instance_window, args.instance_lambda],
        "skip_bad": args.skip_bad,
    }
    if args.uncertainty:
        about |= {"uncertainty": args.uncertainty, "draws": args.draws}
        decides |= about | {"ensemble": [evaluation.fingerprint(path) for path in args.ensemble]}
    decides |= {"cases": [pair.case_id for pair in loaded.pairs], "files": evaluation.fingerprint(args.model)}
    partial = evaluation.Partial(args.out / "cases.partial.json", decides)
    maps = saving(estimates, args.out / "maps")
    rows, curves = score(predictor, loaded, partial, args.convention, args.resume, maps)
    if curves:
        about["calibration"] = curves.calibration()
    summary = evaluation.summarise(rows, args.convention, loaded.main, **about, skipped=loaded.skipped_entries)
    written = viz.write_results(args.out, predictor, loaded, rows, curves, summary, "summary.png")
    partial.remove()
    if args.report is not None:
        about = {"data": args.data, "split": args.split, "model": args.model}
        folder, maps = args.out / "report", (*shown, args.convention, args.report, about)
        written.append(viz.write_reports(folder, predictor, loaded, rows, curves, *maps)[0])
    return summary, written


def main(argv=None, prog: str = "evaluate.py") -> int:
    args = arguments(argv, prog)
    try:
        done = run(args)
    except (data.DataError, serving.ServingError, ValueError, OSError, ImportError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    if done is None:
        return 0
    summary, written = done
    print(evaluation.markdown(summary))
    if summary["skipped"]:
        print(f"{len(summary['skipped'])} patients skipped, their files are bad; reasons in summary.json")
    print(f"wrote {', '.join(str(path.relative_to(args.out)) for path in written)} in {args.out}")
    if args.uncertainty:
        print(f"maps of {', '.join(args.uncertainty)} in {args.out / 'maps'}")
    return 0
