"""The promise of the bound on simulated patients, the flags, and their file."""

import itertools
import json
import math

import numpy as np
import pytest

from hetmorph.uncertainty import Bound, Calibration, Combination, Triage, risk_coverage
from hetmorph.uncertainty.conformal import least_patients


def patient(rng, voxels=200):
    """A map, and errors in proportion to it with a factor of the patient's own."""
    std = rng.uniform(0.5, 2, voxels)
    return std * rng.lognormal(0, 0.7) * np.abs(rng.normal(size=voxels)), std


def patients(rng, count):
    return {f"p{k}": patient(rng, int(rng.integers(50, 400))) for k in range(count)}


@pytest.mark.quick("9-0.9", "20-0.9", "4-0.8")
@pytest.mark.parametrize(("count", "coverage"), [(9, 0.9), (20, 0.9), (4, 0.8), (30, 0.5)])
def test_the_promise_holds_for_new_patients(rng, count, coverage):
    """A voxel of a new patient, averaged over calibrations: at least the stated coverage."""
    shares = [Bound.fit(patients(rng, count), coverage).covered(*patient(rng)) for _ in range(300)]
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > coverage - 2 * error
    assert np.mean(shares) < coverage + 1.1 / (count + 1) + 3 * error, "no wider than few patients demand"


def test_voxels_as_the_unit_would_break_it(rng):
    """What the weights are for: with few patients the plain quantile of all voxels covers too little."""
    plain, ours = [], []
    for _ in range(500):
        known, (error, std) = patients(rng, 4), patient(rng)
        ratios = np.concatenate([e / s for e, s in known.values()])
        plain.append(np.mean(error <= np.quantile(ratios, 0.8) * std))
        ours.append(Bound.fit(known, 0.8).covered(error, std))
    assert np.mean(plain) < 0.79 and np.mean(ours) > 0.81


def test_the_scale_by_hand():
    """Three patients of one voxel each weigh a quarter; half is reached at the second smallest ratio."""
    known = {name: (np.array([error]), np.ones(1)) for name, error in (("a", 3.0), ("b", 1.0), ("c", 2.0))}
    assert Bound.fit(known, 0.5).scale == 2 and Bound.fit(known, 0.75).scale == 3
    assert Bound.fit(known, 0.2).scale == 1
    bound = Bound.fit(known, 0.5)
    np.testing.assert_array_equal(bound(np.array([1.0, 3.0])), [2, 6])
    assert bound.covered([2.0, 7.0], [1.0, 3.0]) == 0.5 and math.isnan(bound.covered([], []))


def test_a_patient_with_many_voxels_weighs_no_more(rng):
    few = patients(rng, 10)
    many = few | {"p3": tuple(np.tile(part, 10) for part in few["p3"])}
    assert Bound.fit(few).scale == Bound.fit(many).scale


def test_the_unit_of_the_map_is_immaterial(rng):
    known = patients(rng, 12)
    scaled = {name: (error, 7 * std) for name, (error, std) in known.items()}
    assert Bound.fit(scaled).scale == pytest.approx(Bound.fit(known).scale / 7)


def test_where_the_map_is_zero_only_no_error_is_covered():
    known = {f"p{k}": (np.array([0.0, 1.0]), np.array([0.0, 1.0])) for k in range(9)}
    assert Bound.fit(known).scale == 1
    known = {f"p{k}": (np.array([1.0, 1.0]), np.array([0.0, 1.0])) for k in range(9)}
    with pytest.raises(ValueError, match="no scale bounds them"):
        Bound.fit(known)


@pytest.mark.parametrize(("coverage", "least"), [(0.9, 9), (0.8, 4), (0.5, 1), (0.95, 19), (0.99, 99)])
def test_patients_that_a_coverage_takes(rng, coverage, least):
    assert least_patients(coverage) == least
    Bound.fit(patients(rng, least), coverage)
    if least > 1:
        with pytest.raises(ValueError, match=f"at least {least} patients"):
            Bound.fit(patients(rng, least - 1), coverage)


@pytest.mark.parametrize(
    ("error", "std", "message"),
    [
        ([1.0], [1.0, 2.0], "as many errors"),
        ([], [], "at least one"),
        ([np.nan], [1.0], "finite"),
        ([1.0], [np.inf], "finite"),
        ([-1.0], [1.0], "not negative"),
    ],
)
def test_bad_calibration_data_are_named(rng, error, std, message):
    with pytest.raises(ValueError, match=f"odd: .*{message}"):
        Bound.fit(patients(rng, 12) | {"odd": (np.array(error), np.array(std))})
    for coverage in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Bound.fit(patients(rng, 12), coverage)


def test_flags_by_hand():
    """Errors 1 are good, 9 bad."""
    scores = np.arange(20.0)
    errors = np.where((scores >= 12) & (scores != 14) | (scores == 5), 9, 1)
    triage = Triage.fit(scores, errors, tolerance=2)
    # Up to 11 one of 12 is bad; at 12 it would be two of 13. From 15 on all are, from 13 on six of seven.
    assert (triage.accept, triage.reject) == (11, 15)
    assert [triage.flag(score) for score in (0, 11, 11.5, 14.9, 15, 99, math.nan)] == [
        *("accept", "accept", "review", "review", "reject", "reject", "review")
    ]


def test_the_order_of_cases_is_immaterial_and_equal_scores_share_a_flag(rng):
    scores, errors = rng.integers(0, 5, 40).astype(float), rng.uniform(0, 4, 40)
    first = Triage.fit(scores, errors, 2.0)
    order = rng.permutation(40)
    assert Triage.fit(scores[order], errors[order], 2.0) == first


@pytest.mark.parametrize(("errors", "flags"), [([1.0, 1.0], {"accept"}), ([9.0, 9.0], {"reject"})])
def test_all_good_and_all_bad(errors, flags):
    triage = Triage.fit([1.0, 2.0], errors, 2.0)
    assert {triage.flag(score) for score in (1.0, 2.0)} == flags


def test_risk_over_kept_cases():
    share, risk = risk_coverage([3.0, 1.0, 2.0], [6.0, 0.0, 3.0])
    np.testing.assert_allclose(share, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(risk, [0, 1.5, 3])
    np.testing.assert_allclose(
        risk_coverage([1.0] * 3, [6.0, 0.0, 3.0])[1],
        np.mean([np.cumsum(p) / (1, 2, 3) for p in itertools.permutations([6, 0, 3])], 0),
    )
    assert [one.tolist() for one in risk_coverage([5.0], [2.0])] == [[1], [2]]


@pytest.mark.parametrize(("scores", "errors"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0])])
def test_bad_cases_are_refused(scores, errors):
    for function in (risk_coverage, lambda *x: Triage.fit(*x, 2.0)):
        with pytest.raises(ValueError, match="for each case|finite"):
            function(scores, errors)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        Triage.fit([1.0], [1.0], 0)


def test_a_new_case_is_bounded_and_flagged():
    calibration = Calibration(Combination({"a": 1.0}), Bound(2.0, 0.9, 12), Triage(3.0, 5.0, 2.0), {})
    std = np.array([[1.0, 2.0], [np.nan, 4.0]])
    bound, flag = calibration.judge({"a": std, "b": std})
    np.testing.assert_array_equal(bound, 2 * std)
    assert flag == "review", "14/3 voxels on average"
    flags = [
        calibration.judge({"a": std}, np.array(region, bool))[1] for region in ([[1, 0], [1, 0]], [[0, 0], [0, 1]])
    ]
    assert flags == ["accept", "reject"]
    assert calibration.judge({"a": std}, np.zeros((2, 2), bool))[1] == "review"


@pytest.mark.parametrize("limits", [(1.5, 4.0), (-math.inf, math.inf)])
def test_a_calibration_survives_its_file(limits, tmp_path):
    parts = Combination({"a": 0.5, "b": 0.25}, 2.0, (1.0, 2.0), (0.5, 0.7)), Bound(3.5, 0.9, 12), Triage(*limits, 2.0)
    stored = Calibration(*parts, {"model": "x"})
    stored.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == stored
    json.loads((tmp_path / "calibration.json").read_text(), parse_constant=pytest.fail)
    content = json.loads((tmp_path / "calibration.json").read_text())
    content["combination"] = {name: content["combination"][name] for name in ("weights", "smoothing")}
    (tmp_path / "old.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="old.json is of an earlier version, .* calibrate again"):
        Calibration.load(tmp_path / "old.json")
    (tmp_path / "other.json").write_text('{"bound": {}}')
    with pytest.raises(ValueError, match="other.json is no calibration"):
        Calibration.load(tmp_path / "other.json")
