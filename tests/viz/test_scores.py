import math

import pytest

from hetmorph.viz.scores import as_numbers, better, number, ranking_metric, worst_first


def row(name, **scores):
    return {"case_id": name, "patient": "p", "slice_index": None, "group": None, "failed": ""} | {
        f"registered_{key}": value for key, value in scores.items()
    }


def test_the_worst_come_first_and_what_has_no_score_last():
    rows = [row("a", dice_myo=0.9), row("b", dice_myo=math.nan), row("c", dice_myo=0.2), row("d", dice_myo=0.5)]
    assert [rows[i]["case_id"] for i in worst_first(rows, "myo")] == ["c", "d", "a", "b"]
    errors = [row("a", epe=1.0), row("b", epe=3.0), row("c")]
    assert [errors[i]["case_id"] for i in worst_first(errors, None)] == ["b", "a", "c"], "of an error more is worse"
    assert worst_first([row("a"), row("b")], "myo") == [0, 1]


def test_what_ranks_is_the_first_score_that_any_case_has():
    assert ranking_metric([row("a", dice_myo=math.nan, mse=1.0)], "myo")[0] == "mse"
    assert ranking_metric([row("a", dice_myo=math.nan, mse=1.0), row("b", dice_myo=0.1)], "myo")[0] == "dice_myo"
    assert ranking_metric([row("a")], "myo") is None


@pytest.mark.parametrize(
    "metric, before, after, word",
    [
        ("dice_myo", 0.5, 0.6, "better"),
        ("dice_myo", 0.5, 0.4, "worse"),
        ("hd95_mm", 5, 4, "better"),
        ("epe_labels", 1, 2, "worse"),
        ("mse", 0.1, 0.1, "same"),
        ("mse", math.nan, 0.1, ""),
        ("folds_percent", 0, 1, ""),
        ("sdlogj", 0, 1, ""),
    ],
)
def test_better_and_worse(metric, before, after, word):
    assert better(metric, before, after) == word


def test_rows_of_a_file_become_numbers():
    (got,) = as_numbers([{"case_id": "1", "failed": "", "registered_mse": "0.25", "registered_epe": "", "x": None}])
    assert got["case_id"] == "1" and got["registered_mse"] == 0.25 and math.isnan(got["registered_epe"])
    with pytest.raises(ValueError, match="column registered_mse, got 'low'"):
        as_numbers([{"registered_mse": "low"}])


def test_a_number_keeps_every_digit_beside_the_rounded_one():
    assert number(1 / 3, 100, 1) == f'<data value="{1 / 3!r}">33.3</data>'
    assert number(math.nan) == number(None) == "–"
