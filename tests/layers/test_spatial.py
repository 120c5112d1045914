import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import layers
from hetmorph.layers.attention import pad_to_windows
from hetmorph.voxelmorph.original import vxm
from tests.contract import check_layer


def image_and_field(ndims, batch, rng):
    shape = (batch, *range(6, 6 + ndims))
    return [rng.normal(size=(*shape, 2)), rng.uniform(-2.4, 2.4, size=(*shape, ndims))]


def image_and_affine(ndims, batch, rng):
    affine = np.eye(ndims, ndims + 1) + 0.1 * rng.normal(size=(batch, ndims, ndims + 1))
    return [rng.normal(size=(batch, *[8] * ndims, 1)), affine]


def field(ndims, batch, rng):
    return 0.5 * rng.normal(size=(batch, *[8] * ndims, ndims))


CONTRACTS = [
    (layers.SpatialTransformer, {"interp_method": "linear", "fill_value": 0.5}, image_and_field),
    (layers.SpatialTransformer, {"shift_center": False}, image_and_affine),
    (layers.VecInt, {"int_steps": 4}, field),
    (layers.VecInt, {"int_steps": 4, "method": "quadrature"}, field),
    (layers.RescaleTransform, {"zoom_factor": 0.5}, field),
    (layers.RescaleTransform, {"zoom_factor": 2}, field),
    (layers.ComposeTransform, {}, lambda n, b, r: [field(n, b, r), field(n, b, r), field(n, b, r)]),
    (layers.ComposeTransform, {}, lambda n, b, r: [image_and_affine(n, b, r)[1], field(n, b, r)]),
    (layers.Negate, {}, field),
    (layers.PadToMultiple, {"multiple": 5}, field),
    (layers.CropToReference, {"resolution": 2}, lambda n, b, r: [field(n, b, r), r.normal(size=(b, *[7] * n, 1))]),
    (layers.SoftBound, {"low": -12.0, "high": 2.0}, field),
    (layers.SampleNormalLogVar, {"seed": 3}, lambda n, b, r: [field(n, b, r), field(n, b, r)]),
]
# Outputs that do not depend on one of the inputs have no gradient for it.
NO_GRADIENT = (layers.CropToReference, layers.SampleNormalLogVar)
# Matrices have no unknown sizes.
FIXED = {1, 7}


@pytest.mark.quick("0", "2", "7", "8", "9", "10", "11", "12")
@pytest.mark.parametrize("case", range(len(CONTRACTS)))
def test_contract(case):
    cls, kwargs, inputs = CONTRACTS[case]
    check_layer(cls, kwargs, inputs, differentiable=cls not in NO_GRADIENT, unknown_dims=case not in FIXED)


@pytest.mark.parametrize("ndims", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"interp_method": "nearest"}, {"fill_value": 0.0}, {"indexing": "xy"}])
def test_transformer_equals_voxelmorph(rng, ndims, options):
    if ndims == 1 and "indexing" in options:
        pytest.skip("cartesian order needs two axes")
    image, u = (x.astype("float32") for x in image_and_field(ndims, 2, rng))
    expected = vxm.layers.SpatialTransformer(**options)([image, u])
    np.testing.assert_allclose(layers.SpatialTransformer(**options)([image, u]), expected, atol=1e-5)


@pytest.mark.parametrize("ndims", [2, 3])
@pytest.mark.parametrize("shift_center", [True, False])
def test_affine_transformer_equals_voxelmorph(rng, ndims, shift_center):
    image, matrix = (x.astype("float32") for x in image_and_affine(ndims, 2, rng))
    expected = vxm.layers.SpatialTransformer(shift_center=shift_center)([image, matrix])
    result = layers.SpatialTransformer(shift_center=shift_center)([image, matrix])
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("ndims", [1, 2, 3])
@pytest.mark.parametrize("method", ["ss", "quadrature"])
def test_integration_equals_voxelmorph(rng, ndims, method):
    velocity = field(ndims, 2, rng).astype("float32")
    expected = vxm.layers.VecInt(method=method, int_steps=5)(velocity)
    np.testing.assert_allclose(layers.VecInt(method=method, int_steps=5)(velocity), expected, atol=1e-5)


@pytest.mark.parametrize("ndims", [2, 3])
def test_composition_equals_voxelmorph(rng, ndims):
    transforms = [field(ndims, 2, rng), image_and_affine(ndims, 2, rng)[1], field(ndims, 2, rng)]
    transforms = [t.astype("float32") for t in transforms]
    single = [vxm.tf.utils.utils.compose([tf.constant(t[b]) for t in transforms]) for b in range(2)]
    np.testing.assert_allclose(layers.ComposeTransform()(transforms), single, atol=1e-4)


def test_composed_affines_stay_affine(rng):
    first, second = image_and_affine(2, 1, rng)[1], image_and_affine(2, 1, rng)[1]
    square = [np.vstack([m[0], [0, 0, 1]]) for m in (first, second)]
    result = layers.ComposeTransform()([first.astype("float32"), second.astype("float32")])
    np.testing.assert_allclose(result[0], (square[0] @ square[1])[:2], atol=1e-5)


def test_compose_in_a_functional_model(rng):
    # voxelmorph 0.2 under Keras 3: "Undefined shapes are not supported".
    inputs = [keras.Input((8, 8, 2)), keras.Input((2, 3))]
    model = keras.Model(inputs, layers.ComposeTransform()(inputs))
    u = field(2, 3, rng).astype("float32")
    identity = np.broadcast_to(np.eye(2, 3, dtype="float32"), (3, 2, 3))
    np.testing.assert_allclose(model.predict([u, identity], verbose=0), u, atol=1e-5)


def test_single_transform_serves_the_whole_batch(rng):
    image, u = (x.astype("float32") for x in image_and_field(2, 3, rng))
    moved = layers.SpatialTransformer(single_transform=True)([image, u])
    expected = layers.SpatialTransformer()([image, np.repeat(u[:1], 3, 0)])
    np.testing.assert_array_equal(moved, expected)


def test_sampling_only_while_training():
    layer = layers.SampleNormalLogVar(seed=1)
    mean, log_variance = np.zeros((1, 64, 64, 2), "float32"), np.full((1, 64, 64, 2), np.log(4.0), "float32")
    np.testing.assert_array_equal(layer([mean, log_variance]), mean)
    drawn = layer([mean, log_variance], training=True).numpy()
    assert abs(drawn.std() - 2) < 0.1 and abs(drawn.mean()) < 0.1


def test_bound_is_smooth_and_open():
    x = np.array([-1e3, -6.0, 0.0, 0.5, 1e3], "float32")[None]
    y = layers.SoftBound(-12, 2)(x).numpy()[0]
    assert np.all((y >= -12) & (y <= 2)) and y[2] == -5 and abs(y[3] - -4.5) < 1e-2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="interp_method"):
        layers.SpatialTransformer("cubic")
    with pytest.raises(ValueError, match="ode"):
        layers.VecInt(method="ode")
    with pytest.raises(ValueError, match="at least 2"):
        layers.ComposeTransform()([np.zeros((1, 4, 4, 2), "float32")])
    with pytest.raises(ValueError, match="low < high"):
        layers.SoftBound(1, 0)


@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_padding_survives_in_front_of_a_convolution(ndims, rng):
    """With oneDNN, TensorFlow's graph optimiser drops a plain Pad before a 3-D convolution."""
    image = tf.constant(rng.random((1, *(6, 5, 7)[:ndims], 2)), tf.float32)
    kernel = tf.constant(rng.random((*[3] * ndims, 2, 4)), tf.float32)

    def padded(image):
        return tf.nn.convolution(layers.PadToMultiple(4)(image), kernel, padding="SAME")

    result = tf.function(padded)(image)
    np.testing.assert_allclose(result, padded(image), rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lambda image: layers.PadToMultiple(4)(image),
        lambda image: layers.CropToReference(2)([image, image]),
        lambda image: pad_to_windows(image, [4, 4]),
    ],
    ids=["pad", "crop", "windows"],
)
def test_unknown_sizes_are_divided_as_they_are(layer):
    """tf2onnx 1.17 rounds quotients towards zero: of −27 the padding to 4 came out as −3, a crop."""
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec([None, None, None, 1])).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert kinds & {"FloorMod", "FloorDiv"} and "Neg" not in kinds
