"""VoxelMorph's losses: the original's numbers, the contract, and independent formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.losses import KL, MSE, NCC, Dice, Grad, MutualInformation, TukeyBiweight
from hetmorph.ops.warp import warp
from hetmorph.voxelmorph.original import vxm
from tests import fresh
from tests.contract import check_loss

SIZE = 10


def images(ndims, batch, rng):
    return tuple(rng.uniform(size=(batch, *[SIZE] * ndims, 1)).astype("float32") for _ in range(2))


def fields(channels_per_axis):
    def make(ndims, batch, rng):
        shape = (batch, *[SIZE] * ndims, channels_per_axis * ndims)
        return tuple(rng.normal(size=shape).astype("float32") for _ in range(2))

    return make


def probabilities(ndims, batch, rng):
    return tuple(rng.dirichlet(np.ones(4), (batch, *[SIZE] * ndims)).astype("float32") for _ in range(2))


LOSSES = [
    (MSE, {}, images),
    (MSE, {"image_sigma": 0.1}, images),
    (NCC, {}, images),
    (NCC, {"win": 5, "signed": True}, images),
    (TukeyBiweight, {"c": 0.3}, images),
    (Dice, {}, probabilities),
    (Grad, {}, fields(1)),
    (Grad, {"penalty": "l2", "loss_mult": 2}, fields(1)),
    (KL, lambda n: {"prior_lambda": 20, "flow_vol_shape": [SIZE] * n}, fields(2)),
    (MutualInformation, {}, images),
    (MutualInformation, {"nb_bins": 8, "min_clip": 0.1, "max_clip": 0.9}, images),
]
IDS = [f"{cls.__name__}-{i}" for i, (cls, _, _) in enumerate(LOSSES)]
QUICK = [name for name in IDS if name not in ("NCC-3", "MutualInformation-10")]


def arguments(kwargs, ndims):
    return kwargs(ndims) if callable(kwargs) else kwargs


@pytest.mark.quick("MSE-0", "NCC-2", "TukeyBiweight-4", "Dice-5", "Grad-7", "KL-8", "MutualInformation-9")
@pytest.mark.parametrize(("cls", "kwargs", "make"), LOSSES, ids=IDS)
def test_keeps_the_contract(cls, kwargs, make):
    # Bins from minimum to maximum have a kink wherever another voxel becomes the brightest.
    check_loss(cls, kwargs, make, differences=cls is not MutualInformation)


def test_mutual_information_of_given_bins_keeps_the_contract():
    check_loss(MutualInformation, {"bin_centers": [0.0, 0.25, 0.5, 0.75, 1.0]}, images, ndims=[2], batches=[1])


@pytest.mark.parametrize("ndims", [1, 2, 3])
@pytest.mark.parametrize(("cls", "kwargs", "make"), LOSSES, ids=IDS)
def test_equals_the_original(cls, kwargs, make, ndims, rng):
    """One number per sample, each the original's for that sample alone."""
    y_true, y_pred = map(tf.constant, make(ndims, 2, rng))
    original = getattr(vxm.losses, cls.__name__)(**arguments(kwargs, ndims))
    alone = [np.ravel(original.loss(y_true[i : i + 1], y_pred[i : i + 1])) for i in range(2)]
    ours = cls(**arguments(kwargs, ndims)).loss(y_true, y_pred)
    np.testing.assert_allclose(ours, np.concatenate(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.quick(*QUICK)
@pytest.mark.parametrize(("cls", "kwargs", "make"), LOSSES, ids=IDS)
def test_spatial_sizes_may_be_unknown(cls, kwargs, make, rng):
    y_true, y_pred = make(2, 2, rng)
    loss = cls(**arguments(kwargs, 2)).loss
    spec = tf.TensorSpec([None, None, None, y_true.shape[-1]])
    traced = tf.function(lambda a, b: loss(a, b), input_signature=[spec, spec], autograph=False)
    np.testing.assert_allclose(traced(y_true, y_pred), loss(y_true, y_pred), rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "kwargs"), [(MSE, {"image_sigma": 0.2}), (MSE, {"smoothing": 1.0}), (NCC, {"win": 5}), (TukeyBiweight, {})]
)
def test_voxelwise_is_the_map_that_the_loss_averages(cls, kwargs, rng):
    y_true, y_pred = images(2, 3, rng)
    loss = cls(**kwargs)
    voxels = loss.voxelwise(y_true, y_pred)
    assert voxels.shape == y_true.shape
    np.testing.assert_allclose(tf.reduce_mean(voxels), tf.reduce_mean(loss.loss(y_true, y_pred)), rtol=1e-5)


@pytest.mark.parametrize("cls", [MSE, NCC])
def test_reductions(cls, rng):
    y_true, y_pred = map(tf.constant, images(2, 1, rng))
    original = getattr(vxm.losses, cls.__name__)()
    for reduce in ("mean", "max", None):
        ours = cls().loss(y_true, y_pred, reduce=reduce)
        np.testing.assert_allclose(ours, original.loss(y_true, y_pred, reduce=reduce), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="'sum'"):
        cls().loss(y_true, y_pred, reduce="sum")


def test_mse_on_known_numbers():
    loss = MSE(image_sigma=0.5).loss(np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 3.0))
    np.testing.assert_allclose(loss, [36.0])


def test_smoothed_mse_is_that_of_the_smoothed_difference(rng):
    y_true, y_pred = images(3, 2, rng)
    smoothed = ndimage.gaussian_filter(y_true - y_pred, (0, 1, 1, 1, 0), mode="constant", truncate=3)
    np.testing.assert_allclose(MSE(smoothing=1).loss(y_true, y_pred), (smoothed**2).mean((1, 2, 3, 4)), rtol=1e-5)


def test_smoothing_takes_away_the_reward_for_averaged_noise(rng):
    """Half-way between voxels interpolation quarters the variance of noise; mean squares fall though nothing fits."""
    fixed, moving = (rng.normal(size=(4, 128, 128, 1)).astype("float32") for _ in range(2))
    half_way = warp(moving, np.full((4, 128, 128, 2), 0.5, "float32"))

    def reward(loss):
        return 1 - np.mean(loss.loss(fixed, half_way)) / np.mean(loss.loss(fixed, moving))

    assert reward(MSE()) == pytest.approx(3 / 8, abs=0.02)
    assert reward(MSE(smoothing=1)) < 0.15 and reward(MSE(smoothing=2)) < 0.05


def test_ncc_ignores_brightness_and_contrast(rng):
    image, _ = images(2, 1, rng)
    inside = NCC(win=5).voxelwise(image, 3 * image + 2)[:, 2:-2, 2:-2]  # zeros beyond the border are not rescaled
    np.testing.assert_allclose(inside, -1.0, atol=1e-3)


@pytest.mark.parametrize("offset", [0, 1024, -3e4])
@pytest.mark.parametrize("signed", [False, True])
def test_ncc_of_images_far_from_zero(offset, signed, rng):
    """CT + 1024: away from the border as without the offset, and never above 1."""
    image = ndimage.gaussian_filter(rng.random((1, 40, 40, 1)), (0, 2, 2, 0))
    image = (image - image.min()) / np.ptp(image)
    pair = np.float32(image), np.float32(np.roll(image, 1, 1))
    plain = NCC(signed=signed).ncc(*pair).numpy()
    moved = NCC(signed=signed).ncc(pair[0] + np.float32(offset), pair[1] + np.float32(offset)).numpy()
    assert moved.max() <= 1
    # 1e-7 of the offset is all that float32 leaves of the images themselves
    np.testing.assert_allclose(moved[:, 5:-5, 5:-5], plain[:, 5:-5, 5:-5], atol=1e-4 + 2e-6 * abs(offset))


def test_ncc_of_a_flat_image_is_small():
    flat, step = np.full((1, 20, 20, 1), 1000.0, "float32"), np.zeros((1, 20, 20, 1), "float32")
    step[:, 10:] = 1000
    inner = NCC(win=5).ncc(flat, step).numpy()[:, 3:-3, 3:-3]
    assert np.isfinite(inner).all() and inner.max() < 0.01


def test_ncc_of_another_dimensionality_after_the_first(rng):
    loss = NCC()
    assert loss.loss(*images(2, 1, rng)).shape == (1,)
    assert loss.loss(*images(3, 1, rng)).shape == (1,)
    assert loss.win is None


def test_grad_of_a_ramp_is_its_slope():
    ramp = np.zeros((1, 6, 6, 2), "float32")
    ramp[..., 0] = 3 * np.arange(6)[:, None]
    # one of two components changes, along one of two axes
    assert float(Grad("l1").loss(None, ramp)[0]) == pytest.approx(3 / 4)
    assert float(Grad("l2").loss(None, ramp)[0]) == pytest.approx(9 / 4)


def test_grad_of_a_single_slice_is_finite():
    flat = np.random.default_rng(0).normal(size=(1, 5, 5, 1, 3)).astype("float32")
    assert np.isfinite(Grad("l2").loss(flat, flat)).all()


def test_grad_weights_voxels(rng):
    field = fields(1)(2, 2, rng)[0]
    weight = np.zeros((1, SIZE, SIZE, 1))
    assert float(tf.reduce_max(Grad("l2", vox_weight=weight).loss(field, field))) == 0
    restored = Grad.from_config(Grad("l2", vox_weight=weight + 0.5).get_config())
    np.testing.assert_allclose(
        restored.loss(field, field), vxm.losses.Grad("l2", vox_weight=weight.astype("float32") + 0.5).loss(field, field)
    )


def test_kl_counts_neighbours():
    """With μ = 0 and log σ² = 0 the loss is ½·N·λ·mean(D); a 3×3 grid has 24 neighbour relations in 9 voxels."""
    field = np.zeros((1, 3, 3, 4), "float32")
    np.testing.assert_allclose(KL(prior_lambda=2.0).loss(field, field), [0.5 * 2 * 2.0 * 24 / 9], rtol=1e-6)


def test_kl_trains_and_fits_any_size(rng):
    """The original keeps a tensor of its first graph, and the second trace fails."""
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, padding="same")(inputs))
    model.compile("sgd", loss=KL(prior_lambda=10).loss)
    for size in (8, 11):
        x = rng.normal(size=(2, size, size, 1)).astype("float32")
        zeros = np.zeros((2, size, size, 4), "float32")
        history = model.fit(x, zeros, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()


def test_mutual_information_of_an_image_with_itself_is_larger(rng, capsys):
    a, b = images(2, 2, rng)
    loss = MutualInformation(bin_centers=np.linspace(0, 1, 12)).loss  # the original refuses its own bin_centers
    assert (loss(a, a).numpy() < loss(a, b).numpy()).all()
    assert capsys.readouterr().out == ""


BAD = [
    (lambda: Grad("l3"), "'l1' or 'l2'.*'l3'"),
    (lambda: MSE(image_sigma=0), "image_sigma must be positive, got 0"),
    (lambda: MSE(smoothing=-1), "smoothing must be 0 to 32 voxels, got -1"),
    (lambda: MSE(smoothing=float("nan")), "smoothing must be .* got nan"),
    (lambda: TukeyBiweight(c=-1), "c must be positive"),
    (lambda: NCC().loss(np.zeros((4, 4)), np.zeros((4, 4))), r"\(4, 4\)"),
    (lambda: NCC(win=[5, 5]).loss(*images(3, 1, np.random.default_rng(0))), "2 axes, the images have 3"),
    (lambda: KL(1.0).loss(None, None), "convert"),
    (lambda: KL(1.0).loss(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 3))), "4 channels"),
    (lambda: KL(1.0, (8, 8)).loss(np.zeros((1, 4, 4, 4)), np.zeros((1, 4, 4, 4))), r"\(8, 8\), got \(4, 4\)"),
    (lambda: MutualInformation(bin_centers=[0, 1], nb_bins=2), "got both"),
    (lambda: MutualInformation().loss(np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 4, 2))), "one-channel"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_errors_say_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


RELOAD = """
import json, sys
import numpy as np, keras
import hetmorph.losses
model = keras.saving.load_model(sys.argv[1])
model.run_eagerly = True
data = np.load(sys.argv[2])
losses = [float(model.train_on_batch(data["x"], [data["x"], data["zeros"]])[0]) for _ in range(3)]
print(json.dumps(losses))
"""


@pytest.mark.quick("image_loss0")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("image_loss", [MSE(0.5), NCC(win=3), TukeyBiweight(0.2), MutualInformation(nb_bins=6)])
def test_a_compiled_model_survives_a_file_and_a_fresh_process(image_loss, tmp_path, rng):
    """Optimiser state and the following losses are those of the model that was never saved."""
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, [keras.layers.Conv2D(n, 3, padding="same", name=f"out{n}")(inputs) for n in (1, 2)])
    model.compile("adam", loss=[image_loss.loss, Grad("l2", loss_mult=2).loss], loss_weights=[1, 0.01])
    x, zeros = rng.uniform(size=(2, 8, 8, 1)).astype("float32"), np.zeros((2, 8, 8, 2), "float32")
    model.fit(x, [x, zeros], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, zeros=zeros)
    model.reset_metrics()
    expected = [float(model.train_on_batch(x, [x, zeros])[0]) for _ in range(3)]
    output = fresh.output_of(RELOAD, tmp_path / "model.keras", tmp_path / "data.npz")
    np.testing.assert_allclose(eval(output.splitlines()[-1]), expected, rtol=1e-5)


def test_a_subclass_that_overrides_loss_still_reaches_the_original(rng):
    class Doubled(MSE):
        def loss(self, y_true, y_pred):
            return 2 * super().loss(y_true, y_pred)

    y_true, y_pred = images(2, 1, rng)
    np.testing.assert_allclose(Doubled().loss(y_true, y_pred), 2 * MSE().loss(y_true, y_pred))
