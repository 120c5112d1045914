"""What the plain checks see: laws on made-up pairs, and each limit from both its sides."""

import dataclasses

import numpy as np
import pytest

from hetmorph.evaluation import Checks
from hetmorph.evaluation.checks import similarity, worst
from hetmorph.ops import warp
from tests import anatomy
from tests.io.worlds import GRIDS_3D

GOOD = Checks(similarity=(0.7, 0.95), folds=0.0, sdlogj=0.15, outside=0.1, displacement=2.0)


@pytest.fixture(scope="module")
def fixed():
    image = anatomy.image(GRIDS_3D["oblique"]).array
    return np.float32(image / image.max())[..., image.shape[2] // 2]


def moved_by(moving, displacement):
    return np.asarray(warp(moving[None, ..., None], np.float32(displacement)[None]))[0, ..., 0]


def shift(shape, *vector):
    return np.broadcast_to(np.float32(vector), (*shape, len(shape))).copy()


def test_the_right_shift_is_accepted_and_the_wrong_one_rejected(fixed):
    moving = np.roll(fixed, 1, 0)
    right, wrong = (
        Checks.of(moving, fixed, moved_by(moving, u), u) for u in (shift(fixed.shape, s, 0) for s in (1, -1))
    )
    assert right.flag == "accept" and right.similarity[1] > 0.9 > right.similarity[0]
    assert wrong.flag == "reject" and "less like" in wrong.reason
    assert right.folds == right.sdlogj == 0


def test_noise_or_nothing_is_rejected_unless_nobody_registered(fixed):
    """`undeformed` only brings an image onto another grid: a script that does so is not told that it failed."""
    large = np.random.default_rng(0).random((2, 64, 64))
    for moving, target in ((np.zeros_like(fixed), fixed), (np.full_like(fixed, 0.3), fixed), large):
        still, moved = (Checks.of(moving, target, moving, shift(target.shape, s, 0)) for s in (0, 1))
        assert still.flag == "review" and "nothing was moved" in still.reason
        assert moved.flag == "reject" and "nothing in common" in moved.reason


def test_equal_images_have_nothing_to_gain_and_are_accepted(fixed):
    checks = Checks.of(fixed, fixed, fixed, shift(fixed.shape, 0, 0))
    assert checks.flag == "accept" and checks.similarity == pytest.approx((1, 1), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({}, "accept"),
        ({"folds": 0.09}, "accept"),
        ({"folds": 0.2}, "review"),
        ({"folds": 5.1}, "reject"),
        ({"outside": 11.0}, "review"),
        ({"displacement": 26.0}, "review"),
        ({"inverse_error": 0.09}, "accept"),
        ({"inverse_error": 0.5}, "review"),
        ({"similarity": (0.96, 0.945)}, "accept"),
        ({"similarity": (0.96, 0.93)}, "review"),
        ({"similarity": (0.96, 0.90)}, "reject"),
        ({"similarity": (0.85, 0.855)}, "review"),
        ({"similarity": (0.85, 0.86)}, "accept"),
        ({"similarity": (0.92, 0.92)}, "accept"),
        ({"similarity": (0.2, 0.49)}, "review"),
        ({"similarity": (0.2, 0.49), "sdlogj": 0.36}, "reject"),
        ({"similarity": (0.2, 0.51), "sdlogj": 0.36}, "accept"),
        ({"similarity": (0.04, 0.049)}, "reject"),
    ],
)
def test_each_limit_from_both_its_sides(change, flag):
    checks = dataclasses.replace(GOOD, **change)
    assert checks.flag == flag
    assert len(list(checks.doubts())) == (flag != "accept")


def test_the_worst_doubt_comes_first():
    checks = dataclasses.replace(GOOD, folds=0.2, similarity=(0.9, 0.5))
    assert checks.flag == "reject" and checks.reason.startswith("The moved image is less like")
    assert checks.reason.endswith("The deformation folds at 0.20 % of the voxels.")
    assert worst([]) == "accept" and worst(["review", "reject", "accept"]) == "reject"


def test_travel_is_counted_by_the_size_of_each_axis():
    """Of 20 × 10 voxels, u = (5, 0) is a quarter of the first axis, and leads the last five rows out."""
    image = np.random.default_rng(0).random((20, 10)).astype(np.float32)
    checks = Checks.of(image, image, image, shift((20, 10), 5, 0))
    assert checks.displacement == pytest.approx(25) and checks.outside == pytest.approx(25)
    thin = Checks.of(
        image[..., None], image[..., None], image[..., None], shift((20, 10, 1), 0, 0, 3), np.ones((20, 10, 1))
    )
    assert thin.displacement == thin.outside == 0, "an axis of one voxel has no size to compare with"


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_are_compared_one_by_one(fixed, axis):
    slices = [fixed, 1 - fixed, fixed]
    stack, moved = (np.stack([np.roll(one, by, 0) for one in slices], axis) for by in (0, 1))
    parts = [similarity(one, np.roll(one, 1, 0)) for one in slices]
    assert similarity(stack, moved, across=axis) == pytest.approx(np.mean(parts), abs=1e-4)
