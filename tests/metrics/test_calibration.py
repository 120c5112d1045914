import numpy as np
import pytest
from scipy import stats

from hetmorph.metrics import calibration_error, coverage, normal_distance, reliability_curve, standardised
from hetmorph.metrics.calibration import binned

SHAPE = (40, 50)


@pytest.fixture
def sigma(rng):
    return rng.uniform(0.01, 0.2, SHAPE)


@pytest.fixture
def residual(rng, sigma):
    """Drawn with the predicted standard deviation."""
    return sigma * rng.normal(size=SHAPE)


def literal_curve(residual, sigma, bins):
    """Voxels in order of σ, in stretches of the same number, one after the other."""
    order = np.argsort(sigma.ravel())
    stretches = np.array_split(order, bins)
    return [
        [np.sqrt(sum(x.ravel()[i] ** 2 for i in stretch) / len(stretch)) for stretch in stretches]
        for x in (sigma, residual)
    ]


def test_standardised_is_the_quotient_voxel_by_voxel(residual, sigma):
    expected = [r / s for r, s in zip(residual.ravel(), sigma.ravel(), strict=True)]
    np.testing.assert_allclose(standardised(residual, sigma), expected)


def test_coverage_counts_both_sides_and_the_border():
    z = [-2.5, -2, -1, -0.5, 0, 1, 1.5, 2.5]
    assert coverage(z, 1) == 4 / 8
    assert coverage(z, 2) == 6 / 8


def test_a_right_sigma_covers_what_the_normal_distribution_says(residual, sigma):
    z = standardised(residual, sigma)
    for multiple in (1, 2):
        expected = stats.norm.cdf(multiple) - stats.norm.cdf(-multiple)
        assert coverage(z, multiple) == pytest.approx(expected, abs=0.02)
    assert coverage(standardised(residual, 2 * sigma), 1) == coverage(z, 2), "twice the σ covers what 2 σ did"
    assert coverage(standardised(residual, 0.5 * sigma), 1) < 0.5


def test_the_distance_to_the_normal_distribution_is_that_of_scipy(rng):
    for z in (rng.normal(size=500), rng.normal(0.3, 2, size=200), rng.integers(-2, 3, 50).astype(float)):
        assert normal_distance(z) == pytest.approx(stats.kstest(z, "norm").statistic)
    assert normal_distance(rng.normal(size=5000)) < 0.03 < normal_distance(2 * rng.normal(size=5000))


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_bins_agree_with_literal_stretches(residual, sigma, bins):
    curve = reliability_curve(residual, sigma, bins=bins)
    predicted, observed = literal_curve(residual, sigma, bins)
    np.testing.assert_allclose(curve.predicted, predicted)
    np.testing.assert_allclose(curve.observed, observed)
    expected = np.mean(np.abs(np.array(predicted) - observed))  # 2000 voxels: bins of equal numbers
    assert calibration_error(curve) == pytest.approx(expected)


def test_a_right_sigma_has_little_error_and_a_wrong_one_its_size(residual, sigma):
    right = calibration_error(reliability_curve(residual, sigma))
    assert right < 0.01
    doubled = reliability_curve(residual, 2 * sigma)
    assert calibration_error(doubled) == pytest.approx(sigma.mean(), rel=0.1)
    np.testing.assert_allclose(doubled.predicted, 2 * reliability_curve(residual, sigma).predicted)


def test_the_error_weighs_voxels_not_bins():
    curve = binned(np.array([0.1, 0.1, 0.1, 0.5]), np.array([0.1, 0.1, 0.1, 1.0]), [0.5])
    assert curve.count.tolist() == [3, 1]
    assert calibration_error(curve) == pytest.approx(0.5 / 4)


def test_equal_sigmas_share_a_bin_whatever_their_order(rng):
    residual, sigma = rng.normal(size=60), rng.integers(1, 4, 60) / 10
    order = rng.permutation(60)
    one, other = reliability_curve(residual, sigma), reliability_curve(residual[order], sigma[order])
    np.testing.assert_allclose(one, other)
    np.testing.assert_allclose(one.predicted, [0.1, 0.2, 0.3])
    constant = reliability_curve(residual, np.ones(60))
    np.testing.assert_allclose([*constant.predicted, *constant.observed], [1, np.sqrt(np.mean(residual**2))])


def test_only_the_mask_takes_part(rng, residual, sigma):
    mask = rng.random(SHAPE) < 0.5
    expected = reliability_curve(residual[mask], sigma[mask])
    residual[~mask], sigma[~mask] = np.nan, -1
    np.testing.assert_allclose(reliability_curve(residual, sigma, mask), expected)
    assert standardised(residual, sigma, mask).shape == (mask.sum(),)


def test_an_empty_mask_is_undefined(residual, sigma):
    none = np.zeros(SHAPE, bool)
    assert reliability_curve(residual, sigma, none) is None and np.isnan(calibration_error(None))
    z = standardised(residual, sigma, none)
    assert np.isnan(coverage(z)) and np.isnan(normal_distance(z))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"residual": np.full(SHAPE, np.nan)}, "finite"),
        ({"sigma": np.full(SHAPE, np.inf)}, "finite"),
        ({"sigma": np.zeros(SHAPE)}, "positive"),
        ({"sigma": np.ones(SHAPE[::-1])}, "same shape"),
        ({"mask": np.ones((2, 2))}, "mask"),
        ({"bins": 0}, "bins"),
    ],
)
def test_refuses_bad_input(residual, sigma, bad, message):
    with pytest.raises(ValueError, match=message):
        reliability_curve(**({"residual": residual, "sigma": sigma} | bad))
