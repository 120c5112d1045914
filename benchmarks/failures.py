"""Do verdicts tell registrations that must fail from those that did not? Slices of test patients, and the same spoilt.

Beside ED to ES of each slice: the ED slice of another patient, that of the same patient half a stack away, and its own
shifted by 30 % of the image. A row for each score of a case: AUROC, the share of pairs of a good and a bad case that it
orders rightly, .5 is chance. Then the verdicts, counted, of the plain checks, the calibration and both together.

Example:
    python benchmarks/failures.py --data-dir ACDC/training --model acdc_vxm_het
"""

import argparse
import collections
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import report
from common.report import table
from scipy import ndimage

SHIFT = 0.3  # of the size
GOOD = "ED to ES"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the patients, as ACDC is distributed")
    parser.add_argument("--model", default="acdc_vxm_het", help="shipped model, with its calibration beside it")
    parser.add_argument("--slices", type=int, default=2, help="of each patient, evenly from its stack (default: 2)")
    args = parser.parse_args()
    sys.path.insert(0, str(report.ROOT))
    from hetmorph import data, evaluation, uncertainty
    from hetmorph.cli.models import find_model

    folder = find_model(args.model)
    predictor = evaluation.load(folder)
    calibration = uncertainty.Calibration.load(Path(folder) / "calibration.json")
    estimates = uncertainty.calibrated_estimates(calibration, predictor)
    estimates |= uncertainty.pair_estimates(["inverse"], predictor)
    pairs = data.load("acdc", args.data_dir, split="test", splits=Path(folder) / "splits.json").pairs
    scores, verdicts = collections.defaultdict(list), collections.defaultdict(collections.Counter)
    for kind, pair in spoilt(pairs, args.slices):
        own, flags = judged(pair, predictor, estimates, calibration)
        scores[kind].append(own)
        for judge, flag in flags.items():
            verdicts[kind, judge][flag] += 1
    bad = [kind for kind in scores if kind != GOOD]
    counts = ", ".join(f"{kind} {len(own)}" for kind, own in scores.items())
    print(f"{args.model}, AUROC: {counts}\n")
    rows = [(name, *(f"{auroc(scores, name, kind):.2f}" for kind in bad)) for name in scores[GOOD][0]]
    print(table(("score of a case", *bad), rows) + "\n")
    judges = list(flags)
    rows = [(kind, *(told(verdicts[kind, judge]) for judge in judges)) for kind in scores]
    print(table(("pairs", *judges), rows))


def spoilt(pairs, slices: int):
    """Kind and pair, of so many slices of every patient."""
    from hetmorph.data.pair import cases_of

    stacks = collections.defaultdict(list)
    for number, patient in enumerate(case.patient for case in cases_of(pairs)):
        stacks[patient].append(number)
    everyone = list(stacks.values())
    for place, stack in enumerate(everyone):
        other = everyone[place - 1]
        for part in np.linspace(0, 1, slices + 2)[1:-1]:
            at = round(part * (len(stack) - 1))
            pair = pairs[stack[at]]
            yield GOOD, pair
            yield "another patient", moved_from(pair, pairs[other[round(part * (len(other) - 1))]].moving)
            yield "wrong slice", moved_from(pair, pairs[stack[(at + len(stack) // 2) % len(stack)]].moving)
            shift = (SHIFT * pair.moving.shape[0], 0)
            yield "shifted by 30 %", moved_from(pair, ndimage.shift(pair.moving, shift, order=1))


def moved_from(pair, moving: np.ndarray):
    """The pair with another moving image, which its labels are not of."""
    return replace(pair, moving=np.asarray(moving, np.float32), moving_labels=None, foreground=None)


def judged(pair, predictor, estimates: dict, calibration) -> tuple[dict, dict]:
    """Scores of a pair, more is worse, and what each judge says."""
    from hetmorph import evaluation, uncertainty, viz
    from hetmorph.evaluation.cases import foreground

    checks = evaluation.Checks.of_pair(pair, predictor(pair.moving, pair.fixed))
    maps = {name: estimate(pair) for name, estimate in estimates.items()}
    maps["expected error"] = uncertainty.expected_error(calibration, maps)
    region = foreground(pair)
    scores = {f"mean {name}": float(np.nanmean(one.std[region])) for name, one in maps.items()}
    scores |= {"1 - similarity": 1 - checks.similarity[1], "SDlogJ": checks.sdlogj}
    flags = {"plain checks": checks.flag, "calibration": viz.verdict(pair, maps, calibration).flag}
    return scores, flags | {"both": viz.verdict(pair, maps, calibration, checks).flag}


def auroc(scores: dict, name: str, kind: str) -> float:
    """Of bad cases against good ones, by ranks."""
    from hetmorph import metrics

    good, bad = ([one[name] for one in scores[which]] for which in (GOOD, kind))
    return metrics.ranking.auroc([*good, *bad], [False] * len(good) + [True] * len(bad))


def told(flags: collections.Counter) -> str:
    """Verdicts and how many."""
    return ", ".join(f"{flag} {flags[flag]}" for flag in ("accept", "review", "reject") if flags[flag])


if __name__ == "__main__":
    main()
