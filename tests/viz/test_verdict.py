import dataclasses
import math

import numpy as np
import pytest

from hetmorph.evaluation import Checks
from hetmorph.uncertainty import Bound, Calibration, Combination, Triage
from hetmorph.viz.verdict import promise, verdict
from tests.evaluation.fakes import heart, shifted_pair
from tests.viz.pages import displacement_map

TRIAGE = Triage(3.0, 5.0, 1.5)


def calibration(triage=TRIAGE, **about):
    return Calibration(Combination({"spread": 1.0}), Bound(2.0, 0.9, 12), triage, about)


def judged(std, pair=None, **more):
    return verdict(pair or shifted_pair(3), {"spread": displacement_map("spread", std)}, calibration(**more))


def test_flag_and_bound_are_the_calibrations_over_the_foreground(rng):
    pair, std = shifted_pair(3), rng.random((32, 32))
    region = (pair.moving != 0) | (pair.fixed != 0)
    said = judged(std, pair)
    bound, flag = calibration().judge({"spread": np.float32(std)}, region)
    np.testing.assert_array_equal(said.bound, bound)
    assert said.flag == flag and said.score == pytest.approx(2 * std[region].mean())
    assert judged(np.where(region, 0.1, 100.0), pair).flag == "accept", "what lies outside is not asked"


def test_the_region_is_that_of_the_calibration():
    pair = shifted_pair(3)
    std = np.where(pair.fixed_labels > 0, 0.5, 50.0)
    said = judged(std, pair, region="labels")
    assert (said.flag, said.score) == ("accept", 1.0) and "labelled voxels" in said.reason
    bare = dataclasses.replace(pair, fixed_labels=None)
    assert judged(std, bare, region="labels").flag == "none"
    assert judged(std, pair).flag == "reject"


@pytest.mark.parametrize(
    "std, flag, limit",
    [(1.5, "accept", "not above 3.00"), (2.0, "review", "above 3.00"), (2.5, "reject", "not below 5.00")],
)
def test_the_reason_names_the_limit_on_either_side_of_it(std, flag, limit):
    said = judged(np.full((32, 32), std))
    assert said.flag == flag and limit in said.reason and f"{2 * std:.2f} voxels" in said.reason


def test_limits_that_were_never_reached_are_put_in_words():
    said = judged(np.ones((32, 32)), triage=Triage(-math.inf, math.inf, 1.5))
    assert said.flag == "review" and "inf" not in said.reason
    assert "no bound was small enough" in said.reason and "none was large enough" in said.reason


@pytest.mark.parametrize("size, flag", [(32, "accept"), (40, "accept"), (24, "review"), (64, "review")])
def test_limits_are_for_images_of_the_size_they_were_learned_on(size, flag):
    said = judged(np.ones((32, 32)), smallest=[size, size], largest=[size, size])
    assert said.flag == flag and said.score == pytest.approx(2)
    assert ("do not hold for one of 32 × 32" in said.reason) == (flag == "review")


def test_a_map_that_is_known_nowhere_is_to_be_reviewed():
    pair = shifted_pair(3)
    maps = {"spread": displacement_map("spread", np.ones((32, 32)), heart() > 5)}
    said = verdict(pair, maps, calibration())
    assert said.flag == "review" and "In no voxel" in said.reason and math.isnan(said.score)


def test_the_promise_is_not_more_than_the_calibration_gives():
    text = promise(calibration(data="hearts", model="m.keras"))
    for part in ("12 of the calibration", "90%", "not in every patient", "1.5 voxels", "data: hearts, model: m.keras"):
        assert part in text
    assert "an unknown source" in promise(calibration())


GOOD = Checks((0.7, 0.95), 0.0, 0.1, 0.0, 2.0)


@pytest.mark.parametrize(
    ("std", "folds", "flag"),
    [(1.0, 0.0, "accept"), (1.0, 1.0, "review"), (1.0, 9.0, "reject"), (2.5, 0.0, "reject"), (2.5, 1.0, "reject")],
)
def test_checks_make_the_verdict_of_a_calibration_only_worse(std, folds, flag):
    maps = {"spread": displacement_map("spread", np.full((32, 32), std))}
    said = verdict(shifted_pair(3), maps, calibration(), dataclasses.replace(GOOD, folds=folds))
    assert said.flag == flag and said.reason.startswith("The mean bound") and said.calibrated
    assert ("folds at" in said.reason) == (folds > 0) and said.score == pytest.approx(2 * std)


def test_without_calibration_the_checks_decide_and_say_what_is_not_known():
    said = verdict(shifted_pair(3), {}, None, GOOD)
    assert said.flag == "accept" and "No calibration was given" in said.reason and math.isnan(said.score)
    assert said.told()["by"] == "checks"
    assert verdict(shifted_pair(3), {}, None, dataclasses.replace(GOOD, similarity=(0.7, 0.5))).flag == "reject"
    assert verdict(shifted_pair(3), {}, None).flag == "none"
