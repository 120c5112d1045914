"""`hetmorph calibrate`, and who judges by what it writes."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from hetmorph.cli import calibrate, evaluate
from hetmorph.data import phantom
from hetmorph.networks import VxmDense
from hetmorph.uncertainty import Calibration
from tests.networks.models import FEATURES, lively
from tests.viz.pages import Page

PHANTOM = ["--data", "phantom", "--size", "32", "32"]
OPTIONS = [*PHANTOM, "--every", "3", "--kinds", "affine", "--coverage", "0.8", "--draws", "2"]
QUICK = ["--estimates", "residual", "dissimilarity"]


@pytest.fixture(scope="module", autouse=True)
def _few_slices():
    """A phantom of which a patient has three slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SLICES", 3)
        yield


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model with its calibration beside it."""
    folder = tmp_path_factory.mktemp("run")
    lively(VxmDense((32, 32), FEATURES, int_steps=1), np.random.default_rng(0), 0.3).save(folder / "model.keras")
    own = ["--model", str(folder / "model.keras"), "--out", str(folder / "calibration.json")]
    assert calibrate.main([*OPTIONS, *QUICK, *own]) == 0
    return folder


@pytest.fixture
def model(run_folder):
    return str(run_folder / "model.keras")


@pytest.mark.graph  # hundreds of evaluations of one function
def test_writes_a_calibration_that_says_where_it_comes_from(run_folder, model, tmp_path, capsys):
    calibration = Calibration.load(run_folder / "calibration.json")
    about = calibration.about
    assert about["data"] == "phantom" and about["ndims"] == 2 and len(about["sha256"]) == 64
    assert calibration.bound.coverage == 0.8 and set(calibration.combination.weights) <= set(QUICK[1:])
    again = tmp_path / "again.json"
    assert calibrate.main([*OPTIONS, *QUICK, "--model", model, "--out", str(again)]) == 0
    assert Calibration.load(again) == calibration, "the same patients, transforms and division"
    said = capsys.readouterr().out
    assert "each patient by a calibration on the others" in said and f"wrote {again}" in said


def calibrated(model, out, *more):
    return calibrate.main([*OPTIONS, *QUICK, "--model", model, "--out", str(out), *more])


@pytest.mark.graph  # as above
def test_a_stopped_calibration_goes_on_and_ends_as_another(run_folder, model, tmp_path, monkeypatch, capsys):
    """What was measured is not measured again; what other options measured is not mixed with it."""
    out, calls, measure = tmp_path / "c.json", [], calibrate.evaluation.measure

    def until_the_disk_is_full(predictor, pair, *more):
        calls.append(pair.case_id)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", "x.npz")
        return measure(predictor, pair, *more)

    monkeypatch.setattr(calibrate.evaluation, "measure", until_the_disk_is_full)
    assert calibrated(model, out) == 2 and not out.exists()
    assert len([*(tmp_path / "c.json.cases").glob("*.npz")]) == 3
    said = capsys.readouterr().err
    assert "error: stopped after 3 of" in said and "No space left on device: 'x.npz'; they are kept, the same" in said
    assert calibrated(model, out, "--draws", "3") == 2
    assert "was begun with another draws" in capsys.readouterr().err
    assert calibrated(model, out) == 0
    assert len(set(calls)) == len(calls) - 1, "the fourth case alone was begun twice"
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    assert Calibration.load(out) == Calibration.load(run_folder / "calibration.json")


@pytest.mark.slow
def test_workers_calibrate_as_one_process_does(run_folder, model, tmp_path, capfd):
    pytest.importorskip("distributed")
    assert calibrated(model, tmp_path / "c.json", "--workers", "2") == 0, capfd.readouterr().err
    one, other = (
        Calibration.load(path / name) for path, name in ((tmp_path, "c.json"), (run_folder, "calibration.json"))
    )
    assert one == other


def test_dry_run_writes_nothing(model, tmp_path, capsys):
    assert calibrate.main([*OPTIONS, "--model", model, "--out", str(tmp_path / "c.json"), "--dry-run"]) == 0
    assert "would register" in capsys.readouterr().out and not [*tmp_path.iterdir()]


def test_too_few_patients_are_one_line_before_anything_is_measured(model, tmp_path, capsys):
    words = [*PHANTOM, "--coverage", "0.99", "--model", model, "--out", str(tmp_path / "c.json")]
    assert calibrate.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hetmorph calibrate: error: a coverage of 0.99 needs at least 100 patients")


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
def test_evaluate_judges_every_case_by_the_calibration_beside_the_model(run_folder, model, tmp_path, capsys):
    words = [*PHANTOM, "--model", model, "--out", str(tmp_path / "e"), "--report", "1"]
    assert evaluate.main(words) == 0
    assert f"verdicts by {run_folder / 'calibration.json'}" in capsys.readouterr().out
    with open(tmp_path / "e" / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["verdict"] for row in rows} <= {"accept", "review", "reject"} and len(rows) > 5
    assert all(float(row["registered_bound_mean"]) > 0 for row in rows)
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert sum(summary["verdicts"].values()) == len(rows)
    index = Page(tmp_path / "e" / "report" / "index.html")
    assert "without verdict0" in index.by_id("verdict")["text"]
    (page,) = (tmp_path / "e" / "report" / "cases").iterdir()
    shown = next(row for row in rows if row["case_id"] == page.stem)
    assert Page(page).all("strong")[0]["text"].lower() == shown["verdict"]


def test_none_takes_none_and_another_models_is_refused(run_folder, model, tmp_path, capsys):
    words = [*PHANTOM, "--model", model, "--out", str(tmp_path / "e"), "--dry-run"]
    assert evaluate.main([*words, "--report", "--calibration", "none"]) == 0
    assert "verdicts" not in capsys.readouterr().out
    other = shutil.copytree(run_folder, tmp_path / "other")
    lively(VxmDense((32, 32), FEATURES, int_steps=1), np.random.default_rng(1), 0.3).save(other / "model.keras")
    words[words.index(model)] = str(other / "model.keras")
    assert evaluate.main([*words, "--report"]) == 0
    assert "is not used: it is of another model" in capsys.readouterr().out
    assert evaluate.main([*words, "--calibration", str(run_folder / "calibration.json")]) == 2
    assert "of another model" in capsys.readouterr().err


def test_another_data_set_or_an_optimised_answer_is_not_judged_by_itself(model, tmp_path, capsys):
    words = ["--model", model, "--out", str(tmp_path / "e"), "--dry-run", "--report"]
    assert evaluate.main([*PHANTOM, *words, "--instance-optimise", "2"]) == 0
    assert "is not used: it is of the model alone" in capsys.readouterr().out


def test_register_judges_a_stack_slice_by_slice_and_tells_the_sidecar(hetmorph, stack, run_folder, model, tmp_path):
    images = ["--moving", stack / "m.nii.gz", "--fixed", stack / "f.nii.gz", "--model", model]
    calibration = run_folder / "calibration.json"
    said = hetmorph("register", *images, "--moved", tmp_path / "moved.nii.gz", "--calibration", calibration)
    told = json.loads((tmp_path / "moved.json").read_text())["verdict"]
    assert f"{told['flag']}: {told['reason']}" in said.output and told["flag"] in ("accept", "review", "reject")
    quiet = hetmorph("register", *images, "--moved", tmp_path / "again.nii.gz")
    assert "verdicts by" not in quiet.output and "No calibration was given" in quiet.output, (
        "without a page, nothing is registered for a verdict that nobody asked for"
    )


def test_uncertainty_is_the_expected_error_where_a_calibration_tells_it(hetmorph, stack, run_folder, model, tmp_path):
    images = ["--moving", stack / "m.nii.gz", "--fixed", stack / "f.nii.gz", "--model", model]
    said = hetmorph("uncertainty", *images, "--out", tmp_path / "e.nii.gz")
    assert "uncertainty: length of the error expected from " in said.output
    assert json.loads((tmp_path / "e.json").read_text())["estimate"] == "expected error"
    hetmorph("register", *images, "--uncertainty", tmp_path / "again.nii.gz")
    written = [nib.load(tmp_path / name).get_fdata() for name in ("e.nii.gz", "again.nii.gz")]
    np.testing.assert_array_equal(*written)
    assert written[0].max() <= max(Calibration.load(run_folder / "calibration.json").combination.errors) * 2
    said = hetmorph("uncertainty", *images, "--out", tmp_path / "q.nii.gz", "--method", "equivariance", "--draws", "2")
    assert "error expected" not in said.output
    assert json.loads((tmp_path / "q.json").read_text())["estimate"] == "equivariance"


def test_a_calibration_of_an_earlier_version_is_told_and_not_used(hetmorph, stack, run_folder, tmp_path):
    other = shutil.copytree(run_folder, tmp_path / "other")
    content = json.loads((other / "calibration.json").read_text())
    del content["combination"]["products"]
    (other / "calibration.json").write_text(json.dumps(content))
    images = ["--moving", stack / "m.nii.gz", "--fixed", stack / "f.nii.gz", "--model", other / "model.keras"]
    said = hetmorph("uncertainty", *images, "--out", tmp_path / "u.nii.gz", "--draws", "2")
    assert "calibration.json is of an earlier version" in said.output
    assert json.loads((tmp_path / "u.json").read_text())["estimate"] == "equivariance"


def test_report_has_the_verdict_of_the_calibration_beside_the_model(hetmorph, stack, model, tmp_path):
    images = ["--moving", stack / "m.nii.gz", "--fixed", stack / "f.nii.gz", "--model", model, "--draws", "2"]
    said = hetmorph("report", *images, "--out", tmp_path / "r.html")
    word = Page(tmp_path / "r.html").all("strong")[0]["text"]
    assert f"{word.lower()}: " in said.output
    hetmorph("report", *images, "--out", tmp_path / "none.html", "--calibration", "none")
    assert Page(tmp_path / "none.html").by_id("verdict")["text"].count("No calibration was given") == 1


def test_a_sequence_is_not_judged(hetmorph, stack, run_folder, model, tmp_path):
    words = ["--moving", stack / "m.nii.gz", "--reference", "ED", "--model", model, "--moved", tmp_path / "m.nii.gz"]
    said = hetmorph("register", *words, "--calibration", run_folder / "calibration.json", status=2)
    assert "is of pairs, not of a sequence" in said.output
