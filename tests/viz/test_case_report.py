"""One case as a page: what is there, that it is right, and what happens to what is missing."""

import dataclasses
import math
import re

import numpy as np
import pytest

from hetmorph.evaluation import Prediction
from hetmorph.uncertainty import (
    Bound,
    Calibration,
    Combination,
    Triage,
    dissimilarity_uncertainty,
    residual_uncertainty,
)
from hetmorph.viz import case_report
from tests.evaluation.fakes import HEART, constant, evaluate_pair, heart, pair, shifted_pair, volume
from tests.viz.pages import Page, assert_self_contained, displacement_map, hostile

CALIBRATION = Calibration(
    Combination({"spread": 1.0}), Bound(2.0, 0.9, 12), Triage(3.0, 5.0, 1.5), {"data": "hearts", "model": "m.keras"}
)
PLATES = [
    "Moving", "Fixed", "Moved", "Difference before", "Difference after", "Checkerboard before", "Checkerboard after",
    "Labels before", "Labels after", "Deformed grid", "Jacobian determinant", "Displacement |u|", "σ_I",
    "Likelihood weight",
]  # fmt: skip


def registered(sample, u=(-3, 0), noise=True):
    sigma = np.full(sample.fixed.shape, -4, np.float32) if noise else None
    return constant(u, sigma)(sample.moving, sample.fixed)


def report(tmp_path, sample=None, prediction=None, **more):
    sample = shifted_pair(3) if sample is None else sample
    prediction = registered(sample) if prediction is None else prediction
    return Page(case_report(sample, prediction, tmp_path / "case.html", **HEART | more))


def no_nan(page):
    return not re.search(r"\b(nan|None)\b", page.text)


def with_truth(sample):
    u = np.zeros((*sample.fixed.shape, 2), np.float32)
    u[..., 0] = -3
    return dataclasses.replace(sample, displacement=u)


def test_every_promised_picture_is_there_with_unit_frame_and_words(tmp_path):
    page = report(tmp_path)
    assert page.titles() == PLATES
    for figure in page.all("figure", "plate"):
        note = page.all("span", within=figure)[0]["text"]
        assert note.startswith(("fixed grid · ", "moving grid · "))
        bars = page.all("div", "bar", within=figure)
        assert len(bars) == (0 if figure["text"].startswith("Deformed grid") else 1)
        assert all(page.all("p", within=bar)[0]["text"] for bar in bars), "a bar without unit"
        for plane in page.all("svg", within=figure):
            assert plane["role"] == "img" and plane["aria-label"].startswith(page.all("b", within=figure)[0]["text"])
    assert_self_contained(page)


def test_the_pictures_are_the_images_in_one_window(tmp_path):
    sample = shifted_pair(3)
    page = report(tmp_path, sample)
    shown = {name: page.picture(name)[..., 0] for name in ("Moving", "Fixed", "Moved")}
    low, high = np.percentile(np.stack([sample.moving, sample.fixed]), [0.2, 99.8])
    for name, image in {"Moving": sample.moving, "Fixed": sample.fixed, "Moved": np.roll(sample.moving, 3, 0)}.items():
        np.testing.assert_allclose(shown[name], np.clip((image.T - low) / (high - low), 0, 1), atol=1 / 200)
    assert page.text.count("window of intensity") == 1


def test_differences_share_a_symmetric_scale(tmp_path):
    page = report(tmp_path, prediction=registered(shifted_pair(3), (-2, 0)))
    ticks = [[one["text"] for one in page.all("span", within=page.all("div", "ticks", within=page.plate(name))[0])]
             for name in ("Difference before", "Difference after")]  # fmt: skip
    assert ticks[0] == ticks[1] and ticks[0][1].strip("0.") == "" and ticks[0][0] == f"-{ticks[0][2]}"
    before = page.picture("Difference before")[..., :3]
    np.testing.assert_allclose(before[0, 0], before[0, 0, 0], atol=0.02, err_msg="no difference is grey or white")
    sample = shifted_pair(3)
    redness, difference = before[..., 0] - before[..., 2], (sample.fixed - sample.moving).T
    assert (redness[difference > 0.2] > 0.2).all() and (redness[difference < -0.2] < -0.2).all(), (
        "red: fixed is brighter"
    )


def test_outlines_after_an_exact_registration_are_those_of_the_truth(tmp_path):
    page = report(tmp_path)
    assert page.paths("Labels after", "outline") == page.paths("Labels after", "truth")
    assert page.paths("Labels before", "outline") != page.paths("Labels before", "truth")
    assert len(page.paths("Labels before", "outline")) == 3


def test_the_numbers_are_those_of_the_row(tmp_path):
    sample = with_truth(shifted_pair(3))
    row = evaluate_pair(constant((-2, 0), np.full((32, 32), -4, np.float32)), sample)
    page = report(tmp_path, sample, registered(sample, (-2, 0)), row=row)
    raw = {cells[0]["text"]: cells[1:] for cells in page.table(page.all("table", "raw")[0])}
    for name, value in row.items():
        if not name.startswith(("undeformed_", "registered_")):
            continue
        block, metric = name.split("_", 1)
        cell = raw[metric][block == "registered"]
        assert page.numbers(cell) == ([(value, repr(float(value)))] if math.isfinite(value) else []), name
    shown = {cells[0]["text"]: cells for cells in page.table(page.all("table", "scores")[0])}
    assert page.numbers(shown["Dice MYO"][2]) == [(row["registered_dice_myo"], f"{row['registered_dice_myo']:.3f}")]
    assert page.numbers(shown["MSE ·10³"][1]) == [(row["undeformed_mse"], f"{1e3 * row['undeformed_mse']:.2f}")]
    assert shown["Dice MYO"][3]["text"] == "▲ better" and shown["folds %"][3]["text"] == ""
    tiles = page.numbers(page.all("dl")[0])
    assert tiles[:2] == [
        (row[f"{block}_dice_myo"], f"{row[f'{block}_dice_myo']:.3f}") for block in ("undeformed", "registered")
    ]


def test_a_row_read_back_from_cases_csv_gives_the_same_page(tmp_path):
    from hetmorph.evaluation import read_cases, write_cases

    row = evaluate_pair(constant((-3, 0), np.full((32, 32), -4, np.float32)), shifted_pair(3))
    write_cases(tmp_path / "cases.csv", [row])
    pages = [report(tmp_path, row=one).source for one in (row, read_cases(tmp_path)[0])]
    assert pages[0] == pages[1]


def test_without_a_row_the_prediction_is_scored_without_a_time(tmp_path):
    row = evaluate_pair(constant((-3, 0), np.full((32, 32), -4, np.float32)), shifted_pair(3))
    page = report(tmp_path)
    assert "seconds_per_pair" not in page.source
    row.pop("registered_seconds_per_pair")
    assert page.source == report(tmp_path, row=row).source, "the same arguments give the same file"


def test_a_worse_score_is_called_worse(tmp_path):
    page = report(tmp_path, prediction=registered(shifted_pair(3), (5, 0)))
    shown = {cells[0]["text"]: cells for cells in page.table(page.all("table", "scores")[0])}
    assert shown["Dice MYO"][3]["text"] == "▼ worse"
    assert "▼ worse" in page.all("dl")[0]["text"]


def test_folds_have_their_contour_and_are_counted(tmp_path):
    sample, u = shifted_pair(3), np.zeros((32, 32, 2), np.float32)
    u[10:16, 8:20, 0] = -3.0 * np.arange(6)[:, None]
    page = report(tmp_path, sample, Prediction(u, sample.moving))
    assert len(page.paths("Jacobian determinant", "zero")) == 1
    from hetmorph.metrics.deformation import fold_mask

    assert f"the map folds in {np.count_nonzero(fold_mask(u))} voxels" in page.text
    picture = page.picture("Jacobian determinant")
    np.testing.assert_array_equal((picture[..., :3] == 0).all(-1), fold_mask(u).T)
    flat = report(tmp_path)
    assert not flat.paths("Jacobian determinant", "zero") and "the map folds nowhere" in flat.text


def test_folds_of_a_volume_are_found_in_slices_that_are_not_shown(tmp_path):
    sample, u = volume(2), np.zeros((32, 32, 8, 3), np.float32)
    u[10:16, 8:20, 0, 0] = -3.0 * np.arange(6)[:, None]
    page = report(tmp_path, sample, Prediction(u, sample.moving))
    assert "slice-0" not in page.source and "voxels of the slices 0 to 0, most of them in slice 0" in page.text


def test_a_determinant_of_one_has_the_middle_colour(tmp_path):
    picture = report(
        tmp_path, prediction=Prediction(np.zeros((32, 32, 2), np.float32), shifted_pair(3).moving)
    ).picture("Jacobian determinant")
    from matplotlib import colormaps

    np.testing.assert_allclose(picture[..., :3], np.broadcast_to(colormaps["PuOr"](0.5)[:3], (32, 32, 3)), atol=0.01)


def test_lengths_and_maps_of_displacements_are_in_millimetres(tmp_path):
    """Voxels are 2 × 0.5 mm."""
    spread = displacement_map("spread", np.full((32, 32), 1.0))
    page = report(tmp_path, maps={"spread": spread})
    assert "longest displacement6.0 mm" in page.all("dl")[0]["text"]
    ticks = page.all("div", "ticks", within=page.plate("Map: spread"))[0]["text"]
    assert ticks.endswith(f"{math.sqrt((4 + 0.25) / 2):.2f}")
    assert page.all("p", within=page.plate("Map: spread"))[-1]["text"] == "mm"


def test_voxels_of_unknown_size_are_no_millimetres(tmp_path):
    sample = shifted_pair(3, in_mm=False)
    page = report(tmp_path, sample, maps={"spread": displacement_map("spread", np.ones((32, 32)))})
    shown = page.text.replace("HD95 mm", "")
    assert " mm" not in shown and "voxel of unknown size" in shown and "fixed grid · length in voxels" in shown


def test_sigma_is_shown_once_and_distances_name_their_structure(tmp_path):
    page = report(tmp_path, maps={"variance": displacement_map("variance", np.ones((32, 32)))})
    assert page.titles() == PLATES
    assert "HD95 MYO" in page.by_id("verdict")["text"]
    headings = [cells[0]["text"] for cells in page.table(page.all("table", "scores")[0])]
    assert {"HD95 MYO px", "HD95 MYO mm"} <= set(headings)


def test_long_numbers_leave_the_ticks_for_the_title_of_the_axis(tmp_path):
    sample = dataclasses.replace(shifted_pair(3), fixed=shifted_pair(3).fixed + np.float32(3e-3))
    page = report(tmp_path, sample)
    (chart,) = page.all("figure", "chart")
    texts = [one["text"] for one in page.all("text", within=chart)]
    assert any("intensity² · 10⁻" in text for text in texts)
    assert all(len(text) <= 4 for text in texts if text.replace(".", "").isdigit())


def test_a_map_without_a_unit_is_not_called_a_standard_deviation(tmp_path):
    sample = shifted_pair(3)
    maps = {
        "spread": displacement_map("spread", np.ones((32, 32))),
        "unlike": dissimilarity_uncertainty(lambda a, b: np.zeros((32, 32, 2)), sample.moving, sample.fixed),
    }
    page = report(tmp_path, sample, maps=maps)
    words = {name: page.plate(f"Map: {name}")["text"] for name in maps}
    assert "standard deviation" in words["spread"]
    assert "standard deviation" not in words["unlike"]
    assert "less alike after registration" in words["unlike"]


def test_what_is_not_known_of_a_map_is_transparent_over_hatching(tmp_path):
    valid = np.ones((32, 32), bool)
    valid[:4] = False
    sample = shifted_pair(3)
    maps = {
        "spread": displacement_map("spread", np.ones((32, 32)), valid),
        "residual": residual_uncertainty(lambda a, b: np.zeros((32, 32, 2)), sample.moving, sample.fixed),
    }
    page = report(tmp_path, sample, maps=maps)
    np.testing.assert_array_equal(page.picture("Map: spread")[..., 3] > 0, valid.T)
    assert page.all("div", "hatched", within=page.plate("Map: spread"))
    assert not page.all("div", "hatched", within=page.plate("Map: residual"))
    assert page.all("p", within=page.plate("Map: residual"))[-1]["text"] == "intensity"


def test_sparsification_where_there_is_a_variance_or_a_known_truth(tmp_path):
    spread = {"spread": displacement_map("spread", np.linspace(0.1, 1, 1024).reshape(32, 32))}
    sample = with_truth(shifted_pair(3))
    both = report(tmp_path, sample, registered(sample, (-2, 0)), maps=spread)
    charts = [page["text"].split("foreground")[0] for page in both.all("figure", "chart")]
    assert [text.split(" by ")[0] for text in charts] == [
        "Sparsification of the residual",
        "Sparsification of the true error",
    ]
    one = report(tmp_path, prediction=registered(shifted_pair(3), noise=False), maps=spread)
    assert not one.all("figure", "chart") and "No sparsification" in one.text


@pytest.mark.parametrize(
    "size, flag, word", [(1.0, "accept", "Accept"), (2.0, "review", "Review"), (9, "reject", "Reject")]
)
def test_the_verdict_is_the_calibrations_and_says_why(tmp_path, size, flag, word):
    spread = displacement_map("spread", np.full((32, 32), size))
    page = report(tmp_path, maps={"spread": spread}, calibration=CALIBRATION)
    (box,) = page.all("div", "verdict")
    assert flag in box["class"].split() and box["text"].startswith(word)
    assert f"mean bound of the error over the foreground is {2 * size:.2f} voxels" in box["text"]
    assert "3.00, the limit of acceptance" in box["text"] or flag == "reject"
    assert "hearts" in box["text"] and "m.keras" in box["text"]
    assert "Bound of the error" in page.titles()


def test_without_calibration_or_without_its_maps_the_checks_decide(tmp_path):
    (box,) = report(tmp_path).all("div", "verdict")
    assert box["text"].startswith("Accept No check found a fault") and "No calibration was given" in box["text"]
    assert "accept" in box["class"].split() and "not that it is right" in box["text"]
    (box,) = report(tmp_path, calibration=CALIBRATION).all("div", "verdict")
    assert box["text"].startswith("Accept") and "not made here: spread" in box["text"]
    (box,) = report(tmp_path, prediction=registered(pair(), (4, 0))).all("div", "verdict")  # the wrong way
    assert box["text"].startswith("Reject The moved image is less like") and "reject" in box["class"].split()


def test_what_is_missing_is_absent_with_a_line_that_says_so(tmp_path):
    bare = dataclasses.replace(pair(), moving_labels=None, fixed_labels=None)
    page = report(tmp_path, bare, registered(bare, (0, 0), noise=False))
    for wanted in ("No labels", "No σ_I", "No map of uncertainty", "No sparsification", "No calibration"):
        assert wanted in page.text, wanted
    assert page.titles() == [
        one for one in PLATES if one not in ("Labels before", "Labels after", "σ_I", "Likelihood weight")
    ]
    assert no_nan(page)
    assert not [one for one in page.elements if one.get("id") == "outlines"]


def test_a_pair_that_was_not_registered_is_shown_as_it_is(tmp_path):
    page = Page(case_report(shifted_pair(3), None, tmp_path / "x.html", **HEART))
    assert "Not registered registration failed: no prediction" in page.text
    assert page.titles() == ["Moving", "Fixed", "Difference before", "Checkerboard before", "Labels before"]
    assert "moved (after)" not in page.text
    broken = registered(shifted_pair(3))
    broken.displacement[0, 0] = np.nan
    page = report(tmp_path, prediction=broken)
    assert "Not registered prediction not finite" in page.text and "Moved" not in page.titles()
    assert_self_contained(page)


def test_a_case_that_cannot_be_scored_says_why(tmp_path):
    lonely = dataclasses.replace(shifted_pair(3), fixed_labels=np.where(heart() == 2, 0, heart()).astype(np.uint8))
    page = report(tmp_path, lonely)
    assert "no myo in the fixed image" in page.text and "Failed" not in page.text and no_nan(page)


def test_constant_images_are_drawn(tmp_path):
    flat = np.zeros((32, 32), np.float32)
    sample = dataclasses.replace(pair(), moving=flat, fixed=flat)
    assert report(tmp_path, sample, registered(sample, (0, 0))).titles() == PLATES


def test_names_cannot_become_markup(tmp_path):
    sample = hostile(shifted_pair(3))
    bad = "<img src=x onerror=alert(1)>"
    calibration = dataclasses.replace(CALIBRATION, about={"data": bad, bad: bad}, combination=Combination({bad: 1.0}))
    page = report(
        tmp_path,
        sample,
        maps={bad: displacement_map(bad, np.ones((32, 32)))},
        calibration=calibration,
        about={bad: bad},
        labels={"<b>rv": 1, "myo": 2, 'l"v': 3},
        home="javascript:alert(1)//<b>",
    )
    assert page.all("h1")[0]["text"] == page.all("title")[0]["text"].split(" – ")[0] == sample.case_id
    assert sample.patient in page.text and sample.group in page.text and page.text.count(bad) >= 4
    assert len(page.all("script")) == 1
    assert_self_contained(page)


def test_maps_of_another_grid_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected the map spread of \(32, 32\), got \(32, 31\)"):
        report(tmp_path, maps={"spread": displacement_map("spread", np.ones((32, 31)))})
    with pytest.raises(ValueError, match="main structure must be one of"):
        report(tmp_path, labels={"lv": 3})
    assert not [*tmp_path.iterdir()]


def test_a_volume_shows_slices_one_at_a_time_without_a_script(tmp_path):
    sample = volume(2)
    page = report(tmp_path, sample, registered(sample, (-2, 0, 0)))
    inputs = [one for one in page.all("input") if one.get("name") == "slice"]
    assert [one["id"] for one in inputs] == [f"slice-{i}" for i in range(2, 7)], "slices 2 to 6 of 8 hold the heart"
    assert [one["id"] for one in inputs if "checked" in one] == ["slice-4"]
    assert page.titles() == PLATES
    for figure in page.all("figure", "plate"):
        planes = page.all("svg", "plane", within=figure)
        assert [one["class"] for one in planes] == [f"plane slice slice-{i}" for i in range(2, 7)]
        assert all(one["aria-label"].endswith(f"slice {i}") for one, i in zip(planes, range(2, 7), strict=True))
    for i in range(2, 7):
        assert f"body:has(#slice-{i}:checked) .slice-{i}{{display:block}}" in page.source
    shown = page.picture("Fixed", 2)[..., 0]
    np.testing.assert_allclose(shown, sample.fixed[..., 4].T, atol=0.01)
    assert "5 of 8 slices are shown" in page.text and "the part within the slice" in page.text
    assert_self_contained(page)


def test_pictures_keep_the_shape_of_the_voxels(tmp_path):
    """Voxels are 2 mm wide and 0.5 mm high."""
    page = report(tmp_path)
    assert page.all("svg", within=page.plate("Fixed"))[0]["viewbox"] == "0 0 128 32"
    (label,) = page.all("text", within=page.plate("Fixed"))
    assert label["text"] == "20 mm"
    bar = page.paths("Fixed", "length")[0]
    assert bar.endswith("h40.0"), "20 mm are 40 page units of 0.5 mm"
    assert "2 × 0.5 mm" in page.text


def test_letters_only_where_the_orientation_is_known(tmp_path):
    page = report(tmp_path, affine=np.diag([-2.0, -0.5, 8, 1]))
    letters = [one["text"] for one in page.all("text", within=page.plate("Fixed"))]
    assert letters[:4] == ["R", "L", "A", "P"] and "patient's right R" in page.text
    assert "orientation in the patient is not known" in report(tmp_path).text


def noise(rng, shape):
    moving, fixed = rng.random((2, *shape), np.float32)
    labels = (rng.random(shape) < 0.1).astype(np.uint8) if len(shape) == 2 else None
    sample = dataclasses.replace(
        pair(), moving=moving, fixed=fixed, moving_labels=labels, fixed_labels=labels, spacing=(1.0,) * len(shape)
    )
    u = rng.normal(size=(*shape, len(shape))).astype(np.float32)
    prediction = Prediction(u, moving, np.float32(rng.normal(size=shape)), rng.random(shape, np.float32))
    return sample, prediction, {"spread": displacement_map("spread", rng.random(shape))}


@pytest.mark.quick("shape0-2000000.0")
@pytest.mark.parametrize("shape, bound", [((256, 256), 2e6), ((520, 300), 2e6), ((160, 170, 20), 8e6)])
def test_files_stay_small_even_of_noise(tmp_path, rng, shape, bound):
    sample, prediction, maps = noise(rng, shape)
    maps = {f"spread{i}": one for i in range(2) for one in maps.values()}
    path = case_report(sample, prediction, tmp_path / "x.html", maps=maps, labels={}, main=None)
    assert path.stat().st_size < bound
