"""Models on the same cases: paired differences over patients, with one or several training runs a side."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000


class OverSeeds(NamedTuple):
    """A score over the runs of one method, which differ by their seed.

    Attributes:
        mean: mean of the runs' means.
        std: standard deviation of the runs' means (divisor n − 1); NaN for a single run.
        n: number of runs.
    """

    mean: float
    std: float
    n: int


def read_cases(path) -> list[dict[str, str]]:
    """The rows of a `cases.csv`, from the file or the folder that holds it.

    Args:
        path: the file, or the folder that holds it.
    """
    path = Path(path)
    path = path / "cases.csv" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no cases.csv in {path}; evaluate.py and train.py write it")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(first: Sequence[dict], second: Sequence[dict], metric: str, seed: int = 0) -> dict[str, float]:
    """`compare_runs` of one run a side.

    Args:
        first, second: a run: folder or file as for `read_cases`, or its rows.
        metric: name of a column without its prefix, e.g. "dice_myo".
        seed: seed of the bootstrap (default: 0).
    """
    return compare_runs([first], [second], metric, seed)


def compare_runs(firsts: Sequence, seconds: Sequence, metric: str, seed: int = 0) -> dict[str, float]:
    """Difference `second − first` of a metric over the patients that all runs have.

    Slices of one patient are not independent, so a patient counts once: with the mean over its slices, then over the
    runs of a side. A slice takes part if it has a score in every run of both sides.

    The bootstrap draws patients anew, and the runs of either side that has several; the sides draw theirs
    independently. With few runs (three, say) it understates what another set of seeds would change.

    Args:
        firsts, seconds: runs of either side, each a folder or file as for `read_cases`, or its rows.
        metric: name of a column without its prefix, e.g. "dice_myo".
        seed: seed of the bootstrap (default: 0).

    Returns:
        `n_patients, n_slices, n_first, n_second`: numbers of patients, slices and runs. `first` and `second`: means
        over patients, `first_std` and `second_std` their standard deviations over runs (NaN for one run).
        `difference` and its 95 % bootstrap interval `low` … `high` (NaN for one patient). `p` of the two-sided
        Wilcoxon signed-rank test and `p_t` of the paired t-test, both over patients; `p_t_slices` of the paired
        t-test over slices, as Zhang et al. (arXiv 2312.00836) test, which takes the slices of a patient for
        independent. Each is 1 where nothing differs, and a t-test of fewer than two values is NaN. `effect`: the mean
        of the patients' differences in units of their standard deviation (Cohen's d_z), NaN where they do not vary.

    Raises:
        ValueError: no runs on a side, runs of different cases, a case twice, or no case with the metric in all.
    """
    if not (len(firsts) and len(seconds)):
        raise ValueError(f"expected at least one run a side, got {len(firsts)} and {len(seconds)}")
    scores, patients = _scores([*firsts, *seconds], f"registered_{metric}")
    means = np.array([scores[:, patients == patient].mean(1) for patient in dict.fromkeys(patients)])
    sides = means[:, : len(firsts)], means[:, len(firsts) :]
    difference = sides[1].mean(1) - sides[0].mean(1)
    # one patient drawn anew is itself: an interval of width 0 that says nothing
    low, high = (math.nan, math.nan) if len(difference) < 2 else _interval(*sides, np.random.default_rng(seed))
    return {
        "n_patients": len(difference),
        "n_slices": scores.shape[1],
        "n_first": len(firsts),
        "n_second": len(seconds),
        "first": float(sides[0].mean()),
        "second": float(sides[1].mean()),
        "first_std": _deviation(sides[0].mean(0)),
        "second_std": _deviation(sides[1].mean(0)),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0,
        "p_t": _paired_t(difference),
        "p_t_slices": _paired_t(scores[len(firsts) :].mean(0) - scores[: len(firsts)].mean(0)),
        "effect": _effect(difference),
    }


def over_seeds(runs: Sequence, metric: str, block: str = "registered", per: str = "slice") -> OverSeeds:
    """Mean and standard deviation of a metric over runs of one method.

    Args:
        runs: each a folder or file as for `read_cases`, or its rows.
        metric: name of a column without its prefix.
        block: "registered" or "undeformed".
        per: what weighs the same within a run: every "slice", as in a `summary.json` of the convention "hetmorph"
            (that of "official" leaves out failed rows, here all defined scores count), or every "patient".

    Raises:
        ValueError: no runs, an unknown `per`, or a run without a defined value.
    """
    if not len(runs):
        raise ValueError("expected at least one run, got none")
    if per not in ("slice", "patient"):
        raise ValueError(f"per must be 'slice' or 'patient', got {per!r}")
    means = np.array([_mean(_rows(run), f"{block}_{metric}", per) for run in runs])
    return OverSeeds(float(means.mean()), _deviation(means), len(means))


def _rows(run) -> Sequence[dict]:
    return read_cases(run) if isinstance(run, (str, Path)) else run


def _mean(rows: Sequence[dict], column: str, per: str) -> float:
    own = [(row["patient"], score) for row in rows if math.isfinite(score := _number(row.get(column)))]
    if not own:
        raise ValueError(f"no case has {column}")
    patients, scores = np.array([patient for patient, _ in own]), np.array([score for _, score in own])
    if per == "slice":
        return float(scores.mean())
    return float(np.mean([scores[patients == patient].mean() for patient in dict.fromkeys(patients)]))


def _scores(runs: Sequence, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[runs, slices]` of the slices that have one in every run, and the patient of each slice."""
    tables = [_by_case(_rows(run)) for run in runs]
    cases = list(tables[0])
    for table in tables[1:]:
        if table.keys() != tables[0].keys():
            odd = len(table.keys() ^ tables[0].keys())
            raise ValueError(f"expected the same cases; {odd} are in one of the files only")
    scores = np.array([[_number(table[case].get(column)) for case in cases] for table in tables])
    defined = np.isfinite(scores).all(0)
    if not defined.any():
        raise ValueError(f"no case has {column} in {'both' if len(runs) == 2 else 'all'} files")
    return scores[:, defined], np.array([tables[0][case]["patient"] for case in cases])[defined]


def _by_case(rows: Sequence[dict]) -> dict[str, dict]:
    table = {row["case_id"]: row for row in rows}
    if len(table) != len(rows):
        raise ValueError(f"expected each case once, got {len(rows)} rows of {len(table)} cases")
    return table


def _interval(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.percentile(_bootstrap(first, second, rng), [2.5, 97.5])


def _bootstrap(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean differences of `RESAMPLES` draws; `[patients, runs]` each."""
    patients = rng.integers(0, len(first), (RESAMPLES, len(first)))
    return _redrawn(second, patients, rng) - _redrawn(first, patients, rng)


def _redrawn(means: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean of each draw of patients, and of runs where there are several."""
    by_run = np.stack([column[patients].mean(1) for column in means.T], -1)
    runs = by_run.shape[1]
    if runs == 1:
        return by_run[:, 0]
    return np.take_along_axis(by_run, rng.integers(0, runs, by_run.shape), 1).mean(1)


def _paired_t(difference: np.ndarray) -> float:
    """p-value of the two-sided t-test of mean 0."""
    if not difference.any():
        return 1.0
    if len(difference) < 2:
        return math.nan
    effect = _effect(difference)
    t = math.inf if math.isnan(effect) else abs(effect) * math.sqrt(len(difference))
    return float(2 * stats.t.sf(t, len(difference) - 1))


def _effect(difference: np.ndarray) -> float:
    mean, deviation = difference.mean(), _deviation(difference)
    # Equal differences have a deviation of rounding errors.
    return float(mean / deviation) if deviation > 1e-9 * abs(mean) else math.nan


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _number(text) -> float:
    return math.nan if text in (None, "") else float(text)
