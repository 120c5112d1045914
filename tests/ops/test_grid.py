"""Parts of images along an axis."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops.grid import cut

BOUNDS = [(0, 2), (1, None), (0, -1), (-1, None), (2, -2), (1, 4), (3, 3), (3, 2), (1, 9), (0, None)]


@pytest.mark.parametrize("known", [True, False], ids=["known size", "any size"])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_cut_is_a_slice_and_so_is_its_gradient(bounds, known):
    values = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    for axis in (1, 2, -1):
        where = [slice(None)] * 4
        where[axis] = slice(*bounds)

        @tf.function(input_signature=[tf.TensorSpec(values.shape if known else [None] * 4)], autograph=False)
        def both(tensor, axis=axis):
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                part = cut(tensor, axis, *bounds)
                value = tf.reduce_sum(part**2)
            return part, tape.gradient(value, tensor)

        part, gradient = both(values)
        np.testing.assert_array_equal(part, values[tuple(where)])
        expected = np.zeros_like(values)
        expected[tuple(where)] = 2 * values[tuple(where)]
        np.testing.assert_array_equal(gradient, expected)
