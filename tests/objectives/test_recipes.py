"""Every method by name: the number it minimises, what it trains, and what it refuses."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest
from scipy import ndimage

from hetmorph import config, objectives
from hetmorph.losses import LNCC, MSE
from hetmorph.networks import HetVxmDense
from hetmorph.networks.build import build, model_class
from hetmorph.objectives import RECIPES
from tests.graphs import eagerly

NAMES = sorted(RECIPES)
# What looks at both directions has its definition in test_terms.py.
ONE_WAY = [name for name in NAMES if not RECIPES[name].transforms]
IN_A_GRAPH = ("adareg", "vxm-diff")  # of two players see networks/test_backbones.py, of each loss tests/losses
LAMBDA, RESOLUTION = 0.3, 2


def settings(name, **options):
    return config.from_dict(
        {
            "network": {"features": [[4], [4, 4]], "int_steps": 2},
            "objective": {"name": name, "smoothness": LAMBDA, **options},
            "optimizer": {"learning_rate": 2e-3, "decay": "none"},
        }
    )


@pytest.fixture
def pair(rng):
    grid = np.stack(np.meshgrid(*[np.linspace(0, 3, 16)] * 2, indexing="ij"))
    fixed = 0.5 + 0.4 * np.sin(grid).prod(0) + rng.normal(scale=0.02, size=(2, 16, 16))
    fixed = np.clip(fixed, 0, 1)[..., None].astype("float32")
    return np.roll(fixed, 1, axis=1), fixed


def moving_model(name, rng, **options):
    """A model of the recipe whose displacement is not zero."""
    keras.utils.set_random_seed(1)
    model = build(settings(name, **options), (16, 16))
    kernel = model.get_layer("vxm_dense_flow").kernel
    kernel.assign(rng.normal(scale=0.3, size=kernel.shape))
    return model


def gradient_penalty(field):
    return np.mean([np.mean(np.diff(field, axis=axis) ** 2) for axis in (1, 2)]) * RESOLUTION


def correlation(fixed, moved, window):
    """Squared local correlation; beyond the border is black."""

    def total(image):
        return window**2 * ndimage.uniform_filter(image[..., 0].astype(float), (1, window, window), mode="constant")

    f, m, n = total(fixed), total(moved), window**2
    covariance, *variances = (
        np.maximum(total(a * b) - x * y / n, 1e-5) for a, b, x, y in (
            (fixed, moved, f, m), (fixed, fixed, f, f), (moved, moved, m, m))
    )  # fmt: skip
    return (covariance**2 / variances[0] / variances[1])[..., None]


def mutual_information(fixed, moved, bins):
    """Of soft histograms, as VoxelMorph defines them: no voxel's bins are scaled to a sum of 1."""

    def in_bins(image):
        voxels = image.reshape(len(image), -1, 1)
        centres = np.linspace(voxels.min(1), voxels.max(1), bins, axis=-1)  # each image has its own
        return np.exp(-2 * (bins - 1) ** 2 * (voxels - centres) ** 2)

    def shares(counts):
        return counts / counts.sum((1, 2), keepdims=True)

    a, b = in_bins(fixed), in_bins(moved)
    joint = shares(np.einsum("bvi,bvj->bij", a, b))
    apart = shares(a.sum(1)[:, :, None]) * shares(b.sum(1)[:, None])
    return (joint * np.log(joint / (apart + 1e-7) + 1e-7)).sum((1, 2)).mean()


def snr_weight(model, moving, fixed):
    """The square root of the SNR, each sample's 1st to 99th percentile to [0, 1], a sigmoid, to mean 1."""
    ratio = fixed * np.exp(-0.5 * model.variance(moving, fixed))
    low, high = (np.percentile(ratio, q, axis=(1, 2, 3), keepdims=True, method="nearest") for q in (1, 99))
    weight = 1 / (1 + np.exp(-np.clip((ratio - low) / (high - low), 0, 1)))
    return weight / weight.mean((1, 2, 3), keepdims=True)


def outputs(model, pair):
    return [output.numpy() for output in model(list(pair))]


def expected_loss(name, model, moving, fixed, moved, field):
    """The definition, in numpy."""
    squared = (fixed - moved) ** 2
    smooth = LAMBDA * gradient_penalty(field)
    if name == "mse":
        return squared.mean() + smooth
    if name == "ncc":
        return smooth - correlation(fixed, moved, 9).mean()
    if name == "diffusion":  # its similarity has a test of its own
        return np.mean(LNCC(5.0).loss(fixed, moved)) + smooth
    if name == "mi":
        return smooth - mutual_information(fixed, moved, 32)
    if name in ("nll", "beta-nll"):
        s = model.variance(moving, fixed)
        factor = np.exp(0.5 * s) if name == "beta-nll" else 1.0
        return np.mean(factor * 0.5 * (squared / np.exp(s) + s)) + smooth
    if name == "adaframe":
        weights = []
        for r in np.abs(fixed - moved):
            a, b = 0.1 / (r.mean() + 1e-7), 10 * (1 - np.cos(np.pi * r.mean()))
            weights.append(1 - 1 / (1 + np.exp(-(a * (r - r.mean()) / r.std() - b))))
        return np.mean(weights * squared) + smooth
    if name == "adareg":
        r = np.abs(fixed - moved)
        factor = np.exp(-50 * r * r.mean(axis=(1, 2, 3), keepdims=True))
        factor = factor.reshape(2, 8, 2, 8, 2, 1).mean((2, 4))
        return squared.mean() + LAMBDA * gradient_penalty(field * factor)
    if name == "het":
        return np.mean(snr_weight(model, moving, fixed) * squared) + smooth
    if name == "het-ncc":
        return smooth - np.mean(snr_weight(model, moving, fixed) * correlation(fixed, moved, 9))
    if name == "het-z":
        mean, s = field[..., :2], field[..., 2:]
        likelihood = np.mean(snr_weight(model, moving, fixed) * squared)
        return likelihood + LAMBDA * gradient_penalty(mean) + 1e-4 * np.mean(np.exp(s) - s)
    if name == "vxm-diff":
        mean, s = field[..., :2], field[..., 2:]
        neighbours = sum(np.pad(np.ones((16, 16)), 1)[1 + i : 17 + i, 1 + j : 17 + j] for i, j in
                         ((0, 1), (1, 0), (0, -1), (-1, 0)))[..., None]  # fmt: skip
        spread = np.mean(10 * neighbours * np.exp(s) - s)
        weight = 4 * LAMBDA * RESOLUTION / (2 * 10)
        # The precision term is λ·‖∇μ‖²: the same weight that "mse" gives it.
        return squared.mean() + weight * spread + LAMBDA * gradient_penalty(mean)
    raise AssertionError(f"{name} has no definition here")


@pytest.mark.quick(*[f"{name}-without a graph" for name in ONE_WAY], *[f"{name}-graph" for name in IN_A_GRAPH])
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "without a graph"])
@pytest.mark.parametrize("name", ONE_WAY)
def test_the_loss_is_its_definition(name, graph, pair, rng):
    model = moving_model(name, rng)
    with contextlib.nullcontext() if graph else eagerly():
        moved, field = outputs(model, pair)
        assert np.abs(moved - pair[0]).max() > 0.02
        loss = model.test_on_batch(list(pair), [pair[1], np.zeros_like(field)])[0]
    with eagerly():
        assert loss == pytest.approx(expected_loss(name, model, *pair, moved, field), rel=2e-4)


@pytest.mark.quick("ncc-option0", "mi-option2")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name,option", [("ncc", {"window": 5}), ("het-ncc", {"window": 5}), ("mi", {"bins": 8})])
def test_similarities_take_their_options(name, option, pair, rng):
    model = moving_model(name, rng, **option)
    moved, field = outputs(model, pair)
    loss = model.test_on_batch(list(pair), [pair[1], np.zeros_like(field)])[0]
    if name == "mi":
        image = -mutual_information(pair[1], moved, 8)
    else:
        weight = snr_weight(model, *pair) if name == "het-ncc" else 1
        image = -np.mean(weight * correlation(pair[1], moved, 5))
    assert loss == pytest.approx(image + LAMBDA * gradient_penalty(field), rel=2e-4)


@pytest.mark.quick("mse", "het")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["mse", "het", "het-z"])
def test_the_smoothed_difference_is_what_is_weighted(name, pair, rng):
    model = moving_model(name, rng, residual_smoothing=1.0)
    moved, field = outputs(model, pair)
    loss = model.test_on_batch(list(pair), [pair[1], np.zeros_like(field)])[0]
    squared = MSE(smoothing=1.0).voxelwise(pair[1], moved).numpy()
    changed = np.mean((1 if name == "mse" else snr_weight(model, *pair)) * (squared - (pair[1] - moved) ** 2))
    assert changed < -1e-5
    assert loss == pytest.approx(expected_loss(name, model, *pair, moved, field) + changed, rel=2e-4)


def proper_loss(name, model, pair, target):
    """The loss; for "beta-nll", whose own value is not what its gradient lowers, the likelihood."""
    if name != "beta-nll":
        return model.test_on_batch(list(pair), target)[0]
    moved, s = outputs(model, pair)[0], model.variance(*pair)
    return np.mean((pair[1] - moved) ** 2 / np.exp(s) + s)


@pytest.mark.quick("het")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss_and_moves_every_weight(name, pair):
    keras.utils.set_random_seed(3)
    options = {"warm_start": 0} if "warm_start" in RECIPES[name].options() else {}
    model = build(settings(name, smoothness=0.01, **options), (16, 16))
    before = model.get_weights()
    target = [pair[1], *([pair[0]] * RECIPES[name].transforms), np.zeros_like(outputs(model, pair)[-1])]
    losses = []
    for _ in range(3):
        losses.append(proper_loss(name, model, pair, target))
        history = model.fit(list(pair), target, epochs=2, verbose=0).history["loss"]
        assert np.isfinite(history).all()
    assert min(losses[1:]) < losses[0]
    for variable, old in zip(model.weights, before, strict=True):
        if "seed" not in variable.path:
            assert np.abs(variable.numpy() - old).max() > 0, variable.path


@pytest.mark.quick("het")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", NAMES)
def test_bidir_and_saving(name, pair, tmp_path):
    values = config.to_dict(settings(name))
    values["network"]["bidir"] = True
    model = build(config.from_dict(values), (16, 16))
    field = outputs(model, pair)[-1]
    target = [pair[1], pair[0], np.zeros_like(field)]
    model.train_on_batch(list(pair), target)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert type(restored) is type(model)
    if not RECIPES[name].samples:  # the next step of a sampled velocity draws anew
        model.reset_metrics()  # Keras 3.12 reports the mean over calls
        first, second = (m.train_on_batch(list(pair), target)[0] for m in (model, restored))
        assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.usefixtures("eager")
def test_nothing_is_detached_from_the_joint_likelihood(pair, rng):
    """The gradient of the displacement network is that of the whole, also through the variance network's input."""
    model = moving_model("beta-nll", rng)
    het = moving_model("het", rng, warm_start=0)
    for network, reaches in ((model, True), (het, False)):
        before = network.get_layer("vxm_dense_flow").kernel.numpy()
        network.optimizer.learning_rate = 0.0 if not reaches else 1e-2
        network.train_on_batch(list(pair), [pair[1], np.zeros((2, 8, 8, 2), "float32")])
        assert (np.abs(network.get_layer("vxm_dense_flow").kernel.numpy() - before).max() > 0) == reaches


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_knows_its_options_and_refuses_the_others(name):
    known = RECIPES[name].options()
    defaults = {field.name: field.default for field in dataclasses.fields(config.ObjectiveConfig)}
    assert set(known) <= set(defaults)
    for field in dataclasses.fields(RECIPES[name]):
        assert (
            field.default == defaults[field.name] or defaults[field.name] is None
        )  # which stands for the recipe's own
    others = {"window": 5, "bins": 5, "gamma": 0.3, "prior_lambda": 3.0, "alpha": 0.5, "variance_pass": "recompute"}
    others["residual_smoothing"] = 1.0
    for option in set(others) - set(known):
        with pytest.raises(ValueError, match=f"objective.{option} has no effect on objective {name}"):
            model_class(settings(name, **{option: others[option]}))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="objective.name must be one of mse, ncc.*got 'ssd'"):
        model_class(settings("ssd"))
    with pytest.raises(ValueError, match="network.arch must be one of vxm.*got 'unet'"):
        model_class(config.from_dict({"network": {"arch": "unet"}}))
    with pytest.raises(ValueError, match="smoothness must be λ ≥ 0"):
        objectives.recipe(config.ObjectiveConfig("mse", smoothness=float("nan")))


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("het", "snr", "foo", "snr must be one of"),
        ("het", "gamma", 0.0, "gamma must be positive"),
        ("het", "beta", 1.5, "beta must be in"),
        ("het", "variance_pass", "foo", "variance_pass must be one of"),
        ("nll", "variance_resolution", 0, "power of two, got 0"),
        ("het-ncc", "window", 0, "window of NCC must have whole sides of at least one voxel, got 0"),
        ("mi", "bins", 1, "at least 2 bins, got 1"),
        ("mse", "residual_smoothing", -1.0, "smoothing must be 0 to 32 voxels, got -1"),
        ("het", "residual_smoothing", 200.0, "smoothing must be 0 to 32 voxels, got 200"),
        ("vxm-diff", "prior_lambda", 0.0, "prior_lambda must be positive, got 0"),
        ("het-z", "alpha", -3.0, "α must be at least 0, got .* and -3"),
    ],
)
def test_bad_values_are_refused_before_anything_is_built(name, option, value, message):
    with pytest.raises(ValueError, match=message):
        model_class(settings(name, **{option: value}))


def test_het_z_is_a_het_model_with_a_sampled_velocity():
    model = build(settings("het-z"), (16, 16))
    assert isinstance(model, HetVxmDense) and model.get_config()["use_probs"]
