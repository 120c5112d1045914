"""`hetmorph evaluate`: what its options (`parsers.evaluate`) ask for."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from hetmorph import cohort, config, data, evaluation, registration, uncertainty, viz
from hetmorph.cli.messages import exit_status
from hetmorph.cli.models import (
    OF_MODEL,
    affine_of_run,
    beside,
    calibration_of,
    find_model,
)
from hetmorph.cli.parsers import evaluate as parser
from hetmorph.cli.scoring import Scoring
from hetmorph.cohort import engine

# Options of data.load that a training's configuration holds under the same name.
NOISE = ("noise", "noise_kind", "noise_in")
FROM_RUN = ("crop", "size", *NOISE, "known_warp", "rounds")


def arguments(argv=None, prog: str = "evaluate.py") -> argparse.Namespace:
    return parser(prog).parse_args(argv)


def same_set(one: str, other: str) -> bool:
    """Whether two names of `--data` mean the same; a table of pairs may be named by several paths, and one set may be
    among the several that a model was trained on.

    Args:
        one: name in the settings of the model's run.
        other: as it is asked for.
    """
    if data.is_member(other, one):
        return True
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
    if data.is_member(args.data, settings["name"]):
        own = data.dataset(args.data)  # what went to another set alone is left
        settings["crop"] = settings["crop"] if settings["crop"] in own.crops else None
        settings["rounds"] = settings["rounds"] if own.between else 1
    if (args.crop or settings["crop"]) == "none":
        settings["size"] = None  # the full field of view has its own
    if not options.get("noise", settings["noise"]) or settings["noise_kind"] == data.NOISE_KINDS[0]:
        settings["noise_kind"] = None  # nothing is added, or what is by default
    if options.get("noise_kind", settings["noise_kind"]) in (None, data.NOISE_KINDS[0]):
        settings["noise_in"] = None
    taken = {name: value for name in FROM_RUN if name not in options and (value := settings.get(name)) is not None}
    if taken:
        print(f"as in {stored}: {', '.join(f'{name} {value}' for name, value in taken.items())}")
    return options | taken


def noise_of(options: dict) -> dict:
    """The noise among options of `data.load`, which `evaluation.known_pair` takes by the same names.

    Raises:
        ValueError: a kind without a level, which would have no effect.
    """
    if "noise_kind" in options and not options.get("noise"):
        raise ValueError("--noise-kind has no effect without --noise")
    return {name: options[name] for name in NOISE if name in options}


def affine_option(args: argparse.Namespace) -> dict:
    """The affine stage of the command line, else of the model's run, whatever set that is of."""
    kind, stored = (args.affine, None) if args.affine is not None else affine_of_run(args.model)
    if stored is not None:
        print(f"as in {stored}: affine {kind}")
    return {} if kind == "none" else {"affine": kind}


def load_set(name: str, affine: str | None = None, **options) -> data.LoadedSet:
    """As `data.load`, with the affine stage by its name.

    Args:
        name: the name of the set.
        affine: kind of the stage, or None.
        options: options of `data.load`.
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
    splits, patients = data.load_splits(found, args.data), {case.patient for case in cases}
    if known := patients & {*splits["train"], *splits["val"]}:
        print(
            f"warning: the model was trained or validated on {len(known)} of the {len(patients)} patients ({found}); "
            "without --split all it is scored on others",
            file=sys.stderr,
        )


def calibration_for(args: argparse.Namespace) -> uncertainty.Calibration | None:
    """By what the cases are accepted, reviewed or rejected; it is printed."""
    if args.calibration is None and args.report is None:
        return None
    refined = args.instance_optimise is not None
    calibration, told = calibration_of(args.calibration, args.model, args.passes, refined, args.data)
    if told:
        print(told)
    return calibration


class Done(NamedTuple):
    """An evaluation: its words, its summary and the files written; of one of several sets, the words are its own."""

    args: argparse.Namespace
    summary: dict
    written: list[Path]


def run(args: argparse.Namespace) -> list[Done]:
    """What was done, of several data sets each by itself; nothing for --dry-run and --shard."""
    if (args.out / "config.yaml").exists():
        raise ValueError(f"{args.out} holds a training run, whose cases.csv would be replaced; choose another --out")
    args.model, args.ensemble = find_model(args.model), [find_model(name) for name in args.ensemble]
    options, splits = data_options(args), split_file(args)
    by = engine(args.workers, args.scheduler)
    whole = Scoring(args).whole  # what is wrong with the model is told before all data are read
    loaded = load_set(
        args.data,
        data_dir=args.data_dir,
        split=args.split,
        seed=args.seed,
        skip_bad=args.skip_bad,
        splits=splits,
        **options,
    )
    warn_of_known_patients(args, loaded.cases)
    parts = [
        (argparse.Namespace(**vars(args) | {"data": name, "out": args.out / name}), part)
        for name, part in loaded.parts.items()
    ]
    done = [evaluated(own, whole, by, part, options) for own, part in parts or [(args, loaded)]]
    return [one for one in done if one is not None]


def evaluated(args: argparse.Namespace, whole, by, loaded: data.LoadedSet, options: dict) -> Done | None:
    """What was done with the pairs of one set; None for --dry-run and --shard.

    Args:
        args: arguments of `run`, with the name and the folder of this set.
        whole: the model.
        by: what goes through the cases.
        loaded: the pairs.
        options: that they were loaded with.
    """
    scoring = Scoring(args)
    scoring.whole = whole
    scoring.meet(loaded)
    calibration = scoring.calibration = None if scoring.predictor is not whole else calibration_for(args)
    _ = scoring.scorer  # what is wrong with the estimates is told before any pair is registered
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
    if args.instance_of in OF_MODEL:
        decides |= {"instance_of": args.instance_of}
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
    with cohort.Journal(args.out / args.shard.journal, decides) as journal:
        rows, curves = score(scoring, loaded, journal, args, by)
        if args.shard != cohort.WHOLE:
            print(f"{len(rows)} of {len(loaded.cases)} cases are in {journal.path}")
            print("when all parts are done, the same command with --resume, without --shard, ends the evaluation")
            return None
        done = written(args, scoring, loaded, rows, curves, about)
        journal.remove()
    for path in parts(args.out):
        path.unlink()
    return Done(args, *done)


def score(
    scoring: Scoring, loaded, journal: cohort.Journal, args: argparse.Namespace, by
) -> tuple[list[dict], evaluation.Curves]:
    """The rows of all pairs, or of one part of them, in their order; those of a stopped evaluation are kept."""
    others = parts(args.out) if args.shard == cohort.WHOLE else []
    if not args.resume and (there := [path for path in (journal.path, *others) if path.exists()]):
        raise ValueError(f"{there[0]} is of a stopped evaluation; go on with --resume, or choose another --out")
    for path in others:
        with cohort.Journal(path, journal.settings) as part:
            for case in part:
                journal.add(case, part[case])
    numbers = {case.case_id: number for number, case in enumerate(loaded.cases)}
    own = args.shard.cases(numbers)
    if done := sum(case in journal for case in own):
        print(f"{done} of {len(own)} cases are done")
    tasks = [(case, data.subset(loaded.pairs, [numbers[case]])) for case in own if case not in journal]
    voxels = {case.case_id: math.prod(case.shape) for case in loaded.cases}
    results = by.each(scoring, tasks, lambda task: 8 * voxels[task[0]])
    try:
        for case, result in tqdm(results, desc="evaluating", unit="pair", total=len(tasks)):
            journal.add(case, result)
    except OSError as error:
        raise type(error)(f"stopped after {len(journal)} cases: {error}; they are kept, go on with --resume") from error
    curves = evaluation.Curves()
    for entry in cohort.Entries(journal, own):
        curves.join(evaluation.Curves.from_state(entry["curves"]))
    return [entry["row"] for entry in cohort.Entries(journal, own)], curves


def parts(out: Path) -> list[Path]:
    """What `--shard` has left in a folder."""
    return sorted(out.glob("cases-*-of-*.partial.jsonl"))


def written(args: argparse.Namespace, scoring: Scoring, loaded, rows, curves, about: dict) -> tuple[dict, list[Path]]:
    """Write tables, pictures and pages; the summary, and their paths."""
    predictor, calibration = scoring.predictor, scoring.calibration
    if curves:
        about["calibration"] = curves.calibration()
    summary = evaluation.summarise(rows, args.convention, loaded.main, **about, skipped=loaded.skipped_entries)
    paths = viz.write_results(args.out, predictor, loaded, rows, curves, summary, "summary.png")
    if args.report is not None:
        about = {"data": args.data, "split": args.split, "model": args.model}
        shown = (scoring.estimates | scoring.judging, calibration, args.convention, args.report, about)
        paths.append(viz.write_reports(args.out / "report", predictor, loaded, rows, curves, *shown)[0])
    return summary, paths


def main(argv=None, prog: str = "evaluate.py") -> int:
    args = arguments(argv, prog)
    return exit_status(prog, lambda: tell_all(run(args)))


def tell_all(done: Sequence[Done]) -> None:
    for one in done:
        if len(done) > 1:
            print(f"\n{one.args.data}:")
        tell(*one)


def tell(args: argparse.Namespace, summary: dict, written: Sequence[Path]) -> None:
    """The table, and where everything is."""
    print(evaluation.markdown(summary))
    if summary["skipped"]:
        print(f"{len(summary['skipped'])} patients skipped, their files are bad; reasons in summary.json")
    print(f"wrote {', '.join(str(path.relative_to(args.out)) for path in written)} in {args.out}")
    if args.uncertainty:
        print(f"maps of {', '.join(args.uncertainty)} in {args.out / 'maps'}")
