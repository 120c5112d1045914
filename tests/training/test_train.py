import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import data
from hetmorph.cli import train
from hetmorph.data import phantom, triangles
from hetmorph.networks import build
from tests.graphs import eagerly

pytestmark = pytest.mark.usefixtures("eager")  # the README's training and that of the slow test run as graphs
ROOT = Path(__file__).resolve().parents[2]
TINY = """
data: {name: phantom, size: [32, 32]}
network: {features: [[4], [4, 4]], int_steps: 1}
schedule: {steps: 5, steps_per_epoch: 2, batch_size: 2}
objective: {warm_start: 1}
"""


@pytest.fixture(scope="module", autouse=True)
def _few_slices():
    """A phantom of which a validation takes no longer than an update."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SLICES", 2)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    with eagerly():
        assert train.main(["--config", str(tiny), "--out", str(out)]) == 0
    return out


def again(out, *flags):
    """Go on with a run up to its scores and export, which `finished` has."""
    train.train(settings(*flags), out, resume=True)


def weights(folder):
    (path,) = (p for p in (folder / "checkpoints").glob("*.keras") if p.stem.isdigit())
    return keras.saving.load_model(path).get_weights()


@pytest.mark.filterwarnings("ignore")
def test_one_command_leaves_everything(finished):
    for name in ("config.yaml", "splits.json", "log.csv", "model.keras", "cases.csv", "summary.json"):
        assert (finished / name).stat().st_size > 0, name
    assert (finished / "report.png").stat().st_size > 10_000
    assert list((finished / "tensorboard").rglob("events.*"))
    assert json.loads((finished / "splits.json").read_text())["data"] == "phantom"
    summary = json.loads((finished / "summary.json").read_text())
    assert {"undeformed", "registered", "n_cases", "n_failed"} <= set(summary)
    served = tf.saved_model.load(str(finished / "saved_model" / "1"))
    assert {"serving_default", "register", "variance", "warp"} <= set(served.signatures)
    rows = (finished / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 and {"val_dice", "variance_loss", "folds_percent"} <= set(rows[0].split(","))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_keep_says_which_weights_are_scored_and_exported(tiny, finished, tmp_path):
    def kept(folder):
        return keras.saving.load_model(folder / "model.keras").get_weights()

    for a, b in zip(kept(finished), weights(finished), strict=True):
        np.testing.assert_array_equal(a, b)
    best = tmp_path / "best"
    shutil.copytree(finished, best, ignore=shutil.ignore_patterns("saved_model"))
    path = best / "config.yaml"
    path.write_text(path.read_text().replace("keep: last", "keep: best"))
    other = keras.saving.load_model(best / "best.keras")
    other.set_weights([w + 0.01 for w in other.get_weights()])
    other.save(best / "best.keras")
    again(best, "--config", str(path))
    for a, b in zip(kept(best), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore")
def test_a_stopped_run_resumes_exactly(tiny, finished, tmp_path, monkeypatch):
    out = tmp_path / "stopped"

    class Stop(train.callbacks.Checkpoint):
        def on_train_batch_begin(self, batch, logs=None):
            if len(list(self.folder.glob("*.keras"))) and self.model.optimizer.iterations > 1 and batch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.callbacks, "Checkpoint", Stop)
        with pytest.raises(KeyboardInterrupt):
            train.main(["--config", str(tiny), "--out", str(out)])
    assert not (out / "summary.json").exists()
    again(out, "--config", str(tiny))
    for a, b in zip(weights(out), weights(finished), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    logs = [np.genfromtxt(folder / "log.csv", delimiter=",", names=True) for folder in (out, finished)]
    for name in logs[0].dtype.names:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_several_sets_are_validated_and_scored_each_by_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(triangles, "SHAPES", 14)
    out = tmp_path / "joined"
    plain = tmp_path / "plain.yaml"
    plain.write_text(TINY.replace("warm_start: 1", "name: mse").replace("steps: 5", "steps: 2"))
    flags = ("--config", str(plain), "--data", "phantom+triangles", "--keep", "best", "--out", str(out))
    assert train.main([*flags, "--dry-run"]) == 0
    assert re.search(r"mse on \d+ pairs \(phantom \d+, triangles \d+\)", capsys.readouterr().out)
    assert train.main([*flags]) == 0
    assert "in phantom, triangles: summary.json" in capsys.readouterr().out
    (row,) = np.atleast_1d(np.genfromtxt(out / "log.csv", delimiter=",", names=True))
    np.testing.assert_allclose(row["val_dice"], (row["val_dice_phantom"] + row["val_dice_triangles"]) / 2, rtol=1e-6)
    for name, main in (("phantom", "myo"), ("triangles", "shape")):
        summary = json.loads((out / name / "summary.json").read_text())
        assert summary["data"] == name and summary["main"] == main
        alone = data.load(name, split="test", size=(32, 32))
        assert summary["n_cases"] == len(alone.pairs)
    assert (out / "best.keras").exists() and not (out / "summary.json").exists()


def test_best_weights_of_several_sets_need_labels_of_each():
    labelled = data.LoadedSet([], [], {}, labels={"x": 1}, main="x")
    loaded = data.LoadedSet([], [], {}, labels={"a/x": 1}, parts={"a": labelled, "b": data.LoadedSet([], [], {})})
    with pytest.raises(ValueError, match="--keep best needs labels.*; the set b has none"):
        train._check_labelled(loaded)


@pytest.mark.slow
def test_a_killed_run_resumes_exactly(tiny, tmp_path):
    command = [sys.executable, str(ROOT / "training" / "train.py"), "--config", str(tiny), "--steps", "40"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    for _ in range(3):
        process = subprocess.Popen([*command, "--out", str(killed), "--resume"], stdout=subprocess.DEVNULL)
        deadline, before = time.time() + 120, set((killed / "checkpoints").glob("0*.keras"))
        while process.poll() is None and set((killed / "checkpoints").glob("0*.keras")) == before:
            assert time.time() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--out", str(killed), "--resume"], check=True, capture_output=True)
    for a, b in zip(weights(whole), weights(killed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def settings(*flags):
    return train.configuration(train.parser().parse_args(flags))


EFFECTS = [
    (["--data", "acdc"], "data.name", "acdc"),
    (["--data-dir", "x"], "data.dir", "x"),
    (["--crop", "center"], "data.crop", "center"),
    (["--objective", "mse"], "objective.name", "mse"),
    (["--arch", "vxm"], "network.arch", "vxm"),
    (["--arch", "gradicon", "--width", "0.5"], "network.width", 0.5),
    (["--arch", "unigradicon", "--objective", "gradicon", "--stage", "1"], "network.stage", 1),
    (["--repeats", "3"], "network.repeats", 3),
    (["--resolution", "2"], "network.resolution", 2),
    (["--objective", "icon", "--similarity", "mind"], "objective.similarity", "mind"),
    (["--objective", "gradicon", "--sigma", "3"], "objective.sigma", 3.0),
    (["--objective", "gradicon", "--delta", "0.01"], "objective.delta", 0.01),
    (["--objective", "nephi", "--points", "99"], "objective.points", 99),
    (["--objective", "nephi", "--points-regular", "9"], "objective.points_regular", 9),
    (["--objective", "nephi", "--code-weight", "0.1"], "objective.code_weight", 0.1),
    (["--lambda", "0.5"], "objective.smoothness", 0.5),
    (["--gamma", "0.25"], "objective.gamma", 0.25),
    (["--beta", "0"], "objective.beta", 0.0),
    (["--snr", "official"], "objective.snr", "official"),
    (["--relative", "official"], "objective.relative", "official"),
    (["--warm-start", "2"], "objective.warm_start", 2),
    (["--lr", "0.1"], "optimizer.learning_rate", 0.1),
    (["--lr-decay", "none"], "optimizer.decay", "none"),
    (["--batch-size", "3"], "schedule.batch_size", 3),
    (["--steps", "11"], "schedule.steps", 11),
    (["--steps-per-epoch", "7"], "schedule.steps_per_epoch", 7),
    (["--epochs", "2"], "schedule.steps", 200),
    (["--keep", "best"], "schedule.keep", "best"),
    (["--bidir"], "network.bidir", True),
    (["--no-augment"], "data.augment", False),
    (["--augment-affine", "0.05"], "data.augment_affine", 0.05),
    (["--precision", "bfloat16"], "network.precision", "bfloat16"),
    (["--noise", "0.1"], "data.noise", 0.1),
    (["--noise", "0.5", "--noise-kind", "void"], "data.noise_kind", "void"),
    (["--noise", "0.5", "--noise-kind", "void", "--noise-in", "fixed"], "data.noise_in", "fixed"),
    (["--known-warp", "4"], "data.known_warp", 4.0),
    (["--rounds", "2"], "data.rounds", 2),
    (["--patients", "7"], "data.patients", 7),
    (["--memory", "0.5"], "data.memory", 0.5),
    (["--size", "64", "48"], "data.size", (64, 48)),
    (["--affine", "rigid"], "data.affine", "rigid"),
    (["--landmark-weight", "0.1"], "objective.landmark_weight", 0.1),
    (["--dice-weight", "0.1"], "objective.dice_weight", 0.1),
    (["--objective", "mse", "--minutes", "3"], "schedule.minutes", 3.0),
    (["--objective", "mse", "--minutes", "3", "--steps", "40"], "schedule.steps", 40),
    (["--init", "acdc_vxm_het"], "network.init", "acdc_vxm_het"),
    (["--int-steps", "3"], "network.int_steps", 3),
    (["--objective", "ncc", "--window", "5"], "objective.window", 5),
    (["--objective", "mi", "--bins", "8"], "objective.bins", 8),
    (["--objective", "vxm-diff", "--prior-lambda", "3"], "objective.prior_lambda", 3.0),
    (["--objective", "het-z", "--alpha", "0.1"], "objective.alpha", 0.1),
    (["--foreground"], "objective.foreground", True),
    (["--passes", "2"], "network.passes", 2),
    (["--pre-registered", "0.5"], "schedule.pre_registered", 0.5),
    (["--slabs", "2"], "network.slabs", 2),
    (["--variance-resolution", "4"], "objective.variance_resolution", 4),
    (["--residual-smoothing", "1.5"], "objective.residual_smoothing", 1.5),
    (["--variance-pass", "recompute"], "objective.variance_pass", "recompute"),
    (["--skip-bad"], "data.skip_bad", True),
    (["--seed", "5"], "seed", 5),
]


@pytest.mark.parametrize("flags,place,value", EFFECTS)
def test_flags_reach_the_configuration(flags, place, value):
    result = settings(*flags)
    for part in place.split("."):
        result = getattr(result, part)
    assert result == value


@pytest.mark.parametrize(
    ("flags", "crop"),
    [
        (["--data", "pairs.csv"], "resize"),
        (["--data", "pairs.csv", "--crop", "middle"], "middle"),
        (["--data", "acdc"], None),
    ],
)
def test_a_model_that_resizes_images_learns_from_resized_ones(flags, crop):
    assert settings(*flags, "--arch", "unigradicon", "--objective", "gradicon").data.crop == crop


def test_every_flag_is_among_those():
    plumbing = {"--help", "--config", "--out", "--resume", "--dry-run", "--devices", "--slurm", "--wait"}
    plumbing |= {"--no-jit-compile"}
    flags = {o for action in train.parser()._actions for o in action.option_strings if o.startswith("--")}
    assert flags - plumbing == {flag for flags, *_ in EFFECTS for flag in flags if flag.startswith("--")}


@pytest.mark.parametrize("precision,tf32", [("exact", False), ("float32", True)])
def test_exact_is_without_tf32(tiny, tmp_path, monkeypatch, precision, tf32):
    said = []

    def stop(*arguments):
        said.extend({weight.dtype for weight in build.build(*arguments).weights})
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.config.experimental, "enable_tensor_float_32_execution", said.append)
    monkeypatch.setattr(train, "build", stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(["--config", str(tiny), "--out", str(tmp_path / "run"), "--precision", precision])
    assert said == [tf32, "float32"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_training_starts_from_another_model(finished, tmp_path, capsys):
    plain = tmp_path / "plain.yaml"
    plain.write_text(TINY.replace("warm_start: 1", "name: mse"))

    def first(*flags):
        return train.main(["--config", str(plain), "--steps", "1", *flags])

    saved, out = finished / "model.keras", tmp_path / "out"
    assert first("--init", str(saved), "--out", str(out), "--dry-run") == 0
    assert f"would start from {saved}" in capsys.readouterr().out
    start = ("--config", str(plain), "--steps", "1", "--init", str(saved), "--lr", "1e-30")
    train.train(settings(*start), out, resume=False)
    assert f"starts from the weights of {saved}\n" in capsys.readouterr().out
    there = {v.path: v.numpy() for v in keras.saving.load_model(saved).weights}
    for variable in keras.saving.load_model(out / "model.keras").weights:
        np.testing.assert_allclose(variable, there[variable.path], atol=1e-6)
    assert first("--init", "nothing", "--out", str(tmp_path / "none")) == 2
    assert "no model 'nothing'" in capsys.readouterr().err


def test_a_file_that_goes_bad_while_training_is_named():
    def gone(_):
        raise data.DataError("moving7.nii.gz: no such file.")

    pairs = data.LazyPairs([data.Case("c", "p", None, None, (16, 16), (1.0, 1.0))], [0], gone)
    with pytest.raises(tf.errors.OpError) as caught:
        next(iter(data.pipeline(pairs, 1, 1, 0)))
    error = train._reading_error(caught.value)
    assert isinstance(error, data.DataError) and str(error) == "moving7.nii.gz: no such file."


def test_flags_take_precedence_over_the_file(tiny):
    result = settings("--config", str(tiny), "--steps", "9")
    assert result.schedule.steps == 9 and result.schedule.batch_size == 2


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--steps", "5", "--epochs", "2"], "give one of them"),
        (["--minutes", "0"], "schedule.minutes must be positive"),
        (["--minutes", "3"], "objective het needs objective.warm_start beside schedule.minutes"),
        (["--objective", "mse", "--gamma", "0.5"], "--gamma has no effect on objective mse"),
        (["--objective", "mse", "--warm-start", "2"], "--warm-start has no effect"),
        (["--data", "acdc", "--data-dir", "/nowhere"], "phantom"),
        (["--data", "brains"], "brains"),
        (["--gamma", "-1"], "gamma must be positive"),
        (["--augment-affine", "0.5"], "data.augment_affine must be from 0 to 0.2, got 0.5"),
        (["--augment-affine", "0.05", "--no-augment"], "augment_affine must be 0 where data.augment is off"),
        (["--residual-smoothing", "-1"], "smoothing must be 0 to 32 voxels"),
        (["--objective", "ncc", "--residual-smoothing", "1"], "residual-smoothing has no effect on objective ncc"),
        (["--crop", "round"], "crop"),
        (["--config", "/nowhere.yaml"], "no configuration file"),
        (["--devices", "2", "--batch-size", "3"], "a batch size that 2 devices can share equally, received 3"),
        (["--slurm"], "SLURM: expected a process that srun started, but SLURM_PROCID is not set"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, capsys, flags, message):
    out = [] if "--out" in flags else ["--out", str(tmp_path / "run")]
    assert train.main([*flags, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: error:") and re.search(message, error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_pairs_of_several_shapes_leave_no_run_behind(tmp_path, capsys, more):
    rows = ["moving,fixed,split"]
    for number, (size, split) in enumerate([(16, "train"), (20, "train"), (16, "val"), (16, "test")]):
        for role in "mf":
            image = np.random.default_rng(number).random((size, 16)).astype(np.float32)
            nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{role}{number}.nii.gz")
        rows.append(f"m{number}.nii.gz,f{number}.nii.gz,{split}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    words = ["--data", str(tmp_path / "pairs.csv"), "--objective", "mse", "--steps", "2", "--batch-size", "1", *more]
    assert train.main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "expected pairs of one shape" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_or_mixed(tiny, finished, capsys):
    assert train.main(["--config", str(tiny), "--out", str(finished)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert train.main(["--config", str(tiny), "--out", str(finished), "--resume", "--lr", "0.5"]) == 2
    assert "another configuration (optimizer differ" in capsys.readouterr().err


def test_help_states_direction_frame_and_units():
    text = train.parser().format_help()
    for word in ("ED, moving", "ES, fixed", "voxels", "grid of the fixed image", "[0, 1]"):
        assert word in text
