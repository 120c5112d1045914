"""Two replicas make the step that one device makes, whatever changes the loss, and whatever each of them knows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import config
from hetmorph.networks.build import both_directions, build
from hetmorph.training import Distribution

pytestmark = pytest.mark.usefixtures("eager")
SIZE, BATCH = (16, 16), 4
GUIDED = {"landmark_weight": 0.1, "dice_weight": 0.1}
HET = {"name": "het", "warm_start": 0}
ALL = ("mask", "points", "labels")
# Objective, network, what is known besides the images, and the share that is registered before. "icon" has one set of
# random points for all samples as "gradicon" has, plain objectives are in test_distribution.py.
CASES = {
    "mse-both-ways": ({"name": "mse", **GUIDED}, {"bidir": True}, ALL, 0),
    "mse-smoothed": ({"name": "mse", "residual_smoothing": 1.0}, {}, ["mask"], 0),
    "mse-repeated": ({"name": "mse", **GUIDED}, {"repeats": 2}, ["points", "labels"], 0),
    "ncc": ({"name": "ncc", "window": 5}, {}, ["mask"], 0),
    "lncc": ({"name": "diffusion", "similarity": "lncc", "sigma": 2.0}, {}, ["mask"], 0),
    "mind": ({"name": "diffusion", "similarity": "mind"}, {}, ["mask"], 0),
    "ngf": ({"name": "diffusion", "similarity": "ngf"}, {}, ["mask"], 0),
    "mi": ({"name": "mi"}, {}, ["mask"], 0),
    "adaframe": ({"name": "adaframe"}, {}, ["mask"], 0),
    "adareg": ({"name": "adareg"}, {"int_steps": 0}, ["mask"], 0),
    "vxm-diff": ({"name": "vxm-diff", **GUIDED}, {}, ALL, 0),
    "velocity-diffusion": ({"name": "velocity-diffusion", "sigma": 2.0}, {}, ["mask"], 0),
    "gradicon": ({"name": "gradicon", "similarity": "mse", **GUIDED}, {}, ALL, 0),
    "het-both-ways": ({**HET, **GUIDED, "variance_pass": "recompute"}, {"bidir": True}, ALL, 0),
    "het-foreground": ({**HET, "foreground": True}, {}, ["mask"], 0),
    "het-official": ({**HET, "relative": "official"}, {}, ["mask"], 0),
    "het-ncc": ({**HET, "name": "het-ncc", "window": 5}, {}, ["mask"], 0),
    "het-z": ({**HET, "name": "het-z"}, {}, ["mask"], 0),
    "het-gradicon": ({**HET, "name": "het-gradicon"}, {}, ["mask"], 0),
    "beta-nll": ({"name": "beta-nll", **GUIDED}, {}, ALL, 0),
    "mse-registered-before": ({"name": "mse"}, {}, [], 0.25),
    "het-registered-before": (HET, {}, [], 0.75),
}


def images(count=BATCH):
    return np.random.default_rng(0).random((2, count, *SIZE, 1)).astype("float32")


def known_of(kinds):
    """Of four pairs: two have next to nothing in their masks, two have none; the points and labels are of some only."""
    rng = np.random.default_rng(1)
    every = {kind: np.zeros((2, BATCH, *SIZE, 1), bool if kind == "mask" else "uint8") for kind in ("mask", "labels")}
    every["mask"][0, :2, 4:7, 4:7] = every["mask"][1, :2, 5:8, 5:8] = every["mask"][:, 2:] = True
    every["labels"][0, 1, 3:9, 3:9], every["labels"][1, 1, 4:10, 4:10], every["labels"][1, 2, 5:7, 5:7] = 1, 1, 1
    every["labels"][0, 3, 9:14, 3:9], every["labels"][1, 3, 8:13, 4:10] = 2, 2
    every["points"] = np.full((2, BATCH, 3, 2), np.nan, "float32")
    every["points"][:, 0, :1], every["points"][:, 3] = rng.uniform(2, 12, (2, 1, 2)), rng.uniform(2, 12, (2, 3, 2))
    return {f"{kind}_{role}": every[kind][end] for kind in kinds for end, role in enumerate(("moving", "fixed"))}


def model_of(objective, network, before=0.0):
    """With displacements of about a voxel."""
    settings = config.TrainConfig(
        network=config.NetworkConfig(**{"features": ((4,), (4,)), "int_steps": 1, **network}),
        objective=config.ObjectiveConfig(**objective),
    )
    keras.utils.set_random_seed(0)
    model = build(settings, SIZE, labels=(1, 2))
    model.pre_registered = before
    for weight in model.trainable_variables:
        if "flow/kernel" in weight.path:
            weight.assign(0.3 * keras.random.normal(weight.shape, seed=1))
    return model, both_directions(settings)


def trained(objective, network, kinds, before, where):
    """What is shown of a step, and the weights after it."""
    moving, fixed = images()
    known = known_of(kinds)
    with where.scope():
        model, both = model_of(objective, network, before)

    def part(k, n):
        x = (moving, fixed, known) if known else (moving, fixed)
        y = (fixed, *([moving] if both else []), np.zeros((BATCH, 1, 1, 1), "float32"))
        mine = tf.nest.map_structure(lambda one: one[None, k * BATCH // n : (k + 1) * BATCH // n], (x, y))
        return tf.data.Dataset.from_tensor_slices(mine)

    history = model.fit(where.divided(part, BATCH), epochs=1, steps_per_epoch=1, verbose=0).history
    return {name: values[-1] for name, values in history.items()}, model.get_weights()


def assert_same(several, alone, tolerance=2e-6):
    assert several[0] == pytest.approx(alone[0], rel=1e-4, abs=1e-6)
    for mine, other in zip(several[1], alone[1], strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)


@pytest.fixture
def plain_descent(monkeypatch):
    """Adam's steps are the same for a loss twice as large."""
    monkeypatch.setattr("hetmorph.networks.build.adam", lambda *_: keras.optimizers.SGD(0.05))


@pytest.mark.quick("het-both-ways")
@pytest.mark.parametrize("name", CASES)
def test_two_replicas_make_the_step_of_one(name, plain_descent, two_replicas):
    """The mean is that over all samples: a mask with few voxels on one replica, full ones on the other."""
    assert_same(*(trained(*CASES[name], Distribution(strategy)) for strategy in (two_replicas, None)))


def fitted(strategy, objective=HET, count=BATCH, optimizer=None):
    """As `trained`, on arrays that Keras divides."""
    moving, fixed = images(count)
    with Distribution(strategy).scope():
        model, _ = model_of(objective, {})
        if optimizer is not None:
            model.compile(optimizer(), loss=model.loss, loss_weights=[1.0, 0.01])
    target = fixed, np.zeros((count, 1, 1, 1), "float32")
    history = model.fit((moving, fixed), target, batch_size=BATCH, shuffle=False, verbose=0).history
    return {name: values[-1] for name, values in history.items()}, model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["eager", pytest.param("graph", marks=[pytest.mark.graph, pytest.mark.slow])])
def test_replicas_of_different_numbers_of_samples(how, plain_descent, two_replicas):
    """The last batch of three: each sample is a third of the mean, also on the replica that has two of them."""
    assert_same(*(fitted(strategy, count=3) for strategy in (two_replicas, None)))


@pytest.mark.parametrize("how", ["eager", pytest.param("graph", marks=[pytest.mark.graph, pytest.mark.slow])])
def test_a_replica_without_samples_is_told_of(how, plain_descent, two_replicas):
    with pytest.raises(tf.errors.InvalidArgumentError, match="one sample for each of 2 replicas, received fewer"):
        fitted(two_replicas, {"name": "mse"}, count=1)


CLIPPING = {"norm": {"clipnorm": 3e-3}, "all": {"global_clipnorm": 1e-2}, "value": {"clipvalue": 1e-4}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIPPING)
def test_gradients_are_clipped_together(kind, two_replicas):
    optimizer = lambda: keras.optimizers.SGD(1.0, **CLIPPING[kind])  # noqa: E731
    assert_same(*(fitted(strategy, {"name": "mse"}, optimizer=optimizer) for strategy in (two_replicas, None)))


@pytest.mark.slow
def test_what_cannot_be_clipped_together_is_refused(two_replicas):
    optimizer = lambda: keras.optimizers.SGD(clipnorm=1.0, gradient_accumulation_steps=2)  # noqa: E731
    with pytest.raises(ValueError, match="gradient_accumulation_steps on several replicas, received SGD with both"):
        fitted(two_replicas, {"name": "mse"}, optimizer=optimizer)
