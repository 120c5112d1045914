"""Laws and references of the inverse-consistency penalties."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import (
    gradient_inverse_consistency,
    inverse_consistency,
    jacobian_inverse_consistency,
    velocity_diffusion,
)
from hetmorph.transforms import Affine, Composition, Displacement, Identity, Transform, Velocity
from tests import reference

SHAPE = (11, 8)
PENALTIES = [inverse_consistency, gradient_inverse_consistency]
each = pytest.mark.parametrize("penalty", PENALTIES)


def fields(rng, shape=SHAPE, batch=2, amplitude=1.5):
    return [np.stack([reference.smooth_field(rng, shape, amplitude, 2.0) for _ in range(batch)]) for _ in range(2)]


def error(outer, inner, points, shape=SHAPE):
    """x − φ_outer(φ_inner(x)) in the unit cube, in double precision."""
    outer, inner = (Displacement(np.asarray(u, float)) for u in (outer, inner))
    return (points - outer(inner(points))) / (np.array(shape) - 1)


@pytest.mark.parametrize("shape", [(11, 8), (7, 6, 5)])
def test_each_is_its_formula(shape, rng):
    there, back = fields(rng, shape)
    points = rng.uniform(0, np.array(shape) - 1, (2, 40, len(shape)))
    both = [error(there, back, points, shape), error(back, there, points, shape)]
    expected = sum((e**2).mean((1, 2)) for e in both)
    np.testing.assert_allclose(inverse_consistency(there, back, points=points), expected, rtol=1e-4)
    steps = 1e-3 * np.diag(np.array(shape) - 1.0)
    slopes = [(both[0] - error(there, back, points + step, shape)) / 1e-3 for step in steps]
    expected = sum((slope**2).mean((1, 2)) for slope in slopes)
    found = gradient_inverse_consistency(there, back, points=points, weight=1.5)
    np.testing.assert_allclose(found, 1.5 * expected, rtol=2e-3)


def test_a_translation_is_seen_by_the_error_and_not_by_its_gradient():
    shift = Affine(np.eye(2), [1.0, 2.0])
    np.testing.assert_allclose(
        inverse_consistency(shift, shift, SHAPE), [2 * ((2 / 10) ** 2 + (4 / 7) ** 2) / 2], rtol=1e-5
    )
    assert float(gradient_inverse_consistency(shift, shift, SHAPE)[0]) < 1e-4


def test_of_affine_transforms_the_gradient_is_their_product(rng):
    """In the unit cube A and B become D⁻¹·A·D, whatever the points."""
    a, b = np.eye(2) + rng.normal(0, 0.2, (2, 2, 2))
    size = np.diag(np.array(SHAPE) - 1.0)
    product = np.linalg.inv(size) @ a @ b @ size
    expected = ((np.eye(2) - product) ** 2).sum() / 2
    for sparse in (True, False):
        found = gradient_inverse_consistency(Affine(a, [0, 1.0]), Affine(b, [2.0, 0]), SHAPE, sparse=sparse)
        np.testing.assert_allclose(found, [expected], rtol=2e-3)


@each
def test_inverse_transforms_cost_nothing(penalty, rng):
    there = Affine(np.eye(2) + rng.normal(0, 0.1, (3, 2, 2)), rng.normal(size=(3, 2)))
    value = penalty(there, there.inverse(), SHAPE)
    assert value.shape == (3,) and float(tf.reduce_max(value)) < 1e-5
    assert float(tf.reduce_min(penalty(there, Identity(2), SHAPE))) > 1e-3


@each
def test_a_sample_does_not_depend_on_its_batch_and_half_precision_is_computed_in_single(penalty, rng):
    there, back = fields(rng)
    value = penalty(there, back, seed=1)
    assert value.shape == (2,) and value.dtype == tf.float32
    np.testing.assert_allclose(penalty(there[1:], back[1:], seed=1), value[1:], rtol=1e-5)
    halves = [tf.cast(u, tf.float16) for u in (there, back)]
    single = [tf.cast(u, tf.float32) for u in halves]
    np.testing.assert_array_equal(penalty(*halves, seed=1), penalty(*single, seed=1))


@pytest.mark.quick("gradient_inverse_consistency")
@each
def test_the_shift_off_the_grid(penalty, rng):
    there, back = fields(rng)
    graph = tf.function(lambda: penalty(there, back), autograph=False)
    for draw in (lambda: penalty(there, back), graph):
        assert float(draw()[0]) != float(draw()[0])
    np.testing.assert_array_equal(penalty(there, back, seed=3), penalty(there, back, seed=3))
    assert float(penalty(there, back, seed=3)[0]) != float(penalty(there, back, seed=4)[0])
    generators = [keras.random.SeedGenerator(5) for _ in range(2)]
    first, second = ([float(penalty(there, back, seed=g)[0]) for _ in range(2)] for g in generators)
    assert first == second and first[0] != first[1]
    np.testing.assert_array_equal(penalty(there, back, jitter=0), penalty(there, back, jitter=0))


class Asked(Transform):
    """The identity, which keeps the points it was asked about, and has no field."""

    ndims = 2

    def __call__(self, points):
        self.points = points
        return points

    def displacement(self, shape):
        raise AssertionError("resampled onto a grid")


def test_points_are_one_noise_on_every_voxel_or_every_second():
    shape, asked = (60, 90), Asked()
    grid = np.stack(np.indices(shape), -1)
    inverse_consistency(asked, asked, shape)
    shift = (asked.points[0] - grid) / (np.array(shape) - 1)
    np.testing.assert_allclose(np.std(shift, (0, 1)), 1 / 90, rtol=0.05)
    gradient_inverse_consistency(asked, asked, shape, delta=0.01)
    points = np.asarray(asked.points[0])  # of the four differences, [3, 30, 45, 2]
    assert points.shape == (3, 30, 45, 2)
    shift = (points[0] - grid[::2, ::2]) / (np.array(shape) - 1)
    np.testing.assert_allclose(np.std(shift, (0, 1)), 2 / 90, rtol=0.05)
    np.testing.assert_allclose(points[1:] - points[:1], [[[[0.59, 0]]], [[[0, 0.89]]]] + 0 * points[1:], atol=1e-4)
    gradient_inverse_consistency(asked, asked, shape, sparse=False, jitter=0)
    np.testing.assert_array_equal(asked.points[0, 0], grid)


@each
def test_sizes_may_be_unknown_and_gradients_pass(penalty, rng):
    there, back = (tf.constant(u) for u in fields(rng))
    spec = tf.TensorSpec([None, None, None, 2])
    graph = tf.function(lambda a, b: penalty(a, b, seed=1), input_signature=[spec, spec], autograph=False)
    np.testing.assert_allclose(graph(there, back), penalty(there, back, seed=1), rtol=1e-4)

    def total(u):
        return tf.reduce_sum(penalty(u, back, seed=1))

    with tf.GradientTape() as tape:
        tape.watch(there)
        value = total(there)
    gradient = tape.gradient(value, there)
    step = 3e-3 * gradient / tf.norm(gradient)
    slope = float(total(there + step) - total(there - step)) / 2
    assert slope == pytest.approx(float(tf.reduce_sum(gradient * step)), rel=0.05)


def test_velocity_diffusion_is_its_formula(rng):
    velocity = rng.normal(size=(2, 6, 9, 2)).astype("float32")
    unit = velocity / np.array([5.0, 8.0])
    expected = 36 * sum((np.diff(unit, axis=axis) ** 2).mean((1, 2, 3)) for axis in (1, 2))
    np.testing.assert_allclose(velocity_diffusion(velocity, 0.5), 0.5 * expected, rtol=1e-5)


def test_of_a_transform_each_velocity_counts_once(rng):
    one, other = (Velocity(tf.constant(u)) for u in fields(rng))
    turned = Affine(np.eye(2), [1.0, 0])
    whole = Composition(one, turned, other, one)
    expected = velocity_diffusion(one.velocity) + velocity_diffusion(other.velocity)
    np.testing.assert_allclose(velocity_diffusion(whole), expected, rtol=1e-6)


FIELD = np.zeros((1, 4, 4, 2), "float32")
BAD = [
    (lambda f: f(FIELD, FIELD, weight=-1), "weight λ must be at least 0, got -1"),
    (lambda f: f(FIELD, FIELD, jitter=-0.5), "jitter must be at least 0, got -0.5"),
    (lambda f: f(FIELD, None), "in each direction, backward is None"),
    (lambda f: f(Identity(2), Identity(2)), "expected the shape.*received None"),
    (lambda f: f(Identity(2), Identity(3), (4, 4)), "2 axes on the grid .*received 2 and 3"),
    (lambda f: f(FIELD, FIELD[:, :3]), r"on the grid \(4, 4\), received one on \(3, 4\)"),
    (lambda f: f(FIELD, Identity(2), (4, 5)), r"on the grid \(4, 5\), received one on \(4, 4\)"),
    (lambda f: f(FIELD[..., :1], FIELD), r"\[B, \*S, N\].*\(1, 4, 4, 1\)"),
    (lambda f: f(Identity(2), Identity(2), (4, 1)), r"at least 2 voxels.*\(4, 1\)"),
    (lambda f: f(FIELD, FIELD, points=np.zeros((1, 5, 3))), r"points \[B, ..., 2\], received shape \(1, 5, 3\)"),
]


@each
@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_refused(penalty, call, message):
    with pytest.raises(ValueError, match=message):
        call(penalty)


def test_jacobians_at_points_ask_for_no_grid():
    points = np.full((1, 5, 2), 1.3, "float32")
    np.testing.assert_allclose(jacobian_inverse_consistency(FIELD, FIELD, points), [0], atol=1e-10)


def test_bad_numbers_of_their_own_are_refused():
    with pytest.raises(ValueError, match="delta must be positive, got 0"):
        gradient_inverse_consistency(FIELD, FIELD, delta=0)
    with pytest.raises(ValueError, match="weight λ must be at least 0, got -2"):
        velocity_diffusion(FIELD, -2)
    with pytest.raises(ValueError, match="velocities, received Identity"):
        velocity_diffusion(Identity(2))
