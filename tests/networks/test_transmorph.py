import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.convert.transmorph import _targets, convert_transmorph
from hetmorph.losses import MSE, Grad
from hetmorph.networks.transmorph import TransMorph
from hetmorph.ops import fields
from hetmorph.serving import export_savedmodel
from tests.networks.models import GOLDEN, lively, pair

pytestmark = pytest.mark.usefixtures("eager")
SMALL = {"embed_dim": 4, "depths": (2, 1), "num_heads": (1, 2), "reg_head_features": 4}
SMALL_2D = {**SMALL, "window_size": (4, 4)}
SMALL_3D = {**SMALL, "window_size": (2, 3, 2)}
# Of the golden files; see CONFIGS in transmorph_torch.py.
GOLDEN_CONFIGS = {
    2: {"embed_dim": 8, "depths": (2, 2, 1), "num_heads": (2, 2, 4), "window_size": (4, 3), "reg_head_features": 4},
    3: {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": (2, 3, 4), "reg_head_features": 4},
}


def small(shape, **options):
    return TransMorph(shape, **(SMALL_2D if len(shape) == 2 else SMALL_3D), **options)


def golden(ndims):
    """Images, displacement and weights of a random network in PyTorch."""
    with np.load(GOLDEN / f"transmorph_{ndims}d.npz") as arrays:
        weights = {key.removeprefix("weight:"): arrays[key] for key in arrays if key.startswith("weight:")}
        images = np.moveaxis(arrays["images"], 1, -1)
        return np.split(images, 2, axis=-1), np.moveaxis(arrays["displacement"], 1, -1), weights


# -- the published network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndims", [2, 3])
def test_equals_pytorch(ndims):
    images, displacement, weights = golden(ndims)
    model = TransMorph(images[0].shape[1:-1], **GOLDEN_CONFIGS[ndims])
    assert convert_transmorph({"state_dict": weights}, model) is model
    assert displacement.std() > 0.3
    np.testing.assert_allclose(model(images)[-1], displacement, atol=1e-4)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_equals_pytorch_here(rng, qkv_bias):
    torch = pytest.importorskip("torch", reason="compares with PyTorch where it is installed; golden files elsewhere")
    from tests.networks.transmorph_torch import TorchTransMorph
    from tests.networks.transmorph_torch import lively as lively_torch

    config = {**SMALL_2D, "depths": (2, 2), "num_heads": (2, 4), "qkv_bias": qkv_bias}
    network = lively_torch(TorchTransMorph(2, **config), seed=5)
    model = convert_transmorph(network.state_dict(), TransMorph((24, 32), **config))
    images = pair(rng, (24, 32))
    with torch.no_grad():
        expected = network(torch.from_numpy(np.moveaxis(np.concatenate(images, -1), -1, 1))).numpy()
    np.testing.assert_allclose(model(images)[-1], np.moveaxis(expected, 1, -1), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape, count", [((128, 128), 31_013_570), ((None, None, None), 46_771_251)])
def test_published_number_of_parameters(shape, count):
    assert TransMorph(shape).count_params() == count


@pytest.mark.parametrize("ndims", [2, 3])
def test_a_checkpoint_fills_every_weight(ndims):
    _, _, weights = golden(ndims)
    model = TransMorph((None,) * ndims, **GOLDEN_CONFIGS[ndims])
    variables = [id(variable) for _, (variable, _) in _targets(model)]
    assert sorted(variables) == sorted(id(variable) for variable in model.weights)
    before = model.get_weights()
    convert_transmorph({**weights, "spatial_trans.grid": np.zeros((1, ndims, *[2] * ndims))}, model)
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def broken(weights, kind):
    if kind == "missing":
        del weights["up1.conv1.0.weight"]
    elif kind == "unexpected":
        weights["transformer.absolute_pos_embed"] = np.zeros(3)
    elif kind == "shape":
        weights["c1.0.weight"] = weights["c1.0.weight"][:, :1]
    else:
        weights["transformer.layers.0.blocks.0.attn.relative_position_index"] = np.zeros((12, 12), int)
    return weights


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", r"lacks \['up1.conv1.0.weight'\]"),
        ("unexpected", "absolute_pos_embed"),
        ("shape", r"c1.0.weight has shape \(4, 1, 3, 3\), here \(3, 3, 1, 4\); the model expects \(3, 3, 2, 4\)"),
        ("window", "another window"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(kind, message):
    model = TransMorph((None, None), **GOLDEN_CONFIGS[2])
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        convert_transmorph(broken(golden(2)[2], kind), model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoints_have_patches_of_four():
    with pytest.raises(ValueError, match="patch_size=2"):
        convert_transmorph({}, small((8, 8), patch_size=2))


# -- any size -------------------------------------------------------------------------------------------------------


@pytest.mark.quick("options0-shape0", "options1-shape1")
@pytest.mark.parametrize("shape", [(37, 50), (20, 24, 18)])
@pytest.mark.parametrize("options", [{}, {"bidir": True}, {"int_steps": 3, "bidir": True}])
def test_any_size(rng, shape, options):
    model = lively(small(shape, **options), rng)
    moved, *others = model(pair(rng, shape))
    assert moved.shape == (2, *shape, 1) and all(np.isfinite(o).all() for o in [moved, *others])
    if options:
        assert others[0].shape == (2, *shape, 1)
    assert model.references.pos_flow.shape == (None, *shape, len(shape))


@pytest.mark.quick("options0")
@pytest.mark.parametrize("options", [{}, {"bidir": True}, {"int_steps": 3}])
def test_unknown_size_equals_known_size(rng, options):
    model = lively(small((32, 48), **options), rng)
    any_size = model.with_shape((None, None))
    images = pair(rng, (32, 48))
    for a, b in zip(model(images), any_size(images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert any_size.output_keys == model.output_keys
    assert any_size.register(*pair(rng, (21, 18))).shape == (2, 21, 18, 2)


def test_padding_equals_padding_by_hand(rng):
    by_hand = lively(small((24, 32)), rng)
    images = pair(rng, (22, 32))
    padded = [np.pad(i, [(0, 0), (0, 2), (0, 0), (0, 0)]) for i in images]
    displacement = by_hand.with_shape((22, 32))(images)[-1]
    np.testing.assert_allclose(displacement, by_hand(padded)[-1][:, :22], atol=1e-5)


@pytest.mark.parametrize("patch_size", [2, 8])
def test_other_patches(rng, patch_size):
    config = {**SMALL_2D, "embed_dim": 8}
    model = lively(TransMorph((20, 24), patch_size=patch_size, **config), rng)
    assert np.isfinite(model(pair(rng, (20, 24)))[-1]).all()


@pytest.mark.slow
def test_exported_for_any_size(rng, tmp_path):
    model = lively(small((16, 24), int_steps=2), rng)
    served = tf.saved_model.load(str(export_savedmodel(model, tmp_path)))
    for shape in [(16, 24), (13, 30)]:
        moving, fixed = pair(rng, shape)
        result = served.signatures["register"](moving=tf.constant(moving), fixed=tf.constant(fixed))
        expected = model.with_shape(shape).register(moving, fixed)
        np.testing.assert_allclose(result["displacement"], expected, atol=1e-4)


# -- the two directions ---------------------------------------------------------------------------------------------


@pytest.mark.quick("shape0")
@pytest.mark.parametrize("shape", [(16, 24), (13, 21)])
def test_backward_is_a_second_pass_with_exchanged_images(rng, shape):
    model = lively(small(shape, bidir=True), rng)
    a, b = pair(rng, shape)
    moved, moved_back, flows = model([a, b])
    exchanged, exchanged_back, exchanged_flows = model([b, a])
    np.testing.assert_allclose(moved_back, exchanged, atol=1e-5)
    np.testing.assert_allclose(moved, exchanged_back, atol=1e-5)
    np.testing.assert_allclose(flows, np.roll(exchanged_flows, 2, axis=-1), atol=1e-5)
    assert np.abs(flows[..., :2] + flows[..., 2:]).max() > 0.1  # no negative of the forward displacement
    one_way = small(shape)
    one_way.set_weights(model.get_weights())  # the second pass has no weights of its own
    np.testing.assert_allclose(flows[..., :2], one_way([a, b])[-1], atol=1e-5)


def test_backward_of_a_velocity_is_the_inverse(rng):
    model = lively(small((24, 24), bidir=True, int_steps=7), rng, scale=0.1)
    ref = model.references
    there, back, velocity = keras.Model(model.inputs, [ref.pos_flow, ref.neg_flow, model.outputs[-1]])(
        pair(rng, (24, 24))
    )
    assert velocity.shape == (2, 12, 12, 2)
    there_and_back = fields.compose(there, back)[:, 4:-4, 4:-4]
    assert np.abs(there).mean() > 0.1 and np.abs(there_and_back).max() < 0.3 * np.abs(there).max()
    expected = fields.rescale(fields.integrate(-velocity, 7), 2)
    np.testing.assert_allclose(back, expected, atol=1e-5)


def test_a_velocity_does_not_fold(rng):
    velocity = lively(small((32, 32), int_steps=7), rng, scale=0.15)
    images = pair(rng, (32, 32))
    displacement = small((32, 32))
    displacement.set_weights(velocity.get_weights())
    folds = [np.mean(fields.jacobian_determinant(m.register(*images)) <= 0) for m in (displacement, velocity)]
    assert folds[0] > 0.01 and folds[1] == 0


@pytest.mark.quick("svf-16", "preintegrated-8", "warp-13")
@pytest.mark.parametrize("reg_field, size", [("svf", 16), ("preintegrated", 8), ("postintegrated", 8), ("warp", 13)])
def test_field_of_a_velocity(rng, reg_field, size):
    model = small((13, 13), int_steps=2, reg_field=reg_field)
    assert model(pair(rng, (13, 13)))[-1].shape == (2, *[{16: 13, 8: 7}.get(size, size)] * 2, 2)


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16), (8, 16, 8)])
def test_starts_at_the_identity(rng, shape):
    moving, fixed = pair(rng, shape)
    moved, displacement = small(shape)([moving, fixed])
    assert 0 < np.abs(displacement).max() < 1e-3
    np.testing.assert_allclose(moved, moving, atol=1e-3)


@pytest.mark.quick("shape0")
@pytest.mark.parametrize("shape", [(32, 32), (16, 16, 16)])
def test_gradient_reaches_every_weight(rng, shape):
    model = lively(small(shape), rng)
    moving, fixed = pair(rng, shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((fixed - model([moving, fixed])[0]) ** 2)
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


@pytest.mark.slow
def test_paths_are_dropped_while_training_only(rng):
    model = lively(small((16, 16), drop_path=0.9), rng)
    images = pair(rng, (16, 16), batch=4)
    np.testing.assert_array_equal(model(images)[-1], model(images)[-1])
    drawn = [model(images, training=True)[-1].numpy() for _ in range(6)]
    assert any((drawn[0] != other).any() for other in drawn[1:])
    rates = [layer.drop_path for layer in TransMorph((None, None)).layers if hasattr(layer, "drop_path")]
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 10))


@pytest.mark.slow
@pytest.mark.graph
def test_learns_a_translation(rng, monkeypatch):
    from scipy.ndimage import gaussian_filter

    monkeypatch.setenv("HETMORPH_XLA", "0")  # what is compiled is tested with the training step

    scene = np.stack([gaussian_filter(rng.normal(size=(18, 16)), 2) for _ in range(8)])[..., None]
    scene = ((scene - scene.min()) / np.ptp(scene)).astype("float32")
    moving, fixed = scene[:, 2:], scene[:, :-2]
    model = small((16, 16), drop_path=0.0)
    model.compile(keras.optimizers.Adam(5e-3), loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.001])
    targets = [fixed, np.zeros((8, 16, 16, 2))]
    history = model.fit([moving, fixed], targets, epochs=60, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]
    u = model.register(moving, fixed)[:, 4:-4, 4:-4]
    assert u[..., 0].mean() < -1.2 and abs(u[..., 1].mean()) < 0.3  # pulls from two rows above


@pytest.mark.quick("options0")
@pytest.mark.parametrize("options", [{}, {"int_steps": 2}])
def test_both_directions_are_trained_and_regularised(rng, options):
    model = lively(small((16, 16), bidir=True, drop_path=0.0, **options), rng)
    smoothness = Grad("l2").loss
    model.compile("sgd", loss=[MSE().loss, MSE().loss, smoothness], loss_weights=[0.5, 0.5, 0.1], run_eagerly=True)
    moving, fixed = pair(rng, (16, 16))
    moved, moved_back, field = model([moving, fixed])
    if options:
        penalty = np.mean(smoothness(None, field))
    else:
        penalty = np.mean([smoothness(None, f) for f in np.split(field, 2, axis=-1)])
    expected = 0.5 * np.mean((moved - fixed) ** 2) + 0.5 * np.mean((moved_back - moving) ** 2) + 0.1 * penalty
    loss = model.train_on_batch([moving, fixed], [fixed, moving, np.zeros((2, 16, 16, 2))])[0]
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.quick("options0-.keras")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("options", [{"bidir": True, "fill_value": 0.0}, {"int_steps": 2, "qkv_bias": True}])
def test_saves_and_loads(rng, tmp_path, suffix, options):
    model = lively(small((16, 20), **options), rng)
    model.compile("adam", loss=[*[MSE().loss] * (len(model.outputs) - 1), Grad("l2").loss])
    model.save(tmp_path / f"model{suffix}")
    loaded = TransMorph.load(tmp_path / f"model{suffix}")
    images = pair(rng, (16, 20))
    for a, b in zip(model(images), loaded(images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.get_config() == model.get_config() and loaded.compiled and loaded.inshape == (16, 20)


def test_bfloat16_keeps_weights_and_coordinates_in_float32(rng):
    model = lively(small((16, 16)), rng, scale=0.1)
    half = model.with_shape((16, 16), precision="bfloat16")
    assert {w.dtype for w in half.weights} == {"float32"} and half.outputs[-1].dtype == "float32"
    assert half.get_layer("transmorph_stage0_block0").compute_dtype == "bfloat16"
    images = pair(rng, (16, 16))
    np.testing.assert_allclose(half(images)[-1], model(images)[-1], atol=0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"inshape": (16,)}, "2 or 3 dimensions"),
        ({"window_size": (4, 4, 4)}, "2 entries"),
        ({"num_heads": (4, 4)}, "one entry for each stage"),
        ({"embed_dim": 10}, "must divide embed_dim"),
        ({"patch_size": 6}, "power of two"),
        ({"bidir": True, "src_feats": 2}, "equal channels"),
        ({"reg_field": "flow"}, "reg_field"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TransMorph(**{"inshape": (16, 16), **arguments})


def test_images_with_nan_are_refused(rng):
    moving, fixed = pair(rng, (16, 16))
    moving[0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="source image has NaN"):
        small((16, 16)).register(moving, fixed)
