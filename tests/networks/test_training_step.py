"""The training step compiles its kernels, once a shape, and leaves nothing of it to the exported model."""

import contextlib
import resource
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.ops import xla
from hetmorph.serving import export_savedmodel
from tests.graphs import eagerly, expect_compiled, must_compile

FEATURES = [[4], [4]]
OPTIONS = {VxmDense: {}, HetVxmDense: {"variance_features": FEATURES, "warm_start": 0}}
CLASSES = pytest.mark.parametrize("cls", OPTIONS)


def model_of(cls, shape=(16, 16), field_loss=None, **options):
    """A compiled model whose first displacements are about a voxel, not nearly zero."""
    keras.utils.set_random_seed(0)
    model = cls(shape, nb_unet_features=FEATURES, int_steps=1, **OPTIONS[cls], **options)
    flow = model.get_layer("vxm_dense_flow")
    flow.kernel.assign(0.3 * np.random.default_rng(0).normal(size=flow.kernel.shape))
    images = len(model.outputs) - 1
    losses = [*[MSE().loss] * images, field_loss or Grad("l2").loss]
    model.compile(keras.optimizers.SGD(0.1), loss=losses, loss_weights=[*[1.0 / images] * images, 0.01])
    return model


def data(model, batch, shape=(16, 16)):
    rng = np.random.default_rng(1)
    moving, fixed = (rng.random((batch, *shape, 1)).astype("float32") for _ in range(2))
    field = np.zeros((batch, *model.outputs[-1].shape[1:]), "float32")
    return [moving, fixed], [fixed, moving, field] if len(model.outputs) == 3 else [fixed, field]


@pytest.mark.quick("VxmDense")
@CLASSES
def test_each_shape_is_traced_once_and_nothing_is_compiled_after_the_training(cls, tmp_path):
    """Two epochs with a remainder trace at most two shapes; no exported graph demands to be compiled."""
    entries = [keras.Input((16, 16, 1)) for _ in range(2)]
    halves = [keras.layers.Rescaling(0.5)(x) for x in entries]
    traced, by_epoch = [], []

    def field_loss(y_true, y_pred):
        traced.append(y_pred.shape)
        return Grad("l2").loss(y_true, y_pred)

    # An input model: exported with its size, for which kernels could be compiled.
    model = model_of(cls, field_loss=field_loss, input_model=keras.Model(entries, halves))
    x, y = data(model, 5)
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: by_epoch.append(len(traced)))
    traced.clear()  # `compile` may have called the loss
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, shuffle=False, callbacks=[count])
    assert 1 <= by_epoch[0] <= 2 and by_epoch[1] == by_epoch[0]
    with expect_compiled(False):
        model.test_on_batch(x, y)
        folder = export_savedmodel(model, tmp_path)
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    assert len(graph.library.function) > 4
    assert must_compile(graph) == []


CASES = [
    (VxmDense, (16, 16), {"bidir": True}),
    (VxmDense, (8, 8, 8), {}),
    (HetVxmDense, (16, 16), {}),
    (HetVxmDense, (16, 16), {"bidir": True, "variance_pass": "recompute"}),
]


@pytest.mark.quick("2")
@pytest.mark.parametrize("case", range(len(CASES)))
def test_three_steps_give_the_same_weights_in_a_compiled_graph_and_without(case):
    cls, shape, options = CASES[case]
    weights = []
    for compiled in (True, False):
        model = model_of(cls, shape, **options)
        before = model.get_weights()
        x, y = data(model, 2, shape)
        with expect_compiled(compiled), contextlib.nullcontext() if compiled else eagerly():
            for _ in range(3):
                model.train_on_batch(x, y)
        weights.append(model.get_weights())
        assert max(np.abs(a - b).max() for a, b in zip(before, weights[-1], strict=True)) > 1e-3
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_a_compiled_kernel_would_be_seen_in_an_exported_model(tmp_path):
    # What the test above looks for is found where it is.
    module = tf.Module()
    module.serve = tf.function(lambda x: xla.run(tf.abs, x), input_signature=[tf.TensorSpec([2, 2])])
    with xla.compiled_kernels():
        tf.saved_model.save(module, str(tmp_path))
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    assert must_compile(saved.meta_graphs[0].graph_def)


@pytest.mark.slow
def test_eager_steps_use_compiled_kernels_as_well():
    compiled, plain = model_of(HetVxmDense), model_of(HetVxmDense)
    compiled.run_eagerly = True
    x, y = data(compiled, 2)
    with expect_compiled(True):
        compiled.train_on_batch(x, y)
    with eagerly():
        plain.train_on_batch(x, y)
    for a, b in zip(compiled.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_stays_flat_over_epochs(rng):
    image = rng.random((4, 64, 64, 1)).astype("float32")
    features = [[8, 8], [8, 8, 8]]
    model = HetVxmDense((64, 64), features, variance_features=features, int_steps=2, warm_start=0)
    model.compile(keras.optimizers.Adam(1e-3))
    batches = tf.data.Dataset.from_tensors(((image, image), (image, np.zeros((4, 32, 32, 2), "float32")))).repeat()
    model.fit(batches, epochs=3, steps_per_epoch=4, verbose=0)
    before = resident_mib()
    model.fit(batches, epochs=12, steps_per_epoch=4, verbose=0)
    # One update's activations are 5 MiB: 48 updates that kept theirs would be 240.
    assert resident_mib() - before < 40


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
