"""Measure which map of uncertainty points at a model's errors, where the true displacement is known.

Each image of the validation and test patients is warped by random known transforms of four kinds and registered again:
fixed(x) = moving(τ(x)). Errors are |u − (τ − id)| in voxels on the grid of the fixed image, the displacement u pulls:
moved(x) = moving(x + u(x)). Maps are standard deviations, of displacements in voxels, of noise in intensity. The
combination of maps that ranks voxels best is found on the validation patients; everything reported is of test patients.

Writes cases.csv (a row for each map and case), tried.csv (combinations on validation), coverage.csv (conformal bound of
each patient), flags.csv (accept, review, reject), calibration.json, uncertainty.md and uncertainty.png. Every case is
kept as cases/<split>/<case>.npz: a stopped run goes on when started again with the same flags.

Example:
    python training/uncertainty.py --data acdc --data-dir ~/ACDC --model runs/het/model.keras --out runs/het/uncertainty
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from hetmorph.cli.messages import exit_status, import_tensorflow  # noqa: E402, I001

import_tensorflow()

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from hetmorph import cohort, data, evaluation, uncertainty, viz  # noqa: E402
from hetmorph.cli import evaluate, parsers  # noqa: E402
from hetmorph.cli.measuring import Measuring  # noqa: E402
from hetmorph.cli.models import find_model, identity  # noqa: E402
from hetmorph.data.pair import cases_of  # noqa: E402
from hetmorph.evaluation import known_truth  # noqa: E402
from hetmorph.io.atomic import write_text  # noqa: E402
from hetmorph.uncertainty.calibrate import by_patient, covered, limits, scored  # noqa: E402
from hetmorph.uncertainty.conformal import least_patients  # noqa: E402

SPLITS = ("val", "test")
METRICS = (("pearson", "Pearson"), ("spearman", "Spearman"), ("naurc", "nAURC"))
BEST = "best"


def arguments(argv=None) -> argparse.Namespace:
    return parsers.uncertainty(__doc__).parse_args(argv)


def load_pairs(args: argparse.Namespace) -> tuple[dict[str, list], dict]:
    """The real pairs of each split, and the options of `data.load` that decide them; noise is added later."""
    taken = evaluate.data_options(args) | {"known_warp": 0.0}
    options = taken | {"noise": 0.0, "data_dir": args.data_dir, "seed": args.seed, "skip_bad": args.skip_bad}
    options["splits"] = evaluate.split_file(args)
    pairs = {split: evaluate.load_set(args.data, split=split, **options).pairs for split in SPLITS}
    return {split: own[:: args.every] for split, own in pairs.items()}, taken


def check_patients(pairs: dict[str, list], coverage: float) -> None:
    """Refuse what would lack patients for the calibration once everything is measured."""
    val, test = ({pair.patient for pair in pairs[split]} for split in SPLITS)
    most, least = max(len(val), len(val | test) - 1), least_patients(coverage)
    if most < least:
        raise ValueError(
            f"--coverage {coverage:g} needs at least {least} patients for its calibration, there are {most}"
        )


def check_settings(path: Path, settings: dict) -> None:
    """Remember what decides the cases; refuse to mix them with those of other settings."""
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        return write_text(path, json.dumps(settings, indent=1) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(before.keys() | settings.keys())
    if changed := [name for name in names if before.get(name) != settings.get(name)]:
        raise ValueError(f"{path.parent} was begun with another {', '.join(changed)}; choose another --out")


def measure(folder: Path, pairs: dict[str, list], work: Measuring, args: argparse.Namespace) -> dict[str, list[Path]]:
    """Measure the cases that are not on disk, all or those of --shard; the files of all, by split."""
    files, tasks = {split: [] for split in pairs}, {}
    for split, own in pairs.items():
        for (number, pair), kind in itertools.product(enumerate(cases_of(own)), args.kinds):
            files[split].append(folder / split / f"{pair.case_id}_{kind}.npz")
            tasks[f"{split} {files[split][-1].stem}"] = data.subset(own, [number]), kind, files[split][-1]
    pending = [(case, tasks[case]) for case in args.shard.cases(tasks) if not tasks[case][-1].exists()]
    by = cohort.engine(args.workers, args.scheduler)
    for _ in tqdm(by.each(work, pending, lambda _: cohort.LARGE), desc="measuring", unit="case", total=len(pending)):
        pass
    return files


def measured(files: list[Path]) -> list:
    """The cases of a split that say anything."""
    cases = (evaluation.Case.load(path) for path in files)
    return [case for case in cases if case.region.any()]


def calibrated(val: dict, test: dict, coverage: float) -> tuple[uncertainty.Bound, list[dict], str]:
    """The bound to keep, what the bound of each test patient covers, and whom it was calibrated on.

    Validation patients calibrate where they are enough. Where not, the other test patients join them, and the bound to
    keep comes from all.
    """
    enough = len(val) >= least_patients(coverage)
    bound = uncertainty.Bound.fit(val if enough else val | test, coverage)

    def bound_of(patient):
        others = {name: own for name, own in (val | test).items() if name != patient}
        return bound if enough else uncertainty.Bound.fit(others, coverage)

    source = "the validation patients" + ("" if enough else " and the other test patients")
    return bound, covered(test, bound_of), source


def flagged(val: list, test: list, combination, bound, tolerance: float) -> tuple[uncertainty.Triage, list[dict]]:
    """Limits learned from the validation cases, and the flags of the test cases: a case scores its mean bound."""
    triage = limits(val, combination, bound, tolerance)
    flags = [row | {"flag": triage.flag(row["score"])} for row in scored(test, combination, bound)]
    return triage, sorted(flags, key=lambda row: row["score"])


def mean_over_patients(rows: list[dict], metric: str) -> str:
    values = known_truth.over_patients(rows, metric)
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}" if values else "–"


def table(rows: list[dict], names: list[str], kinds) -> str:
    """A line for each map: cost, agreement with the true error (mean ± standard deviation over patients)."""
    header = ["map", "passes", "s / pair", *(heading for _, heading in METRICS)]
    header += [f"Spearman, {kind}" for kind in kinds]
    lines = [header, ["---"] * len(header)]
    for name in names:
        own = [row for row in rows if row["map"] == name]
        passes = {row["passes"] for row in own} - {None}
        seconds = [row["seconds"] for row in own if np.isfinite(row["seconds"])]
        cells = [name, str(max(passes)) if passes else "–", f"{np.median(seconds):.2f}" if seconds else "–"]
        cells += [mean_over_patients(own, metric) for metric, _ in METRICS]
        cells += [mean_over_patients([row for row in own if row["kind"] == kind], "spearman") for kind in kinds]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report(args, rows, names, combination, bound, coverage, source, flags) -> str:
    """What is printed and kept as Markdown."""
    epe = mean_over_patients([row for row in rows if row["map"] == BEST], "epe")
    shares = [row["coverage"] for row in coverage]
    counted = []
    for flag in uncertainty.FLAGS:
        errors = [row["epe"] for row in flags if row["flag"] == flag]
        counted.append(f"{flag} {len(errors)}" + (f", mean error {np.mean(errors):.2f} px" if errors else ""))
    paragraphs = [
        f"{len(flags)} cases of {len(coverage)} test patients of {args.data}, {args.region}, error {epe} px; means ± "
        "standard deviations over patients.",
        table(rows, names, args.kinds),
        f"{BEST}, found on the validation patients: {combination.name}",
        f"Conformal bound of {bound.coverage:.0%}, {bound.scale:.3g} · map, from {source}: holds for "
        f"{np.mean(shares):.1%} of the voxels (by patient {min(shares):.1%} … {max(shares):.1%}), mean bound "
        f"{np.mean([row['bound'] for row in coverage]):.2f} px.",
        f"Flags: {'; '.join(counted)}. Bad is a mean error above {args.tolerance:g} px.",
    ]
    return "\n\n".join(paragraphs)


def run(args: argparse.Namespace) -> str:
    """Measure, find the combination, test it, and write everything; the report."""
    args.model, args.ensemble = find_model(args.model), [find_model(name) for name in args.ensemble]
    predictor = evaluation.load(args.model, passes=args.passes)
    others = [evaluation.load(path, passes=args.passes) for path in args.ensemble]
    pairs, taken = load_pairs(args)
    check_patients(pairs, args.coverage)
    names = args.estimates or uncertainty.estimates_for(predictor, pairs["val"][0]) + ["ensemble"] * bool(others)
    uncertainty.pair_estimates(names, predictor, others, args.draws, args.seed)  # before anything is written
    settings = taken | {name: getattr(args, name) for name in ("data", "region", "passes", "draws", "seed")}
    settings |= {"estimates": names, "files": [evaluation.fingerprint(path) for path in (args.model, *args.ensemble)]}
    check_settings(args.out / "settings.json", settings)
    noise = taken.get("noise") or 0.0
    work = Measuring([args.model, *args.ensemble], args.passes, names, args.draws, args.seed, args.region, noise)
    files = measure(args.out / "cases", pairs, work, args)
    if missing := sum(not path.exists() for own in files.values() for path in own):
        return f"{missing} cases are of other parts; when all are done, the same command without --shard ends the work"
    val, test = (measured(files[split]) for split in SPLITS)

    combination, tried = uncertainty.best_combination(val, names)
    stds = {name: [case.maps[name] for case in test] for name in names}
    stds[BEST] = [combination(case.maps) for case in test]
    rows = [
        known_truth.score(case, name, std) for name, own in stds.items() for case, std in zip(test, own, strict=True)
    ]
    bound, coverage, source = calibrated(by_patient(val, combination), by_patient(test, combination), args.coverage)
    triage, flags = flagged(val, test, combination, bound, args.tolerance)
    text = report(args, rows, [*stds], combination, bound, coverage, source, flags)

    about = identity(args.model, args.passes) | {"data": args.data, "region": args.region, "patients": source}
    about |= {"draws": args.draws, "seed": args.seed, "ndims": test[0].error.ndim}
    uncertainty.Calibration(combination, bound, triage, about).save(args.out / "calibration.json")
    for name, content in (("cases", rows), ("tried", tried), ("coverage", coverage), ("flags", flags)):
        evaluation.write_cases(args.out / f"{name}.csv", content)
    write_text(args.out / "uncertainty.md", text + "\n")
    viz.known_truth_figure(
        {name: known_truth.mean_curve(test, own) for name, own in stds.items()},
        uncertainty.risk_coverage([row["score"] for row in flags], [row["epe"] for row in flags]),
        [row["flag"] for row in flags],
        {row["patient"]: row["coverage"] for row in coverage},
        args.coverage,
        args.out / "uncertainty.png",
    )
    return f"{text}\n\nwrote uncertainty.md, uncertainty.png, calibration.json and tables in {args.out}"


def main(argv=None) -> int:
    args = arguments(argv)
    return exit_status("uncertainty.py", lambda: print(run(args)))


if __name__ == "__main__":
    sys.exit(main())
