"""Pair: shapes are checked where a sample is made."""

import numpy as np
import pytest

from hetmorph.data import Pair

GOOD = {
    "case_id": "c",
    "patient": "p",
    "slice_index": 0,
    "group": None,
    "moving": np.zeros((4, 5), np.float32),
    "fixed": np.zeros((4, 5), np.float32),
    "moving_labels": None,
    "fixed_labels": np.zeros((4, 5), np.uint8),
    "spacing": (1.0, 1.5),
    "displacement": np.zeros((4, 5, 2), np.float32),
}


def test_a_consistent_pair_is_accepted():
    assert Pair(**GOOD).fixed_labels.shape == (4, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fixed", np.zeros((5, 4))),
        ("fixed_labels", np.zeros((4, 5, 1))),
        ("moving_labels", np.zeros((4, 4))),
        ("displacement", np.zeros((4, 5, 3))),
        ("displacement", np.zeros((2, 4, 5))),
        ("sigma", np.zeros(1)),
        ("spacing", (1.0, 1.0, 8.0)),
    ],
)
def test_a_shape_that_does_not_fit_is_named(name, value):
    with pytest.raises(ValueError, match=f"c: expected .*{name.removeprefix('s')[:6]}"):
        Pair(**{**GOOD, name: value})
