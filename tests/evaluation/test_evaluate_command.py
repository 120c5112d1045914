"""`python training/evaluate.py`, once from the outside and then its `main`."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hetmorph import data
from hetmorph.networks.het import HetVxmDense
from training import evaluate

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "training" / "evaluate.py"
FEATURES = [[4, 4], [4, 4]]


def command(*arguments, cwd=None):
    """Runs the script without PYTHONPATH, as a user with a clone would."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HETMORPH_DATA")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """As a training run leaves it: a model beside the division of its patients, one not drawn with seed 0."""
    folder = tmp_path_factory.mktemp("run")
    HetVxmDense((128, 128), FEATURES, variance_features=FEATURES).save(folder / "best.keras")
    patients = sorted({patient for part in data.load("phantom", split="test").splits.values() for patient in part})
    data.save_splits({"train": patients[2:], "val": patients[1:2], "test": patients[:1]}, folder / "splits.json")
    return folder


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    done = command("--data", "phantom", "--model", run_folder / "best.keras", "--out", out, cwd=out)
    assert done.returncode == 0, done.stderr
    return done, out


def test_writes_the_three_files_and_prints_the_table(result):
    done, out = result
    assert sorted(p.name for p in out.iterdir()) == ["cases.csv", "summary.json", "summary.png"]
    assert "| Dice MYO" in done.stdout and "undeformed" in done.stdout
    assert "evaluating: 100%" in done.stderr, "a progress bar"


def test_takes_the_patients_that_the_run_kept_apart_and_says_so(result, run_folder):
    done, out = result
    assert f"test split as in {run_folder / 'splits.json'}" in done.stdout
    kept = json.loads((run_folder / "splits.json").read_text())["test"]
    with open(out / "cases.csv", newline="") as file:
        assert {row["patient"] for row in csv.DictReader(file)} == set(kept)


def test_summary_and_rows_agree(result):
    _, out = result
    summary = json.loads((out / "summary.json").read_text())
    with open(out / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert summary["n_cases"] == len(rows) and summary["convention"] == "hetmorph"
    for block in ("undeformed", "registered"):
        column = [float(row[f"{block}_dice_myo"]) for row in rows if row[f"{block}_dice_myo"]]
        assert np.mean(column) == pytest.approx(summary[block]["dice_myo"])
    assert summary["registered"]["ause"] > 0 and summary["registered"]["epe"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "absent.keras"], "no model at absent.keras"),
        (["--model", "."], "is not a SavedModel"),
        (["--model", "RUN/best.keras", "--split-file", "absent.json"], "absent.json"),
        (["--model", "RUN/best.keras", "--split", "all", "--split-file", "x.json"], "no effect"),
        (["--model", "RUN/best.keras", "--data", "acdc"], "HETMORPH_DATA"),
    ],
)
def test_bad_input_is_one_clear_line(run_folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HETMORPH_DATA", raising=False)
    arguments = [a.replace("RUN", str(run_folder)) for a in arguments]
    assert evaluate.main(["--data", "phantom", "--out", "out", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.startswith("evaluate.py: error: ")
    assert not Path("out").exists()


def test_help_states_direction_frame_units_and_an_example(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for wanted in ("ED, moving", "ES, fixed", "grid of the fixed image", "voxels", "millimetres", "python training/"):
        assert wanted in text


def test_a_bad_file_is_skipped_and_reported_on_request(acdc_dir, run_folder, tmp_path, capsys):
    for patient in sorted(acdc_dir.glob("training/patient*"))[:3]:
        shutil.copytree(patient, tmp_path / "training" / patient.name)
    bad = patient.name
    for file in (tmp_path / "training" / bad).glob("*.nii.gz"):
        file.write_bytes(file.read_bytes()[:200])
    flags = ["--data", "acdc", "--data-dir", str(tmp_path), "--model", str(run_folder / "best.keras")]
    flags += ["--split", "all", "--out", str(tmp_path / "out")]
    assert evaluate.main(flags) == 2
    assert bad in capsys.readouterr().err
    assert evaluate.main([*flags, "--skip-bad", "--convention", "official"]) == 0
    assert "1 patients skipped" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["convention"] == "official" and summary["skipped"][0]["patient"] == bad
    assert summary["n_cases"] > 10 and 0.3 < summary["undeformed"]["dice_myo"] < 0.8
