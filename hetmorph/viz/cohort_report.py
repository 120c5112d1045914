"""All cases of an evaluation as one HTML file: the worst first, what failed, how the scores are distributed."""

import collections
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from hetmorph.evaluation import Curves, summarise
from hetmorph.evaluation.summary import BLOCKS
from hetmorph.evaluation.table import columns, explained, structure_heading
from hetmorph.io.atomic import write_text
from hetmorph.metrics.ranking import area
from hetmorph.viz import html
from hetmorph.viz.charts import distribution, sparsification_chart
from hetmorph.viz.figures import UNITS
from hetmorph.viz.html import Html, element, section
from hetmorph.viz.scores import as_numbers, number, ranking_metric, worst_first
from hetmorph.viz.verdict import WORDS

# Of the cases' table and of the distributions: metric, heading, factor, decimals.
SHOWN = (
    ("folds_percent", "folds %", 1, 3),
    ("mse", "MSE ·10³", 1e3, 2),
    ("epe", "EPE px", 1, 2),
    ("tre_px", "TRE px", 1, 2),
    ("tre_mm", "TRE mm", 1, 2),
    ("bound_mean", "bound px", 1, 2),
)
# Column, title and note of the lists of what lacks scores.
LEFT_OUT = (
    ("failed", "Failed", "The registration gave nothing, or nothing to score: no mean holds what they lack."),
    ("unscored", "Not scored", "The pair itself leaves nothing to score, whatever the registration is worth."),
)
FEW_LISTED = 10
CHANGES = ("dice", "hd95", "mse", "epe", "tre")  # beginnings of the metrics that the undeformed pair has too


def cohort_report(
    rows: Sequence[Mapping],
    path,
    links: Mapping[str, str] | None = None,
    curves: Curves | None = None,
    convention: str = "hetmorph",
    main: str | None = None,
    about: Mapping[str, object] | None = None,
    title: str = "Registration report",
) -> Path:
    """Write the report of many registrations.

    Args:
        rows: what `evaluation.evaluate` or `evaluation.read_cases` returned, with verdicts where a judge gave them.
        path: file to write, .html.
        links: by case, address of its report, relative to this one; others have none.
        curves: what `evaluation.evaluate` collected for the sparsification; empty or None without a predicted variance.
        convention: the one the rows were made with.
        main: the structure whose Dice ranks the cases; without it the displacement error does, or the residual.
        about: lines on where the result comes from.
        title: heading of the page.

    Returns:
        The path written.

    Raises:
        ValueError: no rows, two rows of one case, or a score that is no number.

    Example:
        >>> cohort_report(evaluation.read_cases("runs/het/test"), "index.html")
    """
    rows = as_numbers(rows)
    if len({row["case_id"] for row in rows}) != len(rows):
        raise ValueError("expected one row for each case, got several of one")
    main = main if any(f"registered_dice_{main}" in row for row in rows) else None
    summary = summarise(rows, convention, main)
    links = dict(links or {})
    sections = [
        _overview(summary, bounded=any("registered_bound_mean" in row for row in rows)),
        _means(summary),
        *(_left_out(rows, links, *one) for one in LEFT_OUT),
        _worst(rows, links, main),
        _distributions(rows, main),
        _sparsification(curves),
        html.source({"convention": convention, **(about or {})}, "For research. No medical device."),
    ]
    patients = summary["per_patient"]["n_patients"]
    counts = f"{summary['n_failed']} failed · {summary['n_unscored']} not scored"
    line = f"{len(rows)} cases of {patients} patients · {counts}"
    top = html.header(title, line)
    write_text(path, html.page(title, top, element("main", sections)))
    return Path(path)


def _overview(summary: dict, bounded: bool) -> Html:
    tiles = [("cases", summary["n_cases"]), ("patients", summary["per_patient"]["n_patients"])]
    tiles += [("failed", summary["n_failed"]), ("not scored", summary["n_unscored"])]
    flags = summary.get("verdicts", {})
    if flags:
        counts = {flag: flags.get(flag, 0) for flag in ("accept", "review", "reject")}
        tiles += [(element("span", WORDS[flag], class_=f"flag {flag}"), count) for flag, count in counts.items()]
        tiles.append(("without verdict", summary["n_cases"] - sum(counts.values())))
    note = None if flags else "No verdicts: nothing judged these registrations."
    if flags and not bounded:
        note = "Verdicts of plain checks: without a calibration, how far a displacement may be wrong is not known."
    return element("section", html.tiles(tiles), note and element("p", note, class_="note verdict none"), id="verdict")


def _left_out(rows: Sequence[Mapping], links: Mapping[str, str], column: str, title: str, note: str) -> Html | None:
    """Cases with an entry in a column, by what it says; many are to be unfolded."""
    reasons = collections.defaultdict(list)
    for row in rows:
        if row[column]:
            reasons[row[column]].append(_name(row, links))
    if not reasons:
        return None
    items = [
        element("li", f"{reason}: ", [[", " if n else "", name] for n, name in enumerate(names)])
        for reason, names in reasons.items()
    ]
    count = sum(map(len, reasons.values()))
    listed = element("ul", items)
    if count > FEW_LISTED:
        listed = element("details", element("summary", "Which"), listed)
    return section(column, f"{title} ({count})", listed, note=note)


def _worst(rows: Sequence[Mapping], links: Mapping[str, str], main: str | None) -> Html:
    shown = [one for one in _shown(rows, main) if any(_known(row, "registered", one[0]) for row in rows)]
    maps = dict.fromkeys(name for row in rows for name in row if name.endswith("_mean_mm"))
    shown += [(name.removeprefix("registered_"), f"{_map_name(name)} mm", 1, 2) for name in maps]
    judged = any(row.get("verdict") for row in rows)
    heads = [
        "",
        "case",
        "patient",
        "group",
        *(["verdict"] if judged else []),
        *(heading for _, heading, *_ in shown),
        "failed, or not scored",
    ]
    body = [_row(place, rows[i], shown, links, judged) for place, i in enumerate(worst_first(rows, main), start=1)]
    head = element("tr", [element("th", text, scope="col") for text in heads])
    table = element("table", element("thead", head), element("tbody", body), class_="sortable")
    ranked = ranking_metric(rows, main)
    order = (
        f"Sorted by {ranked[1]}, the worst first" if ranked else "In the order of the evaluation: nothing ranks them"
    )
    note = f"{order}; cases without that score come last. Undeformed → registered; px are voxels of the fixed grid."
    return section("cases", "Cases", element("div", table, class_="wide"), note=note)


def _row(place: int, row: Mapping, shown: list, links: Mapping[str, str], judged: bool) -> Html:
    cells = [element("td", element("data", place, value=place)), element("th", _name(row, links), scope="row")]
    cells += [element("td", row["patient"]), element("td", row.get("group") or "")]
    if judged:
        flag = row.get("verdict")
        word = element("span", WORDS[flag], class_=f"flag {flag}") if flag else "–"
        cells.append(element("td", word, data_empty=not flag))
    for metric, _, factor, decimals in shown:
        before, after = (number(row.get(f"{block}_{metric}", math.nan), factor, decimals) for block in BLOCKS)
        arrow = [before, " → "] if _changes(metric) else []
        cells.append(element("td", arrow, after, data_empty=not _known(row, "registered", metric)))
    why = row["failed"] or row["unscored"]
    cells.append(element("td", why, class_="why", data_empty=not why))
    return element("tr", cells)


def _distributions(rows: Sequence[Mapping], main: str | None) -> Html:
    charts = []
    for metric, heading, factor, _ in _shown(rows, main):
        groups = {
            block: [row[f"{block}_{metric}"] * factor for row in rows if _known(row, block, metric)]
            for block in (BLOCKS if _changes(metric) else BLOCKS[1:])
        }
        if any(groups.values()):
            note = "a dot a case; box: quartiles and median; line: least to largest"
            charts.append(distribution(heading, note, heading, groups))
    note = None if charts else "No score is defined."
    return section(
        "distributions", "Distributions", element("div", charts, class_="charts") if charts else None, note=note
    )


def _sparsification(curves: Curves | None) -> Html:
    name = ("sparsification", "Sparsification")
    if not curves:
        return section(*name, note="No sparsification: it needs a model that predicts σ_I.")
    charts = []
    for curve, sums in curves.sparsification.items():
        mean = curves.mean(curve)
        heading = f"{curve.replace('_', ', ')}: area to the oracle {area(mean):.2g}"
        note = f"mean of {int(sums['pairs'])} cases; error left after removing voxels"
        unit = UNITS[curve.split("_")[0]]
        charts.append(sparsification_chart(heading, note, unit, {"most uncertain by σ_I": mean}))
    return section(*name, element("div", charts, class_="charts"))


def _means(summary: dict) -> Html:
    rows = []
    for metric, heading, factor, decimals in columns(summary):
        cells = [_mean(summary[block], metric, factor, decimals) for block in BLOCKS]
        if any(cells):
            rows.append((heading, *cells, max(summary["n"][block].get(metric, 0) for block in BLOCKS)))
    means = html.table(rows, ("score", "undeformed", "registered", "cases"), "scores")
    note = f"Over cases, ± standard deviation; convention {summary['convention']}."
    words = [element("li", line) for line in explained(heading for _, heading, *_ in columns(summary))]
    told = element("details", element("summary", "What the abbreviations mean"), element("ul", words))
    return section("means", "Means", element("div", means, class_="wide"), told, note=note)


def _mean(block: Mapping, metric: str, factor: float, decimals: int) -> list | str:
    if block.get(metric) is None:
        return ""
    return [number(block[metric], factor, decimals), " ± ", number(block[f"{metric}_std"], factor, decimals)]


def _shown(rows: Sequence[Mapping], main: str | None) -> list[tuple[str, str, int, int]]:
    if not main:
        return [*SHOWN]
    # Where the images do not say how large their voxels are, nothing is known in millimetres.
    unit = "mm" if any(_known(row, "registered", "hd95_mm") for row in rows) else "px"
    name = structure_heading(main)
    dices = [(f"dice_{main}", f"Dice {name}", 1, 3), ("dice_mean", "Dice mean", 1, 3)]
    return [*dices, (f"hd95_{unit}", f"HD95 {name} {unit}", 1, 2), *SHOWN]


def _changes(metric: str) -> bool:
    return metric.split("_")[0] in CHANGES


def _known(row: Mapping, block: str, metric: str) -> bool:
    return math.isfinite(row.get(f"{block}_{metric}", math.nan))


def _map_name(column: str) -> str:
    return column.removeprefix("registered_").removesuffix("_mean_mm")


def _name(row: Mapping, links: Mapping[str, str]) -> Html | str:
    """The case, linked to its report where it has one; the address stays relative whatever it holds."""
    link = links.get(row["case_id"])
    return row["case_id"] if link is None else element("a", row["case_id"], href=f"./{quote(link)}")
