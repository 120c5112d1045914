import numpy as np
import pytest
from scipy import stats

from hetmorph.evaluation import compare, compare_runs, over_seeds, read_cases, write_cases
from training import compare as command


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


def seeds(rng, patients=12, runs=3, gain=0.0):
    """Runs of two slices a patient: the patient's own level, the seed's, and noise."""
    level, offset = rng.uniform(0.5, 0.9, (patients, 1)), rng.normal(0, 0.01, runs)
    return [rows({str(i): list(x) for i, x in enumerate(level + o + gain + rng.normal(0, 0.02, (patients, 2)))})
            for o in offset]  # fmt: skip


def scores_of(run):
    return np.array([float(row["registered_dice_myo"]) for row in run])


def test_one_run_a_side_is_what_compare_gave_before(rng):
    first, second = rng.uniform(0.5, 0.9, (2, 20, 3))
    runs = [rows({str(i): list(x) for i, x in enumerate(scores)}) for scores in (first, second)]
    result = compare_runs(runs[:1], runs[1:], "dice_myo")
    difference = second.mean(1) - first.mean(1)
    draws = np.random.default_rng(0).integers(0, 20, (10_000, 20))  # as every version of compare has drawn them
    interval = np.percentile(difference[draws].mean(1), [2.5, 97.5])
    assert (result["low"], result["high"]) == pytest.approx(tuple(interval), abs=1e-12)
    assert result["p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert (result["first"], result["second"]) == pytest.approx((first.mean(), second.mean()))
    assert np.isnan([result["first_std"], result["second_std"]]).all()
    assert compare(*runs, "dice_myo") == pytest.approx(result, nan_ok=True)


def test_seeds_are_averaged_within_a_patient_before_the_tests(rng):
    firsts, seconds = seeds(rng), seeds(rng, runs=2, gain=0.02)
    result = compare_runs(firsts, seconds, "dice_myo")
    first, second = (np.mean([scores_of(run) for run in side], 0) for side in (firsts, seconds))
    slices = second - first
    patients = slices.reshape(-1, 2).mean(1)
    assert (result["n_patients"], result["n_slices"], result["n_first"], result["n_second"]) == (12, 24, 3, 2)
    assert result["difference"] == pytest.approx(patients.mean())
    assert result["p"] == pytest.approx(stats.wilcoxon(patients).pvalue)
    assert result["p_t"] == pytest.approx(stats.ttest_1samp(patients, 0).pvalue)
    assert result["p_t_slices"] == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert result["effect"] == pytest.approx(patients.mean() / patients.std(ddof=1))
    means = [scores_of(run).mean() for run in firsts]
    assert result["first_std"] == pytest.approx(np.std(means, ddof=1))


def test_seeds_that_differ_widen_the_interval():
    scores = {str(i): [0.5 + i / 100] for i in range(10)}
    same = [rows(scores)] * 3
    moved = [rows({name: [x + offset for x in values] for name, values in scores.items()}) for offset in (-0.1, 0, 0.1)]
    calm, wild = compare_runs(same, same, "dice_myo"), compare_runs(same, moved, "dice_myo")
    assert (calm["low"], calm["high"]) == (0, 0)
    # The mean of three draws of -0.1, 0, 0.1: at most 0.1 from 0, with probability 1/27 at either end.
    assert wild["difference"] == pytest.approx(0, abs=1e-12)
    assert (wild["low"], wild["high"]) == pytest.approx((-0.1, 0.1), abs=1e-9)


def test_the_order_of_cases_in_the_files_is_immaterial(rng):
    first, second = seeds(rng, runs=1)[0], seeds(rng, runs=1)[0]
    expected = compare_runs([first], [second], "dice_myo")
    assert compare_runs([first], [second[::-1]], "dice_myo") == pytest.approx(expected, nan_ok=True)


def test_equal_gains_have_no_effect_size_and_few_values_no_t_test():
    first, second = rows({"a": [0.5], "b": [0.6]}), rows({"a": [0.6], "b": [0.7]})
    result = compare_runs([first], [second], "dice_myo")
    assert np.isnan(result["effect"]) and result["p_t"] == 0
    single = compare_runs([first[:1]], [second[:1]], "dice_myo")
    assert np.isnan(single["p_t"]) and np.isnan(single["effect"]) and single["p"] == 1
    assert np.isnan([single["low"], single["high"]]).all(), "one patient drawn anew is itself"
    same = compare_runs([first], [first], "dice_myo")
    assert same["p_t"] == same["p_t_slices"] == 1


def test_a_slice_undefined_in_any_run_counts_in_none():
    whole, holed = rows({"a": [0.5, 0.7], "b": [0.6]}), rows({"a": [0.5, None], "b": [0.6]})
    assert compare_runs([whole, holed], [whole], "dice_myo")["n_slices"] == 2


def test_bad_runs_are_refused():
    run = rows({"a": [0.5]})
    with pytest.raises(ValueError, match="at least one run a side, got 1 and 0"):
        compare_runs([run], [], "dice_myo")
    with pytest.raises(ValueError, match="each case once, got 2 rows of 1 cases"):
        compare_runs([run], [run * 2], "dice_myo")
    with pytest.raises(ValueError, match="same cases"):
        compare_runs([run, rows({"b": [0.5]})], [run], "dice_myo")


def test_over_seeds_is_mean_and_deviation_of_the_runs(tmp_path):
    runs = [rows({"a": [0.1, 0.2, None], "b": [0.6]}), rows({"a": [0.3, 0.4, 0.5], "b": [0.8]})]
    slices, patients = ([0.3, 0.5], [(0.15 + 0.6) / 2, (0.4 + 0.8) / 2])
    assert over_seeds(runs, "dice_myo") == pytest.approx((np.mean(slices), np.std(slices, ddof=1), 2))
    assert over_seeds(runs, "dice_myo", per="patient") == pytest.approx(
        (np.mean(patients), np.std(patients, ddof=1), 2)
    )
    write_cases(tmp_path / "cases.csv", runs[0])
    assert over_seeds([tmp_path], "dice_myo") == pytest.approx((0.3, np.nan, 1), nan_ok=True)
    with pytest.raises(ValueError, match="no case has undeformed_dice_myo"):
        over_seeds(runs, "dice_myo", "undeformed")
    with pytest.raises(ValueError, match="at least one run"):
        over_seeds([], "dice_myo")
    with pytest.raises(ValueError, match="'slice' or 'patient'"):
        over_seeds(runs, "dice_myo", per="voxel")


def test_command(tmp_path, capsys):
    for name, score in (("one", 0.5), ("two", 0.75)):
        write_cases(tmp_path / name / "cases.csv", rows({"a": [score], "b": [score]}))
    assert len(read_cases(tmp_path / "one")) == 2
    assert command.main([str(tmp_path / "one"), str(tmp_path / "two" / "cases.csv"), "--metrics", "dice_myo"]) == 0
    assert "| dice_myo | 0.5 | 0.75 | +0.25 (+0.25 … +0.25) |" in (printed := capsys.readouterr().out)
    assert printed.splitlines()[-1].endswith("| 2 / 2 |")
    assert command.main([str(tmp_path), str(tmp_path / "two")]) == 2
    assert "no cases.csv" in capsys.readouterr().err


def test_command_gives_no_interval_of_one_patient(tmp_path, capsys):
    for name, score in (("one", 0.5), ("two", 0.75)):
        write_cases(tmp_path / name / "cases.csv", rows({"a": [score, score]}))
    assert command.main([str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert "| dice_myo | 0.5 | 0.75 | +0.25 (–) | 1 | – |" in (printed := capsys.readouterr().out)
    assert printed.splitlines()[-1].endswith("| 1 / 2 |")


def test_command_compares_sets_without_labels(tmp_path, capsys):
    for name in ("one", "two"):
        run = [{"case_id": c, "patient": c, "registered_hd_px": "", "registered_mse": "0.1"} for c in "ab"]
        write_cases(tmp_path / name / "cases.csv", run)
    assert command.main([str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert [line[:6] for line in capsys.readouterr().out.splitlines()[-2:]] == ["|---|-", "| mse "]
    write_cases(tmp_path / "two" / "cases.csv", [row | {"registered_mse": ""} for row in run])
    assert command.main([str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    assert "has a value in every run; name some with --metrics" in capsys.readouterr().err


def test_command_takes_runs_of_several_seeds(tmp_path, capsys):
    for name, score in (("m0", 0.5), ("m1", 0.6), ("h0", 0.75)):
        write_cases(tmp_path / name / "cases.csv", rows({"a": [score], "b": [score]}))
    m0, m1, h0 = (str(tmp_path / name) for name in ("m0", "m1", "h0"))
    assert command.main(["--first", m0, m1, "--second", h0, "--metrics", "dice_myo"]) == 0
    printed = capsys.readouterr().out
    assert f"first: {m0}, {m1}" in printed and "p (t, slices)" in printed
    assert "| dice_myo | 0.55 ± 0.071 | 0.75 | +0.2 (+0.15 … +0.25) |" in printed


@pytest.mark.parametrize("flags", [["a"], ["a", "b", "c"], ["--first", "a"], ["a", "b", "--first", "c"], []])
def test_command_says_how_to_name_the_runs(capsys, flags):
    with pytest.raises(SystemExit):
        command.main(flags)
    assert "--first and --second" in capsys.readouterr().err


def test_command_compares_what_the_runs_have():
    def run(names, **more):
        return [{"case_id": "a", **{f"registered_{name}": "0.5" for name in names}, **more}]

    few = run(["dice_myo", "dice_rv", "dice_mean", "hd_px"])
    assert command.default_metrics([few, few])[:2] == ["dice_myo", "dice_rv"]
    many = run([f"dice_s{i}" for i in range(24)] + ["dice_mean", "ause"])
    assert command.default_metrics([many, many])[0] == "dice_mean" and "ause" in command.default_metrics([many, many])
    assert "ause" not in command.default_metrics([many, run(["dice_mean"], registered_ause="")])
