"""Models by name: what is found, what is loaded, what is refused."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import hetmorph
from hetmorph import evaluation, serving
from hetmorph.cli.main import cli
from hetmorph.evaluation.predictor import ModelPredictor
from hetmorph.networks import MultiPass, Registration, VxmDense, velocity_network
from hetmorph.networks.preset import read_preset, write_preset
from hetmorph.presets import card, find, models
from hetmorph.steps import Repeated, VelocityStep
from tests.networks.models import FEATURES, lively

pytestmark = pytest.mark.usefixtures("eager")
SHIPPED = Path(__file__).resolve().parent.parent / "saved_models"
NAMES = sorted(path.name for path in SHIPPED.iterdir() if (path / "model.json").is_file())
CARD = {"name": "mine", "purpose": "p", "anatomy": "a", "modality": "m", "ndims": 2, "training_data": "d"}


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A model and the folder that it was written to."""
    model = MultiPass(lively(VxmDense((16, 16), FEATURES, int_steps=2), np.random.default_rng(0), 0.3), 2)
    return model, write_preset(model, tmp_path_factory.mktemp("models") / "mine", CARD)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_holds_the_weights_of_its_export(name):
    exported = serving.read_weights(SHIPPED / name)
    for variable in hetmorph.from_preset(name).weights:
        np.testing.assert_array_equal(variable, exported[variable.path], err_msg=variable.path)


@pytest.mark.slow
def test_a_shipped_model_answers_by_name_as_its_export_does(rng):
    name = "acdc_vxm_het"
    model = hetmorph.from_preset(name)
    pair = [x / x.max() for x in rng.random((2, 16, 16)).astype(np.float32).repeat(2, 1).repeat(2, 2)]
    expected = evaluation.load(SHIPPED / name)(*pair)
    found = evaluation.wrap(model)(*pair)
    assert np.abs(expected.displacement).max() > 0.5
    np.testing.assert_allclose(found.displacement, expected.displacement, atol=1e-3)
    np.testing.assert_allclose(found.log_variance, expected.log_variance, atol=1e-3)


def test_a_preset_keeps_model_weights_and_card(preset, rng, monkeypatch):
    model, folder = preset
    monkeypatch.setenv("HETMORPH_MODELS", str(folder.parent))
    again = hetmorph.from_preset("mine")
    assert (
        type(again) is MultiPass and not again.compiled and str(card(find("mine"))).startswith("mine, p; made for: a")
    )
    pair = rng.random((2, 1, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(again.register(*pair), model.register(*pair), atol=1e-6)
    np.testing.assert_allclose(
        evaluation.load(folder)(*pair[:, 0, ..., 0]).displacement, model.register(*pair)[0], atol=1e-5
    )


def test_a_preset_of_steps_is_whole(tmp_path, rng):
    """Networks within steps, which Keras takes apart when it reads a configuration, are written before."""
    network = lively(velocity_network((None, None), nb_unet_features=FEATURES, name="velocity"), rng, 0.3)
    model = Registration(Repeated(VelocityStep(network, int_steps=2), 2), (None, None))
    again = read_preset(write_preset(model, tmp_path / "mine", CARD))
    pair = rng.random((2, 1, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(again.register(*pair), model.register(*pair), atol=1e-6)


def test_a_file_that_is_not_the_one_of_the_card_is_refused(preset, tmp_path):
    model, _ = preset
    folder = write_preset(model, tmp_path / "mine", CARD)
    with open(folder / "model.weights.h5", "r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01\x02\x03" * 9)
    with pytest.raises(ValueError, match="model.weights.h5: expected SHA-256 .*, received .* damaged"):
        read_preset(folder)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a preset, .* lacks \['model.weights.h5'\]"):
        hetmorph.from_preset(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"class_name": "Nothing", "module": "nowhere", "config": {}}')
    (tmp_path / "other" / "model.weights.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not load as a Keras model"):
        read_preset(tmp_path / "other")


def test_a_model_of_the_hub_is_fetched_once_and_read_like_a_folder(preset, monkeypatch):
    model, folder = preset
    asked = []

    def snapshot_download(repository, revision=None):
        asked.append((repository, revision))
        if repository.endswith("gone"):
            raise OSError("404: there is no such repository")
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    again = hetmorph.from_preset("hf://me/hearts@v2")
    assert asked == [("me/hearts", "v2")]
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    with pytest.raises(ValueError, match="hf://me/gone cannot be fetched: 404"):
        find("hf://me/gone")
    with pytest.raises(ValueError, match="expected hf://user/repository"):
        find("hf://hearts")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"needs huggingface_hub: pip install 'hetmorph\[hub\]'"):
        find("hf://me/hearts")


def test_models_lists_what_there_is_and_for_what(preset, monkeypatch):
    monkeypatch.setenv("HETMORPH_MODELS", str(preset[1].parent))
    said = CliRunner().invoke(cli, ["models"]).output
    assert said.startswith(f"mine, p; made for: a, m, 2-D; trained on: d\n  {preset[1]}\n")
    assert {path.name for path in models()} >= {*NAMES, "mine"} and all(name in said for name in NAMES)
    with pytest.raises(ValueError, match="no model 'hearts'.*there are: acdc_vxm_blocks, .*mine"):
        hetmorph.from_preset("hearts")


def test_a_version_that_is_not_complete_makes_no_model(preset, tmp_path, monkeypatch):
    """An export that was stopped: neither a model by name nor in the way of the preset that it stands beside."""
    monkeypatch.setenv("HETMORPH_MODELS", str(tmp_path))
    (tmp_path / "stopped" / "1").mkdir(parents=True)
    assert "stopped" not in [path.name for path in models()]
    folder = write_preset(preset[0], tmp_path / "whole", CARD)
    (folder / "1").mkdir()
    assert isinstance(evaluation.load(folder), ModelPredictor)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_to_programs_what_its_page_says(name):
    """The head of the page is YAML, as hubs read it; its score is the one of the page's table."""
    _, head, page = (SHIPPED / name / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    (entry,) = yaml.safe_load(head)["model-index"]
    assert entry["name"] == name == json.loads((SHIPPED / name / "model.json").read_text(encoding="utf-8"))["name"]
    for result in entry["results"]:
        (score,) = result["metrics"]
        what = score["name"].split(",")[0].replace("of the ", ""), result["dataset"]["name"].split(",")[0] + ","
        (row,) = (line for line in page.splitlines() if line.startswith((f"| {what[0]} |", f"| {what[1]}")))
        assert float(row.strip("| ").split("|")[-1].split("±")[0]) == score["value"]
