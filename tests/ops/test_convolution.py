"""The rearranged convolutions and poolings of the U-Net against their definitions."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops import convolution, xla
from hetmorph.ops.convolution import add_bias, convolve, convolve_upsampled, leaky_relu, max_pool
from tests.graphs import kernels

SHAPES = [(9,), (6, 7), (4, 5, 6)]
MODES = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])


def normal(rng, *shape):
    return tf.constant(rng.normal(size=shape), tf.float32)


def value_and_gradients(function, *inputs):
    """`function(*inputs)` and the gradients of its product with fixed random numbers."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
        product = tf.reduce_sum(value * normal(np.random.default_rng(9), *value.shape))
    return [value, *tape.gradient(product, inputs)]


def assert_equal(results, references, tolerance=1e-5):
    for result, expected in zip(results, references, strict=True):
        scale = max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * scale)


# TensorFlow's eager gradients in 3-D need the layout spelt out.
LAYOUT = {3: "NWC", 4: "NHWC", 5: "NDHWC"}


def by_definition(image, kernel):
    return tf.nn.convolution(image, kernel, padding="SAME", data_format=LAYOUT[image.shape.rank])


def pooled_by_definition(image, factor):
    return tf.nn.max_pool(image, factor, factor, "VALID", LAYOUT[image.shape.rank])


# The first three pairs of channels take the gradient of the kernel as it is, the others of the exchanged images.
@pytest.mark.parametrize("channels", [(2, 16), (16, 32), (3, 3), (16, 2), (32, 16), (5, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_gradients_equal_the_definition(rng, shape, channels):
    image, kernel = normal(rng, 2, *shape, channels[0]), normal(rng, *[3] * len(shape), *channels)
    assert_equal(value_and_gradients(convolve, image, kernel), value_and_gradients(by_definition, image, kernel))


@pytest.mark.parametrize("channels", [(2, 16), (16, 2)])
@pytest.mark.parametrize("widths", [(1, 1), (5, 3), (1, 7), (3, 3, 1), (1, 3, 5)])
def test_convolution_with_kernels_of_any_odd_size(rng, widths, channels):
    image, kernel = normal(rng, 1, *[6, 5, 4][: len(widths)], channels[0]), normal(rng, *widths, *channels)
    assert_equal(value_and_gradients(convolve, image, kernel), value_and_gradients(by_definition, image, kernel))


@pytest.mark.parametrize(("channels", "exchanged"), [((2, 16), False), ((16, 2), True)])
def test_images_are_exchanged_where_the_output_has_few_channels(rng, monkeypatch, channels, exchanged):
    original, seen = convolution._FILTER_GRADIENT[2], []
    recorded = lambda **options: seen.append(list(options["filter_sizes"])) or original(**options)  # noqa: E731
    monkeypatch.setitem(convolution._FILTER_GRADIENT, 2, recorded)
    value_and_gradients(convolve, normal(rng, 1, 4, 4, channels[0]), normal(rng, 3, 3, *channels))
    assert seen == [[3, 3, *(channels[::-1] if exchanged else channels)]]


@pytest.mark.parametrize("channels", [(2, 16), (16, 2)])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_the_gradient_of_a_convolution(rng, shape, channels):
    image, kernel = normal(rng, 1, *shape, channels[0]), normal(rng, *[3] * len(shape), *channels)
    directions = [normal(rng, *x.shape) for x in (image, kernel)]

    def second(function):
        with tf.GradientTape() as outer:
            outer.watch([image, kernel])
            with tf.GradientTape() as inner:
                inner.watch([image, kernel])
                loss = tf.reduce_sum(function(image, kernel) ** 3)
            gradients = inner.gradient(loss, [image, kernel])
            product = sum(tf.reduce_sum(d * g) for d, g in zip(directions, gradients, strict=True))
        return outer.gradient(product, [image, kernel])

    assert_equal(second(convolve), second(by_definition))


def repeated_and_concatenated(coarse, fine, kernel, factor):
    for axis in range(1, coarse.shape.rank - 1):
        coarse = tf.repeat(coarse, factor, axis)
    return by_definition(tf.concat([coarse, fine], -1), kernel)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
def test_upsampled_convolution_equals_the_definition(rng, shape, factor):
    coarse, fine = normal(rng, 2, *shape, 4), normal(rng, 2, *[factor * n for n in shape], 3)
    inputs = coarse, fine, normal(rng, *[3] * len(shape), 7, 5)
    results = value_and_gradients(lambda *x: convolve_upsampled(*x, None, factor), *inputs)
    assert_equal(results, value_and_gradients(lambda *x: repeated_and_concatenated(*x, factor), *inputs))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
def test_upsampled_convolution_of_sizes_known_at_run_time_only(rng, shape):
    kernel = normal(rng, *[3] * len(shape), 7, 5)
    unknown = [None] * (len(shape) + 1)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([*unknown, 4]), tf.TensorSpec([*unknown, 3])])
    def traced(coarse, fine):
        value = convolve_upsampled(coarse, fine, kernel, None, 2)
        return value, *tf.gradients(value, [coarse, fine])

    coarse, fine = normal(rng, 2, *shape, 4), normal(rng, 2, *[2 * n for n in shape], 3)
    with tf.GradientTape() as tape:
        tape.watch([coarse, fine])
        expected = repeated_and_concatenated(coarse, fine, kernel, 2)
    assert_equal(traced(coarse, fine), [expected, *tape.gradient(expected, [coarse, fine])])


@pytest.mark.parametrize("shape", SHAPES)
def test_bias_and_gradients_equal_the_definition(rng, shape):
    inputs = normal(rng, 2, *shape, 3), normal(rng, 3)
    assert_equal(value_and_gradients(add_bias, *inputs), value_and_gradients(lambda i, b: i + b, *inputs))


@pytest.mark.parametrize("slope", [0.01, 0.2, 1.0])
def test_leaky_relu_and_gradient_equal_tensorflows(rng, slope):
    image = tf.concat(
        [normal(rng, 2, 5, 6, 3), tf.constant([0.0, -0.0], shape=[2, 1, 1, 1]) + tf.zeros([2, 1, 6, 3])], 1
    )
    results = value_and_gradients(lambda x: leaky_relu(x, slope), image)
    for result, expected in zip(results, value_and_gradients(lambda x: tf.nn.leaky_relu(x, slope), image), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_leaky_relu_does_not_keep_its_input():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1, 4, 4, 1])])
    def gradient(image):
        return tf.gradients(leaky_relu(image, 0.2), image)

    (node,) = (n for n in gradient.get_concrete_function().graph.get_operations() if n.type == "LeakyReluGrad")
    assert "LeakyRelu" in {node.inputs[1].op.type, *(t.op.type for t in node.inputs[1].op.inputs)} - {"Placeholder"}


IMAGES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "small integers": lambda rng, shape: rng.integers(-1, 2, size=shape),
    "constant": lambda rng, shape: np.full(shape, -2.0),
    "zeros of both signs": lambda rng, shape: np.copysign(0.0, rng.normal(size=shape)),
}


@MODES
@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize(
    ("shape", "factor"), [((12,), 2), ((12,), 3), ((6, 8), 2), ((6, 9), 3), ((4, 2, 6), 2), ((3, 6, 3), 3)]
)
def test_pooling_and_gradient_equal_tensorflows_to_the_bit(rng, shape, factor, kind, compiled):
    image = tf.constant(IMAGES[kind](rng, (3, *shape, 2)), tf.float32)
    with kernels(compiled):
        results = value_and_gradients(lambda x: max_pool(x, factor), image)
    expected = value_and_gradients(lambda x: pooled_by_definition(x, factor), image)
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("shape", "factor"), [((7,), 2), ((6, 7), 2), ((8, 9), 3), ((4, 5, 6), 2)])
def test_pooling_falls_back_where_blocks_do_not_fill_the_image(rng, shape, factor):
    image = tf.constant(rng.integers(-1, 2, size=(2, *shape, 3)), tf.float32)
    with xla.compiled_kernels():
        results = value_and_gradients(lambda x: max_pool(x, factor), image)
    expected = value_and_gradients(lambda x: pooled_by_definition(x, factor), image)
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("known", [(None, 4, 6), (2, None, None)])
def test_pooling_of_sizes_known_at_run_time_only(rng, known):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([*known, 2])])
    def traced(image):
        with xla.compiled_kernels():
            value = max_pool(image, 2)
            return value, *tf.gradients(value, image)

    image = normal(rng, 2, 4, 6, 2)
    with tf.GradientTape() as tape:
        tape.watch(image)
        expected = pooled_by_definition(image, 2)
    assert_equal(traced(image), [expected, tape.gradient(expected, image)], 0)


@MODES
@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 6)])
def test_gradient_of_the_gradient_of_a_pooling(rng, shape, compiled):
    image = normal(rng, 2, *shape, 1)
    with kernels(compiled), tf.GradientTape() as outer:
        outer.watch(image)
        with tf.GradientTape() as inner:
            inner.watch(image)
            loss = tf.reduce_sum(max_pool(image, 2) ** 3)
        gradient = inner.gradient(loss, image)
        second = outer.gradient(gradient, image)
    is_largest = gradient.numpy() != 0
    np.testing.assert_allclose(second, np.where(is_largest, 6 * image, 0), rtol=1e-5)
