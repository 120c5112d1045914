import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetmorph.metrics import ause, sparsification
from tests.reference_metrics import sparsification_by_removal


@pytest.fixture
def error(rng):
    return rng.exponential(1.0, (20, 15))


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_agrees_with_literal_removal(rng, error, steps):
    uncertainty = rng.permutation(error.size).reshape(error.shape)
    curves = sparsification(error, uncertainty, steps=steps)
    np.testing.assert_allclose(curves.fraction, np.arange(steps) / steps)
    np.testing.assert_allclose(curves.curve, sparsification_by_removal(error, uncertainty, steps))
    np.testing.assert_allclose(curves.oracle, sparsification_by_removal(error, error, steps))
    area = np.abs(curves.curve - curves.oracle)
    expected = sum((area[k] + area[k + 1]) / 2 / steps for k in range(steps - 1))
    assert ause(error, uncertainty, steps=steps) == pytest.approx(expected)


def test_removes_two_percent_at_a_time_up_to_98(error):
    fraction = sparsification(error, error).fraction
    np.testing.assert_allclose(100 * fraction, np.arange(0, 100, 2))


def test_the_oracle_scores_zero_and_the_worst_ranking_most(rng, error):
    assert ause(error, error) == 0
    worst = ause(error, -error)
    assert worst > ause(error, rng.random(error.shape)) > 0
    assert worst > ause(error, np.zeros(error.shape))


def test_a_constant_map_removes_at_random(rng, error):
    curves = sparsification(error, np.full(error.shape, 3.0))
    np.testing.assert_allclose(curves.curve, error.mean())
    at_random = [ause(error, rng.random(error.shape)) for _ in range(200)]
    assert ause(error, np.zeros(error.shape)) == pytest.approx(np.mean(at_random), rel=0.02)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_order_in_memory_and_monotone_maps_change_nothing(seed, levels):
    rng = np.random.default_rng(seed)
    error, variance = rng.random(60), rng.integers(1, levels + 1, 60).astype(float)
    order = rng.permutation(60)
    expected = ause(error, variance)
    assert ause(error[order], variance[order]) == pytest.approx(expected, abs=1e-12)
    assert ause(error, np.log(variance)) == pytest.approx(expected, abs=1e-12)
    assert ause(4 * error, variance) == pytest.approx(4 * expected)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_no_ranking_beats_the_oracle(seed):
    rng = np.random.default_rng(seed)
    curves = sparsification(rng.random(37), rng.integers(0, 5, 37))
    assert (curves.curve >= curves.oracle - 1e-12).all()


def test_only_the_mask_takes_part(rng, error):
    uncertainty, mask = rng.random(error.shape), rng.random(error.shape) < 0.5
    expected = ause(error[mask], uncertainty[mask])
    error[~mask] = np.nan
    assert ause(error, uncertainty, mask) == expected


def test_an_empty_mask_is_undefined(error):
    assert sparsification(error, error, np.zeros(error.shape)) is None
    assert np.isnan(ause(error, error, np.zeros(error.shape)))


def test_a_single_voxel(rng):
    assert ause([[0.7]], [[1.0]]) == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"sq_error": np.full((20, 15), np.nan)}, "finite"),
        ({"uncertainty": np.full((20, 15), np.inf)}, "finite"),
        ({"sq_error": np.full((20, 15), -1.0)}, "negative"),
        ({"uncertainty": np.zeros((15, 20))}, "same shape"),
        ({"mask": np.ones((2, 2))}, "mask"),
        ({"steps": 1}, "steps"),
    ],
)
def test_refuses_bad_input(error, bad, message):
    with pytest.raises(ValueError, match=message):
        ause(**({"sq_error": error, "uncertainty": error} | bad))
