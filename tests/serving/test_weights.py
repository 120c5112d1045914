"""A training may start from any saved model: the rebuilt one answers as the saved one did."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph import config, serving
from hetmorph.networks import HetVxmDense, MultiPass, UniGradICON, VxmDense
from hetmorph.networks.build import build, later_layers
from hetmorph.networks.preset import write_preset
from hetmorph.stored import savedmodel_folder

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "saved_models"
SMALL = {"nb_unet_features": [[4, 4], [4, 4, 4]], "int_steps": 1}


@pytest.mark.slow
def test_a_shipped_model_is_rebuilt_from_its_export():
    """The config of its training and the variables of the SavedModel are the whole model."""
    settings = config.load(ROOT / "training" / "configs" / "acdc_het_ncc.yaml")
    model = build(settings, (32, 32))
    assert serving.start_from(model, SHIPPED / "acdc_vxm_het") == []
    rng = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(rng.random((32, 32)), 2) for _ in range(2)]
    moving, fixed = (tf.constant(((x - x.min()) / np.ptp(x))[None, ..., None], tf.float32) for x in smooth)
    exported = tf.saved_model.load(str(savedmodel_folder(SHIPPED / "acdc_vxm_het"))).signatures["variance"]
    expected = exported(moving=moving, fixed=fixed)
    found = MultiPass(model, settings.network.passes).references.full_model([moving, fixed])
    assert np.abs(expected["displacement"]).max() > 1
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(("name", "settings"), [("acdc_vxm_ncc", "acdc_ncc"), ("acdc_vxm_blocks", "acdc_blocks")])
def test_every_shipped_model_starts_the_training_that_made_it(name, settings):
    model = build(config.load(ROOT / "training" / "configs" / f"{settings}.yaml"), (32, 32))
    assert serving.start_from(model, SHIPPED / name) == []
    stored = serving.read_weights(SHIPPED / name)
    assert set(stored) == {variable.path for variable in model.weights}


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_files_start_a_training_too(suffix, tmp_path):
    saved, model = (VxmDense((16, 16), **SMALL) for _ in range(2))
    saved.set_weights([weight + 0.1 for weight in saved.get_weights()])
    saved.save(tmp_path / f"model.{suffix}")
    serving.start_from(model, tmp_path / f"model.{suffix}")
    for one, other in zip(model.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_passes_hold_the_weights_of_one(tmp_path):
    saved, model = (VxmDense((16, 16), **SMALL) for _ in range(2))
    MultiPass(saved, 2).save(tmp_path / "model.keras")
    assert serving.start_from(model, tmp_path / "model.keras") == []
    np.testing.assert_array_equal(model.get_weights()[0], saved.get_weights()[0])


def test_a_variance_network_may_be_left_to_begin_anew_or_left_out(tmp_path):
    plain, both = VxmDense((16, 16), **SMALL), HetVxmDense((16, 16), variance_features=[[4], [4]], **SMALL)
    plain.save(tmp_path / "plain.keras")
    both.save(tmp_path / "both.keras")
    initial = serving.start_from(both, tmp_path / "plain.keras")
    assert initial == [variable.path for variable in both.variance_network.weights]
    assert serving.start_from(plain, tmp_path / "both.keras") == []


def test_another_architecture_is_refused_and_named(tmp_path):
    VxmDense((16, 16), nb_unet_features=[[8, 4], [4, 4, 4]]).save(tmp_path / "other.keras")
    model = VxmDense((16, 16), **SMALL)
    before = model.get_weights()
    with pytest.raises(ValueError, match=re.escape("(3, 3, 2, 4) instead of (3, 3, 2, 8)")):
        serving.start_from(model, tmp_path / "other.keras")
    with pytest.raises(ValueError, match="another architecture: .* are missing.*is not in it"):
        serving.start_from(VxmDense((16, 16), nb_unet_features=[[4] * 3, [4] * 4]), tmp_path / "other.keras")
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)  # nothing is half done


def of_stage(stage, **network):
    network |= {"arch": "unigradicon", "stage": stage, "features": ((2, 3), (3, 2))}
    settings = config.TrainConfig(
        network=config.NetworkConfig(**network), objective=config.ObjectiveConfig(name="gradicon")
    )
    return build(settings, (16, 18)), later_layers(settings.network)


@pytest.fixture
def first_stage(tmp_path):
    """A model of three networks that has moved away from its start."""
    model, later = of_stage(1)
    assert isinstance(model, UniGradICON) and later == ()
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.normal(scale=0.05, size=weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    return model


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_the_second_stage_begins_with_what_the_first_one_does(first_stage, tmp_path):
    model, later = of_stage(2)
    initial = serving.start_from(model, tmp_path / "model.keras", later)
    assert initial and all(name.startswith("refined_") for name in initial)
    assert len(initial) + len(first_stage.weights) == len(model.weights)
    pair = np.random.default_rng(1).random((2, 1, 16, 18, 1), np.float32)
    expected = first_stage.register(*pair)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(model.register(*pair), expected, atol=1e-5)
    model.save(tmp_path / "second.keras")
    assert serving.start_from(of_stage(2)[0], tmp_path / "second.keras", later) == []
    assert serving.start_from(of_stage(1)[0], tmp_path / "second.keras") == []


def test_a_second_stage_that_lacks_a_part_is_no_first_stage(first_stage, tmp_path):
    with pytest.raises(ValueError, match="another architecture.*refined_.* is not in it"):
        serving.start_from(of_stage(2)[0], tmp_path / "model.keras")


def test_a_preset_starts_a_training(first_stage, tmp_path):
    write_preset(first_stage, tmp_path / "preset")
    model, _ = of_stage(1)
    assert serving.start_from(model, tmp_path / "preset") == []
    for one, other in zip(model.get_weights(), first_stage.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("path", "message"), [("none", "no model at"), ("demons", "expected a .keras file or a Saved")]
)
def test_what_is_no_model_is_said(path, message):
    with pytest.raises((ValueError, FileNotFoundError, ImportError), match=message):
        serving.start_from(VxmDense((16, 16), **SMALL), path)


def test_a_damaged_export_is_named(tmp_path):
    (tmp_path / "1" / "variables").mkdir(parents=True)
    (tmp_path / "1" / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="1: its variables cannot be read"):
        serving.read_weights(tmp_path)
