"""Known truth is what it says, and scores come out as they must for a map that knows the error."""

import dataclasses

import numpy as np
import pytest

from hetmorph.data import Pair
from hetmorph.evaluation import KINDS, MOTION, Case, evaluate, known_pair, measure, wrap
from hetmorph.evaluation.known_truth import mean_curve, over_patients, score
from hetmorph.metrics import aurc, naurc, pearson, spearman
from hetmorph.uncertainty import UncertaintyMap
from tests.evaluation.fakes import pair as heart_pair
from tests.reference import positions, smooth_field, warp


def pair_of(shape, name="a"):
    moving = smooth_field(np.random.default_rng(2), shape, 1.0, 2.0)[..., 0]
    moving = ((moving - moving.min()) / np.ptp(moving)).astype(np.float32)
    labels = (moving > 0.6).astype(np.uint8)
    return Pair(name, "p", None, None, moving, moving[::-1], labels, labels[::-1], (2.0,) * len(shape))


def map_of(std, unit="voxels", valid=None):
    valid = np.ones(std.shape, bool) if valid is None else valid
    std = np.where(valid, std, np.nan)
    variances = np.stack([std**2, *[0 * std] * (std.ndim - 1)], -1)
    return UncertaintyMap("some", std, valid, unit, None, 5, 5, 0.25, variances=variances)


@pytest.mark.parametrize("shape", [(40, 44), (16, 20, 18)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_fixed_image_is_the_moving_one_under_the_truth(shape, kind):
    known = known_pair(pair_of(shape), kind)
    moved = warp(known.moving[..., None], known.displacement)[..., 0]
    np.testing.assert_allclose(moved, known.fixed, atol=1e-5)
    assert known.case_id == f"a_{kind}" and known.patient == "p"
    assert np.linalg.norm(known.displacement, axis=-1).max() > 0.01 * min(shape)
    gradient = [np.stack(np.gradient(part), -1) for part in positions(known.displacement)]
    assert np.linalg.det(np.stack(gradient, -2)).min() > 0, "it does not fold"


def test_translations_reach_a_tenth_of_the_image():
    shifts = [known_pair(pair_of((40, 44), f"c{k}"), "translation").displacement for k in range(40)]
    assert all(np.ptp(shift, axis=(0, 1)).max() == pytest.approx(0, abs=1e-5) for shift in shifts)
    largest = np.abs([shift[0, 0] for shift in shifts]).max(0)
    assert (largest <= (4.0, 4.4)).all() and (largest > (3.5, 3.9)).all()


def test_truth_follows_from_seed_kind_and_case_alone():
    first, again = (known_pair(pair_of((40, 44)), "affine", 3).displacement for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in (known_pair(pair_of((40, 44)), "affine", 4), known_pair(pair_of((40, 44), "b"), "affine", 3)):
        assert np.abs(other.displacement - first).max() > 0.1
    noisy = known_pair(pair_of((40, 44)), "affine", 3, noise=0.1)
    np.testing.assert_array_equal(noisy.displacement, first)
    assert noisy.sigma is not None
    spoilt = known_pair(pair_of((40, 44)), "affine", 3, noise=0.5, noise_kind="void", noise_in="moving")
    assert spoilt.artefact_moving.any() and not spoilt.artefact_fixed.any()


@pytest.fixture
def case():
    known = known_pair(pair_of((40, 44)), "translation", 1)
    still = wrap(lambda moving, fixed: 0.2 * np.stack([moving, fixed], -1))
    error = np.linalg.norm(still(known.moving, known.fixed).displacement - known.displacement, axis=-1)
    maps = {"oracle": lambda pair: map_of(error), "noise": lambda pair: map_of(pair.fixed, "intensity")}
    return known, error, measure(still, known, maps, "translation")


def test_error_and_region(case):
    known, error, measured = case
    np.testing.assert_allclose(measured.error, error, rtol=1e-5)
    there = positions(known.displacement)
    limits = np.array(error.shape)[:, None, None] - 0.5
    inside = ((there >= -0.5) & (there <= limits)).all(0)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_array_equal(measured.region, inside & ((known.moving != 0) | (known.fixed != 0)))
    assert (measured.case_id, measured.patient, measured.kind) == ("a_translation", "p", "translation")


def test_scores_are_the_metrics_within_the_region(case):
    _, error, measured = case
    region = measured.region
    row = score(measured, "noise")
    values = error[region], measured.maps["noise"][region]
    for name, metric in (("pearson", pearson), ("spearman", spearman), ("aurc", aurc), ("naurc", naurc)):
        assert row[name] == pytest.approx(metric(*values), rel=1e-4), name
    assert row["epe"] == pytest.approx(error[region].mean(), rel=1e-5)
    assert (row["passes"], row["seconds"], row["voxels"]) == (5, 0.25, region.sum())
    oracle = score(measured, "oracle")
    assert oracle["spearman"] == pytest.approx(1) and oracle["naurc"] == pytest.approx(0, abs=1e-6)


def test_every_map_is_judged_on_the_same_voxels():
    known = known_pair(pair_of((40, 44)), "bspline")
    valid = np.arange(44) < 20
    maps = {
        "whole": lambda pair: map_of(np.ones((40, 44))),
        "half": lambda pair: map_of(np.ones((40, 44)), valid=np.broadcast_to(valid, (40, 44))),
    }
    measured = measure(wrap(lambda a, b: np.zeros((*a.shape, 2))), known, maps)
    assert measured.region.any() and not measured.region[:, 20:].any()
    assert score(measured, "whole")["voxels"] == score(measured, "half")["voxels"]


def test_the_region_of_the_labels(case):
    known, _, _ = case
    measured = measure(wrap(lambda a, b: np.zeros((*a.shape, 2))), known, {}, region="labels")
    assert measured.region.any() and not measured.region[known.fixed_labels == 0].any()


def test_of_real_motion_the_distance_of_moved_contours_is_the_error(tmp_path):
    """A square that should move by 3 and does by 1: its sides along the motion are 2 off, the others on the contour."""
    moving, fixed = np.zeros((2, 24, 24), np.uint8)
    moving[8:16, 8:16], fixed[11:19, 8:16] = 1, 1
    pair = Pair("a", "p", None, None, *np.float32([moving, fixed]), moving, fixed, (1.0, 1.0))
    shift = wrap(lambda a, b: np.broadcast_to((-1.0, 0.0), (24, 24, 2)))
    motion = known_pair(pair, MOTION)
    assert motion.displacement is None and motion.case_id == "a_motion"
    measured = measure(shift, motion, {"noise": lambda pair: map_of(pair.fixed)}, MOTION)
    assert measured.region.sum() == 28 and measured.kind == MOTION, "the surface of the moved square"
    np.testing.assert_array_equal(measured.error[9, 8:16], 2)
    np.testing.assert_array_equal(measured.error[16, 10:14], 2)
    assert measured.error[12, 8] == 0 and not measured.region[12, 12]
    np.testing.assert_array_equal(measured.judged, (moving > 0) | (fixed > 0), "as a case without labels would be")
    measured.save(tmp_path / "case.npz")
    np.testing.assert_array_equal(Case.load(tmp_path / "case.npz").judged, measured.judged)
    with pytest.raises(ValueError, match="a_motion: the error of real motion is known where both images have labels"):
        measure(shift, dataclasses.replace(motion, fixed_labels=None), {}, MOTION)


def test_a_case_survives_its_file(case, tmp_path):
    _, _, measured = case
    measured.save(tmp_path / "sub" / "case.npz")
    again = Case.load(tmp_path / "sub" / "case.npz")
    for name in ("case_id", "patient", "kind", "cost"):
        assert getattr(again, name) == getattr(measured, name)
    for name in ("error", "region"):
        np.testing.assert_array_equal(getattr(again, name), getattr(measured, name))
    for name, values in measured.maps.items():
        np.testing.assert_array_equal(again.maps[name], values)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["case.npz"]


def test_curves_are_in_units_of_the_mean_error(case):
    _, _, measured = case
    curve = mean_curve([measured, measured], [measured.maps["oracle"], measured.maps["oracle"]])
    assert curve.curve[0] == pytest.approx(1)
    np.testing.assert_allclose(curve.curve, curve.oracle)


def test_a_patient_counts_once():
    rows = [{"patient": p, "x": x} for p, x in (("a", 1.0), ("a", 3.0), ("b", 8.0), ("b", np.nan), ("c", np.nan))]
    assert over_patients(rows, "x") == [2, 8]


def test_no_voxels_no_scores():
    empty = Case("a", "p", "", np.ones((4, 4)), np.zeros((4, 4), bool), {"m": np.ones((4, 4))}, {"m": (1, 0.1)})
    row = score(empty, "m")
    assert row["voxels"] == 0 and np.isnan([row["epe"], row["spearman"], row["naurc"], row["aurc"]]).all()


def test_bad_input_is_refused(case):
    known, _, _ = case
    still = wrap(lambda a, b: np.zeros((*a.shape, 2)))
    with pytest.raises(ValueError, match="kind must be one of"):
        known_pair(known, "wobble")
    with pytest.raises(ValueError, match="true displacement is not known"):
        measure(still, pair_of((40, 44)), {})
    with pytest.raises(ValueError, match="region must be one of"):
        measure(still, known, {}, region="heart")
    with pytest.raises(ValueError, match="not finite"):
        measure(wrap(lambda a, b: np.full((*a.shape, 2), np.nan)), known, {})


def test_rows_of_an_evaluation_have_columns_of_each_map():
    truth = np.zeros((32, 32, 2), np.float32)
    truth[..., 0] = np.linspace(0, 3, 32)[:, None]
    still = wrap(lambda a, b: np.zeros((*a.shape, 2)))
    maps = {"good": lambda pair: map_of(truth[..., 0]), "sigma": lambda pair: map_of(np.ones((32, 32)), "intensity")}
    row = evaluate(still, [heart_pair(displacement=truth)], progress=False, maps=maps)[0]
    inside = heart_pair().fixed > 0
    assert row["registered_good_mean"] == pytest.approx(truth[..., 0][inside].mean())
    assert row["registered_good_mean_mm"] == pytest.approx(2 * truth[..., 0][inside].mean()), "spacing 2 along axis 0"
    assert row["registered_good_spearman"] == pytest.approx(1) and row["registered_good_valid_share"] == 1
    assert row["registered_good_naurc"] == pytest.approx(0, abs=1e-6) and row["registered_good_seconds"] == 0.25
    assert "registered_sigma_mean_mm" not in row and np.isnan(row["registered_sigma_spearman"])
    without = evaluate(still, [heart_pair()], progress=False, maps=maps)[0]
    assert "registered_good_spearman" not in without and without["registered_good_mean"] > 0
