"""ONNX files give the model's numbers in onnxruntime, at odd sizes and in any batch; others are refused."""

import functools
import sys

import keras
import numpy as np
import pytest

from hetmorph.layers import CoordinateAttention
from hetmorph.networks import (
    HetVxmDense,
    MultiPass,
    Registration,
    TransMorph,
    VxmDense,
    code_encoder,
    coordinate_network,
    feature_encoder,
    velocity_network,
)
from hetmorph.serving import export_onnx, onnx
from hetmorph.steps import AtResolution, FeatureStep, FieldStep, ImplicitStep, Then
from tests.serving.conftest import random_weights

FEATURES = [[4, 4], [4, 4, 4]]


@pytest.fixture
def runtime():
    """The module onnxruntime; a test that converts asks for it."""
    pytest.importorskip("tf2onnx", reason='pip install ".[onnx]"')
    return pytest.importorskip("onnxruntime", reason='pip install ".[onnx]"')


@pytest.fixture(scope="module")
def het():
    return random_weights(HetVxmDense((16, 16), FEATURES, int_steps=2, variance_features=FEATURES))


def smooth_pair(size, batch):
    """Waves, since onnxruntime and TensorFlow round otherwise, which steep images would multiply."""
    grid = np.meshgrid(*(np.arange(n) / 5 for n in size), indexing="ij")
    images = [[0.5 + 0.5 * np.sin(sum(grid) + phase + role) for phase in range(batch)] for role in (0, 1)]
    return np.asarray(images, np.float32)[..., None]


def inputs(path):
    """Names of all that a graph may be given, values with a default among them."""
    import onnx as files

    return {value.name for value in files.load(path).graph.input}


def answers(runtime, path, moving, fixed):
    session = runtime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"moving": moving, "fixed": fixed}), strict=True))


def test_any_size_and_batch_with_the_variance(runtime, het, tmp_path):
    differences = export_onnx(het, tmp_path / "new" / "het.onnx")
    assert set(differences) == {"displacement", "moved", "log_variance", "weight"}
    assert max(differences.values()) < onnx.TOLERANCE
    for size, batch in (((27, 30), 1), ((16, 20), 3)):
        moving, fixed = smooth_pair(size, batch)
        found = answers(runtime, tmp_path / "new" / "het.onnx", moving, fixed)
        expected = het.with_shape(size).predict_all(moving, fixed)
        assert np.abs(expected["displacement"]).max() > 0.1  # else the comparison would say nothing
        for name in differences:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["het.onnx"]


def small_step(corners=False):
    networks = [velocity_network((None, None), nb_unet_features=[[4], [4]], name=name) for name in ("coarse", "fine")]
    coarse, fine = map(FieldStep, networks)
    return random_weights(Registration(Then([AtResolution(coarse, corners=corners), fine]), (None, None), "exchange"))


ONE_SIZE = {
    "volumes, both ways": (lambda: VxmDense((16, 16, 16), [[4], [4, 4]], int_steps=1, bidir=True), (9, 14, 11)),
    "passes": (lambda: MultiPass(random_weights(VxmDense((16, 16), FEATURES, int_steps=1)), 2), (27, 30)),
    "attention": (
        lambda: TransMorph((32, 32), embed_dim=8, depths=(2,), num_heads=(2,), window_size=(4, 4)),
        (27, 30),
    ),
    "steps": (small_step, (27, 30)),
}


@pytest.mark.parametrize("case", ONE_SIZE)
def test_models_of_one_size(runtime, case, tmp_path):
    make, size = ONE_SIZE[case]
    model = make()
    model = model if case in ("passes", "steps") else random_weights(model)
    differences = export_onnx(model, tmp_path / "model.onnx", size)
    assert max(differences.values()) < onnx.TOLERANCE
    assert inputs(tmp_path / "model.onnx") == {"moving", "fixed"}
    moving, fixed = smooth_pair(size, 2)
    found = answers(runtime, tmp_path / "model.onnx", moving, fixed)
    assert ("backward" in found) == (case in ("volumes, both ways", "steps"))
    expected = model.with_shape(size).register(moving, fixed)
    assert np.abs(expected).max() > 0.1 and found["displacement"].shape == (2, *size, len(size))
    np.testing.assert_allclose(found["displacement"], expected, atol=1e-3)


def small_attention():
    step = AtResolution(FeatureStep(feature_encoder(2, 4, 2, (1,), blocks=1), CoordinateAttention(2, block_size=64)))
    return random_weights(Registration(step, (None, None), "exchange"))


def small_implicit():
    forward, backward = (coordinate_network(2, units=8, waves=8, name=name) for name in ("forward", "backward"))
    for network in (forward, backward):
        network.layers[-1].kernel.assign(np.random.default_rng(0).normal(scale=0.02, size=(8, 2)))
    step = ImplicitStep(code_encoder(2, 32, width=0.1), forward, backward)
    return Registration(step, (None, None), "exchange")


ANY_SIZE = {
    "corners on corners": lambda: small_step(corners=True),
    "attention to coordinates": small_attention,
    "coordinates and codes": small_implicit,
}


@pytest.mark.parametrize("case", ANY_SIZE)
def test_steps_of_any_size(runtime, case, tmp_path):
    """What is known, inverted or cut into blocks when the graph runs, and not when it is converted."""
    model = ANY_SIZE[case]()
    assert max(export_onnx(model, tmp_path / "model.onnx").values()) < onnx.TOLERANCE
    moving, fixed = smooth_pair((27, 30), 2)
    expected = model.register(moving, fixed)
    assert np.abs(expected).max() > 0.1
    found = answers(runtime, tmp_path / "model.onnx", moving, fixed)["displacement"]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_onnx_lacks_is_refused_by_name(runtime, tmp_path, monkeypatch):
    without = functools.partial(onnx._converted, converters={})
    monkeypatch.setattr(onnx, "_converted", without)
    model = TransMorph((8, 8), embed_dim=4, depths=(1,), num_heads=(1,), window_size=(2, 2))
    with pytest.raises(ValueError, match="expected operations that ONNX has, received a model with Erfc"):
        export_onnx(model, tmp_path / "model.onnx", (8, 8))
    assert not any(tmp_path.iterdir())


def test_other_answers_are_refused_and_nothing_is_written(runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    model = random_weights(VxmDense((16, 16), [[4], [4]], int_steps=0))
    with pytest.raises(ValueError, match="from onnxruntime to 0, received one that differs"):
        export_onnx(model, tmp_path / "model.onnx", (16, 16))
    assert not any(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*np.object.*:FutureWarning")  # Keras looks for it
def test_keras_own_export_needs_no_call(runtime, tmp_path):
    model = random_weights(HetVxmDense((None, None), FEATURES, int_steps=1, variance_features=FEATURES))
    model.export(str(tmp_path / "model.onnx"), format="onnx", verbose=False)
    moving, fixed = smooth_pair((27, 30), 2)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    inputs = {entry.name: image for entry, image in zip(session.get_inputs(), (moving, fixed), strict=True)}
    for found, expected in zip(session.run(None, inputs), model([moving, fixed], training=False), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("model.pb", None, "expected a file that ends in .onnx"),
        ("there.onnx", None, "never overwritten"),
        ("model.onnx", (16, 16, 16), "expected a size of 2 axes"),
    ],
)
def test_refusals(het, tmp_path, name, size, message):
    (tmp_path / "there.onnx").touch()
    with pytest.raises((ValueError, FileExistsError), match=message):
        export_onnx(het, tmp_path / name, size)


def test_an_input_model_keeps_its_size(tmp_path):
    entries = [keras.Input((16, 16, 1), name=name) for name in ("end_diastole", "end_systole")]
    halves = [keras.layers.Rescaling(0.5, name=f"half_{x.name}")(x) for x in entries]
    model = VxmDense((16, 16), FEATURES, int_steps=1, input_model=keras.Model(entries, halves))
    with pytest.raises(ValueError, match=r"expected the size of the model's input_model, \(16, 16\), received"):
        export_onnx(model, tmp_path / "model.onnx", (32, 32))


def test_what_is_missing_is_said(het, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"tf2onnx: pip install .*\[onnx\]"):
        export_onnx(het, tmp_path / "model.onnx")
