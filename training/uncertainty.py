"""Measure which map of uncertainty points at a model's errors, where the true displacement is known.

Each image of the validation and test patients is warped by random known transforms of four kinds and registered again:
fixed(x) = moving(τ(x)). Errors are |u − (τ − id)| in voxels on the grid of the fixed image, the displacement u pulls:
moved(x) = moving(x + u(x)). Maps are standard deviations, of displacements in voxels, of noise in intensity. The
combination of maps that ranks voxels best is found on the validation patients; everything reported is of test patients.

Writes cases.csv (a row for each map and case), tried.csv (combinations on validation), coverage.csv (conformal bound, by
patient), flags.csv (accept, review, reject), calibration.json, uncertainty.md and uncertainty.png. Every case is kept as
cases/<split>/<case>.npz: a stopped run goes on when started again with the same flags.

Example:
    python training/uncertainty.py --data acdc --data-dir ~/ACDC --model runs/het/model.keras --out runs/het/uncertainty
"""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: hide its notes on the CPU
ROOT = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("training.evaluate" if "training" in sys.modules else "training") is None:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from hetmorph import data, evaluation, uncertainty, viz  # noqa: E402
from hetmorph.evaluation import known_truth  # noqa: E402
from hetmorph.evaluation.summary import write_text  # noqa: E402
from hetmorph.uncertainty.conformal import least_patients  # noqa: E402
from training import evaluate  # noqa: E402

SPLITS = ("val", "test")
METRICS = (("pearson", "Pearson"), ("spearman", "Spearman"), ("naurc", "nAURC"))
BEST = "best"


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help=f"data set: {', '.join(data.datasets())}; or a table of pairs, pairs.csv")
    add("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    add("--model", required=True, help="a .keras file, a SavedModel folder, or a classical program")
    add("--out", required=True, type=Path, help="folder for the results")
    add(
        "--estimates",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"{', '.join(uncertainty.estimate_names())} (default: those that the model can give)",
    )
    add("--ensemble", nargs="+", default=[], metavar="MODEL", help="further models, of the estimate ensemble")
    add("--draws", type=int, default=50, help="registrations of an estimate that draws (default: 50)")
    add("--kinds", nargs="+", default=evaluation.KINDS, choices=evaluation.KINDS, help="of transforms (default: all)")
    add(
        "--region",
        default="foreground",
        choices=known_truth.REGIONS,
        help="voxels that count: where an image is not 0, or where the fixed one is labelled (default: foreground)",
    )
    add("--every", type=int, default=1, metavar="K", help="take every K-th pair of a split (default: 1)")
    add("--coverage", type=float, default=0.9, help="share of the voxels the bound is to hold (default: 0.9)")
    add("--tolerance", type=float, default=2.0, help="mean error above which a case is bad, voxels (default: 2)")
    add("--split-file", type=Path, help="splits.json of a training run (default: the one beside --model)")
    add("--crop", help="how the images are cut (default: as the model's run)")
    add("--size", type=int, nargs="+", metavar="N", help="voxels along each axis (default: likewise)")
    add("--noise", type=float, help="mean level of Rician noise added after warping (default: likewise, or none)")
    add("--rounds", type=int, help="sets of subjects: how often each is moving and fixed")
    add("--passes", type=int, default=1, help="how often a .keras model is applied to what it has moved (default: 1)")
    add("--skip-bad", action="store_true", help="go on without the cases whose files are bad")
    add("--seed", type=int, default=0, help="of transforms, draws and noise (default: 0)")
    return parser.parse_args(argv)


def load_pairs(args: argparse.Namespace) -> tuple[dict[str, list], float]:
    """The pairs of each split, real ones, and the level of the noise to add."""
    args.known_warp, args.split = None, "val"
    options = evaluate.data_options(args)
    options.pop("known_warp", None)
    noise = options.pop("noise", None) or 0.0
    common = {
        "data_dir": args.data_dir,
        "seed": args.seed,
        "skip_bad": args.skip_bad,
        "splits": evaluate.split_file(args),
    }
    pairs = {split: data.load(args.data, split=split, **common, **options).pairs for split in SPLITS}
    return {split: own[:: args.every] for split, own in pairs.items()}, noise


def check_settings(path: Path, settings: dict) -> None:
    """Remember what decides the cases; refuse to mix them with those of other settings."""
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        return write_text(path, json.dumps(settings, indent=1) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(before.keys() | settings.keys())
    if changed := [name for name in names if before.get(name) != settings.get(name)]:
        raise ValueError(f"{path.parent} was begun with another {', '.join(changed)}; choose another --out")


def measured(folder: Path, pairs: list, predictor, maps: dict, args: argparse.Namespace, noise: float) -> list:
    """The cases of a split; those on disk are read."""
    jobs = [(pair, kind) for pair in pairs for kind in args.kinds]
    cases = []
    for pair, kind in tqdm(jobs, desc=folder.name, unit="case"):
        path = folder / f"{pair.case_id}_{kind}.npz"
        if not path.exists():
            known = evaluation.known_pair(pair, kind, args.seed, noise)
            evaluation.measure(predictor, known, maps, kind, args.region).save(path)
        cases.append(evaluation.Case.load(path))
    return [case for case in cases if case.region.any()]


def by_patient(cases: list, combination) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Errors and combined map of all voxels of a patient."""
    patients = {}
    for case in cases:
        parts = case.error[case.region], combination(case.maps)[case.region]
        patients.setdefault(case.patient, []).append(parts)
    return {name: tuple(np.concatenate(both) for both in zip(*own, strict=True)) for name, own in patients.items()}


def bounds(val: dict, test: dict, coverage: float) -> tuple[object, dict, str]:
    """The bound to keep, that of each test patient, and which patients it was calibrated on.

    Validation patients calibrate where they are enough. Where not, each test patient's bound comes from the others, and
    the bound to keep from all of them.
    """
    if len(val) >= least_patients(coverage):
        bound = uncertainty.Bound.fit(val, coverage)
        return bound, dict.fromkeys(test, bound), "the validation patients"
    bound = uncertainty.Bound.fit(test, coverage)
    if len(test) <= least_patients(coverage):
        raise ValueError(
            f"a coverage of {coverage:g} needs {least_patients(coverage)} patients of validation, or one more of test; "
            f"there are {len(val)} and {len(test)}. --coverage {len(test) // 2 / (len(test) // 2 + 1):.2f} needs fewer"
        )
    others = {name: {other: test[other] for other in test if other != name} for name in test}
    return (
        bound,
        {name: uncertainty.Bound.fit(own, coverage) for name, own in others.items()},
        "the other test patients",
    )


def mean_over_patients(rows: list[dict], metric: str) -> str:
    values = known_truth.over_patients(rows, metric)
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}" if values else "–"


def table(rows: list[dict], names: list[str], kinds) -> str:
    """A line for each map: cost, agreement with the true error (mean ± standard deviation over patients)."""
    header = [
        "map",
        "passes",
        "s / pair",
        *(heading for _, heading in METRICS),
        *(f"Spearman, {kind}" for kind in kinds),
    ]
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
    shares = [row["coverage"] for row in coverage]
    counted = {flag: [row["epe"] for row in flags if row["flag"] == flag] for flag in ("accept", "review", "reject")}
    epe = mean_over_patients([row for row in rows if row["map"] == BEST], "epe")
    return "\n".join(
        [
            f"{len(flags)} cases of {len(coverage)} test patients of {args.data}, error {epe} px; region: {args.region}; "
            "means ± standard deviations over patients",
            "",
            table(rows, names, args.kinds),
            "",
            f"{BEST}, found on the validation patients: {combination.name}",
            "",
            f"Conformal bound of {bound.coverage:.0%}, {bound.scale:.3g} · map, from {source}: holds for "
            f"{np.mean(shares):.1%} of the voxels (by patient {min(shares):.1%} … {max(shares):.1%}), mean bound "
            f"{np.mean([row['bound'] for row in coverage]):.2f} px.",
            "",
            "Flags: "
            + "; ".join(
                f"{flag} {len(errors)}" + (f", mean error {np.mean(errors):.2f} px" if errors else "")
                for flag, errors in counted.items()
            )
            + f". Bad is a mean error above {args.tolerance:g} px.",
        ]
    )


def run(args: argparse.Namespace) -> str:
    """Measure, find the combination, test it, and write everything; the report."""
    predictor = evaluation.load(args.model, passes=args.passes)
    others = [evaluation.load(path) for path in args.ensemble]
    pairs, noise = load_pairs(args)
    names = args.estimates or uncertainty.estimates_for(predictor, pairs["val"][0]) + ["ensemble"] * bool(others)
    maps = uncertainty.pair_estimates(names, predictor, others, args.draws, args.seed)
    settings = {name: str(value) for name, value in vars(args).items() if name in ("data", "region", "passes", "seed")}
    settings |= {"estimates": names, "draws": args.draws, "noise": noise}
    settings["files"] = [evaluation.fingerprint(path) for path in (args.model, *args.ensemble)]
    check_settings(args.out / "settings.json", settings)
    val, test = (measured(args.out / "cases" / split, pairs[split], predictor, maps, args, noise) for split in SPLITS)

    combination, tried = uncertainty.best_combination(val, names)
    combined = {split: [combination(case.maps) for case in own] for split, own in (("val", val), ("test", test))}
    rows = [known_truth.score(case, name) for case in test for name in names]
    rows += [known_truth.score(case, BEST, std) for case, std in zip(test, combined["test"], strict=True)]

    patients = by_patient(test, combination)
    bound, of_patient, source = bounds(by_patient(val, combination), patients, args.coverage)
    coverage = [
        {
            "patient": name,
            "voxels": error.size,
            "coverage": of_patient[name].covered(error, std),
            "bound": float(of_patient[name](std).mean()),
            "scale": of_patient[name].scale,
        }
        for name, (error, std) in patients.items()
    ]
    # A case is as uncertain as its mean bound; what that means is learned from the validation patients.
    scores, errors = (
        {
            split: [float(values[case.region].mean()) for case, values in zip(own, of_split, strict=True)]
            for split, own, of_split in parts
        }
        for parts in (
            [(split, own, [bound(std) for std in combined[split]]) for split, own in (("val", val), ("test", test))],
            [(split, own, [case.error for case in own]) for split, own in (("val", val), ("test", test))],
        )
    )
    triage = uncertainty.Triage.fit(scores["val"], errors["val"], args.tolerance)
    flags = [
        {"case_id": case.case_id, "patient": case.patient, "score": score, "epe": error, "flag": triage.flag(score)}
        for case, score, error in zip(test, scores["test"], errors["test"], strict=True)
    ]
    text = report(args, rows, [*names, BEST], combination, bound, coverage, source, flags)
    about = {"data": args.data, "model": str(args.model), "draws": args.draws, "seed": args.seed, "patients": source}
    uncertainty.Calibration(combination, bound, triage, about).save(args.out / "calibration.json")
    for name, content in (("cases", rows), ("tried", tried), ("coverage", coverage), ("flags", flags)):
        evaluation.write_cases(args.out / f"{name}.csv", content)
    write_text(args.out / "uncertainty.md", text + "\n")
    curves = {name: known_truth.mean_curve(test, [case.maps[name] for case in test]) for name in names}
    curves[BEST] = known_truth.mean_curve(test, combined["test"])
    viz.known_truth_figure(
        {name: curve for name, curve in curves.items() if curve is not None},
        uncertainty.risk_coverage(scores["test"], errors["test"]),
        [row["flag"] for row in sorted(flags, key=lambda row: row["score"])],
        {row["patient"]: row["coverage"] for row in coverage},
        args.coverage,
        args.out / "uncertainty.png",
    )
    return text


def main(argv=None) -> int:
    args = arguments(argv)
    try:
        print(run(args))
    except (data.DataError, ValueError, OSError, ImportError) as error:
        print(f"uncertainty.py: error: {error}", file=sys.stderr)
        return 2
    print(f"\nwrote uncertainty.md, uncertainty.png, calibration.json and tables in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
