import json

import keras
import numpy as np
import pytest

from hetmorph.losses import KL, MSE, Grad
from hetmorph.networks import Transform, VxmDense
from hetmorph.networks.grids import plan_grids
from tests import fresh
from tests.networks.models import lively, pair

pytestmark = pytest.mark.usefixtures("eager")
SMALL = {"nb_unet_features": [[4, 4], [4, 4, 4]], "int_steps": 2}


@pytest.mark.parametrize("name", ["d2", "d3", "d2_bidir", "d2_int0", "d2_probs"])
def test_equals_the_original(golden_dir, name):
    model = VxmDense.load(golden_dir / f"{name}.h5")
    stored = np.load(golden_dir / f"{name}.npz")
    outputs = model([stored["x"], stored["y"]])
    names = sorted(k for k in stored.files if k.startswith("out"))
    # The original's probabilistic model sampled at inference; only its field of parameters is deterministic.
    compared = range(len(outputs))[-1:] if name == "d2_probs" else range(len(outputs))
    for i in compared:
        np.testing.assert_allclose(outputs[i], stored[names[i]], atol=1e-4)
    if name != "d2_probs":
        np.testing.assert_allclose(model.register(stored["x"], stored["y"]), stored["reg"], atol=1e-4)


def test_published_number_of_parameters():
    assert VxmDense((32, 32)).count_params() == 109_170


@pytest.mark.quick("options2-shape1", "options3-shape1")
@pytest.mark.parametrize("shape", [(37,), (20, 27), (13, 18, 9)])
@pytest.mark.parametrize("options", [{}, {"int_steps": 0}, {"bidir": True}, {"use_probs": True}, {"reg_field": "warp"}])
def test_any_size(rng, shape, options):
    model = lively(VxmDense(shape, **SMALL | options), rng)
    moved, *others = model.predict(pair(rng, shape), verbose=0)
    assert moved.shape == (2, *shape, 1) and all(np.isfinite(o).all() for o in [moved, *others])
    if options.get("bidir"):
        assert others[0].shape == (2, *shape, 1)
    assert model.register(*pair(rng, shape)).shape == (2, *shape, len(shape))


@pytest.mark.quick("options3")
@pytest.mark.parametrize("options", [{}, {"svf_resolution": 2}, {"bidir": True}, {"int_resolution": 1}])
def test_unknown_size_equals_known_size(rng, options):
    fixed_size = lively(VxmDense((16, 24), **SMALL | options), rng)
    any_size = fixed_size.with_shape((None, None))
    images = pair(rng, (16, 24))
    for a, b in zip(fixed_size.predict(images, verbose=0), any_size.predict(images, verbose=0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert any_size.register(*pair(rng, (21, 18))).shape == (2, 21, 18, 2)
    assert any_size.output_keys == fixed_size.output_keys


def test_padding_equals_padding_by_hand(rng):
    by_hand = lively(VxmDense((24, 32), **SMALL), rng)
    images = pair(rng, (22, 32))
    padded = [np.pad(i, [(0, 0), (0, 2), (0, 0), (0, 0)]) for i in images]
    displacement = by_hand.with_shape((22, 32)).register(*images)
    np.testing.assert_allclose(displacement, by_hand.register(*padded)[:, :22], atol=1e-5)


def test_sizes_voxelmorph_accepts_are_not_padded():
    assert plan_grids((32, 64), 4, 0, 1, 2).multiple is None
    assert plan_grids((33, 64), 4, 0, 1, 2).multiple == 16
    assert plan_grids((33, 33), 4, 1, 2, 2).multiple is None  # the odd level has no skip connection
    assert plan_grids((32, 32), 4, 0, 1, 3).multiple is None  # 32 → 11 → 32
    assert plan_grids((32, 64), 4, 0, 1, 3).multiple == 48  # 64 · 11/32 is 22, not 21


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.parametrize("options", [{}, {"bidir": True}])
def test_vxm_training_code_learns_a_translation(rng, options):
    from scipy.ndimage import gaussian_filter

    scene = np.stack([gaussian_filter(rng.normal(size=(25, 24)), 2) for _ in range(8)])[..., None]
    scene = ((scene - scene.min()) / np.ptp(scene)).astype("float32")
    moving, fixed = scene[:, 1:], scene[:, :-1]
    model = VxmDense((24, 24), **SMALL | options)
    losses = [MSE().loss] * (2 if options else 1) + [Grad("l2", loss_mult=2).loss]
    model.compile(keras.optimizers.Adam(5e-3), loss=losses, loss_weights=[*[1] * (len(losses) - 1), 0.01])
    zeros = np.zeros((8, 24, 24, 2), "float32")
    targets = [fixed, moving, zeros] if options else [fixed, zeros]
    history = model.fit([moving, fixed], targets, epochs=50, verbose=0).history["loss"]
    assert history[-1] < 0.4 * history[0]
    u = model.register(moving, fixed)[:, 6:-6, 6:-6]
    assert u[..., 0].mean() < -0.4 and abs(u[..., 1].mean()) < 0.3  # pulls from one row above


def test_inference_takes_the_mean_and_sampling_must_be_asked_for(rng):
    model = lively(VxmDense((16, 16), **SMALL, use_probs=True), rng)
    log_sigma = model.get_layer("vxm_dense_log_sigma")
    log_sigma.set_weights([log_sigma.get_weights()[0], np.zeros(2)])
    images = pair(rng, (16, 16))
    np.testing.assert_array_equal(model.register(*images), model.register(*images))
    drawn = [model.register(*images, sample=True) for _ in range(2)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01
    assert np.abs(drawn[0] - model.register(*images)).max() > 0.01


def test_probabilistic_model_trains_with_kl(rng):
    model = VxmDense((16, 16), **SMALL, use_probs=True)
    model.compile("adam", loss=[MSE().loss, KL(10, (16, 16)).loss], loss_weights=[1, 0.01])
    moving, fixed = pair(rng, (16, 16))
    history = model.fit([moving, fixed], [fixed, np.zeros((2, 16, 16, 2), "f")], epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[0] != history[-1]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("options", [{}, {"bidir": True, "use_probs": True}, {"fill_value": 0.0, "int_steps": 3}])
def test_saves_and_loads(rng, tmp_path, suffix, options):
    model = lively(VxmDense((16, 20), **SMALL | options), rng)
    path = str(tmp_path / f"model{suffix}")
    model.save(path)
    loaded = VxmDense.load(path)
    images = pair(rng, (16, 20))
    for a, b in zip(model(images), loaded(images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.get_config() == model.get_config()


FRESH = """
import sys, json
import numpy as np, keras, hetmorph
path, data = sys.argv[1:]
z = np.load(data)
model = hetmorph.networks.VxmDense.load(path)
model.run_eagerly = True
x, y = [z["m"], z["f"]], [z["f"], z["u"]]
print(json.dumps([float(v) for v in model.train_on_batch(x, y)] + [int(model.optimizer.iterations)]))
"""


@pytest.mark.quick(".h5")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_compiled_state_survives_a_fresh_process(rng, tmp_path, suffix):
    moving, fixed = pair(rng, (16, 16))
    u = np.zeros((2, 16, 16, 2), "float32")
    model = VxmDense((16, 16), **SMALL)
    model.compile(keras.optimizers.Adam(1e-3), loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.05])
    for _ in range(3):
        model.train_on_batch([moving, fixed], [fixed, u])
    path = str(tmp_path / f"model{suffix}")
    model.save(path)
    np.savez(tmp_path / "data.npz", m=moving, f=fixed, u=u)
    model.reset_metrics()  # older Keras goes on averaging
    expected = [float(v) for v in model.train_on_batch([moving, fixed], [fixed, u])] + [4]
    output = fresh.output_of(FRESH, path, tmp_path / "data.npz")
    np.testing.assert_allclose(json.loads(output.splitlines()[-1]), expected, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_weights_alone(rng, tmp_path, suffix):
    model = lively(VxmDense((16, 16), **SMALL), rng)
    path = str(tmp_path / f"w{suffix}")
    model.save_weights(path)
    other = VxmDense((16, 16), **SMALL)
    other.load_weights(path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_of_another_network_are_refused(rng, tmp_path):
    path = str(tmp_path / "w.h5")
    VxmDense((16, 16), **SMALL).save_weights(path)
    with pytest.raises(ValueError, match="expects weights of shape"):
        VxmDense((16, 16), nb_unet_features=[[4, 5], [4, 4, 4]]).load_weights(path)
    with pytest.raises(ValueError, match="lacks weights for"):
        VxmDense((16, 16), nb_unet_features=[[4, 4], [4, 4, 4, 4]]).load_weights(path)


def test_old_configurations_load(rng, tmp_path):
    import h5py

    model = VxmDense((16, 16), **SMALL)
    path = tmp_path / "old.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        stored = json.loads(file.attrs["model_config"])
        stored["config"]["enc_nf"], stored["config"]["dec_nf"] = stored["config"].pop("nb_unet_features")
        file.attrs["model_config"] = json.dumps(stored)
    for a, b in zip(model.get_weights(), VxmDense.load(str(path)).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_are_warped_by_the_nearest_voxel(rng):
    model = lively(VxmDense((16, 16), **SMALL), rng)
    images = pair(rng, (16, 16))
    labels = rng.integers(0, 4, size=(2, 16, 16, 1))
    warped = model.apply_transform(*images, labels, interp_method="nearest")
    assert set(np.unique(warped)) <= {0, 1, 2, 3} and (warped != labels).any()


@pytest.mark.slow
@pytest.mark.graph
def test_mixed_precision_trains_without_nan(rng):
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    model = VxmDense((32, 32), **SMALL)
    model.compile("adam", loss=[MSE().loss, Grad("l2").loss])
    moving, fixed = pair(rng, (32, 32))
    history = model.fit([moving, fixed], [fixed, np.zeros((2, 32, 32, 2), "f")], epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all() and model.register(moving, fixed).dtype == np.float32


def test_models_with_an_input_model_reload(rng, tmp_path):
    # Never worked in any version of voxelmorph.
    inputs = [keras.Input((16, 16, 1), name="a"), keras.Input((16, 16, 1), name="b")]
    halved = keras.Model(inputs, [keras.layers.Rescaling(0.5)(x) for x in inputs])
    model = lively(VxmDense((16, 16), **SMALL, input_model=halved), rng)
    model.compile("adam", loss=[MSE().loss, Grad("l2").loss])
    moving, fixed = pair(rng, (16, 16))
    model.fit([moving, fixed], [fixed, np.zeros((2, 16, 16, 2), "f")], verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.register(moving, fixed), model.register(moving, fixed), atol=1e-6)


def test_transform_model(rng):
    image, u = rng.normal(size=(1, 16, 16, 1)), np.ones((1, 8, 8, 2))
    moved = Transform((16, 16), rescale=2).predict([image, u], verbose=0)
    np.testing.assert_allclose(moved[0, :-2, :-2], image[0, 2:, 2:], atol=1e-5)
    identity = np.eye(2, 3)[None]
    np.testing.assert_allclose(Transform((16, 16), affine=True).predict([image, identity], verbose=0), image, atol=1e-5)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"inshape": (8, 8, 8, 8)}, "1 to 3 spatial sizes"),
        ({"inshape": (0, 8)}, "at least 2"),
        ({"inshape": (16, 16), "reg_field": "flow"}, "reg_field.*flow"),
        ({"inshape": (16, 16), "nb_unet_features": 8}, "nb_unet_levels"),
        ({"inshape": (16, 16), "nb_unet_features": [[4, 4], [4]]}, "decoder needs at least 2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VxmDense(**arguments)


def test_bad_images_are_named(rng):
    model = VxmDense((16, 16), **SMALL)
    moving, fixed = pair(rng, (16, 16))
    with pytest.raises(ValueError, match="share batch and grid"):
        model.register(moving[:1], fixed)
    moving[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="source image has NaN"):
        model.register(moving, fixed)
