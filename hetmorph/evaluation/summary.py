"""Means over cases, and the files `cases.csv` and `summary.json`."""

import collections
import csv
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np

from hetmorph.io.atomic import replacing, write_text

BLOCKS = ("undeformed", "registered")


def summarise(rows: Sequence[dict], convention: str = "hetmorph", main: str | None = None, **about) -> dict:
    """Means and standard deviations of the rows of `evaluate`.

    Means are over slices and leave out undefined scores; how many were defined is told under `n`. The
    "official" convention leaves out failed and unscored rows altogether, as its authors do; they are counted here all
    the same.

    Args:
        rows: as `evaluation.cases.evaluate` returns them.
        convention: "hetmorph" or "official", the one the rows were made with.
        main: the structure that surface distances refer to, the one the rows were made with.
        **about: further entries for the summary (model, data, split, …), JSON values.

    Returns:
        `n_cases`: all rows. `n_failed`: registrations that gave nothing to score, `n_unscored`: pairs that leave
        nothing to score; `failures` and `unscored`: their cases and reasons. `verdicts`: how many of each, where the
        rows have them. `undeformed` and `registered`: for each metric the mean and, as
        `<metric>_std`, the standard deviation (of the slices, divisor n). `n`: number of defined values per block
        and metric. `per_patient`: per patient the mean over its slices, and the two blocks over patients instead of
        slices. An undefined number is None.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("nothing to summarise: expected at least one evaluated case, got none")
    reasons = {name: _reasons(rows, name) for name in ("failed", "unscored")}
    left_out = {one["case_id"] for some in reasons.values() for one in some} if convention == "official" else ()
    scored = [row for row in rows if row["case_id"] not in left_out]
    verdicts = collections.Counter(row["verdict"] for row in rows if row.get("verdict"))
    columns = {block: _metrics(rows, block) for block in BLOCKS}
    values = {
        block: {metric: [row.get(f"{block}_{metric}", math.nan) for row in scored] for metric in columns[block]}
        for block in BLOCKS
    }
    return {
        "n_cases": len(rows),
        "n_failed": len(reasons["failed"]),
        "n_unscored": len(reasons["unscored"]),
        "convention": convention,
        "main": main,
        "undeformed": _block(values["undeformed"]),
        "registered": _block(values["registered"]),
        "n": {block: {m: len(_defined(v)) for m, v in values[block].items()} for block in BLOCKS},
        "failures": reasons["failed"],
        "unscored": reasons["unscored"],
        **({"verdicts": dict(verdicts)} if verdicts else {}),
        "per_patient": _per_patient(scored, columns),
    } | about


def pick_cases(rows: Sequence[dict], metric: str) -> dict[str, int]:
    """Index of the median and of the worst row by a score of which more is better; the lower of two medians.

    Rows without that score are passed over; all of them undefined gives an empty dictionary.

    Args:
        rows: the table that `evaluate` returned.
        metric: name of a column with its prefix.
    """
    scores = [row.get(metric, math.nan) for row in rows]
    ranked = sorted((score, i) for i, score in enumerate(scores) if math.isfinite(score))
    if not ranked:
        return {}
    return {"median": ranked[(len(ranked) - 1) // 2][1], "worst": ranked[0][1]}


def write_cases(path, rows: Sequence[dict]) -> None:
    """Write rows as CSV, one a case or a point; undefined values are left empty. The file appears complete or not at
    all.

    Args:
        path: the file to write; its folder is made.
        rows: dictionaries; a column for each key of any of them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if _undefined(value) else value for name, value in row.items()} for row in rows)


def write_summary(path, summary: dict) -> None:
    """Write a summary as strict JSON (no NaN). The file appears complete or not at all.

    Args:
        path: the file to write; its folder is made.
        summary: as `summarise` returns it.
    """
    write_text(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _reasons(rows: Sequence[dict], column: str) -> list[dict]:
    """Cases with an entry in a column; tables of earlier versions lack the second."""
    return [{"case_id": row["case_id"], "reason": row[column]} for row in rows if row.get(column)]


def _metrics(rows: Sequence[dict], block: str) -> list[str]:
    prefix = f"{block}_"
    return list(dict.fromkeys(name[len(prefix) :] for row in rows for name in row if name.startswith(prefix)))


def _block(values: dict[str, Iterable[float]]) -> dict:
    block = {}
    for metric, column in values.items():
        defined = _defined(column)
        block[metric] = float(np.mean(defined)) if defined else None
        block[f"{metric}_std"] = float(np.std(defined)) if defined else None
    return block


def _per_patient(rows: Sequence[dict], columns: dict[str, list[str]]) -> dict:
    patients = {}
    for patient in dict.fromkeys(row["patient"] for row in rows):
        own = [row for row in rows if row["patient"] == patient]
        patients[patient] = {"n_cases": len(own)} | {
            block: {m: _mean([row.get(f"{block}_{m}", math.nan) for row in own]) for m in columns[block]}
            for block in BLOCKS
        }
    over_patients = {
        block: _block({m: [p[block][m] for p in patients.values()] for m in columns[block]}) for block in BLOCKS
    }
    return {"n_patients": len(patients)} | over_patients | {"patients": patients}


def _defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if not _undefined(value)]


def _undefined(value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _mean(values: Iterable[float]) -> float | None:
    defined = _defined(values)
    return float(np.mean(defined)) if defined else None
