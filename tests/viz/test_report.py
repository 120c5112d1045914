"""The folder of an evaluation's reports."""

import dataclasses

import numpy as np
import pytest

from hetmorph.cli.scoring import judge
from hetmorph.data import LoadedSet
from hetmorph.evaluation import RegistrationFailed
from hetmorph.uncertainty import Bound, Calibration, Combination, Triage
from hetmorph.viz import write_reports
from hetmorph.viz.evaluation_files import file_names
from tests.evaluation.fakes import HEART, constant, evaluate, heart, pair, shifted_pair
from tests.viz.pages import Page, assert_self_contained, displacement_map, hostile


def fails_on_far(moving, fixed):
    if fixed[28, 14] != moving[28, 14]:
        raise RegistrationFailed("it went <b>wrong</b>")
    return constant((0, 0))(moving, fixed)


@pytest.fixture(scope="module")
def loaded():
    pairs = [pair("same"), hostile(shifted_pair(3)), pair("far", heart(), heart(centre=(22, 14)))]
    return LoadedSet(pairs, [], {}, **HEART)


def write(folder, loaded, predictor=None, **more):
    predictor = predictor or constant((-1, 0))
    judged = judge(more["maps"], more["calibration"]) if "calibration" in more else None
    rows = evaluate(predictor, loaded.pairs, progress=False, judge=judged)
    return write_reports(folder, predictor, loaded, rows, progress=False, **more)


def test_every_case_has_a_page_that_the_index_links_and_that_links_back(tmp_path, loaded):
    index, *pages = write(tmp_path / "report", loaded)
    assert index == tmp_path / "report" / "index.html" and len(pages) == 3
    links = {one["href"] for one in Page(index).all("a")}
    assert {(index.parent / link).resolve() for link in links} == {path.resolve() for path in pages}
    for path in (index, *pages):
        assert_self_contained(Page(path))
    for path in pages:
        (back,) = Page(path).all("a", "back")
        assert (path.parent / back["href"]).resolve() == index.resolve()


def test_the_worst_that_are_scored_have_one_before_what_has_no_score(tmp_path, loaded):
    _, first, second = write(tmp_path / "two", loaded, fails_on_far, most=2)
    assert (first.name, second.name) == ("_script_alert_1_script_.html", "same.html")
    page = Page(write(tmp_path / "all", loaded, fails_on_far)[-1])
    assert "Not registered registration failed: it went <b>wrong</b>" in page.text


def test_maps_and_verdicts_of_the_cases_shown(tmp_path, loaded):
    calibration = Calibration(Combination({"spread": 1.0}), Bound(2.0, 0.9, 12), Triage(3.0, 5.0, 1.5), {})
    sizes = {"same": 1.0, "far": 9.0}
    maps = {"spread": lambda one: displacement_map("spread", np.full((32, 32), sizes.get(one.case_id, 2.0)))}
    index, *pages = write(tmp_path, loaded, constant((0, 0)), maps=maps, calibration=calibration)
    assert "Accept1Review1Reject1without verdict0" in Page(index).by_id("verdict")["text"]
    words = {path.name: Page(path).all("strong")[0]["text"] for path in pages}
    assert words == {"same.html": "Accept", "far.html": "Reject", "_script_alert_1_script_.html": "Review"}


def test_file_names_are_plain_and_distinct():
    names = file_names(["a/b", "a:b", "A_b", "..", "é 1", "x" * 300, "../../etc", "a_b-2"])
    assert len({name.lower() for name in names}) == len(names)
    assert names[:5] == ["a_b.html", "a_b-2.html", "A_b-3.html", "case.html", "é_1.html"]
    assert all("/" not in name and len(name) < 120 and not name.startswith(".") for name in names)


def test_rows_must_be_those_of_the_pairs(tmp_path, loaded):
    rows = evaluate(constant((0, 0)), loaded.pairs[:2], progress=False)
    with pytest.raises(ValueError, match="one row for each pair"):
        write_reports(tmp_path, constant((0, 0)), loaded, rows)
    swapped = dataclasses.replace(loaded, pairs=loaded.pairs[1::-1])
    with pytest.raises(ValueError, match="one row for each pair"):
        write_reports(tmp_path, constant((0, 0)), swapped, rows)
    assert not [*tmp_path.iterdir()]
