"""Laws of transforms made of a network of coordinates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.networks import code_encoder, coordinate_network
from hetmorph.steps import ImplicitStep
from hetmorph.transforms import Affine, Codes, Composition, Implicit, Transform, implicit, in_frame, voxels

SHAPE = (14, 11)


def lively(ndims=2, scale=2e-3, seed=0):
    """A network of coordinates that moves places by a voxel or two, and does not fold."""
    keras.utils.set_random_seed(seed)
    network = coordinate_network(ndims, codes=5, units=16, waves=16)
    last = network.layers[-1]
    rng = np.random.default_rng(seed)
    last.set_weights([rng.normal(scale=scale, size=w.shape) for w in last.get_weights()])
    return network


def codes(ndims=2, pairs=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (pairs, 2), (pairs, *[3] * ndims, 3)
    return Codes(*(tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes))


@pytest.fixture(scope="module")
def transform():
    return Implicit(lively(), codes(), SHAPE)


def test_a_network_that_gives_nothing_moves_nothing():
    network = coordinate_network(3, codes=5, units=4, waves=4)  # its last layer starts from zeros
    points = voxels((3, 4, 5)) + 0.25
    np.testing.assert_allclose(Implicit(network, codes(3), (3, 4, 5))(points), np.repeat(points, 2, 0), atol=1e-6)


def test_codes_are_linear_between_the_middles_of_their_cells():
    ramp = np.stack(np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in (3, 4)], indexing="ij"), -1)
    field = Codes(tf.constant([[7.0]]), tf.constant(ramp[None], tf.float32))
    places = np.random.default_rng(0).uniform(-0.6, 0.6, (1, 50, 2)).astype("float32")
    found = field.at(tf.constant(places))
    np.testing.assert_allclose(found[..., 1:], places, atol=1e-6)
    np.testing.assert_array_equal(found[..., 0], np.full((1, 50), 7.0))


def test_blocks_change_neither_values_nor_gradients(transform, monkeypatch):
    def answer(points):
        with tf.GradientTape() as tape:
            tape.watch([points, *transform.codes])
            moved = transform(points)
            loss = tf.reduce_sum(tf.square(moved))
        sources = [points, *transform.codes, *transform.network.trainable_variables]
        return [moved, *tape.gradient(loss, sources)]

    points = tf.constant(np.random.default_rng(1).uniform(0, 10, (2, 11, 2)), tf.float32)
    expected = answer(points)
    monkeypatch.setattr(implicit, "BLOCK", 8)  # the last of them is filled up
    for run in (answer, tf.function(answer, autograph=False)):
        for found, wanted in zip(run(points), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_a_graph_of_any_size_answers_alike(transform):
    any_size = tf.TensorSpec([None, None, None, 2])
    traced = tf.function(lambda points: transform(points), input_signature=[any_size], autograph=False)
    for shape in (SHAPE, (3, 5)):
        points = tf.constant(voxels(shape), tf.float32)
        np.testing.assert_allclose(traced(points), transform(points), atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_its_jacobian_is_that_of_differences(transform, whole):
    """By itself, and where another transform leads to it, as in `AtResolution`."""
    if whole:
        transform = in_frame(transform, Affine(np.diag([2.0, 3.0]), np.array([0.5, 1.0])))
    points = np.random.default_rng(2).uniform(2, 9, (2, 30, 2))
    exact = transform.jacobian(points)
    np.testing.assert_allclose(exact, Transform.jacobian(transform, points, 0.02), atol=5e-3)
    assert np.abs(exact - np.eye(2)).max() > 0.1


def test_gradients_pass_the_jacobian():
    """The derivative of ∂φ/∂x by a weight is that of its differences."""
    transform = Implicit(lively(), codes(pairs=1), SHAPE)
    points, kernel = tf.constant([[[4.0, 5.0], [8.0, 2.5]]]), transform.network.layers[-1].kernel

    def size():
        return tf.reduce_sum(tf.square(transform.jacobian(points) - tf.eye(2)))

    with tf.GradientTape() as tape:
        value = size()
    gradient = tape.gradient(value, kernel.value).numpy()
    stored, direction = kernel.numpy(), gradient / np.linalg.norm(gradient)
    ends = []
    for sign in (1, -1):
        kernel.assign(stored + sign * 1e-4 * direction)
        ends.append(float(size()))
    kernel.assign(stored)
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-4, np.linalg.norm(gradient), rtol=2e-2)


def test_its_inverse_is_found_and_says_how_well(transform):
    points = np.random.default_rng(3).uniform(0, 10, (2, 20, 2))
    inverse = transform.inverse()
    found = inverse(points)
    assert isinstance(found, np.ndarray) and inverse.residual.shape == (2, 20)
    np.testing.assert_allclose(transform(found), points, atol=2e-4)
    assert inverse.residual.max() < 2e-4
    np.testing.assert_allclose(inverse(tf.constant(points, tf.float32)), found, atol=1e-6)
    assert inverse.inverse() is transform


@pytest.mark.slow
def test_where_it_folds_the_residual_says_so():
    folded = Implicit(lively(scale=0.1), codes(), SHAPE)
    inverse, points = folded.inverse(), voxels(SHAPE)[:, ::3, ::3]
    found = inverse(points)
    missed = np.linalg.norm(folded(found) - points, axis=-1)
    assert missed.max() > 0.5
    np.testing.assert_allclose(inverse.residual, missed, atol=1e-3)


def test_it_is_composed_without_a_grid(transform):
    shifted = Composition(Affine(np.eye(2), np.array([1.0, 0.0])), transform)
    points = np.random.default_rng(4).uniform(0, 10, (2, 9, 2))
    np.testing.assert_allclose(shifted(points) - transform(points), np.broadcast_to([1.0, 0.0], (2, 9, 2)), atol=1e-5)
    np.testing.assert_allclose(transform.displacement((5, 6)), transform(voxels((5, 6))) - voxels((5, 6)), atol=1e-5)


def test_what_does_not_belong_together_is_refused(transform):
    network = lively()
    with pytest.raises(ValueError, match="of equally many pairs, L of 3 axes, received shapes"):
        Implicit(network, codes(), (4, 4, 4))
    with pytest.raises(ValueError, match="of equally many pairs"):
        Implicit(network, Codes(codes(pairs=2).shared, codes(pairs=3).local), SHAPE)
    with pytest.raises(ValueError, match="for a 2-D transform"):
        transform(np.zeros((1, 4, 3)))
    with pytest.raises(ValueError, match=r"places and codes of \[2, 64\] numbers, as encoder gives them, received"):
        ImplicitStep(code_encoder(2, 32), coordinate_network(2), coordinate_network(2, codes=9))
    with pytest.raises(ValueError, match=r"of \[2, 64\] numbers, .* received coordinates of \[3, 64\]"):
        ImplicitStep(code_encoder(2, 32), coordinate_network(3), coordinate_network(2))
