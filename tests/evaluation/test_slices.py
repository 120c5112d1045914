"""A 2-D model on volumes says of each slice what it says of that slice alone."""

import numpy as np
import pytest

from hetmorph.data import Case, Pair
from hetmorph.evaluation import SliceBySlice, evaluate_pair, for_cases
from hetmorph.evaluation.adapter import FunctionPredictor
from hetmorph.evaluation.checks import similarity
from hetmorph.evaluation.predictor import ModelPredictor
from hetmorph.networks import HetVxmDense
from hetmorph.viz.case import report_on
from tests.evaluation.fakes import volume

FEATURES = [[4], [4]]


@pytest.fixture(scope="module")
def model():
    built = HetVxmDense((None, None), FEATURES, variance_features=FEATURES, int_steps=2)
    rng = np.random.default_rng(0)
    built.set_weights([weight + 0.2 * rng.standard_normal(weight.shape).astype("float32") for weight in built.weights])
    return ModelPredictor(built)


@pytest.mark.quick("2")
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_slice_is_registered_as_if_it_were_alone(model, axis, rng):
    moving, fixed = (0.2 + 0.5 * rng.random((9, 10, 12)).astype(np.float32) for _ in range(2))
    whole = SliceBySlice(model, axis)(moving, fixed)
    others = [one for one in range(3) if one != axis]
    assert not whole.displacement[..., axis].any() and np.abs(whole.displacement).max() > 0.1
    for number in range(moving.shape[axis]):
        slices = [np.take(image, number, axis) for image in (moving, fixed)]
        low, extent = zip(*((one.min(), np.ptp(one)) for one in slices), strict=True)
        alone = model(*((one - a) / b for one, a, b in zip(slices, low, extent, strict=True)))
        found = {
            name: np.take(getattr(whole, name), number, axis) for name in ("displacement", "moved", "log_variance")
        }
        np.testing.assert_allclose(found["displacement"][..., others], alone.displacement, atol=1e-4)
        inner = (slice(4, -4),) * 2  # what comes from outside is 0 in one and the darkest in the other
        np.testing.assert_allclose(found["moved"][inner], alone.moved[inner] * extent[0] + low[0], atol=1e-4)
        np.testing.assert_allclose(found["log_variance"], alone.log_variance + 2 * np.log(extent[1]), atol=1e-3)
    np.testing.assert_allclose(
        SliceBySlice(model, axis).displacements([moving], [fixed])[0], whole.displacement, atol=1e-5
    )


def test_constant_slices_give_no_nan(model):
    moving = np.zeros((8, 8, 4), np.float32)
    moving[2:5, 2:5, 2] = 1
    answer = SliceBySlice(model, 2)(moving, moving)
    assert all(np.isfinite(value).all() for value in (answer.displacement, answer.moved, answer.log_variance))


def test_it_is_judged_in_windows_of_the_slices(model, rng):
    moving, fixed = (rng.random((9, 10, 12)).astype(np.float32) for _ in range(2))
    answer = SliceBySlice(model, 0)(moving, fixed)
    pair = Pair("volume", "p1", None, None, moving, fixed, None, None, (8.0, 1.0, 1.0))
    found = report_on(pair, answer, None).verdict.reason
    before, after = (
        np.mean([similarity(a, b) for a, b in zip(fixed, one, strict=True)]) for one in (moving, answer.moved)
    )
    assert f"{before:.3f} to {after:.3f}" in found


def test_a_volume_is_scored_as_one_case():
    shift = FunctionPredictor(lambda moving, fixed: np.broadcast_to(np.float32([-3, 0]), (*fixed.shape, 2)))
    shift.ndims = 2
    row = evaluate_pair(SliceBySlice(shift, 2), volume(3), labels={"myo": 2}, main="myo")
    assert row["registered_dice_myo"] == 1.0 > row["undeformed_dice_myo"]
    assert row["registered_folds_percent"] == 0 and row["registered_hd95_mm"] == 0


def case(name, shape, spacing):
    return Case(name, name, None, None, shape, spacing)


def test_slices_lie_across_the_thickest_voxels(model):
    stacks = [case("a", (9, 9, 4), (1.0, 1.0, 8.0)), case("b", (9, 7, 5), (1.5, 1.5, 1.5))]
    assert for_cases(model, stacks).across == 2
    assert for_cases(model, [case("c", (4, 9, 9), (8.0, 1.0, 1.0))]).across == 0
    assert for_cases(model, [case("d", (9, 9), (1.0, 8.0))]) is model
    three = FunctionPredictor(lambda moving, fixed: None)
    assert for_cases(three, stacks) is three
    with pytest.raises(ValueError, match="across the same axis .* axis 0 in c, axis 2 in a"):
        for_cases(model, [case("c", (4, 9, 9), (8.0, 1.0, 1.0)), stacks[0]])
