import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import likelihood


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_equals_numpy(rng, beta):
    fixed, moved, s = rng.normal(size=(3, 2, 5, 5, 1)).astype("float32")
    variance = np.exp(s)
    expected = np.mean(variance**beta * 0.5 * ((fixed - moved) ** 2 / variance + s), axis=(1, 2, 3))
    np.testing.assert_allclose(likelihood.beta_nll(fixed, moved, s, beta), expected, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_is_stationary_at_the_mean_squared_residual(rng, beta):
    residual = rng.normal(scale=0.3, size=(1, 2000, 1)).astype("float32")
    optimum = np.log(np.mean(residual**2))

    def slope(shift):
        s = tf.Variable(optimum + shift)
        with tf.GradientTape() as tape:
            loss = likelihood.beta_nll(residual, 0 * residual, s * tf.ones_like(residual), beta)
        return float(tape.gradient(loss, s))

    assert abs(slope(0.0)) < 1e-6 and slope(-0.1) < -1e-4 < 1e-4 < slope(0.1)


def test_beta_leaves_the_gradient_of_the_weight_out(rng):
    r2, s = np.float32(0.09), tf.Variable(-1.0)
    with tf.GradientTape() as tape:
        loss = likelihood.beta_nll(tf.sqrt(r2)[None], tf.zeros([1]), s[None], 0.5)
    by_hand = np.exp(-1.0) ** 0.5 * 0.5 * (1 - r2 / np.exp(-1.0))
    np.testing.assert_allclose(tape.gradient(loss, s), by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    "form,formula",
    [
        ("paper", lambda i, v, g: (i**2 / v) ** g),
        ("official", lambda i, v, g: (i / v) ** g),
        ("inverse", lambda i, v, g: (1 / v) ** g),
    ],
)
@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0])
def test_snr_equals_its_formula(rng, form, formula, gamma):
    image = rng.uniform(0, 1, size=(2, 6, 6, 1)).astype("float32")
    s = rng.uniform(-6, 0, size=image.shape).astype("float32")
    np.testing.assert_allclose(likelihood.snr(image, s, gamma, form), formula(image, np.exp(s), gamma), rtol=1e-4)


@pytest.mark.parametrize("form", likelihood.SNR_FORMS)
def test_negative_intensities_give_no_nan(form):
    # The public code's fractional power of a negative number is NaN.
    image = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 4, 4, 1)
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.power(image[image < 0], 0.5)).all()
    assert np.isfinite(likelihood.snr(image, np.zeros_like(image), 0.5, form)).all()


@pytest.mark.parametrize("relative", likelihood.RELATIVE_MAPS)
def test_constant_image_gives_an_even_weight(relative):
    # The public code's (r − min) / (max − min) is 0/0 here, for the whole batch.
    ratio = np.ones((2, 4, 4, 1), "float32")
    with np.errstate(invalid="ignore"):
        assert np.isnan((ratio - ratio.min()) / (ratio.max() - ratio.min())).all()
    weight = likelihood.relative_weight(ratio, relative).numpy()
    assert np.isfinite(weight).all() and np.ptp(weight) == 0


def test_one_confident_voxel_does_not_flatten_the_sample_map(rng):
    ratio = rng.uniform(0, 1, size=(1, 32, 32, 1)).astype("float32")
    ratio[0, 0, 0, 0] = 1e6
    assert likelihood.relative_weight(ratio, "official").numpy()[0, 1:].std() < 1e-6  # the trap
    assert likelihood.relative_weight(ratio, "sample").numpy()[0, 1:].std() > 0.05


def test_sample_map_does_not_look_at_batch_neighbours(rng):
    ratio = rng.uniform(0, 1, size=(2, 16, 16, 1)).astype("float32")
    other = ratio * np.array([1, 50], "float32").reshape(2, 1, 1, 1)
    alone, together = (likelihood.relative_weight(r, "sample")[0] for r in (ratio, other))
    np.testing.assert_array_equal(alone, together)
    alone, together = (likelihood.relative_weight(r, "official")[0] for r in (ratio, other))
    assert np.abs(alone - together).max() > 0.1  # the trap


def test_sample_map_has_mean_one_over_the_mask(rng):
    ratio = rng.uniform(0, 9, size=(3, 16, 16, 1)).astype("float32")
    np.testing.assert_allclose(likelihood.relative_weight(ratio).numpy().mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    mask = rng.random(ratio.shape) < 0.3
    weight = likelihood.relative_weight(ratio, "sample", mask).numpy()
    for w, m in zip(weight, mask, strict=True):
        assert abs(w[m].mean() - 1) < 1e-5 and abs(w.mean() - 1) > 1e-6
    empty = likelihood.relative_weight(ratio, "sample", np.zeros_like(mask)).numpy()
    np.testing.assert_allclose(empty.mean(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_official_map_equals_numpy(rng):
    ratio = rng.uniform(0, 9, size=(3, 8, 8, 1)).astype("float32")
    expected = 1 / (1 + np.exp(-(ratio - ratio.min()) / np.ptp(ratio)))
    np.testing.assert_allclose(likelihood.relative_weight(ratio, "official"), expected, rtol=1e-5)
    assert expected.min() == 0.5 and expected.max() < 0.7311


def test_proportional_map_is_the_ratio_with_mean_one(rng):
    ratio = rng.uniform(0, 9, size=(2, 16, 16, 1)).astype("float32")
    ratio[1] *= 50
    expected = np.minimum(ratio, np.sort(ratio.reshape(2, -1))[:, 252].reshape(2, 1, 1, 1))
    expected /= expected.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(likelihood.relative_weight(ratio, "proportional"), expected, rtol=1e-5)
    blank = likelihood.relative_weight(np.zeros_like(ratio), "proportional").numpy()
    np.testing.assert_array_equal(blank, 1)


def test_weight_grows_with_signal_and_falls_with_noise():
    image = np.linspace(0.1, 1, 64, dtype="float32").reshape(1, 8, 8, 1)
    rising = likelihood.relative_weight(likelihood.snr(image, np.zeros_like(image))).numpy().ravel()
    assert np.all(np.diff(rising) >= 0) and rising[-1] > rising[0]
    noise = np.linspace(-4, 0, 64, dtype="float32").reshape(1, 8, 8, 1)
    falling = likelihood.relative_weight(likelihood.snr(np.ones_like(noise), noise)).numpy().ravel()
    assert np.all(np.diff(falling) <= 0) and falling[-1] < falling[0]


def test_unknown_names_are_refused():
    ones = np.ones((1, 2, 2, 1), "float32")
    with pytest.raises(ValueError, match="snr.*poster"):
        likelihood.snr(ones, ones, form="poster")
    with pytest.raises(ValueError, match="relative.*batch"):
        likelihood.relative_weight(ones, "batch")
