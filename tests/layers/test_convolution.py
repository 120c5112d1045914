"""The layers of the U-Net keep Keras' weights, results and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import layers
from hetmorph.networks import Unet, VxmDense
from hetmorph.ops.xla import compiled_kernels
from tests.contract import check_layer

SHAPES = {1: (8,), 2: (8, 6), 3: (4, 6, 4)}


def image(ndims, batch, rng):
    return rng.normal(size=(batch, *SHAPES[ndims], 3))


def coarse_and_fine(ndims, batch, rng):
    return [image(ndims, batch, rng), rng.normal(size=(batch, *[2 * n for n in SHAPES[ndims]], 2))]


@pytest.mark.quick("1", "2")
@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_contract(ndims):
    named = lambda name: getattr(layers, f"{name}{ndims}D")  # noqa: E731
    plain = {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "tanh"}
    check_layer(named("Conv"), plain, image, ndims=[ndims])
    check_layer(named("UpsampleConv"), {"filters": 4, "factor": 2}, coarse_and_fine, ndims=[ndims])
    # TensorFlow's pooling in 3-D knows no float16 on a CPU.
    check_layer(named("MaxPooling"), {"pool_size": 2}, image, ndims=[ndims], float16=ndims < 3)
    check_layer(layers.LeakyReLU, {"negative_slope": 0.2}, image, ndims=[ndims])


def numbers(layer, inputs):
    """Output, and gradients of inputs and weights."""
    inputs = [tf.constant(x, tf.float32) for x in inputs]
    with compiled_kernels(), tf.GradientTape() as tape:
        tape.watch(inputs)
        output = layer(inputs if len(inputs) > 1 else inputs[0])
        product = tf.reduce_sum(tf.sin(output))
        gradients = tape.gradient(product, [*inputs, *layer.trainable_weights])
    return [output, *gradients]


def assert_equal(results, references):
    assert len(results) == len(references)
    for result, expected in zip(results, references, strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1))


def twins(name, ndims, shape, **options):
    """The library's layer and Keras', with equal random weights."""
    pair = [getattr(package, f"{name}{ndims}D")(**options) for package in (layers, keras.layers)]
    pair[0].build(shape)
    pair[1].build(shape)
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=w.shape) for w in pair[1].weights]
    for layer in pair:
        layer.set_weights(weights)
    return pair


# With the first few a rearranged gradient is taken, with the others Keras' own.
CONVOLUTIONS = [
    (1, {}),
    (2, {}),
    (3, {}),
    (2, {"activation": "relu"}),
    (2, {"use_bias": False}),
    (2, {"filters": 1}),
    (2, {"kernel_size": (1, 5)}),
    (1, {"padding": "valid"}),
    (1, {"padding": "causal"}),
    (2, {"padding": "valid"}),
    (3, {"padding": "valid"}),
    (2, {"strides": 2}),
    (3, {"strides": (1, 2, 1)}),
    (2, {"dilation_rate": 2}),
    (1, {"dilation_rate": 2}),
    (2, {"kernel_size": 2}),
    (3, {"kernel_size": (3, 4, 3)}),
    (2, {"groups": 3, "filters": 6}),
]


@pytest.mark.parametrize("case", range(len(CONVOLUTIONS)))
def test_convolution_equals_keras(rng, case):
    ndims, options = CONVOLUTIONS[case]
    x = image(ndims, 2, rng)
    options = {"filters": 5, "kernel_size": 3, "padding": "same", **options}
    ours, theirs = twins("Conv", ndims, x.shape, **options)
    assert_equal(numbers(ours, [x]), numbers(theirs, [x]))


@pytest.mark.parametrize(("name", "options"), [("Conv", {"filters": 3, "kernel_size": 3}), ("MaxPooling", {})])
def test_channels_first_is_left_to_keras(name, options):
    # TensorFlow has no such kernels on a CPU: shapes only.
    layer = getattr(layers, f"{name}2D")(padding="same", data_format="channels_first", **options)
    theirs = getattr(keras.layers, f"{name}2D")(padding="same", data_format="channels_first", **options)
    entry = keras.Input((3, 8, 6))
    assert layer(entry).shape == theirs(entry).shape


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_upsampled_convolution_equals_three_layers_of_keras(rng, ndims, factor):
    coarse = rng.normal(size=(2, *[3, 4, 2][:ndims], 4))
    fine = rng.normal(size=(2, *[factor * n for n in coarse.shape[1:-1]], 3))
    ours = getattr(layers, f"UpsampleConv{ndims}D")(5, factor=factor, activation="tanh")
    ours.build([coarse.shape, fine.shape])
    theirs = getattr(keras.layers, f"Conv{ndims}D")(5, 3, padding="same", activation="tanh")
    theirs.build((*fine.shape[:-1], 7))
    assert [w.path.split("/")[-1] for w in ours.weights] == [w.path.split("/")[-1] for w in theirs.weights]
    theirs.set_weights([rng.normal(size=w.shape) for w in theirs.weights])
    ours.set_weights(theirs.get_weights())
    upsample = getattr(keras.layers, f"UpSampling{ndims}D")(factor if ndims == 1 else (factor,) * ndims)

    class ThreeLayers(keras.Layer):
        trainable_weights = theirs.trainable_weights

        def call(self, inputs):
            return theirs(keras.ops.concatenate([upsample(inputs[0]), inputs[1]], -1))

    assert_equal(numbers(ours, [coarse, fine]), numbers(ThreeLayers(), [coarse, fine]))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "valid"},
        {"kernel_size": 5},
        {"kernel_size": (3, 1)},
        {"strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"factor": 1},
        {"data_format": "channels_first"},
    ],
)
def test_upsampled_convolution_refuses_what_it_cannot_do(options):
    name, value = next(iter(options.items()))
    with pytest.raises(
        ValueError, match="(?s)UpsampleConv2D needs padding 'same'.*3-wide.*factor of at least 2.*" + name
    ):
        layers.UpsampleConv2D(4, **options)


POOLINGS = [
    (1, {}),
    (2, {}),
    (3, {}),
    (2, {"pool_size": 3}),
    (2, {"pool_size": (2, 1)}),
    (3, {"pool_size": (2, 1, 2)}),
    (2, {"strides": 1}),
    (1, {"strides": 3}),
    (2, {"padding": "same", "pool_size": 3}),
    (3, {"padding": "same", "pool_size": 3}),
]


@pytest.mark.parametrize("case", range(len(POOLINGS)))
def test_pooling_equals_keras(rng, case):
    ndims, options = POOLINGS[case]
    x = np.round(image(ndims, 2, rng))
    ours, theirs = twins("MaxPooling", ndims, x.shape, **options)
    assert_equal(numbers(ours, [x]), numbers(theirs, [x]))


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_leaky_relu_equals_keras(rng, slope):
    x = np.round(image(2, 2, rng), 1)  # with zeros
    ours, theirs = (package.LeakyReLU(negative_slope=slope) for package in (layers, keras.layers))
    assert_equal(numbers(ours, [x]), numbers(theirs, [x]))


def weights_of(model):
    """Shape by layer and name of a weight: what a weight file holds."""
    return {(layer.name, w.name): tuple(w.shape) for layer in model.layers for w in layer.weights}


def test_weights_of_the_unet_keep_their_names_and_shapes():
    unet = VxmDense((32, 32)).references.unet_model
    kernels = {name: shape for (name, weight), shape in weights_of(unet).items() if weight == "kernel"}
    assert kernels["vxm_dense_unet_enc_conv_0_0"] == (3, 3, 2, 16)
    assert kernels["vxm_dense_unet_dec_final_conv_0"] == (3, 3, 48, 32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nb_conv_per_level": 2, "nb_features": 4, "nb_levels": 3},
        {"nb_upsample_skips": 1, "nb_features": [[4, 4], [4, 4, 4]]},
        {"do_res": True, "nb_features": [[4, 4], [4, 4, 3]]},
        {"max_pool": [2, 3], "nb_features": [[4, 4], [4, 4]]},
        {"max_pool": 1, "nb_features": [[4, 4], [4, 4, 4]]},
    ],
)
@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_unet_has_the_weights_and_results_of_voxelmorphs(rng, ndims, options):
    from hetmorph.voxelmorph.original import vxm

    shape = (*(24, 12, 12)[:ndims], 2)
    if not options:
        shape = (*[16] * ndims, 2)
    ours, theirs = Unet(shape, **options), vxm.networks.Unet(shape, **options)
    assert weights_of(ours) == weights_of(theirs)
    theirs.set_weights([0.3 * rng.normal(size=w.shape) for w in theirs.weights])
    for layer in ours.layers:
        layer.set_weights(theirs.get_layer(layer.name).get_weights() if layer.weights else [])
    x = rng.normal(size=(1, *shape)).astype("float32")
    assert_equal([ours(x)], [theirs([x])])


def test_upsampling_to_another_size_is_refused():
    with pytest.raises(ValueError, match="2 times.*7"):
        layers.UpsampleConv2D(3)([np.ones((1, 4, 4, 2), "float32"), np.ones((1, 7, 7, 2), "float32")])
