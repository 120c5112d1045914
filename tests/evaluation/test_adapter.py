"""Functions and clients as predictors."""

import numpy as np
import pytest

from hetmorph.evaluation import Prediction, wrap
from hetmorph.networks import VxmDense
from hetmorph.ops.warp import warp
from tests.evaluation.fakes import constant, evaluate, shifted_pair


def shift(moving, fixed):
    return np.broadcast_to(np.float64((-3, 0)), (*moving.shape, 2))


@pytest.mark.parametrize(
    "model",
    [
        shift,
        lambda moving, fixed: {"displacement": shift(moving, fixed), "more": 1},
        lambda moving, fixed: Prediction(shift(moving, fixed), moving),
        constant((-3, 0)),
    ],
)
def test_a_function_is_a_predictor(model, rng):
    moving, fixed = rng.random((2, 8, 9), np.float32)
    prediction = wrap(model)(moving, fixed)
    np.testing.assert_array_equal(prediction.displacement, shift(moving, fixed))
    expected = warp(moving[None, ..., None], np.float32(shift(moving, fixed))[None])[0, ..., 0]
    np.testing.assert_allclose(prediction.moved, expected, atol=1e-6)
    assert prediction.displacement.dtype == np.float32


def test_a_batch_goes_through_a_batched_function_at_once(rng):
    calls = []

    def register(moving, fixed):
        calls.append(moving.shape)
        return np.concatenate([moving, fixed], -1)

    moving, fixed = rng.random((2, 3, 8, 9), np.float32)
    at_once = wrap(register, batched=True).displacements(moving, fixed)
    one_by_one = wrap(lambda a, b: np.stack([a, b], -1)).displacements(moving, fixed)
    np.testing.assert_array_equal(at_once, one_by_one)
    assert calls == [(3, 8, 9, 1)]


def test_an_evaluation_takes_a_wrapped_function():
    row = evaluate(wrap(shift), [shifted_pair(3)], progress=False)[0]
    assert row["registered_dice_myo"] > 0.99 > row["undeformed_dice_myo"]


def test_displacements_are_those_of_the_predictions(rng):
    model = VxmDense((16, 16), [[4, 4], [4, 4]])
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()])
    moving, fixed = rng.random((2, 3, 16, 16), np.float32)
    predictor = wrap(model)
    expected = [one.displacement for one in predictor.predict_batch(moving, fixed)]
    np.testing.assert_allclose(predictor.displacements(moving, fixed), expected, atol=1e-6)
    with pytest.raises(ValueError, match="always answers the same"):
        predictor.displacements(moving, fixed, seed=0)


@pytest.mark.parametrize("bad", [None, 3, dict, object()])
def test_what_is_no_model_is_refused(bad):
    with pytest.raises(ValueError, match="expected a registration model"):
        wrap(bad)


def test_a_wrong_shape_is_told_with_both(rng):
    moving, fixed = rng.random((2, 8, 9), np.float32)
    with pytest.raises(ValueError, match=r"shape \(8, 9, 2\) in voxels for images of \(8, 9\), got \(8, 9\)"):
        wrap(lambda a, b: a)(moving, fixed)
    with pytest.raises(ValueError, match=r"shape \(1, 8, 9, 2\).*got \(8, 9, 2\)"):
        wrap(lambda a, b: np.zeros((8, 9, 2)), batched=True)(moving, fixed)
