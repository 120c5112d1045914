"""Evaluate a registration model on a data set: cases.csv, summary.json and summary.png.

Direction: end-diastole (ED, moving) is registered to end-systole (ES, fixed). The displacement u lives on the
grid of the fixed image, in voxels, and pulls: moved(x) = moving(x + u(x)). Distances named _px are in voxels,
_mm in millimetres; intensities are in [0, 1] per image. Every score stands beside the one of the undeformed
pair.

Example:
    python training/evaluate.py --data acdc --data-dir ~/ACDC --model runs/het/best.keras --out runs/het/test
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: hide its notes on the CPU
if importlib.util.find_spec("hetmorph") is None:  # run from a clone without `pip install -e .`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hetmorph import data, evaluation, viz  # noqa: E402


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, choices=data.datasets(), help="data set")
    parser.add_argument("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    parser.add_argument("--model", required=True, type=Path, help="a .keras file, or a SavedModel folder")
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "val", "test", "all"),
        help='patients to evaluate (default: test); "all" takes every patient found',
    )
    parser.add_argument(
        "--split-file",
        type=Path,
        help="splits.json of a training run, so that its test patients are those it never saw "
        "(default: the one beside --model, if there is one)",
    )
    parser.add_argument(
        "--convention",
        default="hetmorph",
        choices=evaluation.CONVENTIONS,
        help="hetmorph: warped labels count from 0.5 on, failures are shown; "
        "official: above 0, failed slices are left out, as in the paper (default: hetmorph)",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for cases.csv, summary.json, summary.png")
    parser.add_argument(
        "--crop",
        default="paper",
        choices=data.CROPS,
        help="acdc: paper uses the ED label, the others none (default: paper)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(128, 128),
        metavar=("H", "W"),
        help="of the crop (default: 128 128)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="go on without the cases whose files are bad")
    parser.add_argument("--seed", type=int, default=0, help="of the split, when no split file is used (default: 0)")
    return parser.parse_args(argv)


def splits_of_run(model: Path) -> Path | None:
    """splits.json in the folder of the model or up to two above it, as for <run>/saved_model/1."""
    for folder in [model, *model.absolute().parents[:2]]:
        if (folder / "splits.json").is_file():
            return folder / "splits.json"
    return None


def run(args: argparse.Namespace) -> dict:
    if args.split_file and args.split == "all":
        raise ValueError("--split-file has no effect with --split all, which takes every patient found")
    predictor = evaluation.load(args.model)
    split_file = args.split_file
    if split_file is None and args.split != "all" and (split_file := splits_of_run(args.model)):
        print(f"patients of the {args.split} split as in {split_file}")
    loaded = data.load(
        args.data,
        data_dir=args.data_dir,
        split=args.split,
        crop=args.crop,
        size=tuple(args.size),
        seed=args.seed,
        skip_bad=args.skip_bad,
        splits=split_file,
    )
    rows = evaluation.evaluate(predictor, loaded.pairs, args.convention)
    summary = evaluation.summarise(
        rows,
        args.convention,
        data=args.data,
        split=args.split,
        crop=args.crop,
        model=str(args.model),
        skipped=loaded.skipped_entries,
    )
    evaluation.write_cases(args.out / "cases.csv", rows)
    evaluation.write_summary(args.out / "summary.json", summary)
    viz.summary_figure(predictor, loaded.pairs, rows, args.out / "summary.png", args.convention)
    return summary


def main(argv=None) -> int:
    args = arguments(argv)
    try:
        summary = run(args)
    except (data.DataError, ValueError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    print(evaluation.markdown(summary))
    if summary["skipped"]:
        print(f"{len(summary['skipped'])} patients skipped, their files are bad; reasons in summary.json")
    print(f"wrote cases.csv, summary.json and summary.png in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
