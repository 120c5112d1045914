"""`python training/uncertainty.py` from the outside, and `evaluate.py --uncertainty`."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetmorph import data, evaluation
from hetmorph.cli import evaluate
from hetmorph.networks import HetVxmDense
from hetmorph.uncertainty import Calibration, calibrate
from training import uncertainty

REPOSITORY = Path(__file__).resolve().parents[2]
FEATURES = [[4], [4]]
PHANTOM = ["--data", "phantom", "--size", "32", "32"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model beside the division of its patients: enough of them for a calibration."""
    folder = tmp_path_factory.mktemp("run")
    model = HetVxmDense((32, 32), FEATURES, variance_features=FEATURES, int_steps=1)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()])
    model.save(folder / "model.keras")
    patients = sorted({patient for part in data.load("phantom", split="test").splits.values() for patient in part})
    data.save_splits({"train": patients[12:], "val": patients[6:12], "test": patients[:6]}, folder / "splits.json")
    return folder


def flags(run_folder, out, *more):
    own = ["--model", str(run_folder / "model.keras"), "--out", str(out), "--every", "24", "--draws", "4"]
    return [*PHANTOM, *own, "--coverage", "0.8", "--kinds", "translation", "bspline", "motion", *more]


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    """What `main` printed, and where it wrote."""
    out, printed = tmp_path_factory.mktemp("out") / "u", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert uncertainty.main(flags(run_folder, out)) == 0
    return printed.getvalue(), out


def outside(*words, cwd):
    """The script without PYTHONPATH and from another folder, as a user with a clone would run it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HETMORPH_DATA")}
    script = [sys.executable, str(REPOSITORY / "training" / "uncertainty.py")]
    done = subprocess.run([*script, *words], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_writes_its_files_and_prints_the_table(result):
    printed, out = result
    tables = ["cases.csv", "coverage.csv", "flags.csv"]
    files = [*tables, "calibration.json", "settings.json", "uncertainty.md", "uncertainty.png", "cases"]
    assert sorted(path.name for path in out.iterdir()) == sorted(files)
    assert (out / "uncertainty.md").read_text().strip() in printed
    for name in ("| equivariance-translation | 4 |", "| variance | 1 |", "| residual | 1 |", "| combination | "):
        assert name in printed


def test_reports_test_patients_only_and_calibrates_on_the_others(result, run_folder):
    _, out = result
    splits = json.loads((run_folder / "splits.json").read_text())
    rows = rows_of(out / "cases.csv")
    assert {row["patient"] for row in rows} <= set(splits["test"])
    maps = {row["map"] for row in rows}
    cases = {row["case_id"] for row in rows}
    assert len(rows) == len(maps) * len(cases) and {row["kind"] for row in rows} == {"translation", "bspline", "motion"}
    files = {split: sorted((out / "cases" / split).glob("*.npz")) for split in ("train", "val", "test")}
    cases = [evaluation.Case.load(path) for path in (*files["train"], *files["val"])]
    assert not {case.patient for case in cases} & set(splits["test"]) and "motion" not in {case.kind for case in cases}
    names = [name for name in maps if name != "combination"]
    again = calibrate(sorted(cases, key=lambda case: case.case_id), names, 0.8)[0]
    kept = Calibration.load(out / "calibration.json")
    assert again.combination.weights == pytest.approx(kept.combination.weights)
    assert again.bound.scale == pytest.approx(kept.bound.scale)


def test_coverage_and_flags_are_those_of_the_kept_calibration(result):
    _, out = result
    calibration = Calibration.load(out / "calibration.json")
    cases = [evaluation.Case.load(path) for path in sorted((out / "cases" / "test").glob("*.npz"))]
    cases = [case for case in cases if case.kind != "motion"]
    rows = rows_of(out / "coverage.csv")
    coverage = {row["patient"]: row for row in rows if row["kind"] == "known warps"}
    assert {row["kind"] for row in rows} == {"known warps", "real motion, distances of surfaces"}
    flagged = {row["case_id"]: row for row in rows_of(out / "flags.csv")}
    assert set(coverage) == {case.patient for case in cases} and set(flagged) == {case.case_id for case in cases}
    for case in cases:
        bound = calibration.bound(calibration.combination(case.maps))[case.region].mean()
        assert float(flagged[case.case_id]["score"]) == pytest.approx(bound, rel=1e-4)
        assert flagged[case.case_id]["flag"] == calibration.triage.flag(float(flagged[case.case_id]["score"]))
    own = [case for case in cases if case.patient == cases[0].patient]
    std = np.concatenate([calibration.combination(case.maps)[case.region] for case in own])
    error = np.concatenate([case.error[case.region] for case in own])
    row = coverage[cases[0].patient]
    assert float(row["coverage"]) == pytest.approx(calibration.bound.covered(error, std), abs=1e-6)
    assert int(row["voxels"]) == error.size


@pytest.mark.slow
def test_goes_on_with_the_cases_there_are_and_ends_the_same(result, run_folder, monkeypatch):
    _, out = result
    before = {name: (out / name).read_text() for name in ("cases.csv", "coverage.csv", "uncertainty.md")}
    removed = sorted((out / "cases").rglob("*.npz"))[0]
    removed.unlink()
    measured, measure = [], evaluation.measure
    monkeypatch.setattr(evaluation, "measure", lambda *a: measured.append(1) or measure(*a))
    assert uncertainty.main(flags(run_folder, out)) == 0
    assert measured == [1] and removed.exists()
    timed = ("cases.csv", "uncertainty.md")  # hold seconds
    for name, text in before.items():
        assert name in timed or (out / name).read_text() == text


@pytest.mark.slow
def test_parts_and_workers_end_as_one_process_does(result, run_folder, tmp_path):
    pytest.importorskip("distributed")
    _, whole = result
    own = flags(run_folder, tmp_path / "u")
    for words, said in ((["--shard", "1/2"], "cases are of other parts"), (["--workers", "2"], "wrote uncertainty.md")):
        done = outside(*own, *words, cwd=tmp_path)
        assert said in done.stdout and "measuring: 100%" in done.stderr
    for name in ("coverage.csv", "flags.csv"):
        assert (tmp_path / "u" / name).read_text() == (whole / name).read_text()


def test_other_settings_need_another_folder(result, run_folder, capsys):
    _, out = result
    assert uncertainty.main(flags(run_folder, out, "--seed", "3")) == 2
    assert "begun with another seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--estimates", "wobble"], "expected estimates among"),
        (["--estimates", "ensemble"], "needs further models"),
        (["--coverage", "0.99"], "at least 100 patients"),
    ],
)
def test_bad_input_is_one_clear_line(run_folder, tmp_path, capsys, more, message):
    assert uncertainty.main(flags(run_folder, tmp_path / "u", *more)) == 2
    assert not (tmp_path / "u").exists(), "told before anything is measured"
    errors = capsys.readouterr().err.splitlines()[-1]
    assert message in errors and errors.startswith("uncertainty.py: error: ")


@pytest.mark.parametrize("script", [uncertainty, evaluate])
def test_help_states_frame_units_direction_and_an_example(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for wanted in ("grid of the fixed image", "voxels", "moving(x + u(x))", "python training/", "equivariance-bspline"):
        assert wanted in text


@pytest.mark.slow
def test_evaluate_writes_columns_and_maps_in_millimetres(run_folder, tmp_path, capsys):
    own = [
        "--model",
        str(run_folder / "model.keras"),
        "--out",
        str(tmp_path),
        "--draws",
        "3",
        "--split",
        "val",
        "--passes",
        "2",
    ]
    more = [
        "--uncertainty",
        "equivariance-affine",
        "variance",
        "ensemble",
        "--ensemble",
        str(run_folder / "model.keras"),
    ]
    assert evaluate.main([*PHANTOM, *own, *more]) == 0
    printed = capsys.readouterr().out
    assert "| equivariance-affine mm" in printed and "rank r(variance)" in printed and "maps of equiv" in printed
    row = rows_of(tmp_path / "cases.csv")[0]
    pair = next(p for p in data.load("phantom", split="all", size=(32, 32)).pairs if p.case_id == row["case_id"])
    stored = nib.load(tmp_path / "maps" / f"{row['case_id']}_equivariance-affine.nii.gz")
    assert stored.header.get_zooms()[:2] == pytest.approx(pair.spacing)
    values = stored.get_fdata().reshape(32, 32)
    region = evaluation.cases.foreground(pair) & np.isfinite(values)
    assert float(row["registered_equivariance-affine_mean_mm"]) == pytest.approx(values[region].mean(), rel=1e-4)
    assert float(row["registered_ensemble_mean"]) == pytest.approx(0, abs=1e-6), "a model and itself agree"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["registered"]["variance_spearman"] is not None and summary["draws"] == 3


def test_evaluate_refuses_what_it_does_not_know(run_folder, tmp_path, capsys):
    own = [*PHANTOM, "--model", str(run_folder / "model.keras"), "--out", str(tmp_path / "out")]
    for more in (["--uncertainty", "wobble"], ["--ensemble", str(run_folder / "model.keras")]):
        assert evaluate.main([*own, *more]) == 2
        assert capsys.readouterr().err.startswith("evaluate.py: error: ")
    assert not (tmp_path / "out").exists()
