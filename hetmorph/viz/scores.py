"""Scores on a page: rows of an evaluation as numbers, tables that keep every digit, and which case is the worst."""

import math
from collections.abc import Mapping, Sequence

from hetmorph.evaluation.summary import BLOCKS, summarise
from hetmorph.evaluation.table import columns, structure_heading
from hetmorph.viz.html import Html, element, table

TEXTS = ("case_id", "patient", "slice_index", "group", "failed", "unscored", "verdict")
HIGHER_IS_BETTER = ("dice",)
LOWER_IS_BETTER = ("hd", "hd95", "assd", "asd", "mse", "epe", "tre")
SMALLEST_CHANGE = 5e-7  # of a score; less is called none


def as_numbers(rows: Sequence[Mapping]) -> list[dict]:
    """Rows with their scores as numbers, whether they come from `evaluation.evaluate` or from a `cases.csv`.

    Tables of earlier versions do not say what was not scored; their rows get an empty entry.

    Raises:
        ValueError: a score that is no number.
    """
    return [
        {"unscored": ""} | {key: value if key in TEXTS else _as_number(key, value) for key, value in row.items()}
        for row in rows
    ]


def number(value: float | None, factor: float = 1, decimals: int = 3, missing: str = "–") -> Html | str:
    """A score rounded for the eye, its every digit in the element."""
    if value is None or not math.isfinite(value):
        return missing
    return element("data", f"{value * factor:.{decimals}f}", value=repr(float(value)))


def better(metric: str, before: float, after: float) -> str:
    """ "better", "worse" or "same"; "" where a score is undefined or has no better side."""
    kind = metric.split("_")[0]
    if kind not in HIGHER_IS_BETTER + LOWER_IS_BETTER or not (math.isfinite(before) and math.isfinite(after)):
        return ""
    gain = (after - before) * (1 if kind in HIGHER_IS_BETTER else -1)
    return "same" if abs(gain) < SMALLEST_CHANGE else "better" if gain > 0 else "worse"


def change(word: str) -> Html | None:
    """A word of `better` with its sign; nothing for ""."""
    signs = {"better": "▲ ", "worse": "▼ ", "same": "= "}
    return element("span", signs[word] + word, class_=f"change {word}") if word else None


def score_table(row: Mapping, main: str | None) -> Html:
    """The scores of one case, undeformed beside registered."""
    own = {block: _block(row, block) for block in BLOCKS}
    rows = []
    for metric, heading, factor, decimals in columns(summarise([row], main=main)):
        pair = [own[block].get(metric, math.nan) for block in BLOCKS]
        if any(map(math.isfinite, pair)):
            shown = [number(score, factor, decimals, "") for score in pair]
            rows.append((heading, *shown, change(better(metric, *pair))))
    return table(rows, ("score", "undeformed", "registered", "change"), "scores")


def every_score(row: Mapping) -> Html:
    """All columns of a row as they stand in `cases.csv`, to be unfolded."""
    own = {block: _block(row, block) for block in BLOCKS}
    metrics = dict.fromkeys(metric for block in BLOCKS for metric in own[block])
    rows = [(metric, *(_digits(own[block].get(metric)) for block in BLOCKS)) for metric in metrics]
    scores = table(rows, ("column of cases.csv", *BLOCKS), "scores raw")
    return element("details", element("summary", "Every score, all digits"), scores)


def ranking_metric(rows: Sequence[Mapping], main: str | None) -> tuple[str, str] | None:
    """By which score cases are ranked: metric and what to call it. None where no case has one."""
    names = [(f"dice_{main}", f"Dice {structure_heading(main)}")] if main else []
    landmarks = ("tre_px", "distance of landmarks")
    for metric, words in (*names, ("epe", "displacement error"), landmarks, ("mse", "mean squared residual")):
        if any(math.isfinite(row.get(f"registered_{metric}", math.nan)) for row in rows):
            return metric, words
    return None


def worst_first(rows: Sequence[Mapping], main: str | None) -> list[int]:
    """Indices of the rows, the worst first by `ranking_metric`; those without that score follow in their order."""
    ranked = ranking_metric(rows, main)
    if ranked is None:
        return [*range(len(rows))]
    sign = 1 if ranked[0].split("_")[0] in HIGHER_IS_BETTER else -1
    scores = [sign * row.get(f"registered_{ranked[0]}", math.nan) for row in rows]
    return sorted(
        range(len(rows)), key=lambda i: (not math.isfinite(scores[i]), scores[i] if math.isfinite(scores[i]) else 0)
    )


def _block(row: Mapping, block: str) -> dict[str, float]:
    prefix = f"{block}_"
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}


def _digits(value: float | None) -> Html | str:
    known = value is not None and math.isfinite(value)
    return element("data", repr(float(value)), value=repr(float(value))) if known else ""


def _as_number(key: str, value) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected a number in column {key}, got {value!r}") from None
