"""Ranking metrics against scipy and against their definitions, spelt out."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hetmorph.metrics import aurc, auroc, naurc, pearson, spearman


def by_definition(error, uncertainty):
    """Mean over k of the mean error of the k most certain voxels, one k after the other."""
    order = np.argsort(uncertainty)
    return np.mean([error[order[:k]].mean() for k in range(1, error.size + 1)])


def test_correlations_agree_with_scipy(rng):
    a, b = rng.normal(size=(2, 12, 9))
    b, mask = np.round(a + b, 1), rng.random((12, 9)) < 0.6
    assert pearson(a, b, mask) == pytest.approx(stats.pearsonr(a[mask], b[mask]).statistic)
    assert spearman(a, b, mask) == pytest.approx(stats.spearmanr(a[mask], b[mask]).statistic), "with ties"
    assert spearman(a, np.exp(a)) == pytest.approx(1) and pearson(a, np.exp(a)) < 0.95


def test_auroc_is_the_share_of_pairs_in_the_right_order(rng):
    values, positive = np.round(rng.normal(size=(8, 9)), 1), rng.random((8, 9)) < 0.3
    mask = rng.random((8, 9)) < 0.7
    inside, others = values[mask & positive], values[mask & ~positive]
    order = np.sign(inside[:, None] - others[None])
    assert auroc(values, positive, mask) == pytest.approx((1 + order.mean()) / 2), "with ties"
    statistic = stats.mannwhitneyu(inside, others).statistic / (inside.size * others.size)
    assert auroc(values, positive, mask) == pytest.approx(statistic)
    assert auroc(-values, positive, mask) == pytest.approx(1 - statistic)
    assert math.isnan(auroc(values, positive & False)) and math.isnan(auroc(values, positive | True))
    with pytest.raises(ValueError, match="values and classes must have the same shape"):
        auroc(values, positive[:2])


def test_aurc_is_its_definition(rng):
    error, uncertainty = rng.exponential(size=40), rng.normal(size=40)
    assert aurc(error, uncertainty) == pytest.approx(by_definition(error, uncertainty))
    mask = rng.random(40) < 0.5
    assert aurc(error, uncertainty, mask) == pytest.approx(by_definition(error[mask], uncertainty[mask]))


def test_ties_are_the_mean_over_their_orders():
    error = np.array([1.0, 4.0, 2.0])
    orders = [by_definition(error, np.array(order)) for order in itertools.permutations(range(3))]
    assert aurc(error, np.zeros(3)) == pytest.approx(np.mean(orders))


def test_naurc_is_zero_for_the_oracle_one_at_random_and_above_for_the_reverse(rng):
    error = rng.exponential(size=(16, 16))
    assert naurc(error, error**3) == pytest.approx(0, abs=1e-12)
    assert naurc(error, np.ones_like(error)) == pytest.approx(1)
    assert naurc(error, -error) > 1.5
    at_random = [naurc(error, rng.normal(size=error.shape)) for _ in range(40)]
    assert np.mean(at_random) == pytest.approx(1, abs=0.05)
    assert naurc(7 * error, error + rng.normal(size=error.shape)) < 1, "better than nothing"


@pytest.mark.parametrize("metric", [pearson, spearman, naurc])
def test_a_constant_error_says_nothing(metric):
    assert math.isnan(metric(np.full(5, 0.3), np.arange(5.0)))


@pytest.mark.parametrize("metric", [pearson, spearman, aurc, naurc])
@pytest.mark.parametrize("count", [0, 1])
def test_one_voxel_has_no_order(metric, count):
    mask = np.arange(4) < count
    assert math.isnan(metric(np.arange(4.0), np.arange(4.0), mask))


@pytest.mark.parametrize("metric", [pearson, spearman, aurc, naurc])
def test_bad_input_is_refused(metric):
    with pytest.raises(ValueError, match="same shape"):
        metric(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="same shape|shape of the error"):
        metric(np.ones(3), np.ones(3), np.ones(4, bool))
    with pytest.raises(ValueError, match="finite"):
        metric(np.array([1.0, np.nan]), np.ones(2))
