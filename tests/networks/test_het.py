import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, NCC, Grad, MutualInformation
from hetmorph.losses.likelihood import beta_nll
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.objectives import Phase

pytestmark = pytest.mark.usefixtures("eager")
SMALL = {"nb_unet_features": [[4], [4, 4]], "int_steps": 1, "variance_features": [[4], [4, 4]]}


@pytest.fixture
def images(rng):
    from scipy.ndimage import gaussian_filter

    moving = np.stack([gaussian_filter(rng.normal(size=(16, 16)), 1.5) for _ in range(4)])[..., None]
    moving = ((moving - moving.min()) / np.ptp(moving)).astype("float32")
    return moving, np.roll(moving, 1, axis=1)


def model_and_views(images, **options):
    model = HetVxmDense((16, 16), **SMALL, **options)
    model.compile(keras.optimizers.Adam(1e-2))
    moving, fixed = (tf.constant(i) for i in images)
    return model, (moving, fixed), [fixed, 0.0]


def test_published_numbers_of_parameters():
    model = HetVxmDense((32, 32))
    assert model.variance_network.count_params() == 109_025
    assert sum(int(np.prod(v.shape)) for v in model.displacement_variables) == 109_170


@pytest.mark.slow
def test_is_a_drop_in_for_vxm_dense(images):
    moving, fixed = images
    zeros = np.zeros((4, 16, 16, 2), "float32")
    for cls in (VxmDense, HetVxmDense):
        own = SMALL if cls is HetVxmDense else {"nb_unet_features": SMALL["nb_unet_features"]}
        model = cls((16, 16), **own)
        model.compile(keras.optimizers.Adam(1e-3), loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.01])
        model.fit(_stream(moving, fixed, zeros), steps_per_epoch=2, epochs=2, verbose=0)
        assert [o.shape for o in model.predict([moving, fixed], verbose=0)] == [(4, 16, 16, 1), (4, 8, 8, 2)]
        assert model.register(moving, fixed).shape == (4, 16, 16, 2)


def _stream(moving, fixed, zeros):
    while True:
        yield (moving, fixed), (fixed, zeros)


def test_variance_loss_leaves_no_gradient_on_the_displacement_network(images):
    model, x, y = model_and_views(images)
    with tf.GradientTape() as tape:
        loss = model._variance_loss(model.play(x, y, None, training=True))
    assert all(g is None for g in tape.gradient(loss, model.displacement_variables))


def test_published_code_would_leak_it(images):
    # The same loss without the detached moved image: what the test above guards against does happen.
    model, x, y = model_and_views(images)
    with tf.GradientTape() as tape:
        moved = model.play(x, y, None, training=True).y_pred[0]
        log_variance = model.variance_network(tf.concat([moved, y[0]], -1))
        loss = beta_nll(y[0], tf.stop_gradient(moved), log_variance)
    assert any(g is not None for g in tape.gradient(loss, model.displacement_variables))


def test_weight_leaves_no_gradient_on_the_variance_network(images):
    model, x, y = model_and_views(images)
    assert model.references.phase is Phase.JOINT
    with tf.GradientTape() as tape:
        loss = model._displacement_loss(model.play(x, y, None, training=True))
    assert all(g is None for g in tape.gradient(loss, model.variance_network.trainable_variables))


def test_displacement_loss_equals_its_formula(images):
    moving, fixed = images
    model, x, y = model_and_views(images)
    loss = model._displacement_loss(model.play(x, y, None, training=False))
    everything = model.predict_all(moving, fixed)
    field = model.predict([moving, fixed], verbose=0)[1]
    smoothness = 2 * np.mean([np.mean(np.diff(field, axis=a) ** 2) for a in (1, 2)])  # loss_mult = int_resolution
    expected = np.mean(everything["weight"] * (fixed - everything["moved"]) ** 2) + 0.01 * smoothness
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "current,moves_displacement,moves_variance",
    [(Phase.DISPLACEMENT, True, False), (Phase.VARIANCE, False, True), (Phase.JOINT, True, True)],
)
def test_each_phase_updates_its_networks(images, current, moves_displacement, moves_variance):
    model, _, _ = model_and_views(images)
    model.references.phase = current
    groups = model.displacement_variables, model.variance_network.trainable_variables
    before = [[v.numpy() for v in group] for group in groups]
    model.train_on_batch(list(images))
    after = [[v.numpy() for v in group] for group in groups]
    moved = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)]
    assert moved == [moves_displacement, moves_variance]
    iterations = int(model.optimizer.iterations), int(model.variance_optimizer.iterations)
    assert iterations == (int(moves_displacement), int(moves_variance))


@pytest.mark.parametrize("variance_pass", ["recompute", "reuse"])
def test_one_step_equals_the_algorithm_by_hand(images, variance_pass):
    """Step A with the weight of the current variance, then step B on the images the variant asks for."""
    model, x, y = model_and_views(images, variance_pass=variance_pass)
    twin = HetVxmDense.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    sgd = lambda: keras.optimizers.SGD(0.5)  # noqa: E731
    model.compile(sgd(), variance_optimizer=sgd())
    model.train_on_batch(list(images))

    theta, phi = twin.displacement_variables, twin.variance_network.trainable_variables
    fixed, moving = y[0], x[0]
    with tf.GradientTape() as tape:
        moved, field = twin([moving, fixed], training=True)
        before = moved
        log_variance = twin.variance_network(tf.concat([moved, fixed], -1))
        weight = tf.stop_gradient(twin.references.objective.weight(log_variance, fixed, moving))
        loss = tf.reduce_mean(weight * (fixed - moved) ** 2) + 0.01 * tf.reduce_mean(Grad("l2", 2).loss(None, field))
    for v, g in zip(theta, tape.gradient(loss, theta), strict=True):
        v.assign_sub(0.5 * g)
    images_of_b = tf.stop_gradient(twin([moving, fixed], training=True)[0] if variance_pass == "recompute" else before)
    with tf.GradientTape() as tape:
        log_variance = twin.variance_network(tf.concat([images_of_b, fixed], -1))
        loss = tf.reduce_mean(beta_nll(fixed, images_of_b, log_variance, 0.5))
    for v, g in zip(phi, tape.gradient(loss, phi), strict=True):
        v.assign_sub(0.5 * g)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_metrics_have_names_and_the_loss_is_not_zero(images):
    model, _, _ = model_and_views(images, warm_start=1)
    history = model.fit(list(images), epochs=3, verbose=0).history
    assert set(history) == {"loss", "image_loss", "smoothness", "variance_loss", "mean_weight", "folds_percent"}
    assert all(v > 0 for v in history["loss"]) and history["variance_loss"][1] != 0
    np.testing.assert_allclose(history["mean_weight"], 1, rtol=1e-5)


def test_fit_follows_the_warm_start_schedule(images):
    model, _, _ = model_and_views(images, warm_start=2)
    model.fit(list(images), epochs=6, verbose=0)
    assert int(model.optimizer.iterations) == 4 and int(model.variance_optimizer.iterations) == 4


def test_bidir_halves_both_directions(images):
    moving, fixed = images
    model = HetVxmDense((16, 16), **SMALL, bidir=True)
    model.compile("sgd")
    assert model._loss_weights == [0.5, 0.5, 0.01]
    play = model.play((moving, fixed), None, None, training=False)
    loss, views = model._displacement_loss(play), play.registered.views
    forward, backward = views
    np.testing.assert_array_equal(backward.fixed, moving)  # h_φ(I_f∘φ⁻¹, I_m)
    np.testing.assert_array_equal(backward.moving, fixed)
    weights = model._voxel_weights(play.registered)
    parts = [np.mean(w * (v.fixed - v.moved) ** 2) for w, v in zip(weights, views, strict=True)]
    smoothness = model.smoothness_tracker.result()
    np.testing.assert_allclose(loss, 0.5 * sum(parts) + 0.01 * smoothness, rtol=1e-4)


@pytest.mark.quick("objective0")
@pytest.mark.parametrize(
    "objective", [{"snr": "official", "relative": "official"}, {"snr": "inverse"}, {"foreground": True}]
)
def test_every_form_trains(images, objective):
    model, _, _ = model_and_views(images, **objective)
    history = model.fit(list(images), epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all() and np.isfinite(history["variance_loss"]).all()


@pytest.mark.slow
@pytest.mark.graph
def test_variance_finds_the_noise(rng):
    """Registered images with noise of two levels: σ² is the mean squared residual in each half, at the optimum."""
    sigma = np.where(np.arange(16) < 8, 0.05, 0.3)[None, None, :, None]
    model = HetVxmDense((16, 16), **SMALL)
    model.compile(variance_optimizer=keras.optimizers.Adam(1e-2))
    model.references.phase = Phase.VARIANCE
    clean = np.full((8, 16, 16, 1), 0.5, "float32")
    for _ in range(150):
        model.train_on_batch([clean, (clean + sigma * rng.normal(size=clean.shape)).astype("float32")])
    noisy = (clean + sigma * rng.normal(size=clean.shape)).astype("float32")
    found = np.exp(0.5 * model.variance(clean, noisy))
    quiet, loud = found[:, :, 1:7].mean(), found[:, :, 9:15].mean()
    assert 0.02 < quiet < 0.12 < 0.15 < loud < 0.45


def test_constant_pair_does_not_poison_its_batch(images):
    moving, fixed = (i.copy() for i in images)
    moving[0] = fixed[0] = 0.0
    model, _, _ = model_and_views((moving, fixed))
    assert np.isfinite(model.train_on_batch([moving, fixed])).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.quick(".keras")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_both_optimisers_survive_saving(images, tmp_path, suffix):
    model, _, _ = model_and_views(images, gamma=0.25)
    for _ in range(3):
        model.train_on_batch(list(images))
    model.reset_metrics()  # older Keras goes on averaging
    path = str(tmp_path / f"het{suffix}")
    model.save(path)
    loaded = HetVxmDense.load(path)
    assert loaded.references.objective == model.references.objective
    for _ in range(2):
        np.testing.assert_allclose(loaded.train_on_batch(list(images)), model.train_on_batch(list(images)), rtol=1e-5)


def test_starts_from_a_voxelmorph_file(images, tmp_path, capsys):
    trained = VxmDense((16, 16), nb_unet_features=SMALL["nb_unet_features"])
    trained.save(tmp_path / "vxm.h5")
    model = HetVxmDense.load(str(tmp_path / "vxm.h5"), variance_features=SMALL["variance_features"])
    np.testing.assert_array_equal(model.register(*images), trained.register(*images))
    assert "vxm_dense_variance" in capsys.readouterr().out


@pytest.mark.slow
def test_other_sizes_share_the_weights(images):
    model, _, _ = model_and_views(images)
    model.train_on_batch(list(images))
    any_size = model.with_shape((None, None))
    for key, value in model.predict_all(*images).items():
        np.testing.assert_allclose(any_size.predict_all(*images)[key], value, atol=1e-5)
    odd = [i[:, :13, :15] for i in images]
    assert any_size.variance(*odd).shape == any_size.snr_weight(*odd).shape == (4, 13, 15, 1)


def test_three_dimensions(rng):
    model = HetVxmDense((8, 9, 10), **SMALL)
    model.compile("adam", loss=[NCC(win=3).loss, Grad("l2").loss], loss_weights=[1, 0.1])
    volumes = [rng.uniform(size=(2, 8, 9, 10, 1)).astype("float32") for _ in range(2)]
    assert np.isfinite(model.train_on_batch(volumes, [volumes[1], np.zeros((2, 8, 9, 10, 3), "f")])).all()


@pytest.mark.slow
@pytest.mark.graph
def test_mixed_precision_trains_without_nan(images):
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    model, _, _ = model_and_views(images)
    assert np.isfinite(model.fit(list(images), epochs=3, verbose=0).history["loss"]).all()
    assert np.isfinite(model.variance(*images)).all()


def test_bad_arguments_are_named(images):
    with pytest.raises(ValueError, match="snr.*poster"):
        HetVxmDense((16, 16), snr="poster")
    with pytest.raises(ValueError, match="variance_pass"):
        HetVxmDense((16, 16), variance_pass="twice")
    with pytest.raises(ValueError, match="equal channels"):
        HetVxmDense((16, 16), src_feats=2)
    model = HetVxmDense((16, 16), **SMALL)
    with pytest.raises(ValueError, match="mean over voxels"):
        model.compile("adam", loss=[MutualInformation().loss, Grad("l2").loss])
    with pytest.raises(ValueError, match="one loss for each of its 2 outputs"):
        model.compile("adam", loss=MSE().loss)
    model.compile("adam")
