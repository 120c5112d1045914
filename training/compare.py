"""Compare two models on the same cases: means over patients, paired difference, interval and test.

Reads the cases.csv that train.py and evaluate.py write. Distances named _px are in voxels, _mm in millimetres. The
difference is second - first, with the 95 % bootstrap interval over patients and the p-value of the two-sided Wilcoxon
signed-rank test.

Example:
    python training/compare.py runs/acdc-mse runs/acdc-het
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if importlib.util.find_spec("hetmorph") is None:  # run from a clone without `pip install -e .`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hetmorph.evaluation import compare, read_cases  # noqa: E402

METRICS = ("dice_myo", "dice_rv", "dice_lv", "hd_px", "hd95_px", "assd_px", "mse", "folds_percent", "sdlogj")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="a cases.csv, or the folder that holds it")
    parser.add_argument("second", type=Path, help="the same of the other model")
    parser.add_argument("--metrics", nargs="+", default=METRICS, help=f"columns (default: {' '.join(METRICS)})")
    args = parser.parse_args(argv)
    try:
        first, second = read_cases(args.first), read_cases(args.second)
        results = {metric: compare(first, second, metric) for metric in args.metrics}
    except (ValueError, OSError) as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    patients = {result["n_patients"] for result in results.values()}
    print(f"first: {args.first}, second: {args.second}, {min(patients)} to {max(patients)} patients\n")
    print("| metric | first | second | difference (95 %) | p |\n|---|---|---|---|---|")
    for metric, result in results.items():
        print(
            "| {metric} | {first:.4g} | {second:.4g} | {difference:+.2g} ({low:+.2g} … {high:+.2g}) | {p:.2g} |".format(
                metric=metric, **result
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
