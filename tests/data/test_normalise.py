"""Intensities to [0, 1]."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hetmorph.data.normalise import minmax


def test_equals_the_formula(rng):
    image = rng.normal(50, 20, (9, 7))
    expected = (image - image.min()) / (image.max() - image.min())
    result = minmax(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_is_unchanged_by_gain_and_offset(rng):
    image = rng.random((6, 5))
    np.testing.assert_allclose(minmax(-3 + 40 * image), minmax(image), atol=1e-6)


@pytest.mark.parametrize("value", [0, 7, -3.5, 1e308])
def test_a_constant_image_becomes_zeros(value):
    result = minmax(np.full((4, 4), value))
    np.testing.assert_array_equal(result, np.zeros((4, 4)))


def test_integers_at_both_ends_of_their_range_do_not_overflow():
    np.testing.assert_array_equal(minmax(np.array([-32768, 32767], np.int16)), [0, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        minmax(np.array([0.0, value, 1.0]))


@given(arrays.arrays(np.float64, (3, 4), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_always_within_zero_and_one(image):
    result = minmax(image)
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
