"""The other estimates: each is the spread it says, and says why where it cannot be made."""

import keras
import numpy as np
import pytest
from scipy import ndimage

from hetmorph import ops
from hetmorph.data import Pair
from hetmorph.evaluation import wrap
from hetmorph.networks import HetVxmDense, TransMorph, VxmDense
from hetmorph.uncertainty import ESTIMATES, UncertaintyMap, estimate, estimate_names, estimates_for, pair_estimates
from hetmorph.uncertainty.estimates import AT_ONCE

pytestmark = pytest.mark.usefixtures("eager")  # each estimate wraps its model anew, and would make a graph of it
SHAPE = (32, 32)
FEATURES = [[4, 4], [4, 4]]
SILENT = {"progress": False}


def randomised(model, scale=0.1):
    rng = np.random.default_rng(0)
    model.set_weights([w + scale * rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((2, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def plain():
    return randomised(VxmDense(SHAPE, FEATURES, int_steps=2))


@pytest.fixture(scope="module")
def het():
    return randomised(HetVxmDense(SHAPE, FEATURES, variance_features=FEATURES, int_steps=2))


@pytest.fixture(scope="module")
def probabilistic():
    """Velocities of known spread: log σ² is the bias of its convolution, −2."""
    model = randomised(VxmDense(SHAPE, FEATURES, use_probs=True, int_steps=0))
    layer = model.get_layer("vxm_dense_log_sigma")
    layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.full(2, -2.0)])
    return model


@pytest.fixture(scope="module")
def transmorph():
    options = {"embed_dim": 8, "depths": (1, 2), "num_heads": (2, 2), "window_size": (4, 4), "reg_head_features": 4}
    return randomised(TransMorph(SHAPE, drop_path=0.5, **options), 0.3)


def test_variance_is_sigma_of_the_variance_network(het, images):
    result = estimate("variance", het, *images)
    expected = np.exp(0.5 * het.variance(*(image[None, ..., None] for image in images)))[0, ..., 0]
    np.testing.assert_allclose(result.std, expected, rtol=1e-4)
    assert (result.unit, result.passes, result.mean, result.valid.all()) == ("intensity", 1, None, True)


def test_residual_is_what_the_registration_leaves(plain, images):
    expected = np.abs(images[1] - wrap(plain)(*images).moved)
    np.testing.assert_allclose(estimate("residual", plain, *images).std, expected, atol=1e-6)


def test_dissimilarity_is_blind_to_contrast_and_sees_what_does_not_match(rng):
    """Identity as the model: half of the fixed image is the moving one at another contrast, a corner its negative."""
    moving = np.clip(rng.random(SHAPE), 0.05, 0.95).astype(np.float32)
    moving[:8, :8] = 0.5
    fixed = 0.2 + 0.5 * moving
    fixed[:, -16:] = rng.random((SHAPE[0], 16))
    fixed[-16:, :16] = 1 - moving[-16:, :16]

    def identity(moving, fixed):
        return np.zeros((*SHAPE, 2), np.float32)

    result = estimate("dissimilarity", identity, moving, fixed)
    assert (result.unit, result.passes, result.n) == ("no unit", 1, 1)
    assert result.std[9, 9] < 1e-3, "alike"
    assert result.std[1, 1] == pytest.approx(np.sqrt(0.5), abs=1e-3), "flat: nothing to compare"
    assert result.std[-6:, 2:8].min() > 0.98, "opposite"
    assert result.std[:8, -8:].mean() == pytest.approx(np.sqrt(0.5), abs=0.1), "unrelated"
    with pytest.raises(ValueError, match="no millimetres"):
        result.std_mm((1.0, 1.0))
    with pytest.raises(ValueError, match="scale above 0"):
        estimate("dissimilarity", identity, moving, fixed, scale=0.0)


def test_posterior_has_the_spread_of_the_velocities(probabilistic, images):
    """Without integration the displacement is the velocity: each component has the variance exp(−2)."""
    result = estimate("posterior", probabilistic, *images, n=60, batch=7, **SILENT)
    np.testing.assert_allclose(result.covariance.mean((0, 1)), np.exp(-2) * np.eye(2), atol=0.01)
    np.testing.assert_allclose(result.mean, wrap(probabilistic)(*images).displacement, atol=0.3)
    assert result.passes == result.n == 60


def test_draws_of_one_batch_differ(probabilistic, images):
    fields = wrap(probabilistic).displacements(*(np.stack([image] * 3) for image in images), seed=1)
    assert np.abs(fields[0] - fields[1]).max() > 0.1 and np.abs(fields[1] - fields[2]).max() > 0.1


def test_dropout_spreads_and_leaves_the_model_as_it_was(transmorph, images):
    predictor = wrap(transmorph)
    before = predictor(*images).displacement
    states = [keras.ops.convert_to_numpy(v) for v in transmorph.non_trainable_variables]
    result = estimate("dropout", predictor, *images, n=6, **SILENT)
    assert result.std.max() > 1e-3 and np.isfinite(result.std).all()
    for now, then in zip(transmorph.non_trainable_variables, states, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(now), then)
    np.testing.assert_array_equal(predictor(*images).displacement, before)


@pytest.mark.parametrize("name", ["dropout", "posterior", "noise"])
def test_the_seed_decides(name, transmorph, probabilistic, images):
    model = transmorph if name == "dropout" else probabilistic
    first, again, other = (estimate(name, model, *images, n=4, seed=seed, **SILENT).std for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-5


def test_a_sampled_model_has_both_terms_of_equivariance(probabilistic, images):
    options = {"n": 10, "samples": 3} | SILENT
    result = estimate("equivariance-translation", probabilistic, *images, **options)
    assert result.passes == 30 and result.name == "equivariance-translation"
    assert np.nanmean(result.intrinsic) == pytest.approx(2 * np.exp(-2), rel=0.1)


def test_noise_gives_the_spread_it_causes(images):
    """Of a registration that returns its images: the noise itself."""
    grey = np.full(SHAPE, 0.5, np.float32)
    result = estimate("noise", lambda a, b: np.stack([a, 2 * b], -1), grey, grey, level=0.03, n=80, **SILENT)
    np.testing.assert_allclose(result.covariance.mean((0, 1)), np.diag([9e-4, 36e-4]), atol=5e-5)


def test_an_ensemble_is_the_spread_of_its_answers(plain, images):
    others = [lambda a, b, k=k: np.full((*SHAPE, 2), k) for k in (1.0, 4.0)]
    result = estimate("ensemble", (model for model in [plain, *others]), *images, **SILENT)  # read once
    answers = np.stack([wrap(model)(*images).displacement for model in (plain, *others)])
    np.testing.assert_allclose(result.variances, np.var(answers, axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(result.mean, answers.mean(0), atol=1e-5)
    assert result.passes == result.n == 3


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("dropout", "plain", "has no dropout"),
        ("dropout", "probabilistic", "has no dropout"),
        ("posterior", "plain", "predicts no distribution"),
        ("posterior", "transmorph", "predicts no distribution"),
        ("variance", "plain", "predicts no variance"),
        ("ensemble", "plain", "at least 2 models, got 1"),
        ("wobble", "plain", "expected estimates among equivariance"),
        ("variance-affine", "plain", "expected estimates among"),
    ],
)
def test_what_a_model_cannot_give_is_refused_with_the_reason(name, model, message, images, request):
    with pytest.raises(ValueError, match=message):
        estimate(name, request.getfixturevalue(model), *images)


@pytest.mark.parametrize("name", [name for name in ESTIMATES if name not in ("posterior", "dropout")])
def test_bad_images_are_refused_by_every_estimate(name, het, images):
    model = [het, het] if name == "ensemble" else het
    for bad in (np.full(SHAPE, np.nan), np.zeros((32, 20)), np.zeros((1, *SHAPE, 1))):
        with pytest.raises(ValueError, match="NaN|shape"):
            estimate(name, model, bad, images[1])
    if name not in (*AT_ONCE, "ensemble", "inverse"):
        with pytest.raises(ValueError, match="at least 2"):
            estimate(name, model, *images, n=1)


def test_bad_answers_are_refused(images):
    def broken(moving, fixed):
        return np.full((*SHAPE, 2), np.nan)

    for name in ("noise", "residual", "dissimilarity"):
        with pytest.raises(ValueError, match="NaN or infinity"):
            estimate(name, broken, *images)
    with pytest.raises(ValueError, match="level of the noise must be positive"):
        estimate("noise", broken, *images, level=0.0)


def test_what_a_model_can_give(plain, het, probabilistic, transmorph, images):
    pair = Pair("a", "p", None, None, *images, None, None, (1.0, 1.0))
    common = {"equivariance-translation", "noise", "residual", "dissimilarity", "incoherence", "inverse"}
    expected = {plain: set(), het: {"variance"}, probabilistic: {"posterior"}, transmorph: {"dropout"}}
    for model, own in expected.items():
        names = estimates_for(wrap(model), pair)
        assert common | own <= set(names) <= set(estimate_names())
        assert not ({"variance", "posterior", "dropout"} - own) & set(names)
    functions = pair_estimates(["variance", "noise", "ensemble"], wrap(het), [wrap(plain)], n=2)
    for name, function in functions.items():
        result = function(pair)
        assert isinstance(result, UncertaintyMap) and result.name == name and result.std.shape == SHAPE
    for names, others in ((["ensemble"], []), (["noise"], [wrap(plain)])):
        with pytest.raises(ValueError, match="ensemble needs further models"):
            pair_estimates(names, wrap(het), others)


def test_inverse_is_how_far_the_two_ways_are_from_undoing_each_other():
    """Constant shifts of a and b, told apart by their images: φ_BA(φ_AB(x)) − x = a + b."""
    moving, fixed = np.zeros((2, *SHAPE), np.float32)
    moving[0, 0] = 1
    shifts = {True: (2.0, 1.0), False: (-1.5, 1.0)}

    def shift(a, b):
        return np.broadcast_to(shifts[bool(a[0, 0])], (*SHAPE, 2))

    result = estimate("inverse", shift, moving, fixed)
    np.testing.assert_allclose(result.std, np.hypot(0.5, 2.0), rtol=1e-6)
    np.testing.assert_allclose(result.std_mm((2.0, 1.0)), np.hypot(1.0, 2.0), rtol=1e-6)
    sheared = np.array([[1.0, 1.0, 0], [0, 1.0, 0], [0, 0, 1]])
    np.testing.assert_allclose(result.std_mm(sheared), np.hypot(2.5, 2.0), rtol=1e-6)
    assert (result.unit, result.passes) == ("voxels", 2)


def test_a_model_with_an_inverse_of_its_own_is_asked_both_ways(images):
    bidirectional = randomised(VxmDense(SHAPE, FEATURES, int_steps=5, bidir=True))
    predictor = wrap(bidirectional)
    there, back = predictor(*images).displacement, predictor(*images[::-1]).displacement
    inside = (slice(12, 20),) * 2  # where a displacement does not reach the border
    points = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1) + there
    again = np.stack([ndimage.map_coordinates(back[..., d], np.moveaxis(points, -1, 0), order=1) for d in (0, 1)], -1)
    expected = np.linalg.norm(there + again, axis=-1)
    np.testing.assert_allclose(estimate("inverse", predictor, *images).std[inside], expected[inside], atol=1e-4)


def test_incoherence_is_nothing_for_an_affine_motion_and_large_where_a_part_stays_behind(rng):
    moving = rng.random(SHAPE, np.float32)
    points = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in SHAPE], indexing="ij"), -1)
    affine = points @ np.array([[0.05, 0.02], [-0.03, 0.1]]) + (3.0, -2.0)
    behind = affine.copy()
    behind[4:12, 4:12] = 0.1
    together, apart = (
        estimate("incoherence", lambda a, b, u=u: u, moving, ops.warp(moving[None, ..., None], u[None])[0, ..., 0])
        for u in (affine.astype("float32"), behind.astype("float32"))
    )
    assert together.std.max() < 1e-4 and (together.unit, together.passes) == ("no unit", 1)
    assert apart.std[5:11, 5:11].min() > 5 and apart.std[16:].max() < 0.5
