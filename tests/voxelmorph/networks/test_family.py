"""What all of VoxelMorph's models share: the original's numbers, training, and both file formats in a fresh process."""

import json

import keras
import numpy as np
import pytest

from hetmorph.losses import MSE, Grad
from tests import fresh
from tests.networks.models import GOLDEN_CLASSES, golden, random_inputs

pytestmark = pytest.mark.usefixtures("eager")
MODELS = list(GOLDEN_CLASSES)
TRAINED = ["hyper", "seg_bidir", "points", "instance", "template", "conditional", "atlas"]


def build(name):
    return GOLDEN_CLASSES[name].load(golden(name)[0])


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_original(name):
    """Weights of an `.h5` file of voxelmorph 0.2 under Keras 2, its inputs, and the outputs it gave."""
    path, inputs, expected, _ = golden(name)
    outputs = GOLDEN_CLASSES[name].load(path)(inputs)
    for output, reference in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, reference, atol=1e-4)


def compiled(name, rng):
    """A model with a loss for each output, and a batch for it."""
    keras.utils.set_random_seed(0)
    model = build(name)
    inputs = random_inputs(model, rng)
    targets = [np.zeros((2, *t.shape[1:]), "float32") for t in model.outputs]
    losses = [Grad("l2").loss if i == 1 and y.ndim == 4 else MSE(0.5).loss for i, y in enumerate(targets)]
    weights = [1.0] + [0.1] * (len(targets) - 1)
    # One model in a graph; compiling a graph for each would take minutes.
    eager = name != "template"
    model.compile(keras.optimizers.Adam(1e-3), loss=losses, loss_weights=weights, run_eagerly=eager)
    return model, inputs, targets


CONTINUE = """
import json, os, sys
from pathlib import Path
import keras, numpy as np
import hetmorph

os.environ["HETMORPH_XLA"] = "0"

def next_losses(path):
    model = keras.saving.load_model(path)
    model.run_eagerly = True
    data = np.load(path.with_suffix(".npz"))
    inputs = [data[f"x{i}"] for i in range(len(model.inputs))]
    targets = [data[f"y{i}"] for i in range(len(model.outputs))]
    return [float(np.ravel(model.train_on_batch(inputs, targets))[0]) for _ in range(2)]

print(json.dumps({p.stem: next_losses(p) for p in sorted(Path(sys.argv[1]).glob("*.keras"))}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """For each model: the losses of its training, the two that follow, and those two in a fresh process."""
    folder, histories, following = tmp_path_factory.mktemp("trained"), {}, {}
    for name in TRAINED:
        model, inputs, targets = compiled(name, np.random.default_rng(0))
        step = lambda: float(np.ravel(model.train_on_batch(inputs, targets))[0])  # noqa: B023, E731
        histories[name] = [step() for _ in range(3)]
        model.save(folder / f"{name}.keras")
        named = {f"x{i}": x for i, x in enumerate(inputs)} | {f"y{i}": y for i, y in enumerate(targets)}
        np.savez(folder / f"{name}.npz", **named)
        model.reset_metrics()
        following[name] = [step(), step()]
    return histories, following, json.loads(fresh.output_of(CONTINUE, folder).splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_trains(name, trained):
    history = trained[0][name]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_continues_from_a_keras_file_in_a_fresh_process(name, trained):
    """Compiled losses and optimiser state included: the following losses are the same."""
    _, following, again = trained
    np.testing.assert_allclose(again[name], following[name], rtol=1e-4)


@pytest.mark.quick("points-keras", "instance-keras", "conditional-keras", "atlas-keras")
@pytest.mark.parametrize("suffix", [pytest.param("h5", marks=pytest.mark.slow), "keras"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_file_keeps_arguments_weights_and_metadata(name, suffix, tmp_path):
    model = build(name)
    model.metadata["note"] = "kept"
    model.save(tmp_path / f"model.{suffix}")
    again = type(model).load(tmp_path / f"model.{suffix}")
    assert again.get_config() == model.get_config()
    assert again.metadata["note"] == "kept"
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_model_holds_a_lambda():
    """A Lambda layer is Python byte code in a file: Keras refuses to load it."""
    for name in MODELS:
        assert not [layer.name for layer in build(name).layers if isinstance(layer, keras.layers.Lambda)]
