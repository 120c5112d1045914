"""Laws of steps that are inverse consistent by construction."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import inverse_consistency, velocity_diffusion
from hetmorph.ops.warp import warp
from hetmorph.steps import AtResolution, Consistent, FieldStep, Then, TwoStepConsistent, moved_by
from hetmorph.transforms import voxels
from tests import reference
from tests.steps.test_steps import affine_step, velocity_step

SIZE = (16, 20)
POINTS = voxels(SIZE)
INNER = POINTS[:, 4:-4, 4:-4].astype("float32")


def affine(rigid=False):
    return Consistent(affine_step(rigid=rigid))


def velocity(seed=0, scale=2.0, int_steps=2, spacing=1, int_method="squaring"):
    step = velocity_step(spacing, seed, scale)
    step.int_steps, step.int_method = int_steps, int_method
    return Consistent(step)


def nested(int_steps=2, int_method="squaring"):
    """The published order: affine, affine, velocity, velocity."""
    velocities = TwoStepConsistent(*(velocity(i, int_steps=int_steps, int_method=int_method) for i in (1, 2)))
    return TwoStepConsistent(affine(), TwoStepConsistent(affine(rigid=True), velocities))


STEPS = {
    "affine": lambda: TwoStepConsistent(affine(), affine(rigid=True)),
    "affine, velocity": lambda: TwoStepConsistent(affine(), velocity()),
    "velocity, affine": lambda: TwoStepConsistent(velocity(spacing=2, scale=0.5), affine()),
    "nested": nested,
}
every_step = pytest.mark.parametrize("name", STEPS)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [
        tf.constant(np.stack([reference.smooth_field(rng, SIZE, 1.0, 2.0)[..., :1] for _ in range(2)]))
        for _ in range(2)
    ]


def furthest(values):
    return float(tf.reduce_max(tf.abs(values)))


def missed(there, back, points=INNER):
    """How far the round trip ends from where it began, in the unit cube."""
    return furthest((there(back(points)) - points) / (np.array(SIZE) - 1))


def test_affine_steps_are_inverse_to_rounding(images):
    there, back = STEPS["affine"]().both(*images)
    points = tf.constant(POINTS, tf.float32)
    assert missed(there, back, points) < 1e-5 and missed(back, there, points) < 1e-5
    assert furthest(there(points) - points) > 0.3
    assert float(tf.reduce_max(inverse_consistency(there, back, SIZE))) < 1e-9


@pytest.mark.quick("affine, velocity")
@pytest.mark.parametrize("step", ["affine, velocity", "nested"])
def test_the_error_of_velocities_falls_with_the_squarings(step, images):
    make = {
        "affine, velocity": lambda n: TwoStepConsistent(affine(), velocity(int_steps=n)),
        "nested": nested,
    }[step]
    errors = [missed(*make(int_steps).both(*images)) for int_steps in (1, 3, 6)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]
    alike = missed(*[make(6).transform(*images)] * 2)  # what a step that is not its own inverse would miss
    assert alike > 10 * errors[2]


def test_points_that_are_followed_lead_back_the_closer_the_smaller_their_steps(images):
    def lost(steps, method):
        there, back = TwoStepConsistent(affine(), velocity(0, 4.0, steps, int_method=method)).both(*images)
        return furthest(there(back(INNER)) - INNER)

    errors = [lost(steps, "midpoint") for steps in (2, 4, 8, 16)]
    assert all(coarse > 5 * fine for coarse, fine in itertools.pairwise(errors)), errors
    assert errors[-1] < 1e-4 and lost(8, "squaring") > 100 * errors[2]  # voxels


@pytest.mark.quick("affine, velocity")
@every_step
def test_exchanging_the_images_exchanges_the_transforms(name, images):
    step = STEPS[name]()
    there, back = step.both(*images)
    again_back, again_there = step.both(*images[::-1])
    for one, other in ((there, again_there), (back, again_back), (there, step.transform(*images))):
        np.testing.assert_allclose(one(INNER), other(INNER), atol=1e-4)
    np.testing.assert_allclose(step.transform(*images[::-1])(INNER), back(INNER), atol=1e-4)


@pytest.mark.parametrize("step", [affine, lambda: affine(rigid=True), lambda: velocity(int_steps=7)])
def test_a_root_applied_twice_is_the_transform(step, images):
    step = step()
    there, back = step.root(*images)
    whole, whole_back = step.both(*images)
    tolerance = 1e-4 if isinstance(step.step, type(affine_step())) else 0.05
    np.testing.assert_allclose(there(there(INNER)), whole(INNER), atol=tolerance)
    np.testing.assert_allclose(back(back(INNER)), whole_back(INNER), atol=tolerance)
    assert furthest(whole(INNER) - INNER) > 0.2


def test_both_images_move_half_way(images):
    seen = []

    class Second(Consistent):
        def both(self, moving, fixed, training=None):
            seen.extend([moving, fixed])
            return super().both(moving, fixed, training)

    first, second = affine(), Second(velocity_step(seed=3))
    whole, _ = TwoStepConsistent(first, second).both(*images)
    there, back = first.root(*images)
    for found, image, root in zip(seen, images, (there, back), strict=True):
        np.testing.assert_allclose(found, warp(image, root(tf.constant(POINTS, tf.float32)) - POINTS), atol=1e-5)
    inner = second.transform(*seen)
    np.testing.assert_allclose(whole(INNER), there(inner(there(INNER))), atol=1e-4)


def test_of_nested_steps_each_velocity_is_penalised_once(images):
    """The root, which is met twice, and the second velocity, of images that have moved."""
    two = nested().second.second
    roots = two.first.root(*images)
    moved = [moved_by(root, image) for root, image in zip(roots, images, strict=True)]
    expected = velocity_diffusion(roots[0]) + velocity_diffusion(two.second.transform(*moved))
    np.testing.assert_allclose(velocity_diffusion(two.transform(*images)), expected, rtol=1e-4)


@pytest.mark.quick("affine")
@every_step
def test_called_it_is_the_displacement_and_survives_its_config_and_trains(name, images):
    step = STEPS[name]()
    u = step(*images)
    assert u.shape == (2, *SIZE, 2)
    np.testing.assert_allclose(u, step.transform(*images)(tf.constant(POINTS)) - POINTS, atol=1e-4)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(step))
    copy.set_weights(step.get_weights())
    np.testing.assert_allclose(copy(*images), u, atol=1e-6)
    with tf.GradientTape() as tape:
        total = sum(tf.reduce_mean(t(INNER) ** 2) for t in step.both(*images))
    gradients = tape.gradient(total, step.trainable_variables)
    assert all(np.isfinite(g).all() for g in gradients)
    # the last biases are those of both orders, and cancel
    assert all(furthest(g) > 0 for g, w in zip(gradients, step.trainable_variables, strict=True) if w.ndim > 1)


def test_sizes_may_be_known_only_in_the_graph(images):
    step = TwoStepConsistent(affine(), velocity())
    graph = tf.function(lambda a, b: step(a, b), input_signature=[tf.TensorSpec([None, None, None, 1])] * 2)
    np.testing.assert_allclose(graph(*images), step(*images), atol=1e-4)


def test_a_volume_goes_through_at_another_resolution():
    rng = np.random.default_rng(0)
    pair = [tf.constant(rng.uniform(size=(1, 6, 7, 8, 1)), tf.float32) for _ in range(2)]
    step = AtResolution(TwoStepConsistent(Consistent(affine_step(3)), Consistent(affine_step(3, rigid=True))))
    with tf.GradientTape() as tape:
        tape.watch(pair)
        there, back = step.both(*pair)
        total = tf.reduce_sum(step(*pair) ** 2)
    assert all(np.isfinite(g).all() for g in tape.gradient(total, pair))
    points = tf.constant(voxels((6, 7, 8)), tf.float32)
    assert furthest(there(back(points)) - points) < 1e-4


def test_corners_of_small_images_may_lie_on_those_of_the_images(images):
    """A step that always answers with one voxel of the small image."""
    entries = [keras.Input((None, None, 1)) for _ in range(2)]
    ones = keras.layers.Lambda(lambda x: tf.ones_like(tf.concat([x, x], -1)), output_shape=lambda s: (*s[:-1], 2))
    step = AtResolution(FieldStep(keras.Model(entries, ones(entries[0]))), 2, corners=True)
    u = step(*[tf.zeros([1, 7, 10, 1])] * 2)
    np.testing.assert_allclose(u[0, 3, 3], [6 / 3, 9 / 4], atol=1e-5)
    assert step.get_config()["corners"] is True


def test_what_has_no_root_cannot_be_first():
    with pytest.raises(ValueError, match="has a root.*received Then; several steps are nested in the second"):
        TwoStepConsistent(Then([velocity_step()]), velocity())
    with pytest.raises(ValueError, match="received TwoStepConsistent"):
        TwoStepConsistent(nested(), velocity())
