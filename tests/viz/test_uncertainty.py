import numpy as np
import pytest

from hetmorph.metrics import sparsification
from hetmorph.uncertainty import risk_coverage
from hetmorph.viz import known_truth_figure


def test_the_figure_is_drawn_complete_and_again_over_itself(rng, tmp_path):
    from matplotlib.image import imread

    error = rng.exponential(size=(20, 20))
    curves = {"good": sparsification(error, error), "random": sparsification(error, rng.random((20, 20)))}
    risk = risk_coverage(np.arange(6.0), np.arange(6.0))
    flags = ["accept"] * 3 + ["review", "reject", "reject"]
    for _ in range(2):
        path = known_truth_figure(curves, risk, flags, {"p1": 0.93, "p2": 0.88}, 0.9, tmp_path / "sub" / "u.png")
    assert [one.name for one in (tmp_path / "sub").iterdir()] == ["u.png"]
    picture = imread(path)
    assert picture.shape[1] > 1500 and np.ptp(picture) == 1


def test_no_curves_no_figure(tmp_path):
    with pytest.raises(ValueError, match="at least one map"):
        known_truth_figure({}, (np.ones(1), np.ones(1)), ["accept"], {}, 0.9, tmp_path / "u.png")
    assert not list(tmp_path.iterdir())
