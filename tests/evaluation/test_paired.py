import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hetmorph.evaluation import compare, read_cases, write_cases

ROOT = Path(__file__).resolve().parents[2]


def rows(scores):
    """One row a slice of {patient: [score, …]}; None is an undefined score."""
    return [
        {"case_id": f"{patient}_{i}", "patient": patient, "registered_dice_myo": "" if score is None else str(score)}
        for patient, values in scores.items()
        for i, score in enumerate(values)
    ]


def test_a_patient_counts_once_however_many_slices_it_has():
    first = rows({"a": [0.5, 0.5, 0.5, 0.5], "b": [0.8]})
    second = rows({"a": [0.6, 0.6, 0.6, 0.6], "b": [0.6]})
    result = compare(first, second, "dice_myo")
    assert result["n_patients"] == 2
    assert result["difference"] == pytest.approx((0.1 - 0.2) / 2)
    assert (result["first"], result["second"]) == pytest.approx((0.65, 0.6))


def test_a_slice_without_a_score_in_one_of_them_counts_in_neither():
    result = compare(rows({"a": [0.5, 0.1], "b": [0.7, 0.7]}), rows({"a": [0.6, None], "b": [0.7, 0.9]}), "dice_myo")
    assert result["first"] == pytest.approx((0.5 + 0.7) / 2)
    assert result["difference"] == pytest.approx((0.1 + 0.1) / 2)


def test_interval_and_p_value(rng):
    before, gain = rng.uniform(0.5, 0.9, 30), rng.normal(0.02, 0.05, 30)
    first = rows({str(i): [x] for i, x in enumerate(before)})
    second = rows({str(i): [x] for i, x in enumerate(before + gain)})
    result = compare(first, second, "dice_myo")
    expected = stats.bootstrap((gain,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    np.testing.assert_allclose((result["low"], result["high"]), expected, atol=2e-3)
    assert result["p"] == pytest.approx(stats.wilcoxon(gain).pvalue, rel=1e-6)
    assert result["low"] < result["difference"] < result["high"]


def test_equal_models_do_not_differ():
    same = rows({"a": [0.5], "b": [0.6]})
    assert compare(same, same, "dice_myo")["p"] == 1.0


def test_files_of_other_cases_or_metrics_are_refused():
    with pytest.raises(ValueError, match="same cases; 2 are"):
        compare(rows({"a": [0.5]}), rows({"b": [0.5]}), "dice_myo")
    with pytest.raises(ValueError, match="registered_hd_px"):
        compare(rows({"a": [0.5]}), rows({"a": [0.5]}), "hd_px")


def test_command(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("compare", ROOT / "training" / "compare.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, score in (("one", 0.5), ("two", 0.75)):
        write_cases(tmp_path / name / "cases.csv", rows({"a": [score], "b": [score]}))
    assert len(read_cases(tmp_path / "one")) == 2
    assert script.main([str(tmp_path / "one"), str(tmp_path / "two" / "cases.csv"), "--metrics", "dice_myo"]) == 0
    assert "| dice_myo | 0.5 | 0.75 | +0.25 (+0.25 … +0.25) |" in capsys.readouterr().out
    assert script.main([str(tmp_path), str(tmp_path / "two")]) == 2
    assert "no cases.csv" in capsys.readouterr().err
