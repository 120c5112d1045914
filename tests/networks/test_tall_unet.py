"""The networks of the GradICON family."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.networks import Registration, affine_network, tall_unet
from hetmorph.networks.architectures import ARCHITECTURES
from hetmorph.steps import AffineStep, FieldStep

NARROW = [[3, 4, 5], [5, 4, 3]]


def images(shape, batch=2, channels=1):
    rng = np.random.default_rng(1)
    return [rng.uniform(size=(batch, *shape, channels)).astype("float32") for _ in range(2)]


def lively(network):
    rng = np.random.default_rng(0)
    layer = next(one for one in network.layers if one.name.endswith(("_flow", "_numbers")))
    layer.set_weights([rng.normal(scale=0.2, size=w.shape) for w in layer.get_weights()])
    return network


def count(network):
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def test_published_sizes():
    assert count(tall_unet([None] * 2)) == 4_756_902
    assert count(tall_unet([None] * 3)) == 17_670_229
    assert count(affine_network([None] * 3)) == 4_873_368


@pytest.mark.slow
def test_sizes_of_the_networks_of_several_steps():
    """The numbers of docs/objectives.md, trainable weights in 2-D."""
    assert count(ARCHITECTURES["gradicon"](2)) == 4 * 4_756_902
    assert count(ARCHITECTURES["gradicon"](2, stage=1)) == 3 * 4_756_902
    assert count(ARCHITECTURES["constricon"](2)) == 12_970_464


def test_weights_have_the_same_names_in_every_model():
    """By their names a training finds those that it starts from."""
    one, other = (tall_unet([None] * 2, NARROW) for _ in range(2))
    assert [weight.path for weight in one.weights] == [weight.path for weight in other.weights]


@pytest.mark.quick("shape1")
@pytest.mark.parametrize("shape", [(17, 24), (9, 5), (7, 10, 9)])
def test_sizes_are_free_and_the_start_is_the_identity(shape):
    network, pair = tall_unet([None] * len(shape), NARROW), images(shape)
    np.testing.assert_array_equal(network(pair), np.zeros((2, *shape, len(shape))))
    fixed_size = tall_unet(shape, NARROW)
    fixed_size.set_weights(lively(network).get_weights())
    assert np.abs(network(pair)).max() > 0.01
    np.testing.assert_allclose(fixed_size(pair), network(pair), atol=1e-5)
    graph = tf.function(lambda x: network(x), jit_compile=True, autograph=False)
    np.testing.assert_allclose(graph(pair), network(pair), atol=1e-4)


def test_half_precision_ends_in_float32():
    network = lively(tall_unet((16, 16), NARROW))
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    half = tall_unet((16, 16), NARROW)
    half.set_weights(network.get_weights())
    found = half(images((16, 16)))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, network(images((16, 16))), atol=0.05)


def test_images_may_have_channels():
    network = lively(tall_unet((None, None), NARROW, src_feats=2, trg_feats=3))
    pair = [images((8, 9), channels=2)[0], images((8, 9), channels=3)[1]]
    assert network(pair).shape == (2, 8, 9, 2)


@pytest.mark.parametrize("ndims", [2, 3])
def test_affine_network_starts_from_the_identity(ndims):
    network = affine_network([None] * ndims, features=(4, 5), units=6)
    shape = (9, 12, 7)[:ndims]
    np.testing.assert_array_equal(AffineStep(network)(*images(shape)), np.zeros((2, *shape, ndims)))
    assert lively(network)(images(shape)).shape == (2, ndims * (ndims + 1))
    assert np.abs(AffineStep(network)(*images(shape))).max() > 0.1


@pytest.mark.slow
def test_as_a_step_it_trains_and_is_stored_and_exported(tmp_path):
    from hetmorph import evaluation
    from hetmorph.serving import export_savedmodel

    model = Registration(FieldStep(lively(tall_unet((None, None), NARROW))), (None, None))
    moving, fixed = images((18, 13))
    model.compile("adam", ["mse", "mse"], [1, 0], run_eagerly=True)
    followed = [w for w in model.non_trainable_variables if "moving" in w.path]
    before = [w.numpy() for w in followed]
    losses = [model.train_on_batch([moving, fixed], [fixed, np.zeros((2, 18, 13, 2))]) for _ in range(2)]
    assert np.isfinite(losses).all()
    changes = [np.abs(w.numpy() - b).max() for w, b in zip(followed, before, strict=True)]
    assert len(changes) == 6 and min(changes) > 0  # the normalisations follow the batches
    expected = model.register(moving, fixed)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "model.keras").register(moving, fixed), expected, atol=1e-5
    )
    served = evaluation.load(export_savedmodel(model, tmp_path / "served"))
    np.testing.assert_allclose(served(moving[0, ..., 0], fixed[0, ..., 0]).displacement, expected[0], atol=1e-4)


BAD = [
    (lambda: tall_unet((16,)), r"2 or 3 spatial sizes.*\(16,\)"),
    (lambda: tall_unet((16, 16), [[4, 4], [4]]), "equally many levels"),
    (lambda: tall_unet((16, 16), [[4, 0], [4, 4]]), "at least 1"),
    (lambda: affine_network((16,)), r"2 or 3 spatial sizes.*\(16,\)"),
    (lambda: affine_network((16, 16), features=()), r"at least 1, received \(\) and 300"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_what_makes_no_network_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
