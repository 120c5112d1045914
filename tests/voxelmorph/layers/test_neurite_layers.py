"""Layers that VoxelMorph takes from neurite, and its affine layers: the contract, the original, and the repairs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import layers
from hetmorph.voxelmorph.original import ne, vxm
from tests import fresh
from tests.contract import check_layer


def image(n, batch, rng):
    return rng.normal(size=(batch, *[5] * n, 2))


def image_and_hyper(n, batch, rng):
    return [image(n, batch, rng), rng.normal(size=(batch, 4))]


def matrices(n, batch, rng):
    return np.eye(n, n + 1) + 0.1 * rng.normal(size=(batch, n, n + 1))


def points_and_field(n, batch, rng):
    return [rng.uniform(0, 4, size=(batch, 6, n)), rng.normal(size=(batch, *[5] * n, n))]


def image_and_points(n, batch, rng):
    return [rng.normal(size=(batch, *[5] * n, 2)), rng.uniform(0, 4, size=(batch, 6, n))]


# class, arguments, inputs, options of check_layer
LAYERS = [
    ("HyperConv1DFromDense", {"filters": 3, "kernel_size": 3}, image_and_hyper, {"ndims": (1,)}),
    ("HyperConv2DFromDense", {"filters": 3, "kernel_size": 3, "strides": 2}, image_and_hyper, {"ndims": (2,)}),
    ("HyperConv3DFromDense", {"filters": 3, "kernel_size": 3}, image_and_hyper, {"ndims": (3,), "batches": (2,)}),
    ("HyperDenseFromDense", {"units": 3}, lambda n, b, r: [r.normal(size=(b, 5)), r.normal(size=(b, 4))], {}),
    ("MeanStream", {"cap": 5}, image, {"unknown_dims": False, "differentiable": False}),
    ("CovStream", {"cap": 5}, image, {"ndims": (2,), "unknown_dims": False, "differentiable": False}),
    ("LocalParamWithInput", lambda n: {"shape": [4] * n, "mult": 3.0}, image, {"differentiable": False}),
    ("AddIdentity", {}, matrices, {"unknown_dims": False}),
    ("InvertAffine", {}, matrices, {"unknown_dims": False}),
    ("AffineToDenseShift", lambda n: {"shape": [5] * n}, matrices, {"unknown_dims": False}),
    ("ParamsToAffineMatrix", lambda n: {"ndims": n}, lambda n, b, r: r.normal(size=(b, 3)), {"unknown_dims": False}),
    ("PointTransformer", {"scale": 0.5}, points_and_field, {}),
    ("ValueAtLocation", {"absolute": False}, image_and_points, {}),
]


@pytest.mark.quick(
    "HyperConv2DFromDense",
    "MeanStream",
    "CovStream",
    "LocalParamWithInput",
    "AddIdentity",
    "InvertAffine",
    "ParamsToAffineMatrix",
    "PointTransformer",
)
@pytest.mark.parametrize(("name", "kwargs", "inputs", "options"), LAYERS, ids=[name for name, *_ in LAYERS])
def test_keeps_the_contract(name, kwargs, inputs, options):
    check_layer(getattr(layers, name), kwargs, inputs, **options)


def test_every_public_layer_of_the_original_is_there():
    names = {n for n, v in vars(vxm.layers).items() if isinstance(v, type) and v.__module__ == vxm.layers.__name__}
    assert len(names) > 6
    assert names <= set(layers.__all__)


@pytest.mark.parametrize("ndims", [2, 3])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"padding": "same", "strides": 2}, {"use_bias": False, "dilation_rate": 2, "activation": "relu"}],
)
def test_hyperconvolution_equals_neurite(ndims, kwargs, rng):
    inputs = [tf.constant(x, tf.float32) for x in image_and_hyper(ndims, 2, rng)]
    name = f"HyperConv{ndims}DFromDense"
    ours, original = getattr(layers, name)(4, 3, **kwargs), getattr(ne.layers, name)(4, 3, **kwargs)
    result = ours(inputs)
    original(inputs)
    original.set_weights(ours.get_weights())
    np.testing.assert_allclose(result, original(inputs), atol=1e-5)


def test_hyperconvolution_is_the_convolution_with_each_samples_kernel(rng):
    features, kernel = rng.normal(size=(3, 7, 7, 2)), rng.normal(size=(3, 3, 3, 2, 4))
    bias = rng.normal(size=(3, 4))
    result = layers.HyperConv2D(4, 3)([tf.constant(x, tf.float32) for x in (features, kernel, bias)])
    for i in range(3):
        plain = tf.nn.conv2d(features[i : i + 1], kernel[i], 1, "VALID")[0] + bias[i]
        np.testing.assert_allclose(result[i], plain, atol=1e-4)


def test_hyperdense_equals_neurite(rng):
    """neurite's reads `_compute_dtype`, which Keras 3 layers lack."""
    inputs = [tf.constant(rng.normal(size=(2, k)), tf.float32) for k in (5, 4)]
    ours, original = layers.HyperDenseFromDense(3), ne.layers.HyperDenseFromDense(3)
    result = ours(inputs)
    original(inputs)
    original.set_weights(ours.get_weights())
    np.testing.assert_allclose(result, original(inputs), atol=1e-6)


@pytest.mark.parametrize("cls", [layers.MeanStream, ne.layers.MeanStream, layers.CovStream, ne.layers.CovStream])
def test_streams_run_eagerly_in_graphs_and_in_training(cls, rng):
    """The original asks Keras for the learning phase, which is gone."""
    layer, x = cls(cap=4), tf.constant(rng.normal(size=(3, 4)), tf.float32)
    np.testing.assert_allclose(layer(x), 0)
    np.testing.assert_allclose(tf.function(layer)(x), 0)
    trained = tf.function(lambda x: layer(x, training=True))(x)
    assert float(tf.reduce_max(tf.abs(trained))) > 0
    np.testing.assert_allclose(layer(x), trained, rtol=1e-5)


def test_mean_stream_is_the_mean_of_what_it_saw(rng):
    batches = rng.normal(size=(5, 2, 3, 3)).astype("float32")
    layer = layers.MeanStream(cap=100)
    for batch in batches:
        output = layer(batch, training=True)
    np.testing.assert_allclose(layer.mean, batches.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(output[0], 10 / 100 * batches.mean(axis=(0, 1)), atol=1e-6)
    layer.trainable = False
    layer(batches[0] + 100, training=True)
    assert float(layer.count[0]) == 10


def test_mean_stream_forgets_beyond_its_cap():
    layer = layers.MeanStream(cap=2)
    for value in (0.0, 0.0, 8.0):
        layer(np.full((1, 3), value, "float32"), training=True)
    np.testing.assert_allclose(layer.mean, 4.0)


def test_cov_stream_starts_with_a_single_sample():
    """The original divides by zero."""
    layer = layers.CovStream(cap=10)
    for _ in range(3):
        output = layer(np.ones((1, 2), "float32"), training=True)
    assert np.isfinite(output).all()


def test_streams_learn_in_fit(rng):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.MeanStream(cap=2)(keras.layers.Dense(4)(inputs)))
    model.compile("sgd", loss="mse")
    before = model.layers[1].get_weights()[0]
    model.fit(rng.normal(size=(6, 4)), np.zeros((6, 4)), batch_size=2, verbose=0)
    assert float(model.layers[-1].count[0]) == 6
    assert np.abs(model.layers[1].get_weights()[0] - before).max() > 0  # a penalty on the mean reaches its inputs


def test_affine_layers_equal_the_original(rng):
    matrix = matrices(3, 2, rng).astype("float32")
    params = rng.normal(size=(2, 12)).astype("float32")
    for name, kwargs, x in [
        ("AddIdentity", {}, matrix),
        ("AddIdentity", {}, params),
        ("InvertAffine", {}, matrix),
        ("AffineToDenseShift", {"shape": (4, 5, 6)}, matrix),
        ("AffineToDenseShift", {"shape": (4, 5, 6), "shift_center": False}, matrix),
        ("ParamsToAffineMatrix", {"deg": False, "shift_scale": True, "last_row": True}, params),
    ]:
        ours, original = getattr(layers, name)(**kwargs)(x), getattr(vxm.layers, name)(**kwargs)(x)
        np.testing.assert_allclose(ours, original, atol=1e-4, err_msg=name)


def test_affine_to_dense_shift_is_reloaded(tmp_path, rng):
    """The original writes `ndims` into its configuration and refuses to read it."""
    inputs = keras.Input((2, 3))
    model = keras.Model(inputs, layers.AffineToDenseShift((6, 5))(inputs))
    model.save(tmp_path / "model.keras")
    matrix = matrices(2, 1, rng).astype("float32")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(matrix), model(matrix))
    assert layers.AffineToDenseShift.from_config({"shape": [4, 4], "ndims": 2}).shape == [4, 4]


def test_an_inverse_undoes_its_matrix(rng):
    matrix = matrices(3, 2, rng).astype("float32")
    square = np.concatenate([matrix, [[[0, 0, 0, 1]]] * 2], axis=1)
    inverse = layers.InvertAffine()(matrix)
    np.testing.assert_allclose(inverse @ square, np.eye(3, 4)[None].repeat(2, 0), atol=1e-5)


def test_points_follow_a_translation():
    shift = np.broadcast_to(np.float32([1.5, -1.0]), (1, 6, 6, 2))
    points = np.float32([[[2, 2, 7], [3, 4, 8]]])
    moved = layers.PointTransformer()([points, shift])
    np.testing.assert_allclose(moved, [[[3.5, 1, 7], [4.5, 3, 8]]])


def test_a_points_last_entry_chooses_the_channel():
    image = np.stack([np.full((1, 4, 4), 5.0), np.full((1, 4, 4), -7.0)], axis=-1)
    points = np.float32([[[1, 1, 0], [2, 2, 1]]])
    np.testing.assert_allclose(layers.ValueAtLocation()([image, points]), [[5, 7]])


BAD = [
    (lambda: layers.AddIdentity()(np.zeros((1, 7))), r"\[B, 2, 3\]"),
    (lambda: layers.InvertAffine()(np.zeros((1, 3, 3))), r"\(1, 3, 3\)"),
    (lambda: layers.ParamsToAffineMatrix(ndims=4), "2 or 3, got 4"),
    (lambda: layers.ParamsToAffineMatrix(ndims=2)(np.zeros((1, 7))), "at most 6"),
    (lambda: layers.MeanStream(cap=0), "positive, got 0"),
    (lambda: layers.MeanStream()(keras.Input((None, 2))), "known size"),
    (lambda: layers.ValueAtLocation()([np.zeros((1, 4, 4, 1)), np.zeros((1, 3, 4))]), r"\[batch, count, 2\]"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_errors_say_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_neurite_layers_are_found_when_a_model_is_loaded(tmp_path):
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, ne.layers.LocalBias()(ne.layers.Resize(2)(inputs)))
    model.save(tmp_path / "model.keras")
    x = np.ones((1, 4, 4, 1), "float32")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))
    code = "import sys, keras, hetmorph; print(*keras.saving.load_model(sys.argv[1]).output_shape)"
    assert fresh.output_of(code, tmp_path / "model.keras").split() == ["None", "8", "8", "1"]
