"""Combinations of maps, on cases made so that the right one is known."""

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.evaluation import Case
from hetmorph.uncertainty import Combination
from hetmorph.uncertainty.combination import by_patient

SHAPE = (48, 48)


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


def test_each_map_is_smoothed_before_within_what_is_valid(rng):
    maps = {name: rng.lognormal(size=SHAPE) for name in "ab"}
    smooth = {name: ndimage.gaussian_filter(values, 2) for name, values in maps.items()}
    expected = smooth["a"] ** 0.5 * smooth["b"]
    np.testing.assert_allclose(Combination({"a": 0.5, "b": 1.0}, 2.0)(maps), expected, rtol=1e-5)
    masked = np.where(np.arange(SHAPE[1]) < 10, np.nan, 3.0) * np.ones(SHAPE)
    np.testing.assert_allclose(Combination({"a": 1.0}, 2.0)({"a": masked}), masked, rtol=1e-6)


def test_the_curve_leads_from_the_product_to_the_error():
    combination = Combination({"a": 1.0}, 0.0, products=(1.0, 2.0), errors=(10.0, 30.0))
    np.testing.assert_allclose(combination({"a": np.array([0.5, 1.5, 9.0, np.nan])}), [10, 20, 30, np.nan])


@pytest.mark.parametrize(
    ("error_of", "weights"),
    [
        (lambda maps: maps["b"], {"b": 1.0}),
        (lambda maps: 5 * maps["a"] ** 0.3 * maps["c"] ** 0.6, {"a": 0.3, "c": 0.6}),
        (lambda maps: maps["a"] / maps["b"], {"a": 1.0}),
    ],
)
def test_the_exponents_are_those_that_made_the_errors_and_none_is_negative(rng, error_of, weights):
    fitted = Combination.fit(cases_of(rng, lambda maps: 10 * error_of(maps)), ["a", "b", "c"], smoothing=0)
    kept = {name: weight for name, weight in fitted.weights.items() if weight > 0.1}
    assert kept == pytest.approx(weights, abs=0.1)


def test_it_says_the_error_in_voxels_and_never_falls_where_the_maps_rise(rng):
    cases = cases_of(rng, lambda maps: 3 * ndimage.gaussian_filter(maps["a"], 2) ** 2)
    fitted = Combination.fit(cases, ["a", "b"])
    assert fitted.errors == tuple(sorted(fitted.errors)) and len(fitted.products) == 50
    for error, expected in by_patient(cases, fitted).values():
        assert expected.mean() == pytest.approx(error.mean(), rel=0.05)
        assert np.corrcoef(error, expected)[0, 1] > 0.97


def test_a_patient_with_many_cases_weighs_no_more(rng):
    one, other = (cases_of(rng, lambda maps, k=k: k * maps["a"], 1)[0] for k in (1, 3))
    cases = [one, Case("x", "q", "affine", other.error, other.region, other.maps, {})]
    assert Combination.fit([*cases, *[cases[1]] * 3], ["a"]).errors == pytest.approx(
        Combination.fit(cases, ["a"]).errors, rel=0.1
    )


def test_what_cannot_be_combined_is_refused(rng):
    with pytest.raises(ValueError, match="needs the maps b, got a"):
        Combination({"a": 1.0, "b": 1.0})({"a": np.ones(SHAPE)})
    cases = cases_of(rng, lambda maps: maps["a"])
    with pytest.raises(ValueError, match="at least one map"):
        Combination.fit(cases, [])
    with pytest.raises(ValueError, match="no case has a region with errors that differ"):
        Combination.fit(cases_of(rng, lambda maps: np.ones(SHAPE)), ["a"])
    with pytest.raises(ValueError, match="go with none of the maps b"):
        Combination.fit(cases_of(rng, lambda maps: 1 / maps["b"]), ["b"])
