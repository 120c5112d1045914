"""CARL and uniCARL against their originals under PyTorch, whose answers `tests/golden/make_carl.py` has stored."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.layers import CoordinateAttention
from hetmorph.losses import MSE
from hetmorph.networks import Registration, feature_encoder
from hetmorph.objectives import GradientInverseConsistency, Similarity
from hetmorph.steps import AtResolution, FeatureStep, FieldStep, Smoothed, Then, Turned
from hetmorph.transforms import Affine, voxels
from tests.golden import carl_recipes as recipes
from tests.networks.test_icon import filled, in_voxels, narrow, pair


@pytest.fixture(scope="module")
def original():
    with np.load(Path(__file__).parents[1] / "golden" / "carl.npz") as stored:
        return dict(stored)


def attention(ndims, averaged=False, beyond="edge"):
    dilations = (1, 2, 4, 8) if averaged else (1, 2, 4)
    encoder = feature_encoder(ndims, recipes.FEATURES, 9, dilations, averaged=averaged)
    filled(encoder, recipes.encoder_weights(ndims, 2 if averaged else 1, len(dilations)))
    return FeatureStep(encoder, CoordinateAttention(9), beyond=beyond)


@pytest.fixture(scope="module")
def plane():
    return attention(2)


@pytest.mark.slow
def test_the_encoders_have_as_many_weights(original):
    def count(*of, **options):
        return sum(np.prod(w.shape) for w in feature_encoder(*of, **options).trainable_weights)

    for ndims in (2, 3):
        assert count(ndims) == original[f"count_{ndims}d"]
        assert count(ndims, dilations=(1, 2, 4, 8), averaged=True) == original[f"count_{ndims}d_broad"]
    halved = {"padding": 16, "dilations": (1, 1, 1), "halvings": 2}
    assert count(3, 384, **halved) == original["count_halved"]


@pytest.mark.parametrize("name", ["attention_2d", "attention_3d"])
def test_the_attention_and_its_encoder(name, plane, original):
    shape, step, seed = (recipes.SIZE, plane, 5) if name == "attention_2d" else (recipes.VOLUME, attention(3), 6)
    expected = in_voxels(original[name], shape)
    places = expected + np.stack(np.indices(shape), -1)
    assert places.std(axis=tuple(range(len(shape)))).min() > 0.4  # it looks at the images
    np.testing.assert_allclose(step(*pair(shape, seed))[0], expected, atol=2e-4)


def test_the_mean_over_half_turns_and_what_lies_beyond_the_image(original):
    step, shape = attention(3, averaged=True, beyond="odd"), recipes.VOLUME
    transform = step.transform(*pair(shape, 6))
    np.testing.assert_allclose(transform.displacement(shape)[0], in_voxels(original["averaged_3d"], shape), atol=1e-4)
    points = 1.5 * voxels(shape) - 0.3 * (np.array(shape) - 1)
    found = transform(tf.constant(points, tf.float32)) - points
    np.testing.assert_allclose(found[0], in_voxels(original["beyond_3d"], shape), atol=2e-4)
    inside = type(transform)(transform.field.numpy())  # by numpy, in double precision
    np.testing.assert_allclose(inside(points), points + found, atol=2e-4)


def test_the_whole_network(plane, original):
    coarse = AtResolution(Then([AtResolution(plane, corners=True), FieldStep(narrow(11))]), corners=True)
    found = Then([coarse, FieldStep(narrow(12))])(*pair(recipes.SIZE, 5))[0]
    np.testing.assert_allclose(found, in_voxels(original["whole"], recipes.SIZE), atol=1e-4)


def test_the_turns_of_a_training(plane, original, monkeypatch):
    size = recipes.SQUARE[0] - 1
    turns = [
        Affine.about(np.full(2, size / 2), m[None, :, :2], m[None, :, 2] * size) for m in recipes.turns().astype(float)
    ]
    drawn, transform = iter(turns), plane.transform
    step = Turned(plane)
    monkeypatch.setattr(step, "_drawn", lambda image: next(drawn))
    # Turned while training, but normalised by the statistics that are stored.
    monkeypatch.setattr(plane, "transform", lambda moving, fixed, training=None: transform(moving, fixed))
    images_ = pair(recipes.SQUARE, 7)
    found = step.transform(*images_, training=True).displacement(recipes.SQUARE)[0]
    np.testing.assert_allclose(found, in_voxels(original["turned"], recipes.SQUARE), atol=1e-4)
    np.testing.assert_allclose(step(*images_, training=False), plane(*images_), atol=0)


@pytest.mark.parametrize("ndims", [2, 3])
def test_turns_are_rotations_about_the_middle(ndims):
    step = Turned(FeatureStep(feature_encoder(ndims, 2, 2), CoordinateAttention(2)), shear=0.0, seed=1)
    shape = (8, 9, 6)[:ndims]
    turn = step._drawn(tf.zeros((40, *shape, 1)))
    np.testing.assert_allclose(turn.matrix @ tf.linalg.matrix_transpose(turn.matrix), [np.eye(ndims)] * 40, atol=1e-5)
    np.testing.assert_allclose(tf.linalg.det(turn.matrix), np.ones(40), atol=1e-5)
    middle = tf.constant((np.array(shape) - 1) / 2, tf.float32)[None, None]
    np.testing.assert_allclose(turn(middle), np.broadcast_to(middle, (40, 1, ndims)), atol=1e-4)
    assert np.ptp(turn.matrix[:, 0, 0]) > 1.5  # all angles


def test_the_layout_of_unicarl(original):
    encoder = feature_encoder(2, recipes.FEATURES, 16, (1, 1, 1), halvings=2, averaged=True)
    filled(encoder, recipes.encoder_weights(2, 3, first=recipes.HALVED))
    step = AtResolution(FeatureStep(encoder, CoordinateAttention(4), spacing=4, beyond="odd"), corners=True)
    step = Then([Smoothed(step, recipes.SIGMAS[0]), AtResolution(FieldStep(narrow(11), "odd"), corners=True)])
    step = Then([Smoothed(AtResolution(step, corners=True), recipes.SIGMAS[1]), FieldStep(narrow(12), "odd")])
    found = step(*pair(recipes.LAYOUT, 9))[0] / (np.array(recipes.LAYOUT) - 1)  # of displacements of half the image
    np.testing.assert_allclose(found, original["layout"], atol=2e-5)


@pytest.mark.usefixtures("eager")
def test_the_step_is_trained_and_saved(rng, tmp_path):
    """Trained in both directions, turned meanwhile, and saved; exports are in test_backbones.py, of whole networks."""
    keras.utils.set_random_seed(3)
    encoder = feature_encoder(2, 4, 3, dilations=(1,), blocks=1)
    step = AtResolution(FeatureStep(encoder, CoordinateAttention(3, block_size=32), beyond="odd"))
    model = Registration(Turned(Smoothed(step, 1.5), rotation=0.1, seed=0), (None, None), direction="exchange")
    model.compile("adam", terms=[Similarity(MSE()), GradientInverseConsistency(0.1)])
    pair_ = rng.random((2, 1, 13, 16, 1)).astype("float32")
    before = model.get_weights()
    model.fit(tuple(pair_), verbose=0)
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, model.get_weights(), strict=True))
    answer = model.register(*pair_)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras").register(*pair_), answer, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ndims": 1}, "2 or 3 axes, received 1"),
        ({"features": 0}, "features, blocks and dilations of at least 1"),
        ({"padding": 6, "halvings": 2}, "padding that can be halved 2 times, received 6"),
    ],
)
def test_what_makes_no_encoder_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        feature_encoder(**{"ndims": 2, **options})


def test_what_makes_no_step_is_refused():
    encoder = feature_encoder(2, 2)
    for make, message in (
        (lambda: FeatureStep(narrow(1), CoordinateAttention()), "one image with one output, received 2 inputs"),
        (lambda: FeatureStep(encoder, CoordinateAttention(), spacing=0), "whole spacing >= 1, received 0"),
        (lambda: FeatureStep(encoder, CoordinateAttention(), beyond="none"), "beyond to be one of edge, odd"),
        (lambda: Turned(FeatureStep(encoder, CoordinateAttention()), shear=1), "shear from 0 to below 0.3"),
        (lambda: Smoothed(FeatureStep(encoder, CoordinateAttention()), 0), "sigma > 0, received 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_features_are_those_of_the_moved_image(rng):
    """Inside what an encoder sees, and away from the edges by as much: 1 + 3·(1 + 2 + 4) voxels."""
    step, reach, by = attention(2), 22, (5, -3)
    image = np.zeros((1, 80, 76, 1), "float32")
    image[:, 34:44, 33:43] = rng.random((1, 10, 10, 1))
    moved = np.roll(image, by, (1, 2))
    features, of_moved = (step.network(one)[0].numpy() for one in (image, moved))
    inner = tuple(slice(9 + reach, -9 - reach) for _ in by)
    expected = np.roll(features, by, (0, 1))[inner]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(of_moved[inner], expected, atol=2e-5)


def test_smoothing_leaves_what_is_linear_as_it_is(rng):
    matrix = Affine(np.array([[1.1, 0.2], [-0.1, 0.9]]), np.array([3.0, -2.0]))
    transform = Smoothed(attention(2), 3.0)._smooth(matrix, tf.zeros((1, 20, 17, 1)))
    outside = voxels((30, 30)) - 5
    np.testing.assert_allclose(transform(outside), matrix(outside), atol=1e-4)


def test_for_both_directions_each_image_is_looked_at_once(plane, monkeypatch):
    images, asked, answer = pair((13, 12), 5), [], plane.answer
    expected = [plane.transform(*two).field for two in (images, images[::-1])]
    monkeypatch.setattr(plane, "answer", lambda image, training=None: asked.append(image) or answer(image))
    monkeypatch.setattr(plane, "recomputed", True)
    for transform, field in zip(plane.both(*images), expected, strict=True):
        np.testing.assert_allclose(transform.field, field, atol=1e-5)
    assert len(asked) == 2
