import dataclasses
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from hetmorph.evaluation import Prediction
from hetmorph.metrics.deformation import fold_mask
from hetmorph.viz import case
from hetmorph.viz.summary_figure import grid, picture, summary_figure
from tests.evaluation.fakes import HEART, constant, evaluate, heart, pair, shifted_pair, volume

module = sys.modules["hetmorph.viz.summary_figure"]  # the package gives the function by that name


@pytest.fixture
def pairs():
    """The third matches best, the second worst."""
    return [shifted_pair(3), pair("far", heart(), heart(centre=(19, 14))), pair("same")]


def run(predictor, pairs, path):
    return summary_figure(predictor, pairs, evaluate(predictor, pairs, progress=False), path, **HEART)


def shown_figure(predictor, pairs, monkeypatch, tmp_path):
    """The figure that would be written, for its texts and axes."""
    kept = []
    monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure))
    run(predictor, pairs, tmp_path / "x.png")
    return kept[0]


def titles(figure):
    return [axes.get_title() for block in figure.subfigs for axes in block.axes]


def test_writes_a_picture_with_content_and_nothing_else(pairs, tmp_path):
    sigma = np.full((32, 32), -4, np.float32)
    path = run(constant((-1, 0), sigma), pairs, tmp_path / "new" / "summary.png")
    image = imread(path)
    assert image.shape[0] > 800 and image.shape[1] > 1200
    assert image.std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["summary.png"]


def test_shows_the_median_and_the_worst_case_with_scores(pairs, monkeypatch, tmp_path):
    predictor = constant((0, 0))
    figure = shown_figure(predictor, pairs, monkeypatch, tmp_path)
    median, worst = (block.get_suptitle() for block in figure.subfigs)
    assert median.startswith("median case: shifted (NOR)") and worst.startswith("worst case: far (NOR)")
    score = evaluate(predictor, pairs[1:2], progress=False)[0]["registered_dice_myo"]
    assert f"→ {score:.3f}" in worst


def test_every_promised_panel_is_there(pairs, monkeypatch, tmp_path):
    figure = shown_figure(constant((0, 0), np.zeros((32, 32), np.float32)), pairs, monkeypatch, tmp_path)
    for wanted in (
        "moving", "fixed", "moved", "difference before", "difference after", "grid", "σ_I", "weight",
        "labels before", "labels after",
    ):  # fmt: skip
        assert sum(title.startswith(wanted) for title in titles(figure)) >= 2, wanted


def test_both_cases_share_their_colour_scales(pairs, monkeypatch, tmp_path):
    def predict(moving, fixed):
        difference = np.abs(fixed - moving)
        return Prediction(np.zeros((32, 32, 2)), moving, difference - 4, difference)

    figure = shown_figure(predict, pairs, monkeypatch, tmp_path)
    for name in ("difference before", "difference after", "σ_I", "weight"):
        panels_of = [axes for block in figure.subfigs for axes in block.axes if axes.get_title() == name]
        assert len({axes.images[0].get_clim() for axes in panels_of}) == 1
    low, high = panels_of[0].images[0].get_clim()
    assert low < high


def test_a_model_without_variance_leaves_a_note(pairs, monkeypatch, tmp_path):
    figure = shown_figure(constant((0, 0)), pairs, monkeypatch, tmp_path)
    texts = [text.get_text() for block in figure.subfigs for axes in block.axes for text in axes.texts]
    assert texts.count("the model gives\nno variance") == 2


def test_a_structure_without_score_is_left_out_of_the_titles(monkeypatch, tmp_path):
    lonely = dataclasses.replace(shifted_pair(3), fixed_labels=np.where(heart() == 1, 0, heart()))
    shown = [title for title in titles(shown_figure(constant((-1, 0)), [lonely], monkeypatch, tmp_path)) if title]
    assert not any("nan" in title for title in shown)
    assert any("MYO" in title and "RV" not in title for title in shown)


def test_without_any_scored_case_the_first_is_shown(monkeypatch, tmp_path):
    empty = np.zeros((32, 32), np.uint8)
    figure = shown_figure(constant((0, 0)), [pair("bare", empty, empty)], monkeypatch, tmp_path)
    assert [block.get_suptitle().split(" ·")[0] for block in figure.subfigs] == ["first case: bare (NOR)"]


def test_constant_images_draw_without_warning(tmp_path):
    flat = pair()
    flat = type(flat)(
        "flat", "p", None, None, np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32), None, None, (1, 1)
    )
    assert run(constant((0, 0)), [flat], tmp_path / "flat.png").exists()


def test_the_users_matplotlib_is_left_alone(pairs, tmp_path):
    import matplotlib.pyplot as plt

    before = matplotlib.get_backend(), plt.get_fignums()
    run(constant((0, 0)), pairs, tmp_path / "x.png")
    assert (matplotlib.get_backend(), plt.get_fignums()) == before


def test_folding_voxels_are_marked():
    from matplotlib.figure import Figure

    u = np.zeros((12, 12, 2), np.float32)
    u[4:8, :, 0] = -3.0 * np.arange(4)[:, None]
    axes = Figure().add_subplot()
    folds = fold_mask(u)
    grid(axes, np.zeros((12, 12)), u, "grid", (1, 1), folds)
    assert len(axes.collections[-1].get_offsets()) == folds.sum() > 0


def test_pictures_keep_the_shape_of_the_voxels():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    picture(axes, np.zeros((10, 20)), "", (1.0, 3.0))
    assert axes.get_aspect() == 3, "a voxel is three times as tall as wide"
    assert axes.images[0].get_array().shape == (20, 10), "axis 0 runs from left to right"


def test_refuses_what_it_cannot_show(pairs, tmp_path):
    rows = evaluate(constant((0, 0)), pairs, progress=False)
    with pytest.raises(ValueError, match="one row per pair"):
        summary_figure(constant((0, 0)), pairs[:2], rows, tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one"):
        summary_figure(constant((0, 0)), [], [], tmp_path / "x.png")


@pytest.mark.slow
def test_a_volume_shows_the_slice_through_the_middle_of_the_main_structure(monkeypatch, tmp_path):
    sample = volume(2)
    assert run(constant((-2, 0, 1)), [sample], tmp_path / "v.png").exists()
    figure = shown_figure(constant((-2, 0, 0)), [sample], monkeypatch, tmp_path)
    assert " · slice 4 ·" in figure.subfigs[0].get_suptitle(), "slices 2 to 6 of 8 hold the heart"
    shown = {axes.get_title(): axes for block in figure.subfigs for axes in block.axes}
    np.testing.assert_array_equal(shown["fixed"].images[0].get_array(), sample.fixed[..., 4].T)
    np.testing.assert_array_equal(shown["moved"].images[0].get_array(), np.roll(sample.moving, 2, 0)[..., 4].T)
    assert shown["fixed"].get_aspect() == 0.25, "spacing along the two axes shown"
    assert "|u| ≤ 2.0 px" in "".join(shown)


def test_a_volume_without_labels_shows_the_middle_of_the_axis(monkeypatch, tmp_path):
    bare = dataclasses.replace(volume(), moving_labels=None, fixed_labels=None)
    figure = shown_figure(constant((0, 0, 0)), [bare], monkeypatch, tmp_path)
    assert " · slice 4 ·" in figure.subfigs[0].get_suptitle()


def test_many_structures_are_drawn_without_crowding_titles_and_legend(monkeypatch, tmp_path):
    labels = {f"region{i}": i for i in range(1, 25)}
    kept = []
    monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure))
    rows = evaluate(constant((0, 0)), [shifted_pair(3)], progress=False, labels=labels, main="region2")
    summary_figure(constant((0, 0)), [shifted_pair(3)], rows, "x.png", labels=labels, main="region2")
    shown = [title for title in titles(kept[0]) if title.startswith("labels after")][0]
    assert shown.startswith("labels after: region2 0.") and "region1 " not in shown and "MEAN" in shown
    legends = [axes.get_legend() for axes in kept[0].subfigs[0].axes if axes.get_legend()]
    assert [text.get_text() for text in legends[0].get_texts()] == ["truth"]
    assert len(set(case.structure_colours(20))) == 20 and len(case.structure_colours(24)) == 24


def test_a_set_without_labels_shows_its_first_pair(monkeypatch, tmp_path):
    rows = evaluate(constant((0, 0)), [pair()], progress=False, labels={}, main=None)
    path = summary_figure(constant((0, 0)), [pair()], rows, tmp_path / "x.png", labels={}, main=None)
    assert path.exists()
