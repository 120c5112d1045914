"""All cases as a page."""

import dataclasses
import math

import numpy as np
import pytest

from hetmorph.evaluation import Curves, read_cases, write_cases
from hetmorph.viz import cohort_report
from tests.evaluation.fakes import constant, evaluate, heart, pair, shifted_pair
from tests.viz.pages import Page, assert_self_contained, hostile

SIGMA = np.full((32, 32), -4, np.float32)


@pytest.fixture(scope="module")
def cohort():
    """Three cases from good to bad, one that cannot be scored, and the curves of all."""
    empty = np.zeros((32, 32), np.uint8)
    pairs = [
        pair("same"),
        shifted_pair(3),
        pair("far", heart(), heart(centre=(19, 14)), patient="p2"),
        pair("bare", empty, empty),
    ]
    curves = Curves()
    return evaluate(constant((-1, 0), SIGMA), pairs, progress=False, curves=curves), curves


def report(tmp_path, rows, **more):
    return Page(cohort_report(rows, tmp_path / "index.html", **{"main": "myo"} | more))


def cases(page):
    return page.table(page.all("tbody", within=page.all("table", "sortable")[0])[0])


def test_the_worst_is_first_and_numbers_are_those_of_the_rows(tmp_path, cohort):
    rows, curves = cohort
    page = report(tmp_path, rows, curves=curves)
    order = sorted(rows[:3], key=lambda row: row["registered_dice_myo"])
    shown = cases(page)
    assert [cells[1]["text"] for cells in shown] == [*(row["case_id"] for row in order), "bare"]
    assert [cells[0]["text"] for cells in shown] == ["1", "2", "3", "4"]
    heads = [
        one["text"] for one in page.all("th", within=page.all("table", "sortable")[0]) if one.get("scope") == "col"
    ]
    place = heads.index("Dice MYO")
    for cells, row in zip(shown, order, strict=False):
        expected = [row[f"{block}_dice_myo"] for block in ("undeformed", "registered")]
        assert [value for value, _ in page.numbers(cells[place])] == expected
        assert cells[place]["text"] == f"{expected[0]:.3f} → {expected[1]:.3f}"
    assert "data-empty" in shown[3][place] and "data-empty" not in shown[0][place]
    assert_self_contained(page)


def test_means_are_those_of_the_summary(tmp_path, cohort):
    page = report(tmp_path, cohort[0])
    means = {cells[0]["text"]: cells for cells in page.table(page.all("table", "scores")[0])}
    values = [row["registered_dice_myo"] for row in cohort[0][:3]]
    assert [v for v, _ in page.numbers(means["Dice MYO"][2])] == pytest.approx([np.mean(values), np.std(values)])
    assert means["Dice MYO"][3]["text"] == "3"


def test_what_failed_and_what_was_not_scored_are_listed_with_their_reasons(tmp_path, cohort):
    rows = [*cohort[0][:2], cohort[0][2] | {"failed": "myo vanished by warping"}, cohort[0][3]]
    page = report(tmp_path, rows, links={"bare": "cases/bare.html"})
    for column, told in (
        ("failed", "myo vanished by warping: far"),
        ("unscored", "no myo in the moving and the fixed image: bare"),
    ):
        section = page.by_id(column)
        assert [one["text"] for one in page.all("li", within=section)] == [told]
    assert page.all("a", within=page.by_id("unscored"))[0]["href"] == "./cases/bare.html"
    assert "1 failed · 1 not scored" in page.all("header")[0]["text"]
    assert not {"failed", "unscored"} & {one.get("id") for one in report(tmp_path, cohort[0][:2]).all("section")}


def test_means_stand_above_the_long_table(tmp_path, cohort):
    page = report(tmp_path, cohort[0])
    order = [one.get("id") for one in page.all("section")]
    assert order.index("means") < order.index("cases")
    assert "AUSE: " in page.by_id("means")["text"], "abbreviations are explained"


def test_links_flags_and_their_counts(tmp_path, cohort):
    flags = {"same": "accept", "far": "reject"}
    rows = [row | {"verdict": flags.get(row["case_id"], "")} for row in cohort[0]]
    page = report(tmp_path, rows, links={"far": "cases/a b%#?.html"})
    linked = {one["text"]: one["href"] for one in page.all("a", within=page.by_id("cases"))}
    assert linked == {"far": "./cases/a%20b%25%23%3F.html"}
    verdicts = {cells[1]["text"]: cells[4]["text"] for cells in cases(page)}
    assert verdicts == {"same": "Accept", "far": "Reject", "shifted": "–", "bare": "–"}
    assert "Accept1Review0Reject1without verdict2" in page.by_id("verdict")["text"]
    assert "Verdicts of plain checks" in page.by_id("verdict")["text"], "no row has a bound"
    bounded = report(tmp_path, [row | {"registered_bound_mean": 1.0} for row in rows])
    assert "plain checks" not in bounded.by_id("verdict")["text"]
    assert "No verdicts" in report(tmp_path, cohort[0]).by_id("verdict")["text"]


def test_distributions_have_a_dot_for_each_case(tmp_path, cohort):
    page = report(tmp_path, cohort[0])
    (chart,) = [one for one in page.all("figure", "chart") if one["text"].startswith("Dice MYO")]
    assert len(page.all("circle", within=chart)) == 2 * 3
    median = np.median([row["registered_dice_myo"] for row in cohort[0][:3]])
    assert f"registered {median:.3g} of 3 cases" in chart["text"]


def test_sparsification_where_a_variance_was_predicted(tmp_path, cohort):
    rows, curves = cohort
    charts = report(tmp_path, rows, curves=curves).all("figure", "chart")
    assert [one["text"].split(":")[0] for one in charts[-2:]] == ["residual", "residual, foreground"]
    assert "No sparsification" in report(tmp_path, rows).text


def test_rows_of_cases_csv_give_the_same_page(tmp_path, cohort):
    write_cases(tmp_path / "cases.csv", cohort[0])
    pages = [report(tmp_path, rows).source for rows in (cohort[0], read_cases(tmp_path))]
    assert pages[0] == pages[1]


def test_without_labels_the_residual_ranks(tmp_path):
    pairs = [dataclasses.replace(one, moving_labels=None, fixed_labels=None) for one in (pair(), shifted_pair(3))]
    rows = evaluate(constant((0, 0)), pairs, progress=False, labels={}, main=None)
    page = report(tmp_path, rows, main=None)
    assert "Sorted by mean squared residual" in page.text
    assert [cells[1]["text"] for cells in cases(page)] == ["shifted", "p1_s0"]


def test_maps_that_some_rows_lack_have_their_column(tmp_path, cohort):
    rows = [dict(row) for row in cohort[0]]
    rows[2]["registered_equivariance_mean_mm"] = 1.25
    page = report(tmp_path, rows)
    assert "equivariance mm" in page.text and "1.25" in page.text


def test_names_cannot_become_markup(tmp_path):
    sample = hostile(shifted_pair(3))
    rows = evaluate(constant((0, 0)), [sample], progress=False)
    rows[0]["failed"] = "<img src=x onerror=alert(3)>"
    more = {"links": {sample.case_id: "javascript:alert(4)"}, "about": {"<i>": "<i>"}, "title": "<i>"}
    page = report(tmp_path, rows, **more)
    assert page.text.count("onerror=alert(3)") == 2 and len(page.all("script")) == 1
    assert_self_contained(page)


def test_refuses_what_it_cannot_show(tmp_path, cohort):
    with pytest.raises(ValueError, match="at least one"):
        report(tmp_path, [])
    with pytest.raises(ValueError, match="several of one"):
        report(tmp_path, cohort[0][:1] * 2)
    assert math.isnan(cohort[0][3]["registered_dice_myo"])
