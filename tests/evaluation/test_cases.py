import dataclasses
import math

import numpy as np
import pytest

from hetmorph.evaluation import Prediction, RegistrationFailed, Scorer, checks, predictor
from hetmorph.evaluation.cases import foreground, warp_labels
from hetmorph.metrics import asd, assd, ause, deformation, dice, hausdorff, hausdorff95, surface
from tests.evaluation.fakes import (
    HEART,
    constant,
    evaluate,
    evaluate_each,
    evaluate_pair,
    heart,
    pair,
    shifted_pair,
    volume,
)

NOTHING = constant((0, 0))
OVERLAP = [f"dice_{name}" for name in ("myo", "rv", "lv", "mean")] + [
    "hd_px",
    "hd95_px",
    "assd_px",
    "asd_px",
    "hd95_mm",
]
UNDEFORMED = [*OVERLAP, "folds_percent", "sdlogj", "mse"]
CALIBRATION = ["ause", "coverage1", "coverage2", "z_mean", "z_sd", "z_normal_distance", "sigma_ece"]
REGISTERED = [*UNDEFORMED, *CALIBRATION, *(f"{name}_foreground" for name in CALIBRATION), "seconds_per_pair"]


def without(label, labels=None):
    labels = heart() if labels is None else labels
    return np.where(labels == label, 0, labels).astype(np.uint8)


def test_an_exact_registration_scores_perfectly_beside_the_undeformed_row():
    row = evaluate_pair(constant((-3, 0)), shifted_pair(3))
    assert row["failed"] == ""
    for name in ("dice_myo", "dice_rv", "dice_lv", "dice_mean"):
        assert row[f"registered_{name}"] == 1
        assert 0.3 < row[f"undeformed_{name}"] < 0.9
    for name in ("hd_px", "hd95_px", "hd95_mm", "assd_px", "asd_px", "mse", "folds_percent", "sdlogj"):
        assert row[f"registered_{name}"] == 0
    assert row["undeformed_hd_px"] == 3
    assert row["undeformed_hd95_mm"] == 6, "axis 0 has 2 mm a voxel"
    assert row["undeformed_mse"] > 0.01


def test_doing_nothing_equals_the_undeformed_columns():
    row = evaluate_pair(NOTHING, shifted_pair(2))
    for name in UNDEFORMED:
        assert row[f"registered_{name}"] == row[f"undeformed_{name}"]


def test_the_inverse_error_is_asked_for_and_told_in_voxels_and_millimetres():
    class BothWays:
        def __call__(self, moving, fixed):
            return NOTHING(moving, fixed)

        def inverse_error(self, moving, fixed):
            return np.broadcast_to([0.3, 0.4], (*moving.shape, 2))

    (row,) = evaluate(BothWays(), [shifted_pair(2)], inverse=True)
    assert row["registered_inverse_error"] == pytest.approx(0.5)
    assert row["registered_inverse_error_mm"] == pytest.approx(np.hypot(0.3 * 2, 0.4 * 0.5)), "voxels of 2 × 0.5 mm"
    assert not any("inverse" in name for name in evaluate(BothWays(), [shifted_pair(2)])[0])


def test_landmarks_are_scored_by_the_distance_that_is_left():
    fixed = np.float32([[10.5, 4], [20, 30]])
    points = {"points_fixed": fixed, "points_moving": fixed - (3, 0)}
    row = evaluate_pair(constant((-3, 0)), shifted_pair(3, **points))
    assert [row[f"undeformed_{name}"] for name in ("tre_px", "tre_mm")] == [3, 6], "axis 0 has 2 mm a voxel"
    assert [row[f"registered_{name}"] for name in ("tre_px", "tre_mm")] == [0, 0]
    assert "registered_tre_px" not in evaluate_pair(NOTHING, shifted_pair(3))
    unlabelled = evaluate_pair(constant((-3, 1)), dataclasses.replace(shifted_pair(3, **points), moving_labels=None))
    assert unlabelled["unscored"] == unlabelled["failed"] == "" and unlabelled["registered_tre_px"] == 1


def test_the_wrong_direction_makes_it_worse():
    row = evaluate_pair(constant((3, 0)), shifted_pair(3))
    assert row["registered_dice_myo"] < row["undeformed_dice_myo"]


def test_official_counts_everything_touched_and_ours_the_nearer_half():
    labels = heart()
    u = np.full((32, 32, 2), 0.25, np.float32)
    ours, official = (warp_labels(labels, u, [2], convention)[0] for convention in ("hetmorph", "official"))
    np.testing.assert_array_equal(ours, labels == 2)
    assert (official & ~ours).any() and not (ours & ~official).any()


def test_official_punishes_a_subvoxel_warp_of_a_perfect_match():
    near = constant((0.25, 0.25))
    assert evaluate_pair(near, pair(), "hetmorph")["registered_dice_myo"] == 1
    assert evaluate_pair(near, pair(), "official")["registered_dice_myo"] < 0.9


@pytest.mark.parametrize("convention", ["hetmorph", "official"])
@pytest.mark.parametrize(
    ("moving", "fixed", "reason"),
    [
        (without(2), heart(), "no myo in the moving image"),
        (heart(), without(2), "no myo in the fixed image"),
        (without(2), without(2), "no myo in the moving and the fixed image"),
    ],
)
def test_a_slice_without_myocardium_is_unscored_and_keeps_what_is_defined(convention, moving, fixed, reason):
    row = evaluate_pair(NOTHING, pair(moving=moving, fixed=fixed), convention)
    assert (row["failed"], row["unscored"]) == ("", reason), "no fault of the registration"
    assert math.isnan(row["registered_dice_myo"]) and math.isnan(row["registered_hd_px"])
    assert row["registered_dice_rv"] == 1
    assert row["registered_folds_percent"] == 0
    assert math.isfinite(row["registered_mse"]) and math.isfinite(row["registered_sdlogj"])


@pytest.mark.parametrize(("moving", "fixed"), [(without(1), heart()), (heart(), without(1)), (without(1), without(1))])
def test_a_slice_without_right_ventricle_lacks_that_score_alone(moving, fixed):
    row = evaluate_pair(NOTHING, pair(moving=moving, fixed=fixed))
    assert row["failed"] == ""
    assert math.isnan(row["registered_dice_rv"])
    assert row["registered_dice_mean"] == np.mean([row["registered_dice_myo"], row["registered_dice_lv"]])


def test_a_slice_of_background_is_unscored_without_noise():
    empty = np.zeros((32, 32), np.uint8)
    row = evaluate_pair(NOTHING, pair(moving=empty, fixed=empty))
    assert (row["failed"], row["unscored"]) == ("", "no myo in the moving and the fixed image")
    assert all(math.isnan(row[f"registered_{name}"]) for name in OVERLAP)


def test_myocardium_warped_out_of_sight_scores_zero_and_fails():
    row = evaluate_pair(constant((30, 30)), pair())
    assert row["failed"] == "myo vanished by warping" and row["unscored"] == ""
    assert row["registered_dice_myo"] == 0
    assert math.isnan(row["registered_hd_px"])


def test_a_pair_without_labels_is_unscored_and_still_has_image_scores():
    bare = pair()
    bare = type(bare)("bare", "p", None, None, bare.moving, bare.fixed, None, None, (1.0, 1.0))
    row = evaluate_pair(NOTHING, bare)
    assert (row["failed"], row["unscored"]) == ("", "no labels")
    assert row["registered_mse"] == 0


@pytest.mark.parametrize("broken", ["displacement", "moved", "log_variance"])
def test_a_prediction_with_nan_fails_and_is_not_scored(broken):
    maps = {
        "displacement": np.zeros((32, 32, 2)),
        "moved": np.zeros((32, 32)),
        "log_variance": np.zeros((32, 32)),
    }
    maps[broken][3, 3] = np.nan
    row = evaluate_pair(lambda moving, fixed: Prediction(**maps), pair())
    assert row["failed"] == "prediction not finite"
    assert math.isnan(row["registered_dice_myo"])
    assert row["undeformed_dice_myo"] == 1


@pytest.mark.parametrize("log_variance", [-2000.0, 1500.0, 720.0])
def test_a_sigma_of_zero_or_infinity_fails(log_variance):
    maps = np.zeros((32, 32, 2)), np.zeros((32, 32)), np.full((32, 32), log_variance, np.float32)
    row = evaluate_pair(lambda moving, fixed: Prediction(*maps), pair())
    assert row["failed"] == "prediction not finite" and math.isnan(row["registered_ause"])


@pytest.mark.parametrize("compiles", [True, False])
def test_a_pair_that_a_program_cannot_register_is_a_failed_row(compiles):
    class Half:
        def __call__(self, moving, fixed):
            if moving.shape == (40, 40):
                raise RegistrationFailed("no luck")
            return NOTHING(moving, fixed)

    Half.compiles = compiles
    bad = type(pair())("bad", "p", None, None, *[np.zeros((40, 40), np.float32)] * 2, None, None, (1.0, 1.0))
    first, failed, last = evaluate(Half(), [pair("a"), bad, pair("b")], progress=False)
    assert first["failed"] == last["failed"] == "" and failed["failed"] == "registration failed: no luck"
    registered = {value for name, value in failed.items() if name.startswith("registered_")}
    assert all(map(math.isnan, registered)) and failed["undeformed_mse"] == 0
    assert failed.keys() == first.keys()


def test_a_pair_that_nobody_could_register_has_the_row_of_a_failed_one():
    scorer = Scorer(NOTHING, **HEART)
    done, failed = scorer(pair())[0], scorer.failed(pair(), "3 workers were killed")
    assert failed["failed"] == "registration failed: 3 workers were killed" and failed.keys() == done.keys()
    assert failed["undeformed_dice_myo"] == done["undeformed_dice_myo"] and math.isnan(failed["registered_dice_myo"])


def test_calibration_columns_come_from_the_log_variance(rng):
    log_variance = rng.normal(size=(32, 32)).astype(np.float32)
    sample = shifted_pair(3)
    row = evaluate_pair(constant((-1, 0), log_variance), sample)
    sq_error = (sample.fixed - np.roll(sample.moving, 1, 0)) ** 2
    assert row["registered_ause"] == pytest.approx(ause(sq_error, log_variance))
    inside = (sample.moving != 0) | (sample.fixed != 0)
    assert 0.1 < inside.mean() < 0.9
    assert row["registered_ause_foreground"] == pytest.approx(ause(sq_error[inside], log_variance[inside]))
    np.testing.assert_array_equal(foreground(sample), inside)


def test_known_foreground_is_that_of_the_columns(rng):
    inside = rng.random((32, 32)) > 0.7
    log_variance = rng.normal(size=(32, 32)).astype(np.float32)
    truth = rng.normal(size=(32, 32, 2)).astype(np.float32)
    sigma = rng.uniform(0.01, 0.1, (32, 32)).astype(np.float32)
    sample = shifted_pair(3, foreground=inside, displacement=truth, sigma=sigma)
    row = evaluate_pair(constant((0, 0), log_variance), sample)
    sq_error = (sample.fixed - sample.moving) ** 2
    assert row["registered_ause_foreground"] == pytest.approx(ause(sq_error[inside], log_variance[inside]))
    assert row["registered_epe"] == pytest.approx(np.linalg.norm(truth, axis=-1)[inside].mean(), rel=1e-5)
    predicted = np.exp(log_variance / 2)
    for region, mask in (("", np.ones((32, 32), bool)), ("_foreground", inside)):
        expected = np.corrcoef(predicted[mask], sigma[mask])[0, 1]
        assert row[f"registered_sigma_correlation{region}"] == pytest.approx(expected, rel=1e-4)


def test_a_model_without_variance_has_no_calibration_and_no_time_is_missing():
    row = evaluate_pair(NOTHING, pair())
    assert math.isnan(row["registered_ause"]) and math.isnan(row["registered_ause_foreground"])
    assert row["registered_seconds_per_pair"] > 0
    about = ["case_id", "patient", "slice_index", "group", "failed", "unscored"]
    undeformed, registered = ([f"{block}_{name}" for name in names] for block, names in
                              (("undeformed", UNDEFORMED), ("registered", REGISTERED)))  # fmt: skip
    assert sorted(row) == sorted([*about, *undeformed, *registered])


def test_a_judge_adds_its_verdict_and_what_gave_no_answer_is_rejected():
    def broken(moving, fixed):
        raise RegistrationFailed("no luck")

    judge = {"same": ("accept", 0.5), "far": ("", math.nan)}
    pairs = [pair("same"), pair("far")]
    rows = evaluate(NOTHING, pairs, progress=False, judge=lambda one, answer: judge[one.case_id])
    assert [row["verdict"] for row in rows] == ["accept", ""] and rows[0]["registered_bound_mean"] == 0.5
    (row,) = evaluate(broken, pairs[:1], progress=False, judge=lambda one, answer: judge[one.case_id])
    assert row["verdict"] == "reject" and "no luck" in row["failed"]
    (row,) = evaluate(NOTHING, pairs[:1], progress=False, judge=broken)
    assert row["verdict"] == "review" and math.isnan(row["registered_bound_mean"])


def test_distances_are_computed_once_in_voxels_and_once_in_millimetres(monkeypatch):
    """Of either the undeformed and the registered pair; the Jacobian once."""
    calls, distances, determinant = [], surface.surface_distances, deformation.jacobian_determinant
    monkeypatch.setattr(surface, "surface_distances", lambda *a: calls.append("surface") or distances(*a))
    for module in (deformation, predictor, checks):
        monkeypatch.setattr(module, "jacobian_determinant", lambda u: calls.append("jacobian") or determinant(u))
    row = evaluate_pair(constant((-2, 1)), shifted_pair(3))
    assert sorted(calls) == ["jacobian"] * 2 + ["surface"] * 4
    masks = shifted_pair(3).fixed_labels == 2, np.roll(heart() == 2, (2, -1), (0, 1))
    for name, metric in (("hd", hausdorff), ("hd95", hausdorff95), ("assd", assd), ("asd", asd)):
        assert row[f"registered_{name}_px"] == metric(*masks)
    assert row["registered_hd95_mm"] == hausdorff95(*masks, (2.0, 0.5))


def test_voxels_of_unknown_size_have_no_millimetres():
    row = evaluate_pair(NOTHING, shifted_pair(3, in_mm=False))
    assert math.isnan(row["registered_hd95_mm"]) and row["registered_hd95_px"] == 3


def test_truth_gives_endpoint_errors_and_noise_correlation(rng):
    truth = np.zeros((32, 32, 2), np.float32)
    truth[..., 0] = -3
    sigma = rng.uniform(0.01, 0.1, (32, 32)).astype(np.float32)
    sample = shifted_pair(3, displacement=truth, sigma=sigma)
    row = evaluate_pair(constant((-3, 4), 2 * np.log(2 * sigma)), sample)
    assert row["undeformed_epe"] == row["undeformed_epe_labels"] == 3
    assert row["registered_epe"] == row["registered_epe_labels"] == 4
    assert row["registered_sigma_correlation"] == pytest.approx(1, abs=1e-5)
    flat = evaluate_pair(constant((-3, 4), np.zeros((32, 32), np.float32)), sample)
    assert math.isnan(flat["registered_sigma_correlation"])


def test_an_artefact_has_its_own_errors_of_a_known_displacement():
    """The moving image's lies where the truth leads there, whatever the registration says."""
    truth = np.zeros((32, 32, 2), np.float32)
    truth[..., 0] = -3
    there, here = np.zeros((2, 32, 32), bool)
    there[10:14, 10:14], here[20:22, 10:14] = True, True
    sample = shifted_pair(3, displacement=truth, artefact_moving=there, artefact_fixed=here, foreground=here | True)
    seen = np.roll(there, 3, 0) | here
    displacement = truth.copy()
    displacement[seen] += (3, 4)
    sigma = np.where(seen, 0.2, 0.1).astype(np.float32)
    row = evaluate_pair(lambda moving, fixed: Prediction(displacement, moving, 2 * np.log(sigma)), sample)
    assert row["registered_epe_artefact"] == 5 and row["registered_epe_around"] == 0
    assert row["undeformed_epe_artefact"] == row["undeformed_epe_around"] == 3
    assert row["registered_sigma_auroc"] == row["registered_sigma_auroc_foreground"] == 1
    without = evaluate_pair(NOTHING, shifted_pair(3, displacement=truth))
    assert not any("artefact" in name or "auroc" in name for name in without)
    empty = evaluate_pair(constant((0, 0)), shifted_pair(3, displacement=truth, artefact_fixed=here & False))
    assert math.isnan(empty["registered_epe_artefact"]) and math.isnan(empty["registered_epe_around"])


def test_an_artefact_of_the_moving_image_is_sought_where_the_registration_leads_if_the_truth_is_unknown():
    there = np.zeros((32, 32), bool)
    there[10:14, 10:14] = True
    sigma = np.where(np.roll(there, 3, 0), 0.2, 0.1).astype(np.float32)
    row = evaluate_pair(constant((-3, 0), 2 * np.log(sigma)), shifted_pair(3, artefact_moving=there))
    assert row["registered_sigma_auroc"] == 1 and "registered_epe_artefact" not in row


def test_evaluate_keeps_the_order_and_leaves_compilation_out_of_the_time():
    calls = []

    def slow_at_first(moving, fixed):
        calls.append(moving.shape)
        return NOTHING(moving, fixed)

    rows = evaluate(slow_at_first, [pair("a"), pair("b")], progress=False)
    assert [row["case_id"] for row in rows] == ["a", "b"]
    assert len(calls) == 3, "one call more, to warm up, for the one shape there is"


def test_three_dimensions():
    labels = np.stack([heart()] * 6)
    volume = pair(moving=labels[0], fixed=labels[0])
    volume = type(volume)("v", "p", None, None, *[np.float32(labels)] * 2, labels, labels, (8.0, 1.5, 1.5))
    row = evaluate_pair(constant((0, 0, 0)), volume)
    assert row["registered_dice_mean"] == 1 and row["registered_hd95_mm"] == 0


def test_a_volume_has_distances_between_surfaces_in_three_dimensions():
    exact, still = (evaluate_pair(constant(u), volume(2)) for u in ((-2, 0, 0), (0, 0, 0)))
    assert exact["registered_dice_myo"] == 1 and exact["registered_hd_px"] == exact["registered_assd_px"] == 0
    assert still["registered_hd_px"] == 2 and still["registered_hd95_mm"] == 4, "axis 0 has 2 mm a voxel"
    through = evaluate_pair(constant((-2, 0, 1)), volume(2))
    assert through["registered_hd_px"] == 1, "one slice too far, seen only through the plane"


BRAIN = {f"region{i}": i for i in range(1, 25)}


def blocks(shift=0):
    """24 squares of 6 x 6, each a label."""
    labels = np.zeros((40, 40), np.uint8)
    for value in range(1, 25):
        y, x = divmod(value - 1, 5)
        labels[2 + 7 * y + shift : 8 + 7 * y + shift, 2 + 7 * x : 8 + 7 * x] = value
    return labels


def test_any_labels_have_their_columns_and_the_main_one_the_distances():
    sample = pair(moving=np.minimum(blocks(), 3), fixed=np.minimum(blocks(1), 3))
    sample = type(sample)("b", "p", None, None, sample.moving, sample.fixed, blocks(), blocks(1), (1.0, 1.0))
    row = evaluate_pair(constant((0, 0)), sample, labels=BRAIN, main="region7")
    assert row["failed"] == "" and "registered_dice_myo" not in row
    for name in BRAIN:
        assert row[f"registered_dice_{name}"] == pytest.approx(5 / 6)
    assert row["registered_dice_mean"] == pytest.approx(5 / 6) and row["registered_hd_px"] == 1
    assert evaluate_pair(constant((-1, 0)), sample, labels=BRAIN, main="region7")["registered_dice_mean"] == 1


def test_reasons_name_the_main_structure_and_the_images():
    row = evaluate_pair(NOTHING, pair(fixed=without(3)), labels={"cavity": 3, "wall": 2}, main="cavity")
    assert row["unscored"] == "no cavity in the fixed image" and row["registered_dice_wall"] == 1
    assert "cavity vanished" in evaluate_pair(constant((30, 30)), pair(), labels={"cavity": 3}, main="cavity")["failed"]


def test_a_set_without_labels_has_image_scores():
    row = evaluate_pair(NOTHING, pair(), labels={}, main=None)
    assert row["unscored"] == "no labels" and row["registered_mse"] == 0
    assert not any("dice" in name and name[-4:] != "mean" for name in row)
    truth = np.ones((32, 32, 2), np.float32)
    known = evaluate_pair(NOTHING, shifted_pair(3, displacement=truth), labels={"cavity": 3}, main="cavity")
    assert known["registered_epe_labels"] == pytest.approx(2**0.5)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"main structure must be one of \('cavity',\), got 'myo'"):
        evaluate(NOTHING, [pair()], progress=False, labels={"cavity": 3})
    with pytest.raises(ValueError, match="'mean'"):
        evaluate(NOTHING, [pair()], progress=False, labels={"mean": 3}, main="mean")


def test_rows_come_one_by_one():
    rows = evaluate_each(NOTHING, [pair("a"), pair("b")], progress=False)
    assert next(rows)["case_id"] == "a" and next(rows)["case_id"] == "b"


def test_errors_name_the_case_and_the_choices():
    def refuses(moving, fixed):
        raise ValueError("no thanks")

    with pytest.raises(ValueError, match="p1_s0: no thanks"):
        evaluate(refuses, [pair()], progress=False)
    with pytest.raises(ValueError, match="'hetmorph', 'official'"):
        evaluate(NOTHING, [pair()], "paper", progress=False)


def test_overlap_agrees_with_nearest_labels_for_whole_voxel_shifts():
    sample = shifted_pair(2)
    row = evaluate_pair(constant((-1, 0)), sample)
    rolled = np.roll(sample.moving_labels, 1, 0)
    for name, value in (("rv", 1), ("myo", 2), ("lv", 3)):
        assert row[f"registered_dice_{name}"] == dice(rolled == value, sample.fixed_labels == value)
