"""Compare two models on the same cases: means over patients, paired difference, interval and tests.

Reads the cases.csv that train.py and evaluate.py write; of several runs of a model, which differ by their seed, each
patient's mean counts. Distances named _px are in voxels, _mm in millimetres. The difference is second - first, with the
95 % bootstrap interval over patients (and over runs, where a side has several). p is of the two-sided Wilcoxon
signed-rank test and "p (t)" of the paired t-test, both over patients; "p (t, slices)" is of the paired t-test over
slices, as in the experiments of Zhang et al., which takes the slices of a patient for independent. d is the mean
difference in units of its standard deviation over patients. n is patients / slices that have the metric in every run.

Examples:
    python training/compare.py runs/acdc-mse runs/acdc-het
    python training/compare.py --first runs/mse-s0 runs/mse-s1 runs/mse-s2 --second runs/het-s0 runs/het-s1 runs/het-s2
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from hetmorph.cli.messages import import_tensorflow  # noqa: E402, I001

import_tensorflow()

from hetmorph.evaluation import compare_runs, read_cases  # noqa: E402

# Compared where all runs have them: images without labels have no distances, a model without variance no AUSE.
METRICS = (
    *("hd_px", "hd95_px", "assd_px", "mse", "folds_percent", "sdlogj"),
    *("ause", "ause_foreground", "epe", "epe_labels", "epe_artefact", "epe_around"),
)
FEW = 5
HEADINGS = ("metric", "first", "second", "difference (95 %)", "p", "p (t)", "p (t, slices)", "d", "n")


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FIRST SECOND", help="one run of either model")
    parser.add_argument("--first", nargs="+", type=Path, default=[], help="runs: each a cases.csv, or its folder")
    parser.add_argument("--second", nargs="+", type=Path, default=[], help="the same of the other model")
    parser.add_argument("--metrics", nargs="+", help="columns (default: Dice, distances, folds, and what both have)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    args = parser.parse_args(argv)
    if args.folders and (len(args.folders) != 2 or args.first or args.second):
        parser.error("give either two folders, or --first and --second with their runs")
    if args.folders:
        args.first, args.second = args.folders[:1], args.folders[1:]
    if not (args.first and args.second):
        parser.error("give two folders, or --first and --second with their runs")
    return args


def default_metrics(runs: Sequence[Sequence[dict]]) -> list[str]:
    """Dice of every structure, or of many their mean, and the other metrics: those that all runs have a value of."""
    columns = [name.removeprefix("registered_") for name in runs[0][0] if name.startswith("registered_")]
    structures = [name for name in columns if name.startswith("dice_") and name != "dice_mean"]
    dices = structures if len(structures) <= FEW else ["dice_mean"]
    if found := [metric for metric in (*dices, *METRICS) if all(_has(rows, metric) for rows in runs)]:
        return found
    raise ValueError(f"no metric of {', '.join((*dices, *METRICS))} has a value in every run; name some with --metrics")


def _has(rows: Sequence[dict], metric: str) -> bool:
    return any(row.get(f"registered_{metric}") not in (None, "") for row in rows)


def _cells(metric: str, result: dict) -> list[str]:
    interval = "–" if math.isnan(result["low"]) else "{low:+.2g} … {high:+.2g}".format(**result)
    difference = f"{result['difference']:+.2g} ({interval})"
    tests = [_number(result[name], ".2g") for name in ("p", "p_t", "p_t_slices")]
    sides = [_side(result, side) for side in ("first", "second")]
    numbers = f"{result['n_patients']} / {result['n_slices']}"
    return [metric, *sides, difference, *tests, _number(result["effect"], "+.2f"), numbers]


def _side(result: dict, side: str) -> str:
    deviation = result[f"{side}_std"]
    return f"{result[side]:.4g}" + ("" if math.isnan(deviation) else f" ± {deviation:.2g}")


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def main(argv=None) -> int:
    args = arguments(argv)
    try:
        firsts, seconds = [read_cases(run) for run in args.first], [read_cases(run) for run in args.second]
        if empty := [
            str(run) for run, rows in zip((*args.first, *args.second), (*firsts, *seconds), strict=True) if not rows
        ]:
            raise ValueError(f"no cases in {', '.join(empty)}")
        metrics = args.metrics or default_metrics([*firsts, *seconds])
        results = {metric: compare_runs(firsts, seconds, metric, args.seed) for metric in metrics}
    except (ValueError, OSError) as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    for side, runs in (("first", args.first), ("second", args.second)):
        print(f"{side}: {', '.join(map(str, runs))}")
    print(f"\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for metric, result in results.items():
        print(f"| {' | '.join(_cells(metric, result))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
