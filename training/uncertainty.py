"""Measure which map of uncertainty points at a model's errors, where the true displacement is known.

Each image is warped by random known transforms of four kinds and registered again: fixed(x) = moving(τ(x)). Errors are
|u − (τ − id)| in voxels on the grid of the fixed image, the displacement u pulls: moved(x) = moving(x + u(x)). Maps are
standard deviations, of displacements in voxels, of noise in intensity. Their combination is fitted, its bound and flags
are calibrated on the training and validation patients, as by `hetmorph calibrate`; what is reported is of the test
patients. With `--kinds … motion` these are also registered as they are, and their moved contours compared with those of
the fixed image; `--kinds motion` alone calibrates on that.

Writes cases.csv (a row for each map and case), coverage.csv (conformal bound of each patient), flags.csv (accept,
review, reject), calibration.json, uncertainty.md and uncertainty.png. Every case is
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
from hetmorph.uncertainty.calibrate import covered, scored  # noqa: E402
from hetmorph.uncertainty.combination import by_patient  # noqa: E402

CALIBRATING = ("train", "val")
SPLITS = (*CALIBRATING, "test")
METRICS = (("pearson", "Pearson"), ("spearman", "Spearman"), ("naurc", "nAURC"))
BEST = "combination"
WARPS, SURFACES = "known warps", "real motion, distances of surfaces"


def arguments(argv=None) -> argparse.Namespace:
    return parsers.uncertainty(__doc__).parse_args(argv)


def load_pairs(args: argparse.Namespace) -> tuple[dict[str, list], dict]:
    """The real pairs of each split, and the options of `data.load` that decide them; noise is added later."""
    taken = evaluate.data_options(args) | {"known_warp": 0.0}
    clean = {name: value for name, value in taken.items() if name not in evaluate.NOISE}
    options = clean | {"data_dir": args.data_dir, "seed": args.seed, "skip_bad": args.skip_bad}
    options["splits"] = evaluate.split_file(args)
    pairs = {split: evaluate.load_set(args.data, split=split, **options).pairs for split in SPLITS}
    return {split: own[:: args.every] for split, own in pairs.items()}, taken


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
        warps = [kind for kind in args.kinds if kind != evaluation.MOTION] or args.kinds
        kinds = args.kinds if split == "test" else warps
        for (number, pair), kind in itertools.product(enumerate(cases_of(own)), kinds):
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


def warped(cases: list) -> list:
    """Those of known warps; all of them where there is real motion only."""
    return [case for case in cases if case.kind != evaluation.MOTION] or cases


def judged(calibration: uncertainty.Calibration, cases: list) -> list[dict]:
    """The flags of cases: each scores its mean bound."""
    flags = scored(cases, calibration.combination, calibration.bound)
    rows = [row | {"flag": calibration.triage.flag(row["score"])} for row in flags]
    return sorted(rows, key=lambda row: row["score"])


def mean_over_patients(rows: list[dict], metric: str) -> str:
    values = known_truth.over_patients(rows, metric)
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}" if values else "–"


def groups(cases: list) -> dict[str, list]:
    """Cases of known warps, and those of real motion, as the two are called."""
    named = {WARPS: [case for case in cases if case.kind != evaluation.MOTION]}
    named[SURFACES] = [case for case in cases if case.kind == evaluation.MOTION]
    return {kind: own for kind, own in named.items() if own}


def table(rows: list[dict], names: list[str], kind: str, args) -> str:
    """A line for each map: cost, agreement with the true error (mean ± standard deviation over patients)."""
    kinds = [one for one in args.kinds if one != evaluation.MOTION] if kind == WARPS else []
    header = ["map", "passes", "s / pair", *(heading for _, heading in METRICS)]
    header += [f"nAURC, {one}" for one in kinds]
    lines = [header, ["---"] * len(header)]
    for name in names:
        own = [row for row in rows if row["map"] == name]
        passes = {row["passes"] for row in own} - {None}
        seconds = [row["seconds"] for row in own if np.isfinite(row["seconds"])]
        cells = [name, str(max(passes)) if passes else "–", f"{np.median(seconds):.2f}" if seconds else "–"]
        cells += [mean_over_patients(own, metric) for metric, _ in METRICS]
        cells += [mean_over_patients([row for row in own if row["kind"] == one], "naurc") for one in kinds]
        lines.append(cells)
    best = [row for row in rows if row["map"] == BEST]
    said = (
        f"{kind}: {len(best)} cases of {len({row['patient'] for row in best})} test patients of {args.data}, error "
        f"{mean_over_patients(best, 'epe')} px; means ± standard deviations over patients."
    )
    return said + "\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def held(calibration: uncertainty.Calibration, cases: list, kind: str) -> list[dict]:
    """What the bound covers of each patient, over the cases of a kind."""
    patients = by_patient(cases, calibration.combination)
    return [{"kind": kind, **row} for row in covered(patients, lambda _: calibration.bound)]


def report(args, tables: dict[str, str], calibration, coverage: list[dict], flags: list[dict]) -> str:
    """What is printed and kept as Markdown."""
    bound, paragraphs = calibration.bound, []
    for kind, text in tables.items():
        own = [row for row in coverage if row["kind"] == kind]
        shares = [row["coverage"] for row in own]
        paragraphs += [
            text,
            f"{kind}, bound of {bound.coverage:.0%}: holds for {np.mean(shares):.1%} of the voxels (by patient "
            f"{min(shares):.1%} … {max(shares):.1%}), mean bound {np.mean([row['bound'] for row in own]):.2f} px.",
        ]
    counted = []
    for flag in uncertainty.FLAGS:
        errors = [row["epe"] for row in flags if row["flag"] == flag]
        counted.append(f"{flag} {len(errors)}" + (f", mean error {np.mean(errors):.2f} px" if errors else ""))
    about = calibration.about
    paragraphs += [
        f"{BEST}: {calibration.combination.name}; bound: {bound.scale:.3g} times that. Patients of {args.data}, "
        f"{' and '.join(CALIBRATING)}: {about['patients']}; {about['cases']} cases bounded.",
        f"Flags: {'; '.join(counted)}. Bad is a mean error above {args.tolerance:g} px.",
    ]
    return "\n\n".join(paragraphs)


def run(args: argparse.Namespace) -> str:
    """Measure, find the combination, test it, and write everything; the report."""
    args.model, args.ensemble = find_model(args.model), [find_model(name) for name in args.ensemble]
    predictor = evaluation.load(args.model, passes=args.passes)
    others = [evaluation.load(path, passes=args.passes) for path in args.ensemble]
    pairs, taken = load_pairs(args)
    names = args.estimates or uncertainty.estimates_for(predictor, pairs["val"][0]) + ["ensemble"] * bool(others)
    uncertainty.pair_estimates(names, predictor, others, args.draws, args.seed)  # before anything is written
    patients = [pair.patient for split in CALIBRATING for pair in pairs[split]]
    uncertainty.divide(patients, args.coverage, args.seed, len(names) > 1)
    settings = taken | {name: getattr(args, name) for name in ("data", "region", "passes", "draws", "seed")}
    settings |= {"estimates": names, "files": [evaluation.fingerprint(path) for path in (args.model, *args.ensemble)]}
    check_settings(args.out / "settings.json", settings)
    models, noise = [args.model, *args.ensemble], evaluate.noise_of(taken)
    work = Measuring(models, args.passes, names, args.draws, args.seed, args.region, noise)
    files = measure(args.out / "cases", pairs, work, args)
    if missing := sum(not path.exists() for own in files.values() for path in own):
        return f"{missing} cases are of other parts; when all are done, the same command without --shard ends the work"
    learnt = [case for split in CALIBRATING for case in measured(files[split])]
    test = measured(files["test"])
    about = identity(args.model, args.passes) | {"data": args.data, "split": CALIBRATING, "region": args.region}
    about |= {"kinds": sorted({case.kind for case in learnt}), "draws": args.draws, "seed": args.seed}
    calibration = uncertainty.calibrate(learnt, names, args.coverage, args.tolerance, args.seed, about)[0]

    stds = {name: [case.maps[name] for case in test] for name in names}
    stds[BEST] = [calibration.combination(case.maps) for case in test]
    rows = [
        known_truth.score(case, name, std) for name, own in stds.items() for case, std in zip(test, own, strict=True)
    ]
    tables, coverage = {}, []
    for kind, cases in groups(test).items():
        coverage += held(calibration, cases, kind)
        own = {case.case_id for case in cases}
        tables[kind] = table([row for row in rows if row["case_id"] in own], [*stds], kind, args)
    flags = judged(calibration, warped(test))
    text = report(args, tables, calibration, coverage, flags)
    calibration.save(args.out / "calibration.json")
    for name, content in (("cases", rows), ("coverage", coverage), ("flags", flags)):
        evaluation.write_cases(args.out / f"{name}.csv", content)
    write_text(args.out / "uncertainty.md", text + "\n")
    drawn = groups(test).get(WARPS, test)
    places = [test.index(case) for case in drawn]
    viz.known_truth_figure(
        {name: known_truth.mean_curve(drawn, [own[n] for n in places]) for name, own in stds.items()},
        uncertainty.risk_coverage([row["score"] for row in flags], [row["epe"] for row in flags]),
        [row["flag"] for row in flags],
        {row["patient"]: row["coverage"] for row in coverage if row["kind"] == next(iter(tables))},
        args.coverage,
        args.out / "uncertainty.png",
    )
    return f"{text}\n\nwrote uncertainty.md, uncertainty.png, calibration.json and tables in {args.out}"


def main(argv=None) -> int:
    args = arguments(argv)
    return exit_status("uncertainty.py", lambda: print(run(args)))


if __name__ == "__main__":
    sys.exit(main())
