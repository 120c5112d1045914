"""Terms on registered pairs, and models that are trained by them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, Grad, inverse_consistency
from hetmorph.networks import HetRegistration, Registration, VxmDense, velocity_network
from hetmorph.objectives import (
    GradientInverseConsistency,
    InverseConsistency,
    Similarity,
    Smoothness,
    Term,
    VelocityDiffusion,
)
from hetmorph.steps import AtResolution, FieldStep, Registered, Then, VelocityStep
from hetmorph.transforms import Displacement, Velocity
from tests import reference
from tests.graphs import eagerly

pytestmark = pytest.mark.usefixtures("eager")
SIZE = (16, 20)
FEATURES = [[4], [4]]


@pytest.fixture
def images(rng):
    return [
        tf.constant(np.stack([reference.smooth_field(rng, SIZE, 0.5, 2.0)[..., :1] + 0.5 for _ in range(2)]))
        for _ in range(2)
    ]


@pytest.fixture
def velocity(rng):
    return tf.constant(np.stack([reference.smooth_field(rng, SIZE, 1.0, 3.0) for _ in range(2)]))


def step(kind=VelocityStep):
    keras.utils.set_random_seed(0)
    network = velocity_network((None, None), nb_unet_features=FEATURES)
    flow = next(layer for layer in network.layers if layer.name.endswith("flow"))
    flow.kernel.assign(0.3 * np.random.default_rng(0).normal(size=flow.kernel.shape))
    return kind(network, int_steps=2) if kind is VelocityStep else kind(network)


def test_a_record_pulls_each_image_through_the_transform_that_leads_to_it(images, velocity):
    moving, fixed = images
    registered = Registered(moving, fixed, Velocity(velocity), Velocity(-velocity))
    expected = reference.warp(moving.numpy()[0], registered.displacement.numpy()[0])
    np.testing.assert_allclose(registered.moved[0], expected, atol=1e-5)
    there, back = registered.views
    assert there.fixed is fixed and back.fixed is moving and back.moving is fixed
    np.testing.assert_allclose(back.moved, Registered(fixed, moving, Velocity(-velocity)).moved, atol=1e-6)


def test_similarity_is_the_sum_of_both_directions(images, velocity):
    moving, fixed = images
    registered = Registered(moving, fixed, Velocity(velocity), Velocity(-velocity))
    expected = MSE().loss(fixed, registered.moved) + MSE().loss(moving, registered.moved_back)
    np.testing.assert_allclose(Similarity(MSE())(registered), expected, rtol=1e-6)
    np.testing.assert_allclose(Similarity(MSE().loss)(registered), expected, rtol=1e-6)


def test_without_variance_network_there_is_no_log_variance(images, velocity):
    with pytest.raises(ValueError, match="without"):
        Registered(*images, Velocity(velocity)).log_variances  # noqa: B018


TERMS = [
    Similarity(MSE(), 2.0),
    Smoothness(Grad("l2"), 0.1),
    InverseConsistency(3.0),
    GradientInverseConsistency(1.5, delta=2e-3, sparse=False, name="other"),
    VelocityDiffusion(0.2),
]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_a_term_is_one_number_per_sample_and_survives_its_config(term, images, velocity):
    value = term(Registered(*images, Velocity(velocity), Velocity(-0.5 * velocity)))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    assert copy.get_config() == term.get_config() and value.shape == (2,)
    np.testing.assert_allclose(copy(Registered(*images, Velocity(velocity), Velocity(-0.5 * velocity))), value)


def test_weights_below_zero_and_differences_of_no_length_are_refused():
    with pytest.raises(ValueError, match="λ ≥ 0, received -1"):
        InverseConsistency(-1)
    with pytest.raises(ValueError, match="delta"):
        GradientInverseConsistency(delta=0)


def test_the_loss_of_a_model_is_its_losses_and_its_terms(images):
    model = Registration(step(), (None, None), direction="inverse")
    loss, weights = [MSE().loss, MSE().loss, Grad("l2").loss], [1, 1, 0.1]
    model.compile("sgd", loss, weights, terms=[VelocityDiffusion(0.5), Smoothness(Grad("l2"), 0.2)])
    shown = model.test_on_batch(images, return_dict=True)
    moved, moved_back, u = model(images)
    v = model.step.network(images)
    expected = np.mean((moved - images[1]) ** 2) + np.mean((moved_back - images[0]) ** 2)
    expected += 0.3 * np.mean(Grad("l2").loss(None, u))
    record, _ = model(images, record=True)
    np.testing.assert_allclose(record.forward.velocity, v, atol=1e-6)
    diffusion = VelocityDiffusion()(record).numpy().mean()
    assert shown["loss"] == pytest.approx(expected + 0.5 * diffusion, rel=1e-4)
    assert shown["diffusion"] == pytest.approx(diffusion, rel=1e-4)


@pytest.mark.parametrize("direction", [None, "exchange", "inverse"])
def test_the_record_and_the_functional_model_are_one(direction, images):
    model = Registration(step(), (None, None), direction=direction)
    record, outputs = model(images, record=True)
    for one, other in zip(outputs, model(images), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert (record.backward is None) == (direction is None)
    if direction == "exchange":
        exchanged = model.step(*images[::-1])
        np.testing.assert_allclose(record.backward_displacement, exchanged, atol=1e-5)
        np.testing.assert_allclose(model.references.neg_flow.shape[-1], 2)


def test_terms_see_the_directions_of_a_vxm_dense(images):
    """A functional model's record has displacements: what its outputs are, is what the terms see."""
    model = VxmDense(SIZE, nb_unet_features=FEATURES, int_steps=2, bidir=True)
    flow = model.get_layer("vxm_dense_flow")
    flow.kernel.assign(0.3 * np.random.default_rng(0).normal(size=flow.kernel.shape))
    record, outputs = model(images, record=True)
    for one, other in zip(outputs, model(images), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert isinstance(record.forward, Displacement) and isinstance(record.backward, Displacement)
    np.testing.assert_allclose(record.displacement, model.register(*images), atol=1e-5)
    error = inverse_consistency(record.forward, record.backward, SIZE, jitter=0)
    model.compile("sgd", [None, None, Grad("l2").loss], [1, 1, 0.0], terms=[InverseConsistency(1.0)])
    assert np.all(error > 0) and model.train_on_batch(images, return_dict=True)["inverse_consistency"] > 0


@pytest.mark.slow
def test_a_model_trained_by_terms_alone_comes_back_compiled(images, tmp_path):
    model = Registration(step(FieldStep), (None, None), direction="exchange")
    model.compile(keras.optimizers.Adam(3e-2), terms=[Similarity(MSE()), GradientInverseConsistency(0.001)])
    history = model.fit(tuple(images), epochs=8, batch_size=2, verbose=0).history
    assert history["similarity"][-1] < 0.9 * history["similarity"][0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [term.get_config() for term in again.terms] == [term.get_config() for term in model.terms]
    assert again.optimizer.iterations == model.optimizer.iterations
    one, other = (m.evaluate(tuple(images), verbose=0, return_dict=True)["similarity"] for m in (model, again))
    assert one == pytest.approx(other, rel=1e-5)


def test_steps_know_their_noise(images):
    """The variance network beside any step; the terms go with the displacement network."""
    model = HetRegistration(step(FieldStep), (None, None), "exchange", warm_start=0, variance_features=FEATURES)
    model.compile("adam", [MSE().loss, MSE().loss, None], terms=[GradientInverseConsistency(0.1)])
    shown = model.fit(tuple(images), epochs=2, batch_size=2, verbose=0).history
    assert {"variance_loss", "inverse_consistency", "image_loss"} <= set(shown)
    answers = model.predict_all(*images)
    assert answers["log_variance"].shape == (2, *SIZE, 1) and answers["displacement"].shape == (2, *SIZE, 2)


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.parametrize("cls", [Registration, HetRegistration])
def test_two_replicas_train_as_one(cls, images, two_replicas):
    """The points of the penalty are shifted alike in all replicas, and each counts as its share of the batch."""

    def model():
        own = {} if cls is Registration else {"warm_start": 0, "variance_features": FEATURES}
        made = cls(step(FieldStep), (None, None), "exchange", **own)
        terms = [GradientInverseConsistency(0.01)]
        made.compile(keras.optimizers.SGD(0.1), [MSE().loss, MSE().loss, None], terms=terms)
        return made

    def trained(model):
        history = model.fit(tuple(images), batch_size=2, epochs=2, verbose=0).history
        return [*history["inverse_consistency"], *(weight.numpy().sum() for weight in model.trainable_variables)]

    with eagerly():
        alone = trained(model())
    with two_replicas.scope():
        both = model()
    np.testing.assert_allclose(trained(both), alone, rtol=1e-4, atol=1e-6)


def test_the_points_of_a_penalty_follow_from_the_update(images, velocity):
    def penalty(number):
        return GradientInverseConsistency()(
            Registered(*images, Velocity(velocity), Velocity(-0.5 * velocity), step=tf.constant(number))
        )

    np.testing.assert_array_equal(penalty(3), penalty(3))
    assert np.all(penalty(3) != penalty(4))


def test_added_losses_and_the_weights_of_samples_reach_a_model_of_steps(images):
    model = Registration(step(), (None, None))
    model.compile("sgd", [MSE().loss, None], terms=[VelocityDiffusion(0.5)])
    before = model.test_on_batch(images, return_dict=True)
    one = model.test_on_batch([image[:1] for image in images], return_dict=True)["diffusion"]
    weights = {model.output_names[0]: np.array([1.0, 0.0]), model.output_names[1]: np.array([0.0, 1.0])}
    weighted = model.further_loss(model.play(tuple(images), None, weights, training=False))
    assert float(weighted) == pytest.approx(0.5 * one / 2, rel=1e-5), "the weight of the moved image, the first output"
    model.add_loss(3.0 + 0 * keras.ops.mean(model.outputs[0]))
    assert model.test_on_batch(images, return_dict=True)["loss"] == pytest.approx(before["loss"] + 3, rel=1e-5)


def test_a_network_of_one_size_takes_no_other():
    network = velocity_network(SIZE, nb_unet_features=FEATURES)
    model = Registration(VelocityStep(network), SIZE)
    with pytest.raises(ValueError, match="built for .* sizes of None take any"):
        model.with_shape((None, None))
    with pytest.raises(ValueError, match="built for"):
        Registration(AtResolution(VelocityStep(network)), SIZE)


def test_terms_and_steps_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="terms of different names"):
        Registration(step(), SIZE).compile("sgd", terms=[Similarity(MSE()), Similarity(MSE())])
    with pytest.raises(ValueError, match="Repeated applies one several times"):
        Then([once := step(), once])


def test_noise_models_want_a_target_for_each_output(images):
    model = HetRegistration(step(FieldStep), (None, None), "exchange", variance_features=FEATURES)
    model.compile("sgd", [MSE().loss, MSE().loss, None])
    with pytest.raises(ValueError, match="expected a target for each of .*received 2"):
        model.train_on_batch(images, [images[1], np.zeros((2, 1, 1, 1))])


def test_what_a_step_cannot_give_is_refused():
    with pytest.raises(ValueError, match="inverse, received FieldStep"):
        Registration(step(FieldStep), (None, None), direction="inverse")
    with pytest.raises(ValueError, match="expected a direction of"):
        Registration(step(), (None, None), direction="both")
    with pytest.raises(ValueError, match="equal channels, received src_feats=2"):
        Registration(step(), (None, None), direction="exchange", src_feats=2)


def test_a_term_without_a_value_is_not_a_term(images, velocity):
    with pytest.raises(NotImplementedError):
        Term()(Registered(*images, Velocity(velocity)))


@pytest.mark.quick("VxmDense")
@pytest.mark.parametrize("cls", [VxmDense, Registration])
def test_fit_without_targets_compares_with_the_images(cls, images):
    def model():
        keras.utils.set_random_seed(0)
        made = cls(SIZE, nb_unet_features=FEATURES, int_steps=2) if cls is VxmDense else cls(step(), SIZE)
        made.compile("sgd", [MSE().loss, Grad("l2").loss], [1, 0.1])
        return made

    with_targets = model().fit(tuple(images), (images[1], np.zeros((2, 1, 1, 1), "float32")), verbose=0, batch_size=2)
    without = model().fit(tuple(images), verbose=0, batch_size=2)
    assert with_targets.history["loss"] == pytest.approx(without.history["loss"], rel=1e-6)
