"""Several passes of one network: composition, saving, export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import evaluation
from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, MultiPass, TransMorph, VxmDense
from hetmorph.ops import fields
from hetmorph.ops.warp import warp
from hetmorph.serving import export_savedmodel

pytestmark = pytest.mark.usefixtures("eager")
FEATURES = [[4], [8, 4]]
SMALL = {"nb_unet_features": FEATURES, "int_steps": 1}
TINY = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": (2, 2), "reg_head_features": 4}
MODELS = [(VxmDense, SMALL), (HetVxmDense, {**SMALL, "variance_features": FEATURES}), (TransMorph, TINY)]


@pytest.fixture
def pair(rng):
    grid = np.stack(np.meshgrid(*[np.linspace(0, 3, 16)] * 2, indexing="ij"))
    fixed = np.repeat((0.5 + 0.4 * np.sin(grid).prod(0))[None, ..., None], 2, 0).astype("float32")
    return np.roll(fixed, 2, axis=1), fixed


def moving(cls, options, rng):
    model = cls((16, 16), **options)
    for layer in model.layers:
        if layer.name.endswith("_flow") and layer.weights:
            layer.kernel.assign(rng.normal(scale=0.1, size=layer.kernel.shape))
    return model


@pytest.mark.quick("VxmDense-options0")
@pytest.mark.parametrize("cls,options", MODELS)
def test_each_pass_registers_what_the_last_has_moved(cls, options, pair, rng):
    model = moving(cls, options, rng)
    first = model.register(*pair)
    assert np.abs(first).max() > 0.05
    second = model.register(warp(pair[0], first).numpy(), pair[1])
    expected = fields.compose(tf.constant(first), tf.constant(second))
    twice = MultiPass(model, 2)
    np.testing.assert_allclose(twice.register(*pair), expected, atol=1e-5)
    moved, _ = twice.predict(list(pair), verbose=0)
    np.testing.assert_allclose(moved, warp(pair[0], expected), atol=1e-5)
    np.testing.assert_allclose(MultiPass(model, 1).register(*pair), first, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cls,options", MODELS[:2])  # with and without variance; the backbone is what is wrapped
def test_files_shapes_and_exports(cls, options, pair, rng, tmp_path):
    twice = MultiPass(moving(cls, options, rng), 2)
    expected = twice.register(*pair)
    twice.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(restored.register(*pair), expected, atol=1e-6)
    np.testing.assert_allclose(twice.with_shape((None, None)).register(*pair), expected, atol=1e-5)
    signatures = tf.saved_model.load(str(export_savedmodel(restored, tmp_path / "served"))).signatures
    images = {"moving": tf.constant(pair[0]), "fixed": tf.constant(pair[1])}
    np.testing.assert_allclose(signatures["register"](**images)["displacement"], expected, atol=1e-4)
    assert ("variance" in signatures) == (cls is HetVxmDense)


def test_the_variance_is_that_of_the_last_moved_image(pair, rng):
    model = moving(*MODELS[1], rng)
    twice = MultiPass(model, 2)
    prediction = evaluation.wrap(twice)(pair[0][0, ..., 0], pair[1][0, ..., 0])
    moved = twice.predict(list(pair), verbose=0)[0]
    expected = model.variance_network.predict(np.concatenate([moved, pair[1]], -1), verbose=0)
    np.testing.assert_allclose(prediction.log_variance, expected[0, ..., 0], atol=1e-5)


@pytest.mark.slow
def test_the_file_holds_the_variance_network(pair, rng, tmp_path):
    model = moving(*MODELS[1], rng)
    model.compile(keras.optimizers.Adam(1e-3))
    twice = MultiPass(model, 2)
    expected = twice.references.full_model.predict(list(pair), verbose=0)["log_variance"]
    twice.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert not restored.inner.compiled
    for again in (restored, restored.with_shape((None, None))):
        result = again.references.full_model.predict(list(pair), verbose=0)["log_variance"]
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_bad_images_and_other_uses_are_refused(pair, tmp_path):
    twice = MultiPass(VxmDense((16, 16), **SMALL), 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        twice.register(pair[0] * np.nan, pair[1])
    with pytest.raises(ValueError, match="compile and fit that model"):
        twice.compile("adam")
    with pytest.raises(ValueError, match="saved as .keras"):
        twice.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="a registration model of two images, got MultiPass"):
        MultiPass(twice)


@pytest.mark.parametrize("options,passes", [({"bidir": True}, 2), ({}, 0)])
def test_what_cannot_go_on_is_refused(options, passes):
    with pytest.raises(ValueError, match="passes ≥ 1 and a model without input_model and bidir"):
        MultiPass(VxmDense((16, 16), **SMALL, **options), passes)
    with pytest.raises(ValueError, match="a registration model of two images"):
        MultiPass(keras.Sequential([keras.Input((16, 16, 1))]), 2)


@pytest.mark.quick("VxmDense-options0")
@pytest.mark.parametrize("cls,options", MODELS)
def test_a_share_of_the_training_pairs_is_registered_before(cls, options, pair, rng):
    model = moving(cls, options, rng)
    source, target = pair
    by_hand = np.concatenate([model.predict([source[:1], target[:1]], verbose=0)[0], source[1:]])
    losses = {}
    for share, batch in ((0.0, source), (0.5, source), (None, by_hand)):
        keras.utils.set_random_seed(0)  # of dropped paths
        copy = model.with_shape((16, 16))
        copy.pre_registered = share or 0.0
        copy.compile(keras.optimizers.Adam(1e-3), loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.01])
        images = [batch, target]
        loss = copy.train_on_batch(images, [target, np.zeros((2, 16, 16, 2), np.float32)], return_dict=True)
        losses[share] = loss["loss"], np.concatenate([w.ravel() for w in copy.get_weights()])
    np.testing.assert_allclose(losses[0.5][0], losses[None][0], rtol=1e-5)
    np.testing.assert_allclose(losses[0.5][1], losses[None][1], atol=1e-4)
    assert losses[0.5][0] != pytest.approx(losses[0.0][0], rel=1e-3)
