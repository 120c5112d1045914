"""Combinations of maps, on cases made so that the right one is known."""

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.evaluation import Case
from hetmorph.uncertainty import Combination, best_combination

SHAPE = (24, 24)


def cases_of(rng, error_of, count=4):
    """Cases whose error follows from two maps and a smooth one."""
    cases = []
    for k in range(count):
        maps = {name: rng.lognormal(size=SHAPE).astype(np.float32) for name in ("a", "b", "c")}
        region = rng.random(SHAPE) < 0.8
        cases.append(Case(f"case{k}", f"p{k % 2}", "affine", error_of(maps), region, maps, {}))
    return cases


def test_it_is_the_product_of_powers(rng):
    maps = {name: rng.lognormal(size=SHAPE) for name in "ab"}
    combined = Combination({"a": 0.5, "b": 2.0})(maps)
    np.testing.assert_allclose(combined, maps["a"] ** 0.5 * maps["b"] ** 2)
    np.testing.assert_allclose(Combination({"a": 1.0})(maps), maps["a"])
    assert np.isfinite(Combination({"a": 1.0})({"a": np.zeros(SHAPE)})).all()


def test_smoothing_stays_within_what_is_valid(rng):
    values = rng.lognormal(size=SHAPE)
    np.testing.assert_allclose(
        Combination({"a": 1.0}, 2.0)({"a": values}), ndimage.gaussian_filter(values, 2), rtol=1e-5
    )
    masked = values.copy()
    masked[:, :10] = np.nan
    smooth = Combination({"a": 1.0}, 2.0)({"a": masked})
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(masked))
    constant = np.where(np.isnan(masked), np.nan, 3.0)
    np.testing.assert_allclose(Combination({"a": 1.0}, 2.0)({"a": constant})[:, 10:], 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("error_of", "weights"),
    [
        (lambda maps: maps["b"], {"b": 1.0}),
        (lambda maps: maps["a"] ** 0.3 * maps["c"] ** 0.6, {"a": 0.3, "c": 0.6}),
        (lambda maps: maps["a"] * maps["b"] ** 0.5 * maps["c"] ** 0.25, {"a": 1.0, "b": 0.5, "c": 0.25}),
    ],
)
def test_the_best_is_the_one_that_made_the_errors(rng, error_of, weights):
    best, tried = best_combination(cases_of(rng, error_of), ["a", "b", "c"], progress=False)
    assert best.smoothing == 0
    ratio = best.weights[next(iter(weights))] / next(iter(weights.values()))
    assert {name: weight / ratio for name, weight in best.weights.items()} == pytest.approx(weights, rel=1e-3)
    assert tried[0]["map"] == best.name and tried[0]["naurc"] == pytest.approx(0, abs=1e-6)
    assert [row["naurc"] for row in tried] == sorted(row["naurc"] for row in tried)


def test_smoothing_is_found_where_errors_are_smooth(rng):
    best, _ = best_combination(cases_of(rng, lambda maps: ndimage.gaussian_filter(maps["a"], 2)), ["a"], progress=False)
    assert (dict(best.weights), best.smoothing) == ({"a": 1.0}, 2.0)
    assert best.name == "a, smoothed by 2"


def test_what_cannot_be_combined_is_refused(rng):
    with pytest.raises(ValueError, match="needs the maps b, got a"):
        Combination({"a": 1.0, "b": 1.0})({"a": np.ones(SHAPE)})
    with pytest.raises(ValueError, match="at least one map"):
        best_combination(cases_of(rng, lambda maps: maps["a"]), [])
    with pytest.raises(ValueError, match="none of 4 cases"):
        best_combination(cases_of(rng, lambda maps: np.ones(SHAPE)), ["a"], progress=False)
