"""The written-out gradients of `warp` against automatic differentiation of the definition."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops import interpolation, warp
from hetmorph.ops.interpolation import interpolate, pull, push, push_packed
from hetmorph.ops.xla import compiled_kernels
from tests.graphs import kernels

SHAPES = [(9,), (6, 7), (4, 5, 6)]
MODES = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
COMPILED = pytest.param((6, 7), True, marks=pytest.mark.slow)


def reference(image, position):
    """One gather per corner, weighted by the distances to the opposite one; VoxelMorph's convention at the edges."""
    image, position = tf.convert_to_tensor(image), tf.convert_to_tensor(position)
    corners = []
    for x, size in zip(tf.unstack(position, axis=-1), image.shape[1:-1], strict=True):
        x = tf.clip_by_value(x, 0.0, size - 1.0)
        lower = tf.clip_by_value(tf.floor(x), 0.0, size - 1.0)
        upper = tf.minimum(lower + 1, size - 1.0)
        corners.append([(lower, upper - x), (upper, 1 - (upper - x))])
    total = 0.0
    for corner in itertools.product(*corners):
        index = tf.stack([tf.cast(voxel, tf.int32) for voxel, _ in corner], axis=-1)
        weight = tf.reduce_prod(tf.stack([weight for _, weight in corner]), axis=0)
        total += tf.cast(weight, image.dtype)[..., None] * tf.gather_nd(image, index, batch_dims=1)
    return total


def reference_warp(image, displacement):
    displacement = tf.convert_to_tensor(displacement)
    grid = tf.meshgrid(*[tf.range(n, dtype=displacement.dtype) for n in displacement.shape[1:-1]], indexing="ij")
    return reference(image, displacement + tf.stack(grid, axis=-1))


def grid_of(shape):
    return np.stack(np.meshgrid(*[np.arange(n, dtype="float32") for n in shape], indexing="ij"), -1)


def awkward_positions(rng, shape, grid, batch):
    """Between voxels, on them, on the last one, on the edges and outside."""
    last = np.array(shape, "float32") - 1
    positions = rng.uniform(-2, last + 2, size=(batch, *grid, len(shape))).astype("float32")
    flat = positions.reshape(-1, len(shape))
    flat[::3] = np.round(flat[::3])
    flat[0], flat[1], flat[2, 0] = last, 0, last[0]
    return positions


def value_and_gradients(function, *inputs, upstream=None):
    """`function(*inputs)` and the gradients of its product with `upstream`, as numpy arrays."""
    inputs = [tf.convert_to_tensor(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
        product = tf.reduce_sum(value * tf.cast(upstream, value.dtype))
    return [value.numpy(), *(g.numpy() for g in tape.gradient(product, inputs))]


def assert_equal(results, references, tolerance=1e-5):
    for name, result, expected in zip(("value", "first", "second"), results, references, strict=False):
        scale = max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.quick("shape0-3-plain", "shape1-1-plain", "shape1-3-compiled", "shape1-16-plain", "shape2-3-plain")
@MODES
@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_automatic_differentiation(rng, shape, channels, compiled):
    image = rng.normal(size=(3, *shape, channels)).astype("float32")
    u = awkward_positions(rng, shape, shape, 3) - grid_of(shape)
    upstream = rng.normal(size=image.shape)
    with kernels(compiled):
        results = value_and_gradients(warp, image, u, upstream=upstream)
    assert_equal(results, value_and_gradients(reference_warp, image, u, upstream=upstream))


@pytest.mark.quick("shape0-plain", "shape1-plain", "shape2-plain")
@MODES
@pytest.mark.parametrize("shape", SHAPES)
def test_zero_displacement_has_the_derivative_of_the_upper_side(rng, shape, compiled):
    image = rng.normal(size=(3, *shape, 1)).astype("float32")
    with kernels(compiled):
        _, _, gradient = value_and_gradients(warp, image, np.zeros((3, *shape, len(shape)), "f"), upstream=1)
    for axis in range(len(shape)):
        last = np.take(image, [-1], axis + 1)
        np.testing.assert_array_equal(gradient[..., axis], np.diff(image, axis=axis + 1, append=last)[..., 0])


@pytest.mark.quick("plain")
@MODES
def test_image_and_displacement_of_unequal_sizes(rng, compiled):
    image = rng.normal(size=(3, 5, 8, 2)).astype("float32")
    u = awkward_positions(rng, (5, 8), (7, 4), 3) - grid_of((7, 4))
    upstream = rng.normal(size=(3, 7, 4, 2))
    with kernels(compiled):
        results = value_and_gradients(warp, image, u, upstream=upstream)
    assert results[0].shape == upstream.shape
    assert_equal(results, value_and_gradients(reference_warp, image, u, upstream=upstream))


@pytest.mark.quick("shape0-plain", "shape1-plain", "shape2-plain")
@MODES
@pytest.mark.parametrize("shape", [(1,), (6, 1), (4, 1, 5)])
def test_an_axis_of_one_voxel(rng, shape, compiled):
    image = rng.normal(size=(2, *shape, 2)).astype("float32")
    u = awkward_positions(rng, shape, (3,) * len(shape), 2) - grid_of((3,) * len(shape))
    upstream = rng.normal(size=(*u.shape[:-1], 2))
    with kernels(compiled):
        results = value_and_gradients(warp, image, u, upstream=upstream)
    assert_equal(results, value_and_gradients(reference_warp, image, u, upstream=upstream))


@pytest.mark.parametrize(("shape", "compiled"), [*zip(SHAPES, [False] * 3, strict=True), COMPILED])
def test_points_are_positions_and_not_displacements(rng, shape, compiled):
    image = rng.normal(size=(2, *shape, 2)).astype("float32")
    points = awkward_positions(rng, shape, (11,), 2)
    upstream = rng.normal(size=(2, 11, 2))
    with kernels(compiled):
        results = value_and_gradients(lambda i, p: interpolate(i, p, relative=False), image, points, upstream=upstream)
    assert_equal(results, value_and_gradients(reference, image, points, upstream=upstream))


@pytest.mark.quick("shape0", "shape1")
@pytest.mark.parametrize("shape", [(9,), (4, 3), (3, 3, 2)])
def test_gradients_equal_finite_differences_between_voxels(rng, shape):
    # Linear in every coordinate within a cell: central differences are exact up to rounding.
    image = tf.constant(rng.normal(size=(1, *shape, 2)), tf.float32)
    u = tf.constant(rng.uniform(0.1, 0.9, size=(1, *shape, len(shape))) - rng.integers(0, 2), tf.float32)
    upstream = tf.constant(rng.normal(size=image.shape), tf.float32)
    both = tf.test.compute_gradient(lambda *x: tf.reduce_sum(upstream * warp(*x)), [image, u], delta=0.05)
    for theory, numeric in zip(*both, strict=True):
        np.testing.assert_allclose(theory, numeric, atol=1e-3)


@pytest.mark.parametrize("adjoint", [push, push_packed])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_push_is_the_adjoint_of_pull(rng, shape, relative, adjoint):
    image, b = rng.normal(size=(2, *shape, 3)), rng.normal(size=(2, *shape, 3))
    position = tf.constant(awkward_positions(rng, shape, shape, 2))
    pulled = pull(tf.constant(image), position, relative)
    pushed = adjoint(tf.constant(b), position, shape, relative)
    assert pushed.shape == image.shape
    np.testing.assert_allclose(np.vdot(pulled, b), np.vdot(image, pushed), rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_push_keeps_the_sum(rng, shape):
    # Weights of a position add up to one, also outside, where all goes to the edge.
    b = rng.normal(size=(2, *shape, 1))
    pushed = push(tf.constant(b), tf.constant(awkward_positions(rng, shape, shape, 2)), shape, False)
    np.testing.assert_allclose(np.sum(pushed, axis=tuple(range(1, len(shape) + 2))), b.reshape(2, -1).sum(1))


@pytest.mark.quick("shape1-False")
@pytest.mark.parametrize(("shape", "compiled"), [*zip(SHAPES, [False] * 3, strict=True), ((9,), True), COMPILED])
def test_gradient_of_the_gradient(rng, shape, compiled):
    image = tf.constant(rng.normal(size=(2, *shape, 1)), tf.float32)
    position = awkward_positions(rng, shape, shape, 2)
    kink = np.abs(position - np.round(position)) < 0.05
    u = tf.constant(np.where(kink, np.floor(position) + 0.3, position) - grid_of(shape))
    direction = tf.constant(rng.normal(size=u.shape), tf.float32)

    def second(function):
        with tf.GradientTape() as outer:
            outer.watch([image, u])
            with tf.GradientTape() as inner:
                inner.watch(u)
                loss = tf.reduce_sum(function(image, u) ** 2)
            product = tf.reduce_sum(direction * inner.gradient(loss, u))
        return outer.gradient(product, [image, u])

    with kernels(compiled):
        results = second(warp)
    assert_equal([g.numpy() for g in results], [g.numpy() for g in second(reference_warp)])


@pytest.mark.quick("shape0-plain", "shape1-plain", "shape2-plain")
@MODES
@pytest.mark.parametrize("shape", SHAPES)
def test_nan_position_gives_nan_there_and_nowhere_else(rng, shape, compiled):
    image = rng.normal(size=(3, *shape, 3)).astype("float32")
    u = awkward_positions(rng, shape, shape, 3) - grid_of(shape)
    expected = reference_warp(image, u).numpy()
    u[(1, *[2] * len(shape), -1)] = expected[(1, *[2] * len(shape))] = np.nan
    with kernels(compiled):
        np.testing.assert_allclose(warp(image, u), expected, atol=1e-5)


@pytest.mark.quick("10000000000.0-plain", "-10000000000.0-plain", "inf-plain", "-inf-plain")
@MODES
@pytest.mark.parametrize("far", [1e10, -1e10, np.inf, -np.inf])
def test_far_outside_is_the_edge_and_has_no_slope(rng, far, compiled):
    image = rng.normal(size=(1, 4, 5, 1)).astype("float32")
    with kernels(compiled):
        value, pushed, slope = value_and_gradients(warp, image, np.full((1, 4, 5, 2), far, "f"), upstream=1)
    corner = (0, -1, -1, 0) if far > 0 else (0, 0, 0, 0)
    assert np.all(value == image[corner]) and not slope.any()
    assert pushed[corner] == 20 and pushed.sum() == 20


@pytest.mark.quick("float16-plain", "float64-plain")
@MODES
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_of_values_and_gradients_are_those_of_the_inputs(rng, dtype, compiled):
    image = rng.normal(size=(2, 5, 6, 1)).astype(dtype)
    u = rng.uniform(-2, 2, size=(2, 5, 6, 2)).astype(dtype)
    upstream = rng.normal(size=image.shape)
    with kernels(compiled):
        results = value_and_gradients(warp, image, u, upstream=upstream)
    assert {r.dtype for r in results} == {np.dtype(dtype)}
    expected = value_and_gradients(reference_warp, image.astype("f"), u.astype("f"), upstream=upstream)
    assert_equal(results, expected, 5e-3 if dtype == "float16" else 1e-5)


@pytest.mark.quick("known2")
@pytest.mark.parametrize("known", [(None, 5, 6), (2, None, None), (None, None, None)])
def test_gradients_where_sizes_are_known_at_run_time_only(rng, known):
    image = rng.normal(size=(2, 5, 6, 2)).astype("float32")
    u = awkward_positions(rng, (5, 6), (5, 6), 2) - grid_of((5, 6))
    upstream = rng.normal(size=image.shape).astype("float32")
    expected = value_and_gradients(reference_warp, image, u, upstream=upstream)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([*known, 2])] * 3)
    def traced(image, u, upstream):
        with compiled_kernels():
            value = warp(image, u)
            return value, *tf.gradients(value, [image, u], upstream)

    assert_equal([t.numpy() for t in traced(image, u, upstream)], expected)


def test_images_beyond_32_bit_indices_are_refused():
    displacement = tf.TensorSpec([1, 4, 4, 2])
    too_many, just_fits = tf.TensorSpec([1, 2**16, 2**15, 1]), tf.TensorSpec([1, 2**16, 2**15 - 1, 1])
    with pytest.raises(ValueError, match="2147483648 numbers.*split the batch"):
        tf.function(lambda i, u: warp(i, u), autograph=False).get_concrete_function(too_many, displacement)
    tf.function(lambda i, u: warp(i, u), autograph=False).get_concrete_function(just_fits, displacement)


def test_the_gradient_needs_the_inputs_only():
    # What else it took from the forward pass would be kept in memory until then.

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1, 8, 8, channels]) for channels in (1, 2, 1)])
    def gradients(image, u, upstream):
        return tf.gradients(warp(image, u), [image, u], upstream, name="backward")

    nodes = gradients.get_concrete_function().graph.get_operations()
    used = [tensor for node in nodes if node.name.startswith("backward/") for tensor in node.inputs]
    kept = {t.op.type for t in used if not t.op.name.startswith("backward/") and t.shape.num_elements() >= 64}
    assert kept and kept <= {"Placeholder", "Identity", "IdentityN"}  # the latter hand the inputs on


@pytest.mark.quick("True")
@pytest.mark.parametrize("relative", [False, True])
def test_a_large_grid_is_interpolated_slab_by_slab(relative, rng, monkeypatch):
    image, upstream = (tf.constant(rng.random((2, 6, 5, 4, 3)), tf.float32) for _ in range(2))
    position = tf.constant(rng.uniform(-2, 6, (2, 6, 5, 4, 3)), tf.float32)

    def values():
        with tf.GradientTape() as tape:
            tape.watch((image, position))
            value = interpolate(image, position, relative)
        return value, *tape.gradient(value, (image, position), upstream)

    whole = values()
    monkeypatch.setattr(interpolation, "LARGE", 100)
    monkeypatch.setattr(interpolation, "SLAB", 30)  # two rows of 20
    calls = []
    monkeypatch.setattr(
        interpolation, "_pull", lambda *args, own=interpolation._pull, **how: calls.append(args) or own(*args, **how)
    )
    for parts in (values(), tf.function(values, autograph=False)()):
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert len(calls) == 3 + 1, "once a slab, and in a graph once for all slabs"
