"""Laws of steps, and of the model that is trained of one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.networks import Registration, VxmDense, tall_unet
from hetmorph.ops import fields
from hetmorph.ops.warp import warp
from hetmorph.steps import AffineStep, AtResolution, Consistent, FieldStep, Repeated, Then, VelocityStep
from hetmorph.transforms import Composition, voxels
from tests import reference

FEATURES = [[4], [4]]
SIZE = (16, 20)


def lively(network, scale=0.2, seed=0):
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if layer.name.endswith("flow") or layer.name.endswith("dense"):
            layer.set_weights([rng.normal(scale=scale, size=w.shape) for w in layer.get_weights()])
    return network


def velocity_step(spacing=1, seed=0, scale=1.0):
    """A smooth velocity: mixtures of both images, smoothed by a bell."""
    rng = np.random.default_rng(seed)
    entries = [keras.Input((None, None, 1)) for _ in range(2)]
    bell = np.exp(-0.5 * (np.arange(-4, 5) / 2) ** 2)
    bell = np.outer(bell, bell)[..., None, None] / bell.sum() ** 2
    smooth = keras.layers.Conv2D(2, 9, spacing, padding="same")
    velocity = smooth(keras.layers.Concatenate()(entries))
    smooth.set_weights([bell * rng.normal(scale=5 * scale, size=(2, 2)), np.zeros(2)])
    return VelocityStep(keras.Model(entries, velocity), 7, spacing)


def affine_step(ndims=2, rigid=False):
    keras.utils.set_random_seed(0)
    images = [keras.Input((*[None] * ndims, 1)) for _ in range(2)]
    x = keras.layers.Concatenate()(images)
    x = getattr(keras.layers, f"Conv{ndims}D")(4, 3, activation="tanh")(x)
    x = getattr(keras.layers, f"GlobalAveragePooling{ndims}D")()(x)
    return AffineStep(lively(keras.Model(images, keras.layers.Dense(ndims * (ndims + 1))(x)), 0.3), rigid)


@pytest.fixture
def images(rng):
    return [
        tf.constant(np.stack([reference.smooth_field(rng, SIZE, 1.0, 2.0)[..., :1] for _ in range(2)]))
        for _ in range(2)
    ]


STEPS = {
    "velocity": velocity_step,
    "velocity, coarse": lambda: velocity_step(2, scale=0.4),
    "affine": affine_step,
    "rigid": lambda: affine_step(rigid=True),
    "then": lambda: Then([affine_step(), velocity_step()]),
    "resolution": lambda: AtResolution(velocity_step(), 2),
    "repeated": lambda: Repeated(velocity_step(), 3),
    "consistent": lambda: Consistent(velocity_step()),
}
every_step = pytest.mark.parametrize("name", STEPS)


@every_step
def test_called_it_is_the_displacement_of_its_transform_and_survives_its_config(name, images):
    step = STEPS[name]()
    u = step(*images)
    assert u.shape == (2, *SIZE, 2) and np.abs(u).max() > 0.02
    points = voxels(SIZE)
    np.testing.assert_allclose(u, step.transform(*images)(tf.constant(points)) - points, atol=1e-4)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(step))
    copy.set_weights(step.get_weights())
    np.testing.assert_allclose(copy(*images), u, atol=1e-6)


def convolutional():
    """A small network of GradICON, of random weights, whose displacements are of a few voxels."""
    network = tall_unet((None, None), [[4, 4], [4, 4]])
    return FieldStep(lively(network, 0.02))


@pytest.mark.parametrize("name", ["one", "resolution", "then"])
def test_both_images_moved_alike_move_the_displacement_with_them(name, rng):
    """[U, U]-equivariance: Φ[A∘U, B∘U] = U⁻¹∘Φ[A, B]∘U, for translations by whole blocks, away from the border."""
    step = {
        "one": convolutional,
        "resolution": lambda: AtResolution(convolutional(), 2),
        "then": lambda: Then([AtResolution(convolutional(), 2), convolutional()]),
    }[name]()
    far = 16  # two voxels of the coarsest grid, at half of the resolution
    pair = [reference.smooth_field(rng, (96, 64), 1.0, 2.0)[None, ..., :1] for _ in range(2)]
    there = np.asarray(step(*(tf.constant(image[:, :-far]) for image in pair)))
    moved = np.asarray(step(*(tf.constant(image[:, far:]) for image in pair)))
    valid = slice(24, -24)
    expected = there[:, far:][:, valid, valid]
    assert expected.std() > 0.1
    np.testing.assert_allclose(moved[:, :-far][:, valid, valid], expected, atol=1e-4)


@every_step
def test_every_step_can_be_undone(name, images):
    transform, points = STEPS[name]().transform(*images), tf.constant(voxels(SIZE)[:, 4:-4, 4:-4])
    there = transform(points)
    back = np.asarray(transform.inverse()(there))
    # what is left of a velocity's inverse is the interpolation of its squarings
    assert np.abs(back - points).mean() < 0.03 * np.abs(np.asarray(there) - points).mean() + 1e-4


def test_then_shows_each_step_what_the_ones_before_have_moved(images):
    moving, fixed = images
    first, second = velocity_step(seed=1), velocity_step(seed=2)
    moved = warp(moving, first(moving, fixed))
    expected = fields.compose(first(moving, fixed), second(moved, fixed))
    np.testing.assert_allclose(Then([first, second])(moving, fixed), expected, atol=1e-4)


def test_at_another_resolution_a_translation_is_the_same():
    """A step that always answers with one voxel, at half the resolution, is two voxels."""
    images = [keras.Input((None, None, 1)) for _ in range(2)]
    ones = keras.layers.Lambda(lambda x: tf.ones_like(tf.concat([x, x], -1)), output_shape=lambda s: (*s[:-1], 2))
    step = AtResolution(FieldStep(keras.Model(images, ones(images[0]))), 2)
    np.testing.assert_allclose(step(*[tf.zeros([1, 7, 9, 1])] * 2), 2.0, atol=1e-6)


def test_a_ramp_moved_at_half_resolution_stays_a_ramp(images):
    """Blocks have their middles at voxels 0.5, 2.5, …: an identity step leaves every voxel where it is."""
    entries = [keras.Input((None, None, 1)) for _ in range(2)]
    zeros = keras.layers.Lambda(lambda x: tf.zeros_like(tf.concat([x, x], -1)), output_shape=lambda s: (*s[:-1], 2))
    step = AtResolution(FieldStep(keras.Model(entries, zeros(entries[0]))), 4)
    np.testing.assert_allclose(step(*images), 0.0, atol=1e-5)


@pytest.mark.parametrize("rigid", [False, True])
def test_by_construction_exchanging_the_images_inverts_an_affine_step_exactly(rigid, images):
    step = Consistent(affine_step(rigid=rigid))
    there, back = step.transform(*images), step.transform(*images[::-1])
    points = tf.constant(voxels(SIZE))
    round_trip = np.asarray(Composition(there, back)(points))
    np.testing.assert_allclose(round_trip, np.broadcast_to(points, round_trip.shape), atol=1e-4)
    assert np.abs(np.asarray(there(points)) - points).max() > 0.1
    if rigid:
        np.testing.assert_allclose(tf.linalg.det(there.matrix), 1, atol=1e-5)


@pytest.mark.slow
def test_affine_steps_train_in_compiled_graphs(images):
    """XLA compiles the gradient of no loop of unknown length; on a GPU Keras compiles by default."""
    step = affine_step()

    @tf.function(autograph=False, jit_compile=True)
    def gradient(generator):
        with tf.GradientTape() as tape:
            tape.watch(generator)
            value = tf.reduce_sum(step.exponential(generator, images[0]).matrix ** 2)
        return tape.gradient(value, generator)

    assert np.isfinite(gradient(tf.constant(np.ones((2, 6)), tf.float32))).all()


def test_by_construction_the_inverse_error_of_a_velocity_step_falls_with_the_squarings(images):
    errors = []
    for int_steps in (1, 3, 6):
        step = velocity_step(scale=2.0)
        step.int_steps = int_steps
        there, back = Consistent(step).transform(*images), Consistent(step).transform(*images[::-1])
        points = tf.constant(voxels(SIZE)[:, 4:-4, 4:-4])
        errors.append(np.abs(np.asarray(there(back(points)) - tf.cast(points, tf.float32))).mean())
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


def model_of(step, shape=(None, None)):
    model = Registration(step, shape)
    model.compile(keras.optimizers.Adam(1e-2), [MSE().loss, Grad("l2").loss], [1, 0.01], run_eagerly=True)
    return model


@pytest.mark.slow
def test_a_repeated_step_is_trained_through_all_passes(images, monkeypatch):
    """One set of weights, whose gradient is not that of a single pass."""
    monkeypatch.setenv("HETMORPH_XLA", "0")  # compiled kernels are those of networks/test_training_step.py
    model, single = model_of(Repeated(velocity_step(), 2)), model_of(velocity_step())
    assert model.count_params() == single.count_params()
    zeros = np.zeros((2, *SIZE, 2), "float32")
    losses = [float(model.train_on_batch(images, [images[1], zeros])[0]) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.quick("then")
@pytest.mark.parametrize("name", ["repeated", "then"])
def test_the_model_goes_through_every_door(name, images, tmp_path):
    from hetmorph import evaluation
    from hetmorph.serving import export_savedmodel

    model = model_of(STEPS[name]())
    moving, fixed = (image.numpy() for image in images)
    expected = model.register(moving, fixed)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.register(moving, fixed), expected, atol=1e-5)
    np.testing.assert_allclose(model.with_shape(SIZE).register(moving, fixed), expected, atol=1e-5)
    served = evaluation.load(export_savedmodel(model, tmp_path / "served"))
    np.testing.assert_allclose(served(moving[0, ..., 0], fixed[0, ..., 0]).displacement, expected[0], atol=1e-4)


def test_a_step_of_a_vxm_dense_registers_as_it_does(images):
    model = VxmDense(SIZE, nb_unet_features=FEATURES)
    lively(model)
    step = FieldStep(model.get_registration_model())
    np.testing.assert_allclose(step(*images), model.register(*images), atol=1e-5)


def test_what_makes_no_step_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        Then([])
    with pytest.raises(ValueError, match="times >= 1, received 0"):
        Repeated(velocity_step(), 0)
    with pytest.raises(ValueError, match="whole factor >= 1, received 1.5"):
        AtResolution(velocity_step(), 1.5)
    with pytest.raises(ValueError, match="exponential.*received Repeated"):
        Consistent(Repeated(velocity_step()))
    one = keras.Input((None, None, 1))
    with pytest.raises(ValueError, match="two images.*1 inputs"):
        FieldStep(keras.Model(one, one))


@pytest.mark.parametrize("graph", [False, True])
def test_what_is_computed_again_has_the_same_gradient(images, graph):
    step = FieldStep(lively(tall_unet((None, None), FEATURES)))
    moving, fixed = images
    variables = [v.value for v in step.network.trainable_variables]

    def gradient():
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(step(moving, fixed) ** 2)
        return value, *tape.gradient(value, variables)

    kept = gradient()
    step.recomputed, runs = True, []
    network, step.network.call = step.network.call, lambda *a, **k: runs.append(1) or network(*a, **k)
    again = (tf.function(gradient, autograph=False) if graph else gradient)()
    assert len(runs) == 2, "once for the value, and once more for the gradient"
    for one, other in zip(again, kept, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
