import csv
import functools
import json
import math

import numpy as np
import pytest

from hetmorph import evaluation
from hetmorph.evaluation import markdown, pick_cases, write_cases, write_summary
from tests.evaluation.fakes import constant, evaluate, heart, pair, shifted_pair

summarise = functools.partial(evaluation.summarise, main="myo")
OVERLAP = ["dice_myo", "dice_rv", "dice_lv", "dice_mean", "hd_px", "hd95_px", "assd_px", "hd95_mm"]
UNDEFORMED = [*OVERLAP, "folds_percent", "sdlogj", "mse"]
REGISTERED = [*UNDEFORMED, "ause", "ause_foreground", "seconds_per_pair"]


@pytest.fixture
def rows():
    """Three patients' slices: good, half good without right ventricle, and one without myocardium at ES."""
    no_rv = np.where(heart() == 1, 0, heart()).astype(np.uint8)
    no_myo = np.where(heart(centre=(16, 14)) == 2, 0, heart(centre=(16, 14))).astype(np.uint8)
    pairs = [
        shifted_pair(3),
        pair("b", no_rv, heart(centre=(15, 14)), patient="p1"),
        pair("c", heart(), no_myo, patient="p2"),
    ]
    return evaluate(constant((-3, 0), np.zeros((32, 32), np.float32)), pairs, progress=False)


def headings_of(table):
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_has_the_promised_keys_as_numbers(rows):
    summary = summarise(rows)
    assert [summary[f"n_{count}"] for count in ("cases", "failed", "unscored")] == [3, 0, 1]
    assert summary["convention"] == "hetmorph" and "verdicts" not in summary
    for block, metrics in (("undeformed", UNDEFORMED), ("registered", REGISTERED)):
        for metric in metrics:
            assert math.isfinite(summary[block][metric])
            assert summary[block][f"{metric}_std"] >= 0


def test_means_leave_out_the_undefined_and_tell_how_many_are_left(rows):
    summary = summarise(rows)
    dice = [row["registered_dice_myo"] for row in rows[:2]]
    assert summary["registered"]["dice_myo"] == pytest.approx(np.mean(dice))
    assert summary["registered"]["dice_myo_std"] == pytest.approx(np.std(dice))
    assert summary["n"]["registered"]["dice_myo"] == 2
    assert summary["n"]["registered"]["dice_rv"] == 2, "of the first and the third slice"
    assert summary["n"]["registered"]["folds_percent"] == 3


def test_what_failed_and_what_was_not_scored_are_told_apart(rows):
    rows[1]["failed"] = "myo vanished by warping"
    summary = summarise(rows)
    assert summary["failures"] == [{"case_id": "b", "reason": "myo vanished by warping"}]
    assert summary["unscored"] == [{"case_id": "c", "reason": "no myo in the fixed image"}]


def test_verdicts_are_counted(rows):
    judged = [row | {"verdict": flag} for row, flag in zip(rows, ("accept", "reject", "accept"), strict=True)]
    summary = summarise(judged)
    assert summary["verdicts"] == {"accept": 2, "reject": 1} and "accept 2, reject 1" in markdown(summary)


def test_official_leaves_unscored_rows_out_but_counts_them(rows):
    summary = summarise(rows, "official")
    assert (summary["n_cases"], summary["n_unscored"]) == (3, 1)
    assert summary["n"]["registered"]["mse"] == 2
    assert summary["registered"]["mse"] == pytest.approx(np.mean([row["registered_mse"] for row in rows[:2]]))
    assert set(summary["per_patient"]["patients"]) == {"p1"}


def test_patients_weigh_the_same_however_many_slices_they_have(rows):
    per_patient = summarise(rows)["per_patient"]
    own = [np.mean([rows[0]["registered_mse"], rows[1]["registered_mse"]]), rows[2]["registered_mse"]]
    assert per_patient["n_patients"] == 2
    assert [p["registered"]["mse"] for p in per_patient["patients"].values()] == pytest.approx(own)
    assert per_patient["registered"]["mse"] == pytest.approx(np.mean(own))
    assert per_patient["patients"]["p2"]["registered"]["dice_myo"] is None


def test_extra_entries_are_kept(rows):
    assert summarise(rows, split="test")["split"] == "test"


def test_nothing_evaluated_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_files_are_strict_json_and_a_row_a_case(rows, tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    write_summary(tmp_path / "new" / "summary.json", summarise(rows))
    write_cases(tmp_path / "new" / "cases.csv", rows)
    summary = json.loads((tmp_path / "new" / "summary.json").read_text(), parse_constant=refuse)
    with open(tmp_path / "new" / "cases.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["case_id"] for row in read] == ["shifted", "b", "c"]
    assert [row["patient"] for row in read] == ["p1", "p1", "p2"]
    assert read[2]["registered_dice_myo"] == "" and read[2]["unscored"] == "no myo in the fixed image"
    column = [float(row["registered_dice_myo"]) for row in read[:2]]
    assert np.mean(column) == pytest.approx(summary["registered"]["dice_myo"])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["cases.csv", "summary.json"]


def test_all_undefined_gives_null(tmp_path):
    empty = np.zeros((32, 32), np.uint8)
    rows = evaluate(constant((0, 0)), [pair(moving=empty, fixed=empty)], progress=False)
    write_summary(tmp_path / "s.json", summarise(rows))
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["registered"]["dice_myo"] is None and summary["registered"]["dice_myo_std"] is None
    assert pick_cases(rows, "registered_dice_myo") == {}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_summary(tmp_path / "s.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_summary(tmp_path / "s.json", {"a": math.nan})
    assert json.loads((tmp_path / "s.json").read_text()) == {"a": 1}


def test_median_and_worst():
    rows = [{"registered_dice_myo": score} for score in (0.9, math.nan, 0.2, 0.8, 0.7)]
    assert pick_cases(rows, "registered_dice_myo") == {"median": 4, "worst": 2}
    assert pick_cases(rows[:1], "registered_dice_myo") == {"median": 0, "worst": 0}


def test_table_shows_both_columns_and_the_failures(rows):
    table = markdown(summarise(rows))
    line = next(line for line in table.splitlines() if line.startswith("| Dice MYO"))
    expected = [np.mean([row[f"{block}_dice_myo"] for row in rows[:2]]) for block in ("undeformed", "registered")]
    assert [cell.split("±")[0].strip() for cell in line.split("|")[2:4]] == [f"{mean:.3f}" for mean in expected]
    assert "0 failed, 1 not scored" in table and "no myo in the fixed image: c" in table
    assert "| HD95 MYO mm" in table, "a distance says of which structure it is"
    assert len({len(line) for line in table.splitlines() if line.startswith("|")}) == 1


def test_of_many_structures_the_table_shows_the_main_one_and_the_mean_of_few_all():
    def table(count):
        labels = {f"s{i}": i for i in range(1, count + 1)}
        rows = evaluate(constant((0, 0)), [pair()], progress=False, labels=labels | {"s2": 2}, main="s2")
        return headings_of(markdown(summarise(rows, main="s2")))

    assert table(3)[:4] == ["Dice S2", "Dice S1", "Dice S3", "Dice mean"]
    assert table(24)[:3] == ["Dice S2", "Dice mean", "HD S2 px"]


def test_calibration_is_in_the_table(rows):
    headings = headings_of(markdown(summarise(rows)))
    assert {"within ±σ fg % (68.3)", "sd of r/σ fg (1)", "ECE σ fg ·10³"} <= set(headings)


def test_abbreviations_are_explained_below_the_table_that_has_them(rows):
    table = markdown(summarise(rows))
    told = [line.partition(":")[0] for line in table.split("|\n")[-1].splitlines() if line]
    assert "AUSE" in told and "fg" in told and "EPE" not in told
    plain = [{name: value for name, value in row.items() if "ause" not in name} for row in rows]
    assert "AUSE" not in markdown(summarise(plain))
