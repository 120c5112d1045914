"""The command as a whole: help, errors, start, doctor."""

import contextlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorflow.python.util import deprecation

from hetmorph.cli import messages
from hetmorph.cli.main import cli
from hetmorph.cli.messages import line_of
from hetmorph.cli.models import find_model
from tests.cli.conftest import arrays

ROOT = Path(__file__).resolve().parents[2]
SERVING = "tensorflow_serving"


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record.getMessage())


@pytest.mark.parametrize("verb", sorted(set(cli.commands) - {"train", "evaluate", "calibrate"}))
def test_help_of_every_verb(hetmorph, verb):
    said = " ".join(hetmorph(verb, "--help").output.lower().split())
    writes = verb != "models"
    for word in ("direction", "frame", "unit", "example", f"hetmorph {verb}", *(["--dry-run"] if writes else [])):
        assert word in said, f"{verb} --help says nothing of {word}"


@pytest.mark.parametrize("verb", ["train", "evaluate", "calibrate"])
def test_help_of_the_verbs_that_are_scripts(hetmorph, verb):
    said = " ".join(hetmorph(verb, "--help").output.split())
    for word in ("Direction", "grid of the fixed image", "voxels", "Examples", f"usage: hetmorph {verb}", "--dry-run"):
        assert word in said, f"{verb} --help says nothing of {word}"


@pytest.mark.slow
def test_train_and_evaluate(hetmorph, tmp_path, monkeypatch):
    """From anywhere, without a clone; a dry run reads the data and writes nothing."""
    monkeypatch.chdir(tmp_path)
    said = hetmorph("train", "--data", "phantom", "--steps", 3, "--out", "run", "--dry-run").output
    assert "would start" in said and "would write run" in said
    said = hetmorph("evaluate", "--data", "phantom", "--model", "undeformed", "--out", "scores", "--dry-run").output
    assert "would register" in said and not list(tmp_path.iterdir())
    hetmorph("evaluate", "--data", "phantom", "--size", 32, 32, "--model", "undeformed", "--out", "scores")
    assert (tmp_path / "scores" / "cases.csv").exists()
    result = hetmorph("train", "--data", "phantom", "--gamma", -1, "--out", "run", status=2)
    assert result.stderr.startswith("hetmorph train: error: ") and len(result.stderr.splitlines()) == 1


def run(words, start=("-m", "hetmorph.cli"), **options):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # as of a user who never heard of it
    command = [sys.executable, *start, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


# As the console script starts it, and by its module; both say in the end whether TensorFlow was imported.
SAY = "import atexit, sys; atexit.register(lambda: print('tensorflow' in sys.modules)); "
STARTS = {
    "script": SAY + "from hetmorph.cli.main import cli; sys.exit(cli())",
    "module": SAY + "import runpy; sys.argv[0] = '-m'; runpy.run_module('hetmorph.cli', run_name='__main__')",
}


ALIKE = [("--help",), ("nonsense",)]  # the module calls what the script calls
WORDS = [*ALIKE, ("register", "--help"), ("train", "--help"), ("evaluate", "--help"), ("apply",)]


@pytest.mark.quick("words0-script", "words2-script", "words7-module")
@pytest.mark.parametrize(("words", "start"), [*((w, "script") for w in WORDS), *((w, "module") for w in ALIKE)])
def test_help_and_mistakes_do_not_wait_for_tensorflow(words, start):
    done = run(words, ("-c", STARTS[start]))
    assert done.stdout.splitlines()[-1] == "False"
    assert done.returncode == (0 if words[-1].startswith("--") else 2)


@pytest.mark.slow
def test_the_command_of_its_own_process(volumes, models):
    """From a folder of its own; stderr holds the error alone."""
    done = run(
        (
            "register",
            "--moving",
            "m.nii.gz",
            "--fixed",
            "f.nii.gz",
            "--moved",
            "x/moved.nii.gz",
            "--model",
            models["vxm3d"],
            "--fail-on",
            "review",
        ),
        cwd=volumes,
    )
    assert done.returncode == 3, done.stderr  # a model of random weights
    (line,) = done.stderr.splitlines()
    assert line.startswith("hetmorph register: warning: re"), "review or reject, and not a word of TensorFlow"
    assert "wrote x/moved.nii.gz" in done.stdout and arrays(volumes / "x" / "moved.nii.gz")[0].any()
    done = run(("apply", "--transform", "no.nii.gz", "--moving", "m.nii.gz", "--moved", "y.nii.gz"), cwd=volumes)
    assert done.returncode == 2
    assert done.stderr == "hetmorph apply: error: --transform no.nii.gz: no such file\n"


@pytest.mark.parametrize(("level", "dropped"), [(None, True), ("3", True), ("0", False), ("1", False)])
def test_who_wants_to_read_the_notes_of_tensorflow_may(monkeypatch, level, dropped):
    called = []
    monkeypatch.setattr(messages, "_silent", lambda: called.append(True) or contextlib.nullcontext())
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    messages.import_tensorflow()
    assert bool(called) == dropped and os.environ["TF_CPP_MIN_LOG_LEVEL"] == (level or "3")


def test_the_script_is_installed():
    """setup.py names what exists."""
    module, name = re.search(r'"hetmorph=([\w.]+):(\w+)"', (ROOT / "setup.py").read_text()).groups()
    assert getattr(importlib.import_module(module), name) is cli


def test_a_bug_is_not_hidden(monkeypatch):
    from click.testing import CliRunner

    def broken():
        raise KeyError("a bug")

    monkeypatch.setattr(cli.commands["doctor"], "callback", lambda **_: broken())
    assert isinstance(CliRunner().invoke(cli, ["doctor"]).exception, KeyError)


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
def test_doctor(hetmorph, monkeypatch):
    said = hetmorph("doctor").output
    assert "tensorflow 2." in said and "ok a registration with a known answer" in said and "extra formats" in said
    assert "ok" not in hetmorph("doctor", "--dry-run").output.split()


def test_doctor_says_what_does_not_work(hetmorph, monkeypatch):
    import hetmorph.cli.doctor as doctor

    broken = {"TensorFlow": lambda: 1 / 0, "shipped model": doctor._CHECKS["shipped model"]}
    monkeypatch.setattr(doctor, "_CHECKS", broken)  # the others take minutes, and are those of the test above
    monkeypatch.setattr(doctor, "model_folders", lambda: [Path("nowhere")])
    monkeypatch.setattr(doctor, "SHIPPED", "gone")
    said = hetmorph("doctor", status=1).output
    assert "FAILED TensorFlow: ZeroDivisionError" in said and "-  shipped model: none in nowhere" in said


def test_doctor_says_what_warm_up_lacks(hetmorph, monkeypatch):
    import hetmorph.cli.doctor as doctor

    there = importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == SERVING else there(name))
    [line] = [line for line in hetmorph("doctor", "--dry-run").output.splitlines() if "extra serving" in line]
    assert "export --warmup" in line and f"missing {SERVING}: pip install --no-deps" in line and "[serving]" not in line


def test_models_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine" / "1").mkdir(parents=True)
    (tmp_path / "mine" / "1" / "saved_model.pb").touch()
    monkeypatch.setenv("HETMORPH_MODELS", str(tmp_path))
    assert find_model("mine") == str(tmp_path / "mine")
    assert find_model("demons") == "demons"
    assert Path(find_model("acdc_vxm_het")).is_dir()
    with pytest.raises(ValueError, match=f"no model 'other'.*{tmp_path}.*there are: .*mine"):
        find_model("other")


@pytest.mark.slow
def test_export(hetmorph, tmp_path, models):
    words = ("export", "--model", models["vxm3d"], "--out", tmp_path / "served")
    hetmorph(*words, "--dry-run")
    assert not (tmp_path / "served").exists()
    hetmorph(*words)
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
    assert "exists; versions are never overwritten" in hetmorph(*words, "--version", 1, status=2).stderr
    assert "no such file" in hetmorph("export", "--model", "no.keras", "--out", tmp_path, status=2).stderr
    assert "expected a size such as" in hetmorph(*words, "--warmup", "12,12", status=2).stderr
    said = hetmorph(*words, "--deploy").output
    assert (tmp_path / "served" / "2").is_dir() and "models.config" in said


def test_export_takes_the_name_or_folder_of_a_shipped_model(hetmorph, tmp_path):
    for name in ("acdc_vxm_ncc", ROOT / "saved_models" / "acdc_vxm_ncc"):
        words = ("export", "--model", name, "--out", tmp_path / "served", "--dry-run")
        assert hetmorph(*words).output == f"would write {tmp_path / 'served' / '<next version>'}\n"
    assert "no model 'demons'" in hetmorph("export", "--model", "demons", "--out", tmp_path, status=2).stderr


def test_export_to_onnx(hetmorph, tmp_path, models):
    words = ("export", "--model", models["het2d"], "--format", "onnx", "--out", tmp_path / "het.onnx")
    assert "would write" in hetmorph(*words, "--dry-run").output and not any(tmp_path.iterdir())
    assert "--warmup is of --format savedmodel" in hetmorph(*words, "--warmup", "16x16", status=2).stderr
    assert "expected a size of 2 axes" in hetmorph(*words, "--size", "8x8x8", status=2).stderr
    assert "ends in .onnx" in hetmorph(*words[:-1], tmp_path / "het", status=2).stderr
    of_savedmodel = ("export", "--model", models["het2d"], "--out", tmp_path / "served", "--size", "16x16")
    assert "--size is of --format onnx" in hetmorph(*of_savedmodel, status=2).stderr
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason='pip install ".[onnx]"')
    said = hetmorph(*words, "--size", "13x18").output
    assert "wrote" in said and "displacements in voxels: displacement" in said and "log_variance" in said


@pytest.mark.slow
def test_serve_check(hetmorph, tmp_path, models):
    hetmorph("export", "--model", models["het2d"], "--out", tmp_path / "served")
    assert "would check" in hetmorph("serve-check", tmp_path / "served", "--dry-run").output
    deprecation._PRINTED_WARNING.clear()  # TensorFlow says each thing once
    logging.getLogger("tensorflow").addHandler(heard := Heard())
    said = hetmorph("serve-check", tmp_path / "served", "--model", models["het2d"], "--size", "24x20").output
    logging.getLogger("tensorflow").removeHandler(heard)
    assert "ok   equals the local model" in said and "FAIL" not in said and not heard.records
    assert (
        "FAIL equals the local model"
        in hetmorph("serve-check", tmp_path / "served", "--model", "acdc_vxm_het", status=1).output
    )
    assert "no model" in hetmorph("serve-check", tmp_path / "gone", status=2).stderr


@pytest.mark.parametrize("verb", ["report", "uncertainty"])
def test_messages_call_the_result_what_the_verb_calls_it(hetmorph, volumes, verb):
    pair = ("--moving", volumes / "m.nii.gz", "--fixed", volumes / "f.nii.gz")
    said = hetmorph(verb, *pair, "--out", volumes / "page.txt", status=2).stderr
    assert f"hetmorph {verb}: error: --out {volumes / 'page.txt'}: expected a name that ends in" in said


def test_advice_on_memory_is_that_of_the_verb():
    assert "--spacing" in line_of(MemoryError()) and "--batch-size" in line_of(MemoryError(), "train")
    assert line_of(MemoryError(), "export") == "not enough memory"


def test_uncertainty(hetmorph, volumes, models):
    import numpy as np

    pair = ("--moving", volumes / "m.nii.gz", "--fixed", volumes / "f.nii.gz", "--model", models["vxm3d"], "--draws", 3)
    hetmorph("uncertainty", *pair, "--out", volumes / "u.nii.gz", "--dry-run")
    assert not (volumes / "u.nii.gz").exists()
    hetmorph("uncertainty", *pair, "--out", volumes / "u.nii.gz")
    hetmorph("register", *pair, "--uncertainty", volumes / "v.nii.gz")
    np.testing.assert_array_equal(*arrays(volumes / "u.nii.gz", volumes / "v.nii.gz"))


@pytest.mark.parametrize("chosen", [None, "0"])
def test_onednn_is_on_unless_somebody_chose(chosen):
    """TensorFlow alone leaves it off on processors without AVX-512."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {} if chosen is None else {"TF_ENABLE_ONEDNN_OPTS": chosen}
    code = "import hetmorph, os, sys; print('tensorflow' in sys.modules, os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    # a program called hetmorph imports no more than it needs
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['hetmorph']; {code}"], env=environment, capture_output=True
    )
    assert ran.stdout.decode().split() == ["False", chosen or "1"]


def test_the_names_in_helps_are_those_that_there_are():
    from hetmorph import data, evaluation, objectives, uncertainty
    from hetmorph.cli import options
    from hetmorph.instance import window_of

    assert tuple(data.datasets()) == options.DATASETS and options.CROPS == data.CROPS
    assert tuple(objectives.RECIPES) == options.OBJECTIVES and tuple(evaluation.PROGRAMS) == options.PROGRAMS
    assert options.CONVENTIONS == evaluation.CONVENTIONS and tuple(uncertainty.estimate_names()) == options.ESTIMATES
    assert [window_of([500] * ndims)[0] for ndims in (2, 3)] == [*options.WINDOWS]
