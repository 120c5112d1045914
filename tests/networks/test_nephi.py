"""NePhi: its networks by their published formulas, its terms, and the model that is trained of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import config
from hetmorph.instance import Refined
from hetmorph.layers import Cells, CodeTable
from hetmorph.losses import jacobian_inverse_consistency
from hetmorph.networks import Registration, code_encoder, code_table, coordinate_network
from hetmorph.networks.build import build, model_class
from hetmorph.objectives import JacobianInverseConsistency, SampledCorrelation, SmallCodes
from hetmorph.steps import Ends, FieldStep, ImplicitStep, Registered
from hetmorph.transforms import Affine, Codes, Displacement, Identity, Implicit, in_frame, voxels
from tests import reference

SIZE = (16, 20)


def weights(network):
    return sum(int(np.prod(w.shape)) for w in network.trainable_weights)


def test_the_networks_have_as_many_weights_as_published():
    assert weights(coordinate_network(3)) == 140_419
    assert round(weights(code_encoder(3, 175)) / 1000) == 2986


def test_the_network_of_coordinates_is_the_published_formula(rng):
    network = coordinate_network(2, codes=3, units=8, waves=4)
    for weight in network.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.1)
    places, codes = rng.uniform(-1, 1, (1, 6, 2)), rng.normal(size=(1, 6, 3))

    def of(name):
        return [value.astype(float) for value in network.get_layer(f"coordinates_{name}").get_weights()]

    def sines(name, x, frequency=30.0):
        kernel, bias = of(name)
        return np.sin(frequency * (x @ kernel + bias))

    angles = 2 * np.pi * places @ of("waves")[0]
    waved = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    gate = shift = sines("gate_0", np.concatenate([codes, waved], -1))
    x = sines("sines_0", waved, 1.0)
    for level in (1, 2):
        gate = sines(f"code_{level}", gate) + shift
        x = gate * sines(f"sines_{level}", x)
    kernel, bias = of("shift")
    np.testing.assert_allclose(network([places, codes])[0], (x @ kernel + bias)[0], atol=1e-5)


@pytest.mark.parametrize(("size", "cells", "cells_of_pair"), [(48, 12, 2), (128, 16, 2), (175, 22, 3), (256, 16, 2)])
def test_codes_lie_on_about_sixteen_cells_whatever_the_size(size, cells, cells_of_pair):
    encoder = code_encoder(2, size, width=0.1)
    image = tf.zeros((1, size, size, 1))
    assert encoder([image, image])[1].shape == (1, cells, cells, 32)
    deepest = keras.Model(encoder.inputs, encoder.get_layer("encoder_cells").input)
    assert deepest([image, image]).shape[1] == cells_of_pair


def test_cells_are_read_between_voxels(rng):
    image = rng.normal(size=(2, 5, 4, 3)).astype("float32")
    found = Cells(3)(image)
    np.testing.assert_allclose(found[:, :, 0], image[:, ::2, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1], image[:, 0, 1:3].mean(1), atol=1e-6)
    np.testing.assert_allclose(Cells(3)(found), found, atol=1e-6)


def smooth(rng, scale=0.5, sigma=2.0):
    return tf.constant(np.stack([reference.smooth_field(rng, SIZE, scale, sigma)[..., :1] + 0.5 for _ in range(2)]))


def registered(rng, forward=None, backward=None, **known):
    moving, fixed = smooth(rng), smooth(rng)
    return Registered(moving, fixed, forward or Identity(2), backward, **known)


def test_correlation_at_points_is_that_of_the_images(rng):
    """Of many points that of all voxels; ±1 where the one image is a multiple of the other."""
    record, term = registered(rng), SampledCorrelation(points=60_000)
    dense = [1 - np.corrcoef(*(image[i].numpy().ravel() for image in (record.moving, record.fixed)))[0, 1]
             for i in range(2)]  # fmt: skip
    np.testing.assert_allclose(term(record), dense, atol=0.1)
    for factor, expected in ((3.0, 0.0), (-2.0, 2.0)):
        of_itself = Registered(record.moving, factor * record.moving + 0.1, Identity(2), Identity(2))
        np.testing.assert_allclose(term(of_itself), [expected] * 2, atol=1e-3)


def test_correlation_follows_the_transform_and_counts_by_the_masks(rng):
    image = smooth(rng)
    shifted = tf.roll(image, 2, axis=1)
    there = Affine(np.eye(2), np.array([-2.0, 0.0]))  # moving∘φ(x) = moving(x − 2): what was rolled by 2
    term, inside = SampledCorrelation(points=4000), np.zeros((2, *SIZE))
    inside[:, 4:13] = 1
    record = Registered(image, shifted, there, masks=Ends(fixed=tf.constant(inside)))
    np.testing.assert_allclose(term(record), [0, 0], atol=1e-2)
    assert float(tf.reduce_min(term(Registered(image, shifted, there)))) > 0.02  # what was rolled in at the edge
    nothing = Registered(image, shifted, there, masks=Ends(fixed=tf.zeros((2, *SIZE))))
    np.testing.assert_allclose(term(nothing), [1, 1], atol=1e-6)


def test_points_are_others_at_each_update_and_the_same_for_the_same(rng):
    term, images = SampledCorrelation(points=5), (smooth(rng), smooth(rng))
    points = [term.drawn(Registered(*images, Identity(2), step=step)).numpy() for step in (0, 0, 1)]
    np.testing.assert_array_equal(points[0], points[1])
    assert np.abs(points[0] - points[2]).max() > 1 and points[0].shape == (1, 5, 2)
    other = JacobianInverseConsistency(points=5).drawn(Registered(*images, Identity(2), step=0))
    assert np.abs(points[0] - other).max() > 1
    assert SampledCorrelation().drawn(Registered(*images, Identity(2))).shape[1] == 1024
    assert JacobianInverseConsistency().drawn(Registered(*images, Identity(2))).shape[1] == 64


@pytest.mark.parametrize(
    ("term", "shape", "count"),
    [
        (SampledCorrelation(), (40, 40), 40 * 40),
        (SampledCorrelation(points=20), (128, 128), 2048),
        (SampledCorrelation(), (128, 128, 128), 41_943),
        (JacobianInverseConsistency(weight=0.5), (128, 128), 512),
        (JacobianInverseConsistency(points=3000), (64, 64), 3000),
    ],
)
def test_a_single_pair_is_looked_at_more_closely(term, shape, count):
    """Where the points stay the same, few of them would leave folds between them unseen."""
    alone = term.of_one_pair(shape)
    assert alone.points == count and alone.get_config() == {**term.get_config(), "points": count}


def test_jacobian_inverse_consistency_of_what_is_known(rng):
    matrix, points = np.array([[1.1, 0.2], [-0.1, 0.9]]), rng.uniform(0, 9, (2, 7, 2))
    there = Affine(np.stack([matrix, np.eye(2)]), np.zeros((2, 2)))
    np.testing.assert_allclose(jacobian_inverse_consistency(there, there.inverse(), points), [0, 0], atol=1e-10)
    wrong = jacobian_inverse_consistency(there, Identity(2), points, weight=3.0)
    np.testing.assert_allclose(wrong, [3 * np.mean((matrix - np.eye(2)) ** 2), 0], rtol=1e-5)
    shifted = Affine(np.eye(2), np.array([3.0, 1.0]))  # a translation is not punished
    np.testing.assert_allclose(jacobian_inverse_consistency(shifted, Identity(2), points), [0, 0], atol=1e-10)
    slope = Displacement(tf.constant(voxels(SIZE) @ (matrix - np.eye(2)).T, tf.float32))
    inner = rng.uniform(3, 6, (1, 7, 2))
    np.testing.assert_allclose(
        jacobian_inverse_consistency(slope, Identity(2), inner), [np.mean((matrix - np.eye(2)) ** 2)], rtol=1e-4
    )


def test_each_sample_has_its_own_inconsistency(rng):
    """Of steps at half the resolution too, whose frame is a matrix for all samples."""
    images, there = (smooth(rng), smooth(rng)), Displacement(tf.zeros((2, *SIZE, 2)))
    back = Displacement(tf.stack([tf.zeros((*SIZE, 2)), 0.1 * tf.cast(voxels(SIZE)[0], tf.float32)]))
    ways = [in_frame(way, Affine(2 * np.eye(2), np.zeros(2))) for way in (there, back)]
    found = JacobianInverseConsistency(points=50)(Registered(*images, *ways))
    assert found.shape == (2,) and float(found[0]) < 1e-8 < 1e-4 < float(found[1])


def test_codes_are_counted_by_their_length(rng):
    codes = Codes(tf.constant([[3.0, 4.0], [0.0, 0.0]]), tf.ones((2, 2, 2, 4)))
    there = Implicit(coordinate_network(2, codes=6, units=4, waves=4), codes, SIZE)
    np.testing.assert_allclose(SmallCodes()(registered(rng, there)), [7, 2], atol=1e-2)
    np.testing.assert_array_equal(SmallCodes()(registered(rng)), [0, 0])
    with tf.GradientTape() as tape:
        tape.watch(codes.shared)
        loss = SmallCodes()(registered(rng, there))
    assert np.isfinite(tape.gradient(loss, codes.shared)).all()


def settings(**objective):
    return config.from_dict(
        {
            "network": {"arch": "nephi", "width": 0.1},
            "objective": {"name": "nephi", **objective},
            "optimizer": {"decay": "none"},
        }
    )


@pytest.fixture(scope="module")
def trained():
    """A model that has learned a little, and its pair of images."""
    from tests.graphs import eagerly

    rng = np.random.default_rng(0)
    fixed = smooth(rng).numpy().astype("float32")
    pair = [np.roll(fixed, 1, axis=1), fixed]
    keras.utils.set_random_seed(0)
    with eagerly():
        model = build(settings(points=100, points_regular=4), SIZE)
        history = model.fit(pair, batch_size=2, epochs=3, verbose=0).history
    return model, pair, history


def test_it_is_trained_in_both_directions(trained):
    model, pair, history = trained
    assert {"similarity", "inverse_consistency", "codes"} < history.keys()
    assert history["loss"][-1] < history["loss"][0]
    record = model(pair, record=True)[0]
    assert record.forward.codes.shared is record.backward.codes.shared
    np.testing.assert_allclose(record.displacement, model.register(*pair), atol=1e-5)
    assert np.abs(record.displacement).max() > 1e-3


@pytest.mark.slow
def test_its_file_goes_on(trained, tmp_path):
    model, pair, _ = trained
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.register(*pair), model.register(*pair), atol=1e-6)
    assert [term.get_config() for term in again.terms] == [term.get_config() for term in model.terms]
    larger = again.with_shape((24, 17))
    assert larger.register(*np.zeros((2, 1, 24, 17, 1))).shape == (1, 24, 17, 2)


@pytest.mark.quick("codes")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("of", ["codes", "network"])
def test_a_pair_is_optimised_by_its_codes_or_all(of, trained):
    model, (moving, fixed), _ = trained
    before = model.register(moving[:1], fixed[:1])
    refined = Refined(model, 2, of=of, loss="own")
    result = refined.refine(moving[0, ..., 0], fixed[0, ..., 0])
    assert result.losses[-1] < result.losses[0] and result.loss == min(result.losses)
    (problem,) = refined._problems.values()
    assert [getattr(term, "points", None) for term in problem._copy.terms] == [320, 320, None]
    np.testing.assert_allclose(result.start.displacement, before[0], atol=1e-5)
    np.testing.assert_array_equal(model.register(moving[:1], fixed[:1]), before)


@pytest.mark.slow
def test_codes_alone_leave_the_networks(trained):
    from hetmorph.evaluation.adapter import wrap
    from hetmorph.instance.problems import OfCodes

    model, (moving, fixed), _ = trained
    problem = OfCodes(None, SIZE, wrap(model))
    assert [tuple(v.shape) for v in problem.variables] == [(1, 32), (1, 8, 10, 32)]
    problem.restart((tf.constant(moving[:1]), tf.constant(fixed[:1])))
    np.testing.assert_allclose(problem._copy.register(moving[:1], fixed[:1]), model.register(moving[:1], fixed[:1]),
                               atol=1e-5)  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_table_of_codes_is_trained_for_its_pairs(rng):
    keras.utils.set_random_seed(1)
    networks = [coordinate_network(2, units=8, waves=8, name=name) for name in ("forward", "backward")]
    model = Registration(ImplicitStep(code_table((3, 3), pairs=2), *networks), (None, None), direction="exchange")
    model.compile("adam", terms=[SampledCorrelation(points=100), JacobianInverseConsistency(points=8)])
    pair = smooth(rng), smooth(rng)
    table = model.step.network.get_layer("table_codes")
    before = table.of_pair.numpy()
    model.fit(pair, batch_size=2, epochs=2, verbose=0)
    assert np.abs(table.of_pair - before).max() > 0
    with pytest.raises(ValueError, match="expected the 2 pairs that these codes belong to, received 1"):
        model.register(pair[0][:1], pair[1][:1])


def test_in_a_graph_a_table_refuses_other_pairs_too():
    table = tf.function(CodeTable((3, 3), pairs=2), input_signature=[tf.TensorSpec([None, 4, 4, 1])])
    assert table(tf.zeros((2, 4, 4, 1)))[0].shape == (2, 32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="codes of other pairs"):
        table(tf.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: coordinate_network(2, codes=0), "expected at least one code, received 0"),
        (lambda: code_encoder(4), "code_encoder takes images of 2 or 3 axes, received 4"),
        (lambda: code_encoder(2, width=0.0), "expected size, width and codes above 0"),
        (lambda: CodeTable((2, 0)), r"expected cells, pairs and codes >= 1, received \(2, 0\)"),
        (lambda: SampledCorrelation(points=1), "expected at least 2 points, received 1"),
        (lambda: model_class(settings(smoothness=-1.0)), "objective.smoothness|smoothness must be λ ≥ 0"),
        (lambda: model_class(settings(code_weight=-1.0)), "expected a weight λ ≥ 0, received -1"),
        (lambda: model_class(settings(window=5)), "objective.window has no effect on objective nephi"),
        (lambda: Refined(model_of_a_field(), of="codes", loss="own"), "needs a model of an ImplicitStep, received"),
        (lambda: Refined(model_of_a_field(), of="codes"), "of='codes' goes with loss='own'"),
        (
            lambda: Refined(model_of_a_field(), of="network", loss="own", similarity="mse"),
            "registration was not trained by an image loss of its own",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def model_of_a_field():
    images = [keras.Input((None, None, 1)) for _ in range(2)]
    field = keras.layers.Conv2D(2, 3, padding="same")(keras.layers.Concatenate()(images))
    model = Registration(FieldStep(keras.Model(images, field)), (None, None), direction="exchange")
    model.compile("adam", terms=[SampledCorrelation()])
    return model
