import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.ops.windows import box_sum
from hetmorph.ops.xla import compiled_kernels

SIZES = [((2, 20, 1), (7,)), ((2, 13, 17, 2), (5, 4)), ((1, 5, 6, 1), (9, 15)), ((1, 9, 8, 7, 2), (9, 3, 2))]


@pytest.mark.parametrize(("shape", "sides"), SIZES)
@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_the_correlation_with_a_box(shape, sides, compiled, rng):
    image = rng.normal(size=shape).astype("float32")
    box = np.ones((1, *sides, 1))
    origin = [-((side + 1) % 2) for side in box.shape]  # scipy's middle of an even side is one later than ours
    expected = ndimage.correlate(image.astype(float), box, mode="constant", origin=origin)
    with compiled_kernels(compiled):
        np.testing.assert_allclose(box_sum(image, sides), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "sides"), SIZES)
def test_its_gradient_is_its_adjoint(shape, sides, rng):
    x, y = (tf.constant(rng.normal(size=shape)) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(y * box_sum(x, sides))
    np.testing.assert_allclose(tf.reduce_sum(x * tape.gradient(value, x)), value, rtol=1e-10)


def test_sizes_may_be_unknown(rng):
    image = rng.normal(size=(1, 9, 8, 1)).astype("float32")
    traced = tf.function(lambda x: box_sum(x, (5, 3)), input_signature=[tf.TensorSpec([None, None, None, 1])])
    np.testing.assert_allclose(traced(image), box_sum(image, (5, 3)), atol=1e-6)
