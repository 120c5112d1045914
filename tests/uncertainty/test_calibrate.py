"""Patients that divide themselves, what is learnt from them, and maps made as a calibration says."""

import dataclasses

import numpy as np
import pytest

from hetmorph.evaluation import Case, wrap
from hetmorph.uncertainty import (
    Bound,
    Calibration,
    Combination,
    ExpectedError,
    Triage,
    calibrate,
    calibrated_estimates,
    divide,
)
from hetmorph.uncertainty.calibrate import by_patient, scored
from tests.evaluation.fakes import constant, volume

PATIENTS = [f"p{k}" for k in range(15)]


def case(rng, patient, shape=(8, 8)):
    """A case whose map "good" goes with the error, and "bad" with nothing."""
    good = rng.uniform(0.5, 2, shape)
    error = good * np.abs(rng.normal(size=shape))
    maps = {"good": good.astype(np.float32), "bad": rng.uniform(0.5, 2, shape).astype(np.float32)}
    return Case(f"{patient}_s0", patient, "affine", error, np.ones(shape, bool), maps, {})


@pytest.fixture
def cases(rng):
    return [case(rng, patient) for patient in PATIENTS for _ in range(2)]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_patient_is_on_one_side_and_enough_are_left_for_the_bound(seed):
    for count in (10, 12, 15, 60):
        names = [f"p{k}" for k in range(count)]
        choosing, bounding = divide([*names, *names[::-1]], 0.9, seed)
        assert sorted(choosing + bounding) == sorted(names) and choosing and len(bounding) >= 9
        assert divide(names[::-1], 0.9, seed) == (choosing, bounding), "whatever their order"
    assert len(choosing) == 20 and divide(names, seed=0) != divide(names, seed=1)
    assert divide(PATIENTS[:9], 0.9, choose=False) == ([], divide(PATIENTS[:9], 0.9, choose=False)[1])


def test_too_few_patients_are_told_what_they_are_enough_for():
    with pytest.raises(ValueError, match="at least 10 patients .*9 for the bound.* are 6, enough for 0.83"):
        divide(PATIENTS[:6], 0.9)
    divide(PATIENTS[:6], 0.83)


def test_the_map_is_chosen_on_some_and_the_bound_on_the_others(cases):
    calibration, coverages, flags = calibrate(cases, ["good", "bad"], tolerance=1.0)
    choosing, bounding = divide(PATIENTS, 0.9)
    assert set(calibration.combination.weights) == {"good"}
    own = by_patient([one for one in cases if one.patient in bounding], calibration.combination)
    assert calibration.bound == Bound.fit(own, 0.9) and calibration.about["ndims"] == 2
    assert {row["patient"] for row in coverages} == set(bounding) == {row["patient"] for row in flags}
    spoilt = [dataclasses.replace(one, error=1 / one.error) if one.patient in bounding else one for one in cases]
    assert calibrate(spoilt, ["good", "bad"])[0].combination == calibration.combination


def test_the_coverage_that_is_told_is_of_patients_that_took_no_part(cases):
    calibration, coverages, _ = calibrate(cases, ["good"])
    patients = by_patient(cases, calibration.combination)
    assert len(patients) == len(coverages) == 15, "a single map leaves all of them to the bound"
    row = coverages[3]
    others = {name: own for name, own in patients.items() if name != row["patient"]}
    assert row["coverage"] == Bound.fit(others, 0.9).covered(*patients[row["patient"]])


def test_a_case_scores_where_it_would_be_judged(rng):
    one = case(rng, "p")
    corner = np.zeros((8, 8), bool)
    corner[:2, :2] = True
    measured = dataclasses.replace(one, region=corner, judged=np.ones((8, 8), bool))
    (row,) = scored([measured], Combination({"good": 1.0}), Bound(2.0, 0.9, 12))
    assert row["score"] == pytest.approx(2 * one.maps["good"].mean())
    assert row["epe"] == pytest.approx(one.error[:2, :2].mean())


def calibration_of(names, smoothing=0.0, **about):
    weights = dict.fromkeys(names, 1.0)
    return Calibration(Combination(weights, smoothing), Bound(2.0, 0.9, 12), Triage(1.0, 2.0, 1.0), about)


def test_a_calibration_of_slices_takes_a_volume_slice_by_slice(rng):
    pair, predictor = volume(2), wrap(constant((-1, 0)))
    estimates = calibrated_estimates(calibration_of(["residual", "dissimilarity"], ndims=2), predictor)
    for name, estimate in estimates.items():
        whole, parts = estimate(pair), [estimate(part) for part in pair.slices()]
        np.testing.assert_array_equal(whole.std, np.stack([part.std for part in parts], -1), err_msg=name)
    assert whole.valid.shape == pair.fixed.shape

    smooth = calibration_of(["residual"], 2.0, ndims=2)
    std = rng.uniform(1, 2, pair.fixed.shape)
    bound, _ = smooth.judge({"residual": std})
    for z in range(std.shape[-1]):
        np.testing.assert_allclose(bound[..., z], smooth.judge({"residual": std[..., z]})[0])


def test_the_expected_error_is_the_combination_in_voxels_and_millimetres():
    """Of one map whose curve is 3 times the map."""
    calibration = dataclasses.replace(
        calibration_of(["residual"], ndims=2), combination=Combination({"residual": 1.0}, 0.0, (0.0, 2.0), (0.0, 6.0))
    )
    predictor, pair = wrap(constant((-1, 0))), volume(2)
    error = ExpectedError(calibration)
    parts = [error(predictor, part.moving, part.fixed) for part in pair.slices()]
    residual = calibrated_estimates(calibration, predictor)["residual"](pair).std
    np.testing.assert_allclose(np.stack([part.std for part in parts], -1), 3 * residual, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(error.maps(stacked=True)["residual"].std, residual)
    assert (parts[0].name, parts[0].unit, parts[0].passes) == ("expected error", "voxels", 1)
    np.testing.assert_allclose(parts[0].std_mm((2.0, 2.0)), 2 * parts[0].std, rtol=1e-5)


def test_draws_and_seed_are_those_of_the_calibration():
    predictor = wrap(constant((-1, 0)))
    made = calibrated_estimates(calibration_of(["noise"], draws=3, seed=5), predictor)["noise"](volume().slices()[4])
    assert made.n == 3
