import dataclasses

import numpy as np
import pytest
from matplotlib.image import imread

from hetmorph.evaluation import Curves
from hetmorph.viz import calibration_figure, figures, sparsification_figure
from tests.evaluation.fakes import constant, evaluate, pair, shifted_pair


@pytest.fixture
def collected(rng):
    """Curves of one pair whose displacement is known."""
    sample = shifted_pair(3, displacement=np.ones((32, 32, 2), np.float32))
    result = Curves()
    evaluate(constant((-1, 0), rng.normal(-5, 1, (32, 32))), [sample], progress=False, curves=result)
    return result


def figure_of(draw, collected, monkeypatch):
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))
    draw(collected, "x.png")
    return kept[0]


@pytest.mark.parametrize("draw", [sparsification_figure, calibration_figure])
def test_writes_a_picture_with_content(draw, collected, tmp_path):
    path = draw(collected, tmp_path / "new" / "x.png")
    assert imread(path).std() > 0.05 and [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_a_panel_has_the_curve_its_oracle_and_the_random_line(collected, monkeypatch):
    figure = figure_of(sparsification_figure, collected, monkeypatch)
    assert len(figure.axes) == 4, "residual and displacement error, image and foreground"
    mean = collected.mean("residual")
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["most uncertain by σ_I"], mean.curve)
    np.testing.assert_allclose(lines["largest errors (oracle)"], mean.oracle)
    np.testing.assert_allclose(lines["at random"], mean.curve[0])
    assert "1 pairs" in figure.axes[0].get_title() and "px²" in figure.axes[1].get_ylabel()


def test_calibration_shows_reliability_and_histogram_of_each_region(collected, monkeypatch):
    figure = figure_of(calibration_figure, collected, monkeypatch)
    assert len(figure.axes) == 4
    values = collected.calibration()["foreground"]
    reliability, histogram = figure.axes[2:]
    line = reliability.lines[1]
    np.testing.assert_allclose(line.get_xdata(), values["reliability"]["predicted"])
    np.testing.assert_allclose(line.get_ydata(), values["reliability"]["observed"])
    assert f"sd {values['z_sd']:.2f}" in histogram.get_title() and "foreground" in reliability.get_title()
    heights, edges, _ = histogram.patches[0].get_data()
    inside = sum(values["histogram"]["count"][1:-1]) / values["voxels"]
    assert (heights * np.diff(edges)).sum() == pytest.approx(inside), "a density"


def test_an_image_without_foreground_or_error_draws_without_warning(tmp_path):
    empty = dataclasses.replace(pair(), moving=np.zeros((32, 32), np.float32), fixed=np.zeros((32, 32), np.float32))
    result = Curves()
    evaluate(constant((0, 0), np.zeros((32, 32))), [empty], progress=False, curves=result)
    for draw in (sparsification_figure, calibration_figure):
        assert draw(result, tmp_path / "x.png").exists()


def test_without_curves_there_is_nothing_to_draw(tmp_path):
    for draw in (sparsification_figure, calibration_figure):
        with pytest.raises(ValueError, match="at least one pair"):
            draw(Curves(), tmp_path / "x.png")
