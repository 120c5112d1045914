import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from hetmorph.metrics import dice
from tests.reference_metrics import sitk_dice

MASKS = arrays(bool, (5, 6))


@pytest.mark.parametrize("shape", [(12, 9), (6, 7, 8)])
def test_agrees_with_simpleitk(rng, shape):
    a, b = rng.random(shape) < 0.4, rng.random(shape) < 0.6
    assert dice(a, b) == pytest.approx(sitk_dice(a, b), abs=1e-12)


@given(MASKS, MASKS)
@settings(max_examples=50, deadline=None)
def test_symmetric_bounded_and_one_only_for_equal_masks(a, b):
    score = dice(a, b)
    if not (a.any() or b.any()):
        assert np.isnan(score)
        return
    assert score == dice(b, a)
    assert 0 <= score <= 1
    assert (score == 1) == np.array_equal(a, b)


def test_half_of_the_voxels_shared():
    assert dice([1, 1, 0, 0], [0, 1, 1, 0]) == 0.5


def test_two_empty_masks_are_undefined_and_one_is_zero():
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    assert np.isnan(dice(empty, empty))
    assert dice(empty, full) == 0.0


@pytest.mark.parametrize(
    "bad", [np.full((3, 3), np.nan), np.full((3, 3), 0.5), np.array([[0, 2]] * 3), np.zeros((0, 3)), 1.0]
)
def test_refuses_what_is_not_a_binary_mask(bad):
    with pytest.raises(ValueError, match="mask"):
        dice(bad, bad)


def test_refuses_masks_of_different_shape():
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(3, 4\)"):
        dice(np.ones((3, 3)), np.ones((3, 4)))
