"""Attention to coordinates: the dense form, its gradient, blocks, and translations of either image."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from hetmorph import layers
from hetmorph.ops.attention import attend
from tests.contract import check_layer


def features(ndims, batch, rng):
    return [rng.normal(size=(batch, *range(5, 5 + ndims), 3)) for _ in range(2)]


CONTRACTS = [
    (layers.CoordinateAttention, {"padding": 1, "block_size": 64}, features),
    (layers.Margin, {"padding": 2}, lambda *of: features(*of)[0]),
    (layers.FeatureNorm, {"length": 3.0}, lambda *of: features(*of)[0]),
    (layers.Flip, {"axes": [0, 1]}, lambda *of: features(*of)[0]),
]


@pytest.mark.parametrize("case", range(len(CONTRACTS)))
def test_contract(case):
    check_layer(*CONTRACTS[case])


@pytest.fixture(scope="module")
def rows():
    """Queries, keys, values, and what the result is multiplied by for a gradient."""
    rng = np.random.default_rng(0)
    shapes = (2, 37, 6), (2, 53, 6), (53, 3), (2, 37, 3)
    return [tf.constant(rng.normal(size=shape)) for shape in shapes]


def with_gradients(function, queries, keys, values, upstream):
    with tf.GradientTape() as tape:
        tape.watch([queries, keys])
        result = function(queries, keys, values)
        total = tf.reduce_sum(result * upstream)
    return [result, *tape.gradient(total, [queries, keys])]


def dense(queries, keys, values):
    return tf.einsum("bnm,md->bnd", tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True)), values)


@pytest.mark.quick("5-False", "1000-False")
@pytest.mark.parametrize(("block", "compiled"), [(5, False), (16, True), (53, False), (1000, False)])
def test_blocks_are_the_dense_form(block, compiled, rows):
    expected = with_gradients(dense, *rows)
    run = tf.function(
        lambda *of: with_gradients(lambda *of: attend(*of, block), *of), jit_compile=compiled, autograph=False
    )
    for a, b in zip(run(*rows), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_gradient_is_that_of_differences(rows, rng):
    queries, keys, values, upstream = rows
    _, *gradients = with_gradients(lambda *of: attend(*of, 16), *rows)
    for number, gradient in enumerate(gradients):
        step = 1e-5 * rng.normal(size=gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [queries, keys]
            moved[number] += sign * step
            ends.append(tf.reduce_sum(attend(*moved, values, 16) * upstream))
        np.testing.assert_allclose(np.sum(gradient * step), (ends[0] - ends[1]) / 2, rtol=1e-6)


def test_logits_of_any_size(rows):
    queries, keys, values, _ = rows
    far = tf.concat([queries, tf.ones_like(queries[..., :1])], -1)
    for shift in (-1e4, 1e4):  # of every logit, which the softmax does not see
        shifted = tf.concat([keys, tf.fill(keys[..., :1].shape, tf.constant(shift, keys.dtype))], -1)
        np.testing.assert_allclose(attend(far, shifted, values, 16), dense(queries, keys, values), atol=1e-9)


def test_no_tensor_is_as_large_as_queries_times_keys():
    shape = tf.TensorSpec([1, 512, 4])
    values = tf.zeros([512, 2])
    run = tf.function(
        lambda q, k: with_gradients(lambda *of: attend(*of, 32), q, k, values, tf.ones([1, 512, 2])), autograph=False
    )
    graph = run.get_concrete_function(shape, shape).graph
    functions = [graph, *(function.graph for function in graph._functions.values())]
    sizes = [out.shape.num_elements() or 0 for one in functions for op in one.get_operations() for out in op.outputs]
    assert max(sizes) < 512 * 512 / 16


@pytest.mark.parametrize("ndims", [2, 3])
def test_the_mean_place_of_what_looks_alike(ndims, rng):
    moving, fixed = features(ndims, 2, rng)
    found = layers.CoordinateAttention(padding=1)([moving.astype("float32"), fixed.astype("float32")])
    inner = fixed[(slice(None), *[slice(1, -1)] * ndims)]
    places = np.stack(np.indices(moving.shape[1:-1]), -1).reshape(-1, ndims) - 1
    logits = np.einsum("bqc,bkc->bqk", inner.reshape(2, -1, 3), moving.reshape(2, -1, 3))
    expected = (softmax(logits, -1) @ places).reshape(2, *inner.shape[1:-1], ndims)
    own = np.stack(np.indices(inner.shape[1:-1]), -1)
    np.testing.assert_allclose(found, expected - own, atol=1e-5)


def test_the_place_is_found_and_may_lie_outside():
    size, padding = (7, 6), 2
    padded = 30 * np.eye(11 * 10, dtype="float32").reshape(1, 11, 10, -1)  # each voxel like no other
    moved = np.roll(padded, (2, -1), (1, 2))  # fixed(x) = moving(x − (2, −1))
    found = layers.CoordinateAttention(padding)([padded, moved])
    np.testing.assert_allclose(found, np.broadcast_to([-2.0, 1.0], (1, *size, 2)), atol=1e-4)
    assert float(found[0, 0, 0, 0]) == pytest.approx(-2, abs=1e-4)  # the first row, of the margin


@pytest.mark.parametrize("ndims", [2, 3])
def test_translations_of_both_images_pass_through_exactly(ndims, rng):
    """φ[A∘W, B∘U] = W⁻¹∘φ[A, B]∘U, where what moves out of the moving grid, and into it, has no weight."""
    size, w, u = (12, 11, 10)[:ndims], (2, -3, 1)[:ndims], (-1, 3, -2)[:ndims]
    padding, object_, axes = 2, (0, *[slice(6, 10)] * ndims), tuple(range(1, ndims + 1))
    moving, fixed = (rng.normal(size=(1, *[n + 2 * padding for n in size], 4)).astype("float32") for _ in range(2))
    fixed[..., 0], background = 1, np.full(moving.shape[:-1], -200.0, "float32")
    background[object_] = 0
    moving[..., 0] = background  # of a logit so low that its exponential is 0
    attention = layers.CoordinateAttention(padding)

    def phi(*pair):
        return attention(pair)[0].numpy() + np.stack(np.indices(size), -1)

    plain = phi(moving, fixed)
    other = phi(*(np.roll(x, [-k for k in by], axes) for x, by in ((moving, w), (fixed, u))))
    here = tuple(slice(max(0, -k), n - max(0, k)) for n, k in zip(size, u, strict=True))
    there = tuple(slice(max(0, k), n + min(0, k)) for n, k in zip(size, u, strict=True))
    assert np.std(plain, axis=tuple(range(ndims))).min() > 0.2
    np.testing.assert_allclose(other[here], plain[there] - w, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({"block_size": 0}, None, "block_size of at least 1, received 0"),
        ({"padding": -1}, None, "padding of at least 0 voxels, received -1"),
        ({}, [(1, 4, 4, 3), (1, 4, 4, 2)], "equally many features of two images"),
        ({}, [(1, 4, 4, 3), (1, 4, 4, 4, 3)], "equally many features of two images"),
        ({"padding": 2}, [(1, 5, 4, 3), (1, 5, 5, 3)], "moving image with a margin of 2 voxels .* more than 4 voxels"),
        ({"padding": 2}, [(1, 5, 5, 3), (1, 4, 5, 3)], "fixed image with a margin of 2 voxels .* more than 4 voxels"),
    ],
)
def test_what_cannot_be_is_refused(options, shapes, message):
    with pytest.raises(ValueError, match=message):
        attention = layers.CoordinateAttention(**options)
        attention([tf.zeros(shape) for shape in shapes])
