"""Every kind of model on both backbones: one training step, saving, and what is refused."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import config, networks
from hetmorph.losses import MSE, NCC, Grad
from hetmorph.networks.build import MODELS, build, model_class
from hetmorph.objectives import RECIPES
from hetmorph.serving import export_savedmodel
from tests.contract import check_model
from tests.graphs import eagerly

pytestmark = pytest.mark.usefixtures("eager")
TINY = {
    "vxm": {"nb_unet_features": [[4], [4, 4]], "int_steps": 1},
    "transmorph": {
        "embed_dim": 8,
        "depths": (1, 1),
        "num_heads": (2, 2),
        "window_size": (2, 2),
        "reg_head_features": 4,
    },
}
KINDS = [(arch, kind) for arch in MODELS for kind in MODELS[arch]]


@pytest.mark.quick("vxm-heteroscedastic")
@pytest.mark.parametrize("arch,kind", KINDS)
def test_contract(arch, kind):
    check_model(MODELS[arch][kind], {"int_steps": 2, **TINY[arch]})


def tiny(arch, kind, **options):
    keras.utils.set_random_seed(2)
    return MODELS[arch][kind]((16, 16), **TINY[arch], **options)


@pytest.fixture
def pair(rng):
    image = rng.random((2, 16, 16, 1)).astype("float32")
    return image, np.roll(image, 1, axis=1)


# One direction on the U-Net, whose two are in objectives/test_recipes.py; both on TransMorph, two passes there.
@pytest.mark.quick("vxm-heteroscedastic")
@pytest.mark.parametrize("arch,kind", KINDS)
def test_a_step_trains_and_the_file_goes_on(arch, kind, pair, tmp_path):
    bidir = arch == "transmorph"
    model = tiny(arch, kind, bidir=bidir)
    images = [pair[1], pair[0]][: 1 + bidir]
    target = [*images, np.zeros_like(model(list(pair))[-1])]
    losses = [*(MSE().loss for _ in images), Grad("l2").loss]
    model.compile(keras.optimizers.SGD(0.05), loss=losses, loss_weights=[*(1.0 for _ in images), 0.01])
    before = [w.copy() for w in model.get_weights()]
    assert np.isfinite(model.train_on_batch(list(pair), target)).all()
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, model.get_weights(), strict=True))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert type(restored) is type(model)
    np.testing.assert_allclose(restored.register(*pair), model.register(*pair), atol=1e-6)


# VxmDense and HetVxmDense are compared in test_training_step.py; TransMorph learns in a graph in test_transmorph.py.
LONG = [pytest.param("transmorph", kind, marks=pytest.mark.slow) for kind in MODELS["transmorph"] if kind != "plain"]


@pytest.mark.quick("vxm-adaptive field")
@pytest.mark.graph
@pytest.mark.parametrize("arch,kind", [("vxm", "joint likelihood"), ("vxm", "adaptive field"), *LONG])
def test_a_step_in_a_graph_is_that_of_eager_execution(arch, kind, pair):
    weights = []
    for mode in (contextlib.nullcontext(), eagerly()):
        model = tiny(arch, kind, **({"drop_path": 0.0} if arch == "transmorph" else {}))
        model.compile(keras.optimizers.SGD(0.05), loss=[MSE().loss, Grad("l2").loss], loss_weights=[1.0, 0.01])
        target = [pair[1], np.zeros((2, *model.outputs[-1].shape[1:]), "float32")]
        with mode:
            model.train_on_batch(list(pair), target)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


# Which signatures there are is the kind's; that TransMorph is exported right is tested in test_transmorph.py.
@pytest.mark.slow
@pytest.mark.parametrize("arch,kind", [*[("vxm", kind) for kind in MODELS["vxm"]], ("transmorph", "heteroscedastic")])
def test_exports_have_the_signatures_of_their_kind(arch, kind, pair, tmp_path):
    model = tiny(arch, kind)
    signatures = tf.saved_model.load(str(export_savedmodel(model, tmp_path))).signatures
    has_variance = isinstance(model, networks.TwoNetworks)
    assert ("variance" in signatures) == has_variance
    if has_variance:
        served = signatures["variance"](moving=tf.constant(pair[0]), fixed=tf.constant(pair[1]))["log_variance"]
        np.testing.assert_allclose(served, model.variance(*pair), atol=1e-4)


def of(arch, objective="mse", **network):
    return config.from_dict({"network": {"arch": arch, **network}, "objective": {"name": objective}})


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_objectives_that_sample_velocities_are_refused_on_transmorph(name):
    if RECIPES[name].samples:
        with pytest.raises(ValueError, match=f"objective {name} samples velocities, which network.arch transmorph"):
            model_class(of("transmorph", name))
    else:
        kind = networks.Registration if RECIPES[name].transforms else networks.TransMorph
        assert issubclass(model_class(of("transmorph", name, int_steps=2)), kind)


@pytest.mark.parametrize(
    ("network", "objective", "message"),
    [
        ({"arch": "gradicon", "features": [[4], [4]]}, {}, "network.features has no effect on network.arch gradicon"),
        ({"arch": "constricon", "width": 0.0}, {}, "network.width must be positive, got 0"),
        ({"arch": "constricon", "int_steps": 0}, {}, "network.int_steps must be at least 1 for .* constricon"),
        ({"width": 2.0}, {}, "network.width has no effect on network.arch vxm"),
        ({"arch": "gradicon"}, {"name": "nll"}, "objective nll has no form for network.arch gradicon"),
        ({"repeats": 2}, {"name": "adareg"}, "objective adareg has no form for .* network.repeats 2"),
        ({"resolution": 2}, {"name": "nll"}, "objective nll has no form for .* network.resolution 2"),
        ({"resolution": 2, "arch": "nephi"}, {"name": "nephi"}, "network.resolution has no effect on network.arch"),
        ({"resolution": 0}, {}, "network.resolution must be at least 1, got 0"),
        ({"repeats": 2}, {"name": "het-z"}, "objective het-z samples velocities"),
        ({"arch": "gradicon"}, {"name": "velocity-diffusion"}, "velocity-diffusion needs velocities"),
        (
            {},
            {"name": "gradicon", "similarity": "ssd"},
            "similarity must be one of mse, ncc, lncc, lncc2, mind, ngf, got",
        ),
        ({}, {"name": "gradicon", "delta": 0.0}, "delta must be positive"),
        ({}, {"name": "icon", "delta": 0.1}, "objective.delta has no effect on objective icon"),
        ({"passes": 2}, {"name": "icon"}, "network.passes must be 1 with objective icon"),
        ({"repeats": 2, "slabs": 2}, {}, "network.slabs has no effect on a network of several steps"),
        ({"precision": "bfloat16"}, {"name": "gradicon"}, "network.precision has no effect on a network of several"),
        ({}, {"name": "icon", "smoothness": -1.0}, "objective.smoothness must be λ ≥ 0, got -1"),
    ],
)
def test_what_steps_and_their_objectives_cannot_do_is_refused(network, objective, message):
    with pytest.raises(ValueError, match=message):
        model_class(config.from_dict({"network": network, "objective": {"name": "mse", **objective}}))


def test_images_that_leave_a_single_voxel_are_refused():
    settings = config.from_dict({"network": {"resolution": 16}, "objective": {"name": "mse"}})
    with pytest.raises(ValueError, match=r"network.resolution must be below the images' sizes \(16, 20\), got 16"):
        build(settings, (16, 20))


# What an export of large networks costs is spent on one of each architecture, among the slow tests.
STEPS = [
    pytest.param({"arch": "gradicon", "width": 0.1}, {"name": "gradicon", "similarity": "mse"}, marks=pytest.mark.slow),
    ({"arch": "gradicon", "width": 0.1}, {"name": "het-gradicon", "warm_start": 0}),
    pytest.param(
        {"arch": "constricon", "width": 0.1},
        {"name": "velocity-diffusion", "similarity": "ncc"},
        marks=pytest.mark.slow,
    ),
    ({"arch": "constricon", "width": 0.1}, {"name": "diffusion"}),
    ({"arch": "carl", "width": 0.06}, {"name": "gradicon", "similarity": "mse"}),
    ({"arch": "nephi", "width": 0.1}, {"name": "nephi"}),
    ({"arch": "nephi", "width": 0.1}, {"name": "het-gradicon", "warm_start": 0}),
    ({"features": [[4, 4], [4, 4, 4]], "repeats": 2}, {"name": "mse"}),
    ({"features": [[4, 4], [4, 4, 4]], "resolution": 2}, {"name": "het", "warm_start": 0}),
    ({"features": [[4, 4], [4, 4, 4]]}, {"name": "icon", "similarity": "lncc2", "sigma": 1.0, "smoothness": 1.0}),
]


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("network", "objective"), STEPS, ids=lambda part: part.get("name", part.get("arch")))
def test_networks_of_steps_go_through_every_door(network, objective, pair, tmp_path):
    """Trained, saved, exported at any size: every one answers as the model itself."""
    settings = config.from_dict({"network": network, "objective": objective, "optimizer": {"decay": "none"}})
    keras.utils.set_random_seed(0)
    model = build(settings, pair[0].shape[1:-1])
    history = model.fit(pair, batch_size=2, epochs=2, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    answer = model.register(*pair)
    np.testing.assert_allclose(again.register(*pair), answer, atol=1e-5)
    if objective["name"] in ("het-gradicon", "diffusion"):
        return
    register = tf.saved_model.load(str(export_savedmodel(model, tmp_path))).signatures["register"]
    served = register(moving=tf.constant(pair[0]), fixed=tf.constant(pair[1]))
    np.testing.assert_allclose(served["displacement"], answer, atol=1e-4)
    assert ("backward" in served) == (len(model.outputs) == 3)
    if "backward" in served:
        np.testing.assert_allclose(served["backward"], model(pair, record=True)[0].backward_displacement, atol=1e-4)


@pytest.mark.quick("None-4")
@pytest.mark.parametrize(("asked", "steps"), [(None, 4), (2, 2)])
def test_an_integration_takes_the_configured_steps(asked, steps):
    model = build(of("constricon", "velocity-diffusion", width=0.1, int_steps=asked), (16, 16))
    assert str(model.get_config()).count(f"'int_steps': {steps}") == 2


@pytest.mark.parametrize("option", [{"slabs": 2}, {"features": [[4], [4, 4]]}])
def test_options_of_the_unet_are_refused_on_transmorph(option):
    with pytest.raises(ValueError, match=f"network.{[*option][0]} has no effect on network.arch transmorph"):
        model_class(of("transmorph", **option))


@pytest.mark.slow
def test_both_directions_of_adareg_have_their_own_residual(pair, rng):
    model = tiny("transmorph", "adaptive field", bidir=True)
    model.compile("sgd", loss=[MSE().loss, MSE().loss, Grad("l2").loss], loss_weights=[0, 0, 1])
    flow = [layer for layer in model.layers if layer.name.endswith("_flow") and layer.weights][0]
    flow.kernel.assign(rng.normal(scale=0.1, size=flow.kernel.shape))
    moved, back, field = model.predict(list(pair), verbose=0)
    parts = []
    for image, fixed, half in ((moved, pair[1], field[..., :2]), (back, pair[0], field[..., 2:])):
        r = np.abs(fixed - image)
        parts.append(half * np.exp(-50 * r * r.mean(axis=(1, 2, 3), keepdims=True)))
    expected = np.mean(Grad("l2").loss(None, np.concatenate(parts, -1)))
    loss = model.test_on_batch(list(pair), [pair[1], pair[0], np.zeros_like(field)])[0]
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [NCC().loss, MSE(0.5).loss, MSE(smoothing=1).loss])
def test_a_likelihood_takes_the_squared_residual_only(loss):
    with pytest.raises(ValueError, match="its image loss must be MSE"):
        tiny("vxm", "joint likelihood").compile("sgd", loss=[loss, Grad("l2").loss])


@pytest.mark.parametrize("int_steps,multiple", [(None, 1), (5, 2)])
def test_the_penalty_has_voxelmorphs_multiple(int_steps, multiple, monkeypatch):
    """The default field of TransMorph is the displacement at full resolution; a velocity lies on the coarser grid."""

    class Tiny(networks.TransMorph):
        def __init__(self, inshape, **options):
            super().__init__(inshape, **TINY["transmorph"], **options)

    monkeypatch.setitem(MODELS["transmorph"], "plain", Tiny)
    model = build(of("transmorph", int_steps=int_steps), (32, 32))
    penalty = model.loss[-1].owner
    assert penalty.loss_mult == multiple
    assert model.outputs[-1].shape[1] == 32 // multiple
