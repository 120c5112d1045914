"""Two models on the same cases: paired differences over patients."""

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

RESAMPLES = 10_000


def read_cases(path) -> list[dict[str, str]]:
    """The rows of a `cases.csv`, from the file or the folder that holds it."""
    path = Path(path)
    path = path / "cases.csv" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no cases.csv in {path}; evaluate.py and train.py write it")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(first: Sequence[dict], second: Sequence[dict], metric: str, seed: int = 0) -> dict[str, float]:
    """Difference `second - first` of a metric over the patients both have.

    Slices of one patient are not independent, so a patient counts once, with the mean over the slices for which
    both models have a score.

    Args:
        first, second: rows of two `cases.csv` of the same cases.
        metric: name of a column without its prefix, e.g. "dice_myo".
        seed: of the bootstrap over patients.

    Returns:
        `n_patients`, `first` and `second` (means over patients), `difference`, its 95 % bootstrap interval
        `low` … `high`, and `p` of the two-sided Wilcoxon signed-rank test; 1 where no patient differs.

    Raises:
        ValueError: the cases differ, or no case has the metric in both.
    """
    pairs = _patient_means(first, second, f"registered_{metric}")
    difference = pairs[:, 1] - pairs[:, 0]
    draws = np.random.default_rng(seed).integers(0, len(difference), (RESAMPLES, len(difference)))
    low, high = np.percentile(difference[draws].mean(1), [2.5, 97.5])
    return {
        "n_patients": len(difference),
        "first": float(pairs[:, 0].mean()),
        "second": float(pairs[:, 1].mean()),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0,
    }


def _patient_means(first: Sequence[dict], second: Sequence[dict], column: str) -> np.ndarray:
    """Mean of either model for each patient, `[patients, 2]`."""
    others = {row["case_id"]: row for row in second}
    cases = {row["case_id"] for row in first}
    if cases != set(others):
        raise ValueError(f"expected the same cases; {len(cases ^ set(others))} are in one of the files only")
    scores = defaultdict(list)
    for row in first:
        both = _number(row.get(column)), _number(others[row["case_id"]].get(column))
        if all(map(math.isfinite, both)):
            scores[row["patient"]].append(both)
    if not scores:
        raise ValueError(f"no case has {column} in both files")
    return np.array([np.mean(values, axis=0) for values in scores.values()])


def _number(text) -> float:
    return math.nan if text in (None, "") else float(text)
