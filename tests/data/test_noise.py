"""Heteroscedastic Rician noise: its law against scipy, its map, its bookkeeping."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage, stats

from hetmorph.data import Pair, add_rician
from hetmorph.data.noise import HIGHEST, LOWEST, noise_map, rician


def pair(case_id="a", value=None, shape=(32, 40)):
    ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    moving = ramp if value is None else np.full(shape, value, np.float32)
    labels = (ramp > 0.5).astype(np.uint8)
    return Pair(case_id, "p", 3, "DCM", moving, 1 - moving, labels, 1 - labels, (1.0,) * len(shape))


def arrays(one):
    return {name: getattr(one, name) for name in ("moving", "fixed", "sigma")}


@pytest.mark.parametrize(("signal", "sigma"), [(0.0, 0.1), (0.1, 0.1), (0.5, 0.1), (0.02, 0.3)])
def test_mean_variance_and_distribution_are_those_of_scipy(rng, signal, sigma):
    draws = rician(np.full(200_000, signal), sigma, rng)
    reference = stats.rice(signal / sigma, scale=sigma)
    spread = reference.std() / np.sqrt(draws.size)
    assert draws.mean() == pytest.approx(reference.mean(), abs=5 * spread)
    assert draws.var() == pytest.approx(reference.var(), rel=0.02)
    assert stats.kstest(draws[:20_000], reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(64, 64), (40, 96), (16, 20, 24)])
def test_the_map_has_mean_one_stays_within_its_limits_and_is_smooth(shape):
    for seed in range(5):
        spread = noise_map(shape, np.random.default_rng(seed))
        assert spread.shape == shape and spread.mean() == pytest.approx(1, abs=1e-6)
        assert LOWEST < spread.min() < 0.6 and 1.6 < spread.max() < HIGHEST
        step = max(np.abs(np.diff(spread, axis=axis)).max() for axis in range(len(shape)))
        assert step < 15 / min(shape)


def test_sigma_is_what_many_draws_show():
    """E[m²] = A² + 2σ² everywhere, whatever the map and the common factor."""
    signal, level = 0.3, 0.1
    excess, sigmas = [], []
    for number in range(300):
        noisy = add_rician(pair(f"case{number}", signal, (24, 24)), level)
        factor = level / noisy.sigma.mean()  # the map's mean is 1
        assert factor >= 1
        excess.append((noisy.moving * factor) ** 2 - signal**2)
        sigmas.append(noisy.sigma * factor)
    excess, sigmas = np.array(excess).ravel(), np.array(sigmas).ravel()
    for low, high in ((0.0, 0.06), (0.06, 0.1), (0.1, 0.15), (0.15, 1.0)):
        part = (sigmas >= low) & (sigmas < high)
        assert part.sum() > 5000
        assert excess[part].mean() == pytest.approx(2 * (sigmas[part] ** 2).mean(), rel=0.05)


def test_sigma_is_in_the_units_of_the_images():
    clean = pair(shape=(96, 96))
    noisy = add_rician(clean, 0.05)
    factor = 0.05 / noisy.sigma.mean()
    assert max(noisy.moving.max(), noisy.fixed.max()) == pytest.approx(1)
    residual = (noisy.fixed - clean.fixed / factor) / noisy.sigma
    assert residual[clean.fixed > 0.5].std() == pytest.approx(1, abs=0.05)


def test_the_map_belongs_to_the_scanner_and_the_draws_to_each_image():
    clean = pair(value=0.5, shape=(96, 96))
    noisy = add_rician(clean, 0.05)
    moving, fixed = (image - image.mean() for image in (noisy.moving, noisy.fixed))
    assert abs(np.corrcoef(moving.ravel(), fixed.ravel())[0, 1]) < 0.05
    for image in (moving, fixed):
        local = np.sqrt(ndimage.gaussian_filter(image**2, 5))
        assert np.corrcoef(local.ravel(), noisy.sigma.ravel())[0, 1] > 0.9


def test_weak_noise_on_dark_images_is_not_rescaled():
    noisy = add_rician(dataclasses.replace(pair(value=0.3), fixed=np.full((32, 40), 0.3, np.float32)), 0.01)
    assert noisy.sigma.mean() == pytest.approx(0.01) and noisy.moving.mean() == pytest.approx(0.3, abs=0.01)


def test_a_pair_depends_on_seed_and_name_alone():
    batch = add_rician([pair("a"), pair("b")], 0.1, seed=3)
    alone = add_rician(pair("b"), 0.1, seed=3)
    for name, array in arrays(alone).items():
        np.testing.assert_array_equal(array, arrays(batch[1])[name])
    for other in (batch[0], add_rician(pair("b"), 0.1, seed=4)):
        assert not np.array_equal(other.sigma, alone.sigma) and not np.array_equal(other.moving, alone.moving)


def test_the_same_draws_at_every_level():
    low, high = (add_rician(pair(value=0.5), level) for level in (0.02, 0.04))
    np.testing.assert_allclose(low.sigma / low.sigma.mean(), high.sigma / high.sigma.mean(), rtol=1e-5)


def test_what_is_not_noise_stays():
    clean = pair()
    before = clean.moving.copy()
    noisy = add_rician(clean, 0.2)
    np.testing.assert_array_equal(clean.moving, before)
    for field in dataclasses.fields(Pair):
        if field.name not in ("moving", "fixed", "sigma", "foreground"):
            assert getattr(noisy, field.name) is getattr(clean, field.name)
    assert {array.dtype for array in arrays(noisy).values()} == {np.dtype(np.float32)}
    assert noisy.moving.min() >= 0 and noisy.moving.max() <= 1


def test_what_was_background_stays_known():
    clean = pair()
    clean.moving[:9], clean.fixed[:4] = 0, 0
    noisy = add_rician(clean, 0.2)
    np.testing.assert_array_equal(noisy.foreground, (clean.moving != 0) | (clean.fixed != 0))
    assert not noisy.foreground[:4].any() and noisy.moving[:4].all()
    given = dataclasses.replace(clean, foreground=clean.moving > 0.7)
    assert add_rician(given, 0.2).foreground is given.foreground


def test_no_noise_returns_the_pairs_themselves():
    clean = pair()
    assert add_rician(clean, 0) is clean and add_rician([clean], 0.0) == [clean]


def test_a_constant_black_pair_becomes_pure_noise_never_nan():
    noisy = add_rician(pair(value=0.0), 0.1)
    assert np.isfinite(noisy.moving).all() and noisy.moving.std() > 0


@pytest.mark.parametrize("level", [-0.1, np.nan, np.inf])
def test_an_impossible_level_is_refused(level):
    with pytest.raises(ValueError, match="noise level of at least 0"):
        add_rician(pair(), level)


def test_noise_on_known_noise_is_refused():
    with pytest.raises(ValueError, match="a: has noise of known strength already"):
        add_rician(add_rician(pair(), 0.1), 0.1)
