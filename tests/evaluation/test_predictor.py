import logging
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.evaluation import load, wrap
from hetmorph.evaluation import predictor as module
from hetmorph.networks import MultiPass, Registration, VxmDense, velocity_network
from hetmorph.networks.het import HetVxmDense
from hetmorph.networks.preset import write_preset
from hetmorph.ops.warp import warp
from hetmorph.serving import export_savedmodel
from hetmorph.steps import Consistent, VelocityStep
from hetmorph.stored import savedmodel_folder

pytestmark = pytest.mark.usefixtures("eager")
FEATURES = [[4], [4]]


def randomised(model):
    """Weights large enough for a displacement worth comparing: a fresh model predicts next to none."""
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def het():
    return randomised(HetVxmDense((16, 24), FEATURES, variance_features=FEATURES, int_steps=1))


@pytest.fixture(scope="module")
def plain():
    return randomised(VxmDense((16, 24), FEATURES, int_steps=1))


@pytest.fixture
def images(rng):
    return rng.random((2, 16, 24), np.float32)


def assert_same(a, b):
    for name in ("displacement", "moved", "log_variance", "weight"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_het_model_gives_everything(het, images):
    prediction = wrap(het)(*images)
    assert prediction.displacement.shape == (16, 24, 2)
    for image in (prediction.moved, prediction.log_variance, prediction.weight):
        assert image.shape == (16, 24)
    assert np.abs(prediction.displacement).max() > 0.01
    expected = het.predict_all(images[:1, ..., None], images[1:, ..., None])
    np.testing.assert_allclose(prediction.log_variance, expected["log_variance"][0, ..., 0], atol=1e-6)


@pytest.mark.quick("False")
@pytest.mark.parametrize("exported", [False, True])
def test_images_of_several_channels(exported, rng, tmp_path):
    """A heart between its neighbouring slices: three channels moving, two fixed, of any size the model takes."""
    model = randomised(VxmDense((16, 24), FEATURES, src_feats=3, trg_feats=2, int_steps=1))
    predictor = load(export_savedmodel(model, tmp_path)) if exported else wrap(model)
    moving, fixed = rng.random((16, 24, 3), np.float32), rng.random((16, 24, 2), np.float32)
    prediction = predictor(moving, fixed)
    assert prediction.displacement.shape == (16, 24, 2) and prediction.moved.shape == (16, 24, 3)
    np.testing.assert_allclose(prediction.displacement, model.register(moving[None], fixed[None])[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"last axis is their 3 channels, got moving of shape \(16, 24\)"):
        predictor(moving[..., 0], fixed)
    with pytest.raises(ValueError, match="same shape"):
        predictor(moving[:12], fixed)


def velocities(seed=0):
    keras.utils.set_random_seed(seed)
    return VelocityStep(randomised(velocity_network((None, None), nb_unet_features=FEATURES)), int_steps=7)


def test_the_inverse_error_is_that_of_both_directions(images):
    """A function of the user's is asked with the images exchanged: what it adds to both directions is not undone."""
    moving, fixed = images

    def shifted(moving, fixed, added=0.25):
        return np.full((16, 24, 2), 40 * (fixed.mean() - moving.mean()) + added, np.float32)

    np.testing.assert_allclose(wrap(shifted).inverse_error(moving, fixed), np.full((16, 24, 2), 0.5), atol=1e-5)


@pytest.mark.slow
def test_by_construction_the_inverse_error_is_none_and_backward_is_the_inverse(images, tmp_path):
    free = Registration(velocities(), (None, None))
    consistent = Registration(Consistent(velocities()), (None, None), direction="exchange")
    errors = [np.linalg.norm(wrap(model).inverse_error(*images), axis=-1) for model in (free, consistent)]
    assert np.median(errors[1]) < 0.1 * np.median(errors[0])  # of velocities as rough as these, of noise
    assert wrap(free).backward(*images) is None
    back = wrap(consistent).backward(*images)
    np.testing.assert_allclose(back, wrap(consistent)(*images[::-1]).displacement, atol=1e-5)
    exported = load(export_savedmodel(consistent, tmp_path))
    np.testing.assert_allclose(exported.backward(*images), back, atol=1e-4)


def test_a_model_without_variance_gives_displacement_and_moved(plain, images):
    prediction = wrap(plain)(*images)
    assert prediction.log_variance is None and prediction.weight is None
    moved = warp(images[:1, ..., None], prediction.displacement[None])
    np.testing.assert_allclose(prediction.moved, moved[0, ..., 0], atol=1e-6)


def test_a_batch_equals_its_pairs_one_by_one(het, rng):
    predictor = wrap(het)
    moving, fixed = rng.random((2, 3, 16, 24), np.float32)
    for one, a, b in zip(predictor.predict_batch(moving, fixed), moving, fixed, strict=True):
        assert_same(one, predictor(a, b))


def test_a_model_of_another_size_is_rebuilt_with_its_weights(het, rng):
    moving, fixed = rng.random((2, 20, 12), np.float32)
    expected = het.with_shape((20, 12)).predict_all(moving[None, ..., None], fixed[None, ..., None])
    np.testing.assert_allclose(wrap(het)(moving, fixed).displacement, expected["displacement"][0], atol=1e-6)


@pytest.mark.quick("own0")
@pytest.mark.graph
@pytest.mark.parametrize("own", [(16, 24), (None, None)])
def test_many_shapes_share_a_graph(plain, own, rng, monkeypatch):
    """An archive of many shapes would fill the memory. The first one has a graph of its own, as that of the model."""
    model = plain.with_shape(own)
    graphs, copies, function = [], [], tf.function

    def counted(python=None, **how):
        if python is None or python.__module__ == module.__name__:  # not those of kernels
            graphs.append(how)
        return function(python, **how)

    monkeypatch.setattr(module.tf, "function", counted)
    monkeypatch.setattr(type(plain), "with_shape", _counting(copies, type(plain).with_shape))
    pairs = [rng.random((2, *shape), np.float32) for shape in [(20, 12), (16, 24), (17, 13), (9, 30)]]
    predictor, without_graph = wrap(model), module.ModelPredictor(model, few=True)
    answers = [predictor(*pair) for pair in pairs]
    assert (len(graphs), len(copies)) == ((3, 1) if own == (16, 24) else (2, 0))
    for pair, answer in zip(pairs, answers, strict=True):
        assert_same(answer, without_graph(*pair))


def _counting(calls, function):
    def counted(self, *given):
        calls.append(given)
        return function(self, *given)

    return counted


@pytest.mark.quick("plain")
@pytest.mark.graph
@pytest.mark.parametrize("kind", ["het", "plain"])
def test_keras_file_savedmodel_and_live_model_agree(kind, images, tmp_path, request):
    model = request.getfixturevalue(kind)
    model.save(tmp_path / "model.keras")
    export_savedmodel(model, tmp_path / "exported")
    expected = wrap(model)(*images)
    for path in (tmp_path / "model.keras", tmp_path / "exported"):
        assert_same(load(path)(*images), expected)


@pytest.mark.graph
def test_few_pairs_are_registered_without_a_graph(het, images, tmp_path, monkeypatch):
    """From the preset, where a SavedModel lies beside it; who calls more often gets the graph, and the same numbers."""
    write_preset(het, tmp_path)
    export_savedmodel(het, tmp_path)
    traced, traces = [], lambda run, **_: lambda *images: traced.append(1) or run(*images)
    monkeypatch.setattr(module.tf, "function", traces)
    monkeypatch.setattr(module.tf.saved_model, "load", None)
    found = load(tmp_path, few=True)
    for _ in range(module.FEW):
        assert_same(found(*images), wrap(het)(*images))
    before = len(traced)
    found(*images)
    assert len(traced) == before + 1 and len(traced) == module.FEW + 1


def test_follows_the_weights_of_a_model_in_training(plain, images):
    model = plain.with_shape((16, 24))
    predictor = wrap(model)
    assert np.abs(predictor(*images).displacement).max() > 0.01
    model.set_weights([0 * w for w in model.get_weights()])
    assert (predictor(*images).displacement == 0).all()


def test_wrapping_twice_changes_nothing(plain):
    predictor = wrap(plain)
    assert wrap(predictor) is predictor


class Adder(tf.Module):
    """A SavedModel made without hetmorph: displacement everywhere the same."""

    def __init__(self, amount):
        super().__init__()
        self.amount = tf.Variable(float(amount))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), name=n) for n in ("moving", "fixed")])
    def register(self, moving, fixed):
        return {"displacement": tf.concat([0 * moving, 0 * fixed], -1) + self.amount, "moved": moving}


def save_adder(folder, amount):
    module = Adder(amount)
    tf.saved_model.save(module, str(folder), signatures={"register": module.register})


def test_the_largest_version_wins_and_numbers_are_compared_as_numbers(images, tmp_path):
    for version in (2, 10):
        save_adder(tmp_path / "m" / str(version), version)
    (tmp_path / "m" / "11").mkdir()  # an export under way, without its graph yet
    (tmp_path / "m" / "notes").mkdir()
    assert savedmodel_folder(tmp_path / "m").name == "10"
    prediction = load(tmp_path / "m")(*images)
    assert (prediction.displacement == 10).all()
    assert prediction.log_variance is None
    assert (load(tmp_path / "m" / "2")(*images).displacement == 2).all()


def test_a_file_is_applied_several_times(het, images, tmp_path):
    het.save(tmp_path / "model.keras")
    assert_same(load(tmp_path / "model.keras", passes=2)(*images), wrap(MultiPass(het, 2))(*images))
    with pytest.raises(ValueError, match="several passes need a .keras file, got demons"):
        load("demons", passes=2)


def test_refuses_images_that_do_not_fit(het, images):
    predictor = wrap(het)
    with pytest.raises(ValueError, match=r"2-D images.*got moving of shape \(16, 24, 3\)"):
        predictor(np.zeros((16, 24, 3)), np.zeros((16, 24, 3)))
    with pytest.raises(ValueError, match="same shape"):
        predictor(images[0], images[1][:8])
    with pytest.raises(ValueError, match="fixed image holds NaN"):
        predictor(images[0], np.full((16, 24), np.nan))


def test_refuses_what_is_no_registration_model():
    with pytest.raises(ValueError, match="Sequential without references"):
        wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))


def test_refuses_paths_that_hold_no_model(tmp_path, images):
    with pytest.raises(FileNotFoundError, match="no model at"):
        load(tmp_path / "absent.keras")
    (tmp_path / "text.keras").write_text("not a zip")
    (tmp_path / "weights.bin").write_text("x")
    for name in ("text.keras", "weights.bin"):
        with pytest.raises(ValueError, match="is not a model"):
            load(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="does not load"):
        load(tmp_path / "other.keras")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    with pytest.raises(ValueError, match="is not a SavedModel.*found sub"):
        load(tmp_path / "folder")
    save_adder(tmp_path / "m", 1)
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "bare"))
    with pytest.raises(ValueError, match="signature 'register'.*found no signatures"):
        load(tmp_path / "bare")


@pytest.mark.parametrize("damage", ["graph", "weights"])
def test_a_damaged_savedmodel_is_named(tmp_path, damage):
    save_adder(tmp_path / "m", 1)
    if damage == "graph":
        (tmp_path / "m" / "saved_model.pb").write_bytes(b"\x00broken")
        (tmp_path / "m" / "fingerprint.pb").unlink()
    else:
        for file in (tmp_path / "m" / "variables").iterdir():
            file.unlink()
    with pytest.raises(ValueError, match="m does not load as a SavedModel"):
        load(tmp_path / "m")


@pytest.mark.slow
def test_missing_gradients_are_not_warned_of(plain, tmp_path):
    """Exports hold none on purpose; what else TensorFlow warns of is still seen."""
    export_savedmodel(plain, tmp_path)
    seen, logger = [], logging.getLogger("absl")
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    try:
        load(tmp_path)
        assert seen == []
        tf.saved_model.load(str(tmp_path / "1"))
        assert seen and "custom gradients" in seen[0]
    finally:
        logger.removeHandler(handler)
