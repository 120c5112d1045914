"""`python training/evaluate.py`, once from the outside and then its `main`."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hetmorph import config, data, evaluation, uncertainty
from hetmorph.cli import evaluate
from hetmorph.data import phantom, triangles
from hetmorph.networks.het import HetVxmDense
from tests.viz.pages import Page

pytestmark = pytest.mark.usefixtures("eager")
REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "training" / "evaluate.py"
FEATURES = [[4], [4]]
PHANTOM = ["--data", "phantom", "--size", "32", "32"]


def command(*arguments, cwd=None):
    """Runs the script without PYTHONPATH, as a user with a clone would."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HETMORPH_DATA", "TF_CPP_MIN_LOG_LEVEL")
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment
    )


SLICES = phantom.SLICES


@pytest.fixture(scope="module", autouse=True)
def _few_slices():
    """A phantom of which a patient has three slices in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SLICES", 3)
        yield


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """As a training run leaves it: a model beside the division of its patients, one not drawn with seed 0."""
    folder = tmp_path_factory.mktemp("run")
    HetVxmDense((32, 32), FEATURES, variance_features=FEATURES, int_steps=1).save(folder / "best.keras")
    patients = sorted({patient for part in data.load("phantom", split="test").splits.values() for patient in part})
    data.save_splits({"train": patients[2:], "val": patients[1:2], "test": patients[:1]}, folder / "splits.json")
    return folder


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    """What `main` printed, and where it wrote."""
    out, printed = tmp_path_factory.mktemp("out"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert evaluate.main([*PHANTOM, "--model", str(run_folder / "best.keras"), "--out", str(out)]) == 0
    return printed.getvalue(), out


FILES = ["calibration.png", "cases.csv", "curves.csv", "sparsification.png", "summary.json", "summary.png"]


def test_writes_its_files_and_prints_the_table(result):
    printed, out = result
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert "| Dice MYO" in printed and "undeformed" in printed


@pytest.mark.slow
def test_from_the_outside_it_shows_progress_and_nothing_of_tensorflow(run_folder, tmp_path):
    done = command(*PHANTOM, "--model", run_folder / "best.keras", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
    assert "| Dice MYO" in done.stdout and "undeformed" in done.stdout
    assert "evaluating: 100%" in done.stderr, "a progress bar"
    others = [line for line in re.split(r"[\r\n]+", done.stderr) if line and not line.startswith("evaluating:")]
    assert not others, "none of TensorFlow's notes"


@pytest.mark.slow
@pytest.mark.graph  # one serves many evaluations of the loss
def test_each_pair_can_be_optimised_further(run_folder, tmp_path):
    common = [*PHANTOM, "--model", str(run_folder / "best.keras")]
    further = ["--instance-optimise", "3"]
    runs = {
        "plain": [],
        "mse": [*further, "--instance-window", "0"],
        "ncc": [*further, "--instance-window", "9", "--instance-lambda", "0.3"],
    }
    results = {}
    for name, flags in runs.items():
        assert evaluate.main([*common, *flags, "--out", str(tmp_path / name)]) == 0
        results[name] = json.loads((tmp_path / name / "summary.json").read_text())["registered"]["mse"]
    assert results["mse"] < results["ncc"] < results["plain"]


@pytest.mark.slow
def test_a_shipped_model_goes_by_name_and_brings_the_patients_it_has_not_seen(tmp_path, acdc_dir, capsys):
    common = ["--data", "acdc", "--data-dir", str(acdc_dir), "--out", str(tmp_path), "--dry-run"]
    evaluate.main([*common, "--model", "acdc_vxm_het"])
    assert str(REPOSITORY / "saved_models" / "acdc_vxm_het" / "splits.json") in capsys.readouterr().out


@pytest.mark.slow
def test_writes_the_report_of_the_worst_cases_with_a_verdict(run_folder, tmp_path, capsys):
    bound, triage = uncertainty.Bound(1.0, 0.9, 9), uncertainty.Triage(0.0, 1e-9, 1.0)
    about = {"draws": 2, "seed": 3}
    calibration = uncertainty.Calibration(uncertainty.Combination({"noise": 1.0}), bound, triage, about)
    calibration.save(tmp_path / "calibration.json")
    out, own = tmp_path / "out", ["--model", str(run_folder / "best.keras"), *PHANTOM]
    report = ["--report", "2", "--calibration", str(tmp_path / "calibration.json")]
    assert evaluate.main([*own, "--out", str(out), *report]) == 0
    assert "report/index.html" in capsys.readouterr().out
    index = (out / "report" / "index.html").read_text()
    pages = sorted((out / "report" / "cases").iterdir())
    assert len(pages) == 2 and all(f'href="./cases/{page.name}"' in index for page in pages)
    for page in pages:
        text = page.read_text()
        assert "<strong>Reject</strong>" in text and "Map: noise" in text and "2 registrations" in text


def test_takes_the_patients_that_the_run_kept_apart_and_says_so(result, run_folder):
    printed, out = result
    assert f"test split as in {run_folder / 'splits.json'}" in printed
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
    assert summary["calibration"]["foreground"]["voxels"] > 0
    with open(out / "curves.csv", newline="") as file:
        curve = [row for row in csv.DictReader(file) if row["error"] == "residual"]
    assert np.mean([float(row["registered_mse"]) for row in rows]) == pytest.approx(float(curve[0]["remaining"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "absent.keras"], "no model 'absent.keras'"),
        (["--model", "."], "is not a SavedModel"),
        (["--model", "RUN/best.keras", "--split-file", "absent.json"], "absent.json"),
        (["--model", "RUN/best.keras", "--split", "all", "--split-file", "x.json"], "no effect"),
        (["--model", "RUN/best.keras", "--data", "acdc"], "HETMORPH_DATA"),
        (["--model", "RUN/best.keras", "--threads", "2"], "classical programs"),
        (["--model", "demons", "--data", "brains"], "'brains'"),
        (["--model", "RUN/best.keras", "--instance-window", "9"], "no effect without --instance-optimise"),
        (["--model", "RUN/best.keras", "--instance-lambda", "0.1"], "no effect without --instance-optimise"),
        (["--model", "RUN/best.keras", "--calibration", "x.json", "--report"], "x.json"),
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
    assert all(program in text.replace(" ", "") for program in evaluation.PROGRAMS), "wrapped at hyphens"


@pytest.mark.slow
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


@pytest.fixture
def small_run(run_folder, tmp_path):
    """A run on images of 32 x 32 voxels, its model in saved_model/1 as well as at its top."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    config.save(config.TrainConfig(data=config.DataConfig(name="phantom", size=(32, 32))), folder / "config.yaml")
    return folder


@pytest.mark.slow
def test_what_the_command_line_leaves_open_comes_from_the_run_and_is_told(small_run, tmp_path, capsys):
    flags = ["--data", "phantom", "--model", str(small_run / "best.keras"), "--out", str(tmp_path / "out")]
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    assert f"as in {small_run / 'config.yaml'}: " in printed and "size [32, 32]" in printed
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["size"] == [32, 32]
    options = evaluate.data_options(evaluate.arguments([*flags, "--size", "48", "32"]))
    assert options["size"] == [48, 32] and "size [" not in capsys.readouterr().out


def test_a_run_on_another_set_says_nothing_about_this_one(small_run, capsys):
    args = evaluate.arguments(["--data", "acdc", "--model", str(small_run / "saved_model" / "1"), "--out", "o"])
    assert evaluate.data_options(args) == {}
    assert "is of phantom, not of acdc: nothing taken" in capsys.readouterr().out


def division_used(folder, name):
    flags = ["--data", str(name), "--model", str(folder / "best.keras"), "--out", "o"]
    return evaluate.split_file(evaluate.arguments(flags))


def test_a_division_of_another_set_is_not_used(run_folder, tmp_path, capsys):
    splits = data.load_splits(run_folder / "splits.json")
    stored = data.save_splits(splits, tmp_path / "splits.json", "acdc")
    assert division_used(tmp_path, "phantom") is None
    assert f"{stored} is of acdc, not of phantom: not used" in capsys.readouterr().out
    assert division_used(tmp_path, "acdc") == stored
    assert division_used(REPOSITORY / "saved_models" / "acdc_vxm_het", "camus") is None


def test_every_patient_includes_those_trained_on(run_folder, tmp_path, capsys):
    splits = data.load_splits(run_folder / "splits.json")
    flags = ["--data", "phantom", "--model", str(run_folder / "best.keras"), "--out", str(tmp_path), "--dry-run"]
    assert evaluate.main([*flags, "--split", "test"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert evaluate.main([*flags, "--split", "all"]) == 0
    known, every = len(splits["train"] + splits["val"]), sum(map(len, splits.values()))
    assert f"trained or validated on {known} of the {every} patients" in capsys.readouterr().err


def test_a_division_without_name_is_of_the_set_of_the_run(small_run, run_folder):
    assert division_used(small_run, "camus") is None
    assert division_used(small_run, "phantom") == small_run / "splits.json"
    assert division_used(run_folder, "camus") == run_folder / "splits.json", "nothing says of which set it is"


@pytest.fixture
def joint_run(small_run, monkeypatch):
    """A run on two sets, with another division than the drawn one."""
    monkeypatch.setattr(triangles, "SHAPES", 6)
    name, size = "phantom+triangles", (32, 32)
    settings = config.DataConfig(name=name, size=size, rounds=2, noise=0.05)
    config.save(config.TrainConfig(data=settings), small_run / "config.yaml")
    splits = data.load_splits(small_run / "splits.json")
    both = {part: [f"phantom/{who}" for who in splits[part]] for part in splits}
    for number, part in enumerate(("train", "val", "test")):
        both[part] += [f"triangles/shape{place:04d}" for place in (2 * number, 2 * number + 1)]
    data.save_splits(both, small_run / "splits.json", name)
    return small_run


def test_one_of_the_sets_of_a_run_is_loaded_as_in_it(joint_run, capsys):
    flags = ["--data", "phantom", "--model", str(joint_run / "best.keras"), "--out", "o"]
    args = evaluate.arguments(flags)
    assert evaluate.data_options(args) == {"size": [32, 32], "noise": 0.05, "known_warp": 0.0, "rounds": 1}
    own = data.load_splits(joint_run / "splits.json", "phantom")
    assert len(own["test"]) == 1 and own["test"][0].startswith("p")
    loaded = data.load("phantom", split="test", size=(32, 32), splits=evaluate.split_file(args))
    assert {pair.patient for pair in loaded.pairs} == {*own["test"]}
    assert evaluate.main([*flags, "--split", "all", "--dry-run"]) == 0
    assert f"on {len(own['train'] + own['val'])} of the" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "noise"),
    [
        ((), {"noise": 0.5, "noise_kind": "void", "noise_in": "fixed"}),
        (("--noise", "0.25"), {"noise": 0.25, "noise_kind": "void", "noise_in": "fixed"}),
        (("--noise-kind", "band"), {"noise": 0.5, "noise_kind": "band", "noise_in": "fixed"}),
        (("--noise-kind", "rician"), {"noise": 0.5, "noise_kind": "rician"}),
        (("--noise", "0"), {"noise": 0.0}),
    ],
)
def test_noise_is_that_of_the_run_as_far_as_it_goes_with_what_is_asked_for(small_run, flags, noise):
    settings = config.DataConfig(name="phantom", noise=0.5, noise_kind="void", noise_in="fixed")
    config.save(config.TrainConfig(data=settings), small_run / "config.yaml")
    args = ["--data", "phantom", "--model", str(small_run / "best.keras"), "--out", "o", *flags]
    assert evaluate.noise_of(evaluate.data_options(evaluate.arguments(args))) == noise
    with pytest.raises(ValueError, match="--noise-kind has no effect without --noise"):
        evaluate.noise_of({"noise_kind": "void", "noise": 0.0})


@pytest.mark.slow
def test_several_sets_are_scored_each_in_a_folder_of_its_own(joint_run, tmp_path, capsys):
    out = tmp_path / "out"
    flags = [
        "--data",
        "phantom+triangles",
        "--model",
        str(joint_run / "best.keras"),
        "--out",
        str(out),
        "--rounds",
        "1",
    ]
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    for name, main in (("phantom", "myo"), ("triangles", "shape")):
        summary = json.loads((out / name / "summary.json").read_text())
        assert (summary["data"], summary["main"]) == (name, main)
        patients = data.load_splits(joint_run / "splits.json", name)["test"]
        assert {*summary["per_patient"]["patients"]} == {*patients}
        assert f"in {out / name}" in printed


@pytest.mark.parametrize("name", ["pairs.csv", "./pairs.csv", "x/../pairs.csv", "ABSOLUTE"])
def test_a_table_is_one_however_its_path_is_spelt(small_run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    name = name.replace("ABSOLUTE", str(tmp_path / "pairs.csv"))
    config.save(config.TrainConfig(data=config.DataConfig(name="pairs.csv", noise=0.1)), small_run / "config.yaml")
    data.save_splits(data.load_splits(small_run / "splits.json"), small_run / "splits.json", "pairs.csv")
    flags = ["--data", name, "--model", str(small_run / "best.keras"), "--out", "o"]
    assert evaluate.data_options(evaluate.arguments(flags))["noise"] == 0.1
    assert division_used(small_run, name) == small_run / "splits.json"
    assert division_used(small_run, "other/pairs.csv") is None


def test_the_full_field_of_view_takes_no_size_from_the_run(small_run):
    flags = ["--data", "phantom", "--model", str(small_run / "best.keras"), "--out", "o", "--crop", "none"]
    assert evaluate.data_options(evaluate.arguments(flags)).get("size") is None
    assert evaluate.data_options(evaluate.arguments([*flags, "--size", "8", "8"]))["size"] == [8, 8]


def test_a_training_run_is_not_written_over(small_run, capsys):
    flags = ["--data", "phantom", "--model", str(small_run / "best.keras"), "--out", str(small_run)]
    assert evaluate.main(flags) == 2
    assert "holds a training run" in capsys.readouterr().err and not (small_run / "cases.csv").exists()


def test_a_broken_configuration_is_named(small_run, tmp_path, capsys):
    (small_run / "config.yaml").write_text("data: {colour: red}\n")
    flags = ["--data", "phantom", "--model", str(small_run / "best.keras"), "--out", str(tmp_path / "out")]
    assert evaluate.main(flags) == 2
    assert "config.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_a_program_needs_no_model_and_the_undeformed_row_repeats_itself(tmp_path, capsys):
    """Without a model there is no calibration: its verdicts are those of the plain checks, on all pages."""
    of_another = [tmp_path / name for name in ("curves.csv", "sparsification.png", "calibration.png", "notes.txt")]
    for path in of_another:
        path.write_text("old")
    assert evaluate.main([*PHANTOM, "--model", "undeformed", "--out", str(tmp_path), "--report", "1"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert sum(summary["verdicts"].values()) == summary["n_cases"] and "bound_mean" not in summary["registered"]
    index, worst = Page(tmp_path / "report" / "index.html"), next((tmp_path / "report" / "cases").iterdir())
    assert "without verdict0" in index.by_id("verdict")["text"] and "plain checks" in index.by_id("verdict")["text"]
    shown = index.table(index.all("tbody", within=index.all("table", "sortable")[0])[0])[0][4]["text"]
    assert Page(worst).by_id("verdict")["text"].startswith(shown), "the page of the case says the same"
    for name, score in summary["undeformed"].items():
        assert summary["registered"][name] == score
    files = ["cases.csv", "notes.txt", "report", "summary.json", "summary.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    assert f"wrote cases.csv, summary.json, summary.png, report/index.html in {tmp_path}\n" in capsys.readouterr().out


def test_pairs_that_a_program_cannot_register_are_counted(tmp_path, monkeypatch, capsys):
    class Failing(evaluation.Predictor):
        compiles = False

        def __call__(self, moving, fixed):
            raise evaluation.RegistrationFailed("no luck")

    monkeypatch.setattr(evaluation, "load", lambda *_: Failing(None))
    assert evaluate.main([*PHANTOM, "--split", "val", "--model", "demons", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n_failed"] == summary["n_cases"] == 9 and summary["undeformed"]["dice_myo"] > 0.3
    assert summary["registered"]["dice_myo"] is None
    assert "9 × registration failed: no luck" in capsys.readouterr().out


def stopping_after(count):
    """`evaluation.load` of a model that the user stops after some calls."""
    calls = []

    def load(path, *_):
        predictor = evaluation.wrap(HetVxmDense((32, 32), FEATURES, variance_features=FEATURES, int_steps=1))

        def predict(moving, fixed):
            calls.append(1)
            if len(calls) > count:
                raise KeyboardInterrupt
            return predictor(moving, fixed)

        return predict

    return load


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_and_ends_as_if_it_had_not_been(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(phantom, "SLICES", SLICES)
    load = evaluation.load
    model = str(small_run / "best.keras")
    flags = ["--data", "phantom", "--model", model, "--out"]
    assert evaluate.main([*flags, str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(evaluation, "load", stopping_after(4))
    stopped = [*flags, str(tmp_path / "stopped")]
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(stopped)
    monkeypatch.setattr(evaluation, "load", load)
    assert [p.name for p in (tmp_path / "stopped").iterdir()] == ["cases.partial.jsonl"]
    assert evaluate.main(stopped) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert evaluate.main([*stopped, "--resume", "--convention", "official"]) == 2
    assert "another convention" in capsys.readouterr().err
    assert evaluate.main([*stopped, "--resume"]) == 0
    assert "3 of 8 cases are done" in capsys.readouterr().out, "the first of four calls is to warm up"
    whole, stopped = (evaluation.read_cases(tmp_path / name) for name in ("whole", "stopped"))
    assert [row["case_id"] for row in whole] == [row["case_id"] for row in stopped]
    for name in ("registered_dice_myo", "registered_coverage1"):
        kept = [row[name] for row in whole[3:]], [row[name] for row in stopped[3:]]
        assert kept[0] == kept[1]
    assert {row["pairs"] for row in evaluation.read_cases(tmp_path / "stopped" / "curves.csv")} == {"8"}
    assert sorted(p.name for p in (tmp_path / "stopped").iterdir()) == FILES


@pytest.mark.slow
def test_parts_and_workers_end_as_one_process_does(run_folder, tmp_path):
    pytest.importorskip("distributed")
    whole, flags = tmp_path / "whole", [*PHANTOM, "--model", run_folder / "best.keras", "--out"]
    assert command(*flags, whole, cwd=tmp_path).returncode == 0
    for part in ("1/2", "2/2"):
        done = command(*flags, tmp_path / "parts", "--shard", part, "--resume", cwd=tmp_path)
        assert done.returncode == 0 and f"cases-{part[0]}-of-2.partial.jsonl" in done.stdout, done.stderr
    assert "is of a stopped evaluation" in command(*flags, tmp_path / "parts", cwd=tmp_path).stderr
    for out, words in (("parts", ["--resume"]), ("workers", ["--workers", "2"])):
        done = command(*flags, tmp_path / out, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("8 of 8 cases are done" in done.stdout) == (out == "parts")
        assert sorted(p.name for p in (tmp_path / out).iterdir()) == FILES
        assert (tmp_path / out / "curves.csv").read_bytes() == (whole / "curves.csv").read_bytes()
        tables = [evaluation.read_cases(folder) for folder in (whole, tmp_path / out)]
        for row in (row for table in tables for row in table):
            del row["registered_seconds_per_pair"]
        assert str(tables[0]) == str(tables[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "expected 1 or more, received 0"),
        (["--shard", "3/2"], "expected I/N with I from 1 to N"),
    ],
)
def test_workers_and_parts_that_cannot_be(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate.main([*PHANTOM, "--model", "demons", "--out", str(tmp_path / "out"), *words])
    assert message in capsys.readouterr().err
