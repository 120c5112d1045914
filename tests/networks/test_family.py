"""What all of VoxelMorph's models share: the original's numbers, training, and both file formats in a fresh process."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from hetmorph.losses import MSE, Grad
from tests.networks.models import GOLDEN_CLASSES, golden, random_inputs

MODELS = list(GOLDEN_CLASSES)


def build(name):
    return GOLDEN_CLASSES[name].load(golden(name)[0])


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_original(name):
    """Weights of an `.h5` file of voxelmorph 0.2 under Keras 2, its inputs, and the outputs it gave."""
    path, inputs, expected, _ = golden(name)
    outputs = GOLDEN_CLASSES[name].load(path).predict(inputs, verbose=0)
    for output, reference in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, reference, atol=1e-4)


def compiled(name, rng):
    """A model with a loss for each output, and a batch for it."""
    keras.utils.set_random_seed(0)
    model = build(name)
    inputs = random_inputs(model, rng)
    targets = [np.zeros(np.shape(y), "float32") for y in model.predict(inputs, verbose=0)]
    losses = [Grad("l2").loss if i == 1 and y.ndim == 4 else MSE(0.5).loss for i, y in enumerate(targets)]
    model.compile(keras.optimizers.Adam(1e-3), loss=losses, loss_weights=[1.0] + [0.1] * (len(targets) - 1))
    return model, inputs, targets


CONTINUE = """
import json, sys
import keras, numpy as np
import hetmorph.networks.atlas, hetmorph.networks.hyper, hetmorph.networks.instance
import hetmorph.networks.semisupervised, hetmorph.networks.template
model = keras.saving.load_model(sys.argv[1])
data = np.load(sys.argv[2])
inputs = [data[f"x{i}"] for i in range(len(model.inputs))]
targets = [data[f"y{i}"] for i in range(len(model.outputs))]
predicted = [float(np.sum(y)) for y in model.predict(inputs, verbose=0)]
keras.utils.set_random_seed(1)
losses = [float(np.ravel(model.train_on_batch(inputs, targets))[0]) for _ in range(2)]
print(json.dumps([predicted, losses]))
"""


@pytest.mark.parametrize("name", MODELS)
def test_trains_and_continues_from_a_file_in_a_fresh_process(name, rng, tmp_path):
    model, inputs, targets = compiled(name, rng)
    history = model.fit(inputs, targets, batch_size=2, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]

    path = tmp_path / "model.keras"
    model.save(path)
    named = {f"x{i}": x for i, x in enumerate(inputs)} | {f"y{i}": y for i, y in enumerate(targets)}
    np.savez(tmp_path / "data.npz", **named)
    predicted = [float(np.sum(y)) for y in model.predict(inputs, verbose=0)]
    model.reset_metrics()
    keras.utils.set_random_seed(1)
    losses = [float(np.ravel(model.train_on_batch(inputs, targets))[0]) for _ in range(2)]

    command = [sys.executable, "-c", textwrap.dedent(CONTINUE), path, tmp_path / "data.npz"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    again = json.loads(run.stdout.splitlines()[-1])
    np.testing.assert_allclose(again[0], predicted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(again[1], losses, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_h5_round_trip(name, tmp_path, rng):
    model = build(name)
    inputs = random_inputs(model, rng)
    model.save(tmp_path / "model.h5")
    again = type(model).load(tmp_path / "model.h5")
    assert again.get_config() == model.get_config()
    for a, b in zip(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["hyper", "seg", "instance", "template", "atlas"])
def test_metadata_travels_with_the_file(name, tmp_path):
    model = build(name)
    model.metadata["note"] = "kept"
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")
    assert type(model).load(tmp_path / "model.h5").metadata["note"] == "kept"
    assert type(model).load(tmp_path / "model.keras").metadata["note"] == "kept"


def test_no_model_holds_a_lambda():
    """A Lambda layer is Python byte code in a file: Keras refuses to load it."""
    for name in MODELS:
        assert not [layer.name for layer in build(name).layers if isinstance(layer, keras.layers.Lambda)]
