"""Slabs: every row kept once, and the values and gradients of the whole."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops.convolution import convolve
from hetmorph.ops.slabs import in_slabs, slabs

SIZES = list(itertools.product([8, 24, 62], [1, 2, 3, 9], [0, 1, 4], [1, 2]))


@pytest.mark.parametrize("size,count,halo,multiple", SIZES)
def test_slabs_keep_every_row_once_and_reach_its_surroundings(size, count, halo, multiple):
    parts = slabs(size, count, halo, multiple)
    assert 1 <= len(parts) <= count
    assert [row for part in parts for row in range(part.first, part.last)] == list(range(size))
    for part in parts:
        assert part.low <= max(part.first - halo, 0) and part.high >= min(part.last + halo, size)
        assert part.low % multiple == 0 and part.high % multiple == 0
    for before, after in zip(parts, parts[2:], strict=False):
        assert before.high <= after.low  # rows are shared by neighbours only


@pytest.mark.quick("False-1", "False-2", "False-3", "True-2")
@pytest.mark.parametrize("ndims", [1, 2, 3])
@pytest.mark.parametrize("graph", [False, True])
def test_values_and_gradients_are_those_of_the_whole(ndims, graph, rng):
    grid = (10, 3, 2)[:ndims]
    coarse = tf.constant(rng.normal(size=(2, *grid, 3)), tf.float32)
    fine = tf.constant(rng.normal(size=(2, *[2 * n for n in grid], 2)), tf.float32)
    kernel = tf.Variable(rng.normal(size=(*[3] * ndims, 5, 2)), dtype=tf.float32)

    def function(coarse, fine):
        repeated = coarse
        for axis in range(1, ndims + 1):
            repeated = tf.repeat(repeated, 2, axis)
        return tf.tanh(convolve(tf.concat([repeated, fine], -1), tf.convert_to_tensor(kernel)))

    def numbers(form):
        with tf.GradientTape() as tape:
            tape.watch([coarse, fine])
            result = form(coarse, fine)
            product = tf.reduce_sum(tf.sin(3 * result))
        return [result, *tape.gradient(product, [coarse, fine, kernel])]

    run = tf.function(numbers, autograph=False) if graph else numbers
    for result, expected in zip(
        run(lambda *pair: in_slabs(function, *pair, count=4, halo=1)), run(function), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_gradient_calls_the_function_again():
    calls = []

    def function(coarse, fine):
        calls.append(int(fine.shape[1]))
        return fine

    with tf.GradientTape() as tape:
        fine = tf.ones((1, 12, 1))
        tape.watch(fine)
        result = in_slabs(function, tf.ones((1, 6, 1)), fine, count=2, halo=2)
        assert calls == [8, 8]
        tape.gradient(result, fine)
    assert calls == [8, 8, 8, 8]
