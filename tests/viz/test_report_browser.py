"""The reports in a real browser, with and without its script: what is drawn, where, and what keys and buttons do.

Needs playwright and a Chromium: `HETMORPH_CHROMIUM`, one on the PATH, or the one that `playwright install` fetched.
"""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from hetmorph.evaluation import Curves
from hetmorph.uncertainty import Bound, Calibration, Combination, Triage
from hetmorph.viz import case_report, cohort_report
from tests.evaluation.fakes import HEART, constant, evaluate, heart, pair, shifted_pair, volume
from tests.viz.pages import displacement_map

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


def program(playwright):
    """A Chromium, or a skip that says where one was looked for."""
    named = os.environ.get("HETMORPH_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, PROGRAMS)), playwright.chromium.executable_path)
    if not Path(found).exists():
        pytest.skip(f"no browser at {found}; set HETMORPH_CHROMIUM, or have one of {', '.join(PROGRAMS)} on the PATH")
    return found


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Containers have no user namespaces; the pages are our own and load nothing.
        one = playwright.chromium.launch(executable_path=program(playwright), args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def open_page(browser):
    """Opens a file; whatever the page complains about or tries to load fails the test."""
    contexts, complaints, asked = [], [], []

    def opened(path, script=True, width=1300, height=900, **options):
        if not script:
            # Taken out rather than switched off: playwright needs scripts of its own to add a style.
            text = path.read_text(encoding="utf-8")
            path = path.with_name("without-script.html")
            path.write_text(text[: text.index("<script>")] + text[text.index("</script>") :], encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(Path(path).as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints
    assert all(url.startswith(("file:", "data:")) for url in asked), asked
    assert sum(url.startswith("file:") for url in asked) == len(contexts), "a page loaded another file"


SIGMA = np.full((32, 32), -4, np.float32)


def square(sample):
    """Voxels as wide as high, to compare pictures with arrays."""
    import dataclasses

    return dataclasses.replace(sample, spacing=(1.0,) * sample.fixed.ndim)


@pytest.fixture(scope="module")
def image_report(tmp_path_factory):
    sample = square(shifted_pair(3))
    calibration = Calibration(Combination({"spread": 1.0}), Bound(2.0, 0.9, 12), Triage(3.0, 5.0, 1.5), {})
    valid = np.ones((32, 32), bool)
    valid[:3] = False
    maps = {"spread": displacement_map("spread", np.ones((32, 32)), valid)}
    path = tmp_path_factory.mktemp("image") / "case.html"
    return case_report(
        sample, constant((-3, 0), SIGMA)(sample.moving, sample.fixed), path, None, maps, calibration, **HEART
    )


@pytest.fixture(scope="module")
def volume_report(tmp_path_factory):
    sample = square(volume(2))
    path = tmp_path_factory.mktemp("volume") / "case.html"
    return case_report(sample, constant((-2, 0, 0))(sample.moving, sample.fixed), path, **HEART)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    pairs = [pair("same"), shifted_pair(3), pair("far", heart(), heart(centre=(19, 14)))]
    curves = Curves()
    rows = evaluate(constant((-1, 0), SIGMA), pairs, progress=False, curves=curves)
    return cohort_report(rows, tmp_path_factory.mktemp("cohort") / "index.html", curves=curves, main="myo")


def shot(locator):
    """Grey values 0..1 of what is seen of an element, `[rows, columns]`."""
    return imread(io.BytesIO(locator.screenshot()))[..., :3].mean(-1)


def voxels(picture, shape=(32, 32)):
    """The grey value in the middle of each voxel, `[across, down]`."""
    rows, columns = (
        ((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape[::-1], picture.shape, strict=True)
    )
    return picture[np.ix_(rows, columns)].T


def plate(page, title):
    return page.locator("figure.plate", has=page.get_by_text(title, exact=True)).locator(".frame")


def windowed(image):
    low, high = np.percentile(square(shifted_pair(3)).moving, [0.2, 99.8])
    return np.clip((image - low) / (high - low), 0, 1)


def without_marks(page):
    page.add_style_tag(content=".marks, .outlines { display: none !important }")


def test_pictures_are_seen_as_the_arrays_are(open_page, image_report):
    page, sample = open_page(image_report, script=False), shifted_pair(3)
    page.add_style_tag(content=".marks { display: none }")
    for title, image in (("Moving", sample.moving), ("Fixed", sample.fixed), ("Moved", np.roll(sample.moving, 3, 0))):
        np.testing.assert_allclose(voxels(shot(plate(page, title))), windowed(image), atol=0.02, err_msg=title)


def test_the_report_is_complete_without_its_script(open_page, image_report):
    page = open_page(image_report, script=False)
    assert not page.locator("#compare").is_visible() and not page.locator("#theme").is_visible()
    names = [one.get_attribute("aria-label") for one in page.get_by_role("img").all()]
    assert len(names) == 17 and all(names), "16 plates and a chart, each with its words, and nothing else"
    for plane in page.locator("figure.plate svg").all():
        assert plane.is_visible() and plane.bounding_box()["width"] > 200
    for title in (
        "Moving",
        "Fixed",
        "Moved",
        "Difference before",
        "Checkerboard after",
        "Labels after",
        "Deformed grid",
    ):
        assert shot(plate(page, title)).std() > 0.05, f"{title} is empty"


def test_plates_of_a_row_are_aligned_and_of_one_size(open_page, image_report):
    page = open_page(image_report)
    rows = {}
    for frame in page.locator(".plate .frame").all():
        box = frame.bounding_box()
        rows.setdefault(round(box["y"]), []).append((round(box["width"]), round(box["height"])))
    assert max(map(len, rows.values())) == 4, "four in a row where there is room"
    assert len({size for row in rows.values() for size in row}) == 1
    assert len(rows) == 5, "two rows of images, then labels, deformation, uncertainty"


def test_the_wipe_shows_moved_on_the_left_and_fixed_on_the_right(open_page, image_report):
    page, sample = open_page(image_report), shifted_pair(3)
    without_marks(page)
    page.get_by_role("radio", name="moving (before)").check()
    page.add_style_tag(content=".edge { display: none }")
    moving, fixed = windowed(sample.moving), windowed(sample.fixed)
    for cut in (0, 25, 100):
        page.locator("#cut").fill(str(cut))
        seen, edge = voxels(shot(page.locator(".stage"))), cut * 32 // 100
        np.testing.assert_allclose(seen, np.where(np.arange(32)[:, None] < edge, moving, fixed), atol=0.02)
    page.get_by_role("radio", name="blend").check()
    page.locator("#cut").fill("50")
    np.testing.assert_allclose(voxels(shot(page.locator(".stage"))), (moving + fixed) / 2, atol=0.02)
    page.get_by_role("radio", name="checkerboard").check()
    tile = np.add.outer(np.arange(32) // 4, np.arange(32) // 4) % 2
    np.testing.assert_allclose(voxels(shot(page.locator(".stage"))), np.where(tile, moving, fixed), atol=0.02)
    assert page.locator("#cut").is_disabled()


def test_dragging_moves_the_line(open_page, image_report):
    page = open_page(image_report)
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 60)
    page.mouse.up()
    assert page.locator("#cut").input_value() == "75"


def test_keys(open_page, image_report):
    page = open_page(image_report)
    page.keyboard.press("b")
    assert (
        page.get_by_role("radio", name="moving (before)").is_checked()
        and "moving (before)" in page.locator(".what").inner_text()
    )
    page.keyboard.press("b")
    assert page.get_by_role("radio", name="moved (after)").is_checked()
    page.keyboard.press("m")
    assert page.get_by_role("radio", name="blend").is_checked() and "50 % moved" in page.locator(".what").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#cut").input_value() == "52"
    assert page.locator(".stage .outlines.moved").is_visible()
    page.keyboard.press("l")
    assert not page.locator(".stage .outlines.moved").is_visible()
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "where the keyboard is must be seen"


def test_the_same_voxel_is_marked_in_every_picture(open_page, image_report):
    page = open_page(image_report)
    plate(page, "Fixed").scroll_into_view_if_needed()
    box = plate(page, "Fixed").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 10.5 / 32, box["y"] + box["height"] * 20.5 / 32)
    assert page.locator("#voxel").inner_text() == "voxel (10, 20) of the array"
    places = page.evaluate(
        "[...document.querySelectorAll('.plate .frame')].map(f => getComputedStyle(f, '::before').left)"
    )
    assert len(set(places)) == 1 and float(places[0].removesuffix("px")) == pytest.approx(
        box["width"] * 10.5 / 32, abs=1
    )
    page.mouse.move(0, 0)
    assert not page.locator("#voxel").is_visible()


def test_the_marked_voxel_is_that_of_the_array_in_turned_pictures(open_page, tmp_path):
    """Of a grid to the right and anterior, both axes are turned, and the second runs across after exchanging them."""
    sample = square(shifted_pair(3))
    for order, expected in (([0, 1], "(21, 11)"), ([1, 0], "(11, 21)")):
        affine = np.eye(4)[[*order, 2, 3]]
        page = open_page(case_report(sample, None, tmp_path / f"{order[0]}.html", affine=affine, **HEART))
        plate(page, "Fixed").scroll_into_view_if_needed()
        box = plate(page, "Fixed").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 10.5 / 32, box["y"] + box["height"] * 20.5 / 32)
        assert page.locator("#voxel").inner_text() == f"voxel {expected} of the array"


def test_slices_are_chosen_with_and_without_the_script(open_page, volume_report):
    sample = square(volume(2))

    def seen(page):
        picture = voxels(shot(plate(page, "Fixed")))
        return int(np.argmin([np.abs(picture - windowed(sample.fixed[..., i])).mean() for i in range(8)]))

    plain = open_page(volume_report, script=False)
    plain.add_style_tag(content=".marks { display: none }")
    shown = plain.locator("figure.plate svg:visible")
    assert [one.get_attribute("class").split("-")[-1] for one in shown.all()] == ["4"] * shown.count()
    plain.locator("#slice-2").check()
    assert {one.get_attribute("class").split("-")[-1] for one in shown.all()} == {"2"}

    page = open_page(volume_report)
    slider = page.locator("#slices input[type=range]")
    assert page.locator("#slices .slider span").inner_text() == "slice 4" and not page.locator(".choices").is_visible()
    slider.fill("4")
    assert page.locator("#slice-6").is_checked() and page.locator("#slices .slider span").inner_text() == "slice 6"
    page.locator("h1").click()
    page.keyboard.press("ArrowDown")
    assert page.locator("#slice-5").is_checked() and slider.input_value() == "3"
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    assert page.locator("#slice-6").is_checked(), "the last slice is the end"
    assert {one.get_attribute("class").split("-")[-1] for one in page.locator("svg.plane:visible").all()} == {"6"}
    box = plate(page, "Fixed").bounding_box()
    plate(page, "Fixed").hover(position={"x": box["width"] / 2 + 1, "y": 5})
    assert page.locator("#voxel").inner_text() == "voxel (16, 0, 6) of the array"
    assert seen(page) in range(2, 7)


def test_light_and_dark(open_page, image_report):
    def brightness(page):
        return shot(page.locator("header")).mean()

    light, dark = (open_page(image_report, color_scheme=scheme) for scheme in ("light", "dark"))
    assert brightness(light) > 0.85 and brightness(dark) < 0.25
    for page in (light, dark):
        page.locator("#theme").click()
    assert brightness(light) < 0.25 and brightness(dark) > 0.85
    # The images stay as they are: a window is not turned round with the page.
    inner = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(shot(plate(light, "Fixed"))[inner], shot(plate(dark, "Fixed"))[inner], atol=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, image_report, scheme):
    """Contrast of at least 4.5, W3C WCAG 2.2, for what is read in the verdict, notes, tables and captions."""
    page = open_page(image_report, color_scheme=scheme)
    page.locator("#scores").scroll_into_view_if_needed()

    def luminance(colour):
        rgb = np.array([float(x) for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    ground = page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
    for selector in (
        ".verdict strong",
        ".verdict p",
        ".note",
        "td",
        ".tiles dt",
        "figcaption span",
        ".change",
        "summary",
    ):
        colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector


@pytest.mark.parametrize("which", ["image_report", "volume_report", "cohort"])
def test_nothing_runs_out_of_a_screen(open_page, request, which):
    page = open_page(request.getfixturevalue(which))
    for width in (390, 800, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_tables_are_sorted_by_a_click(open_page, cohort):
    page = open_page(cohort)

    def order():
        return [one.inner_text() for one in page.locator("table.sortable tbody th").all()]

    assert order() == ["far", "shifted", "same"]
    heading = page.locator("table.sortable").get_by_role("button", name="Dice MYO")
    heading.click()
    assert order() == ["far", "shifted", "same"] and page.locator("th[aria-sort=ascending]").count() == 1
    heading.click()
    assert order() == ["same", "shifted", "far"]
    page.locator("table.sortable").get_by_role("button", name="case").click()
    assert order() == ["far", "same", "shifted"]
    assert page.locator("th[aria-sort]").count() == 1
    assert all(shot(chart).std() > 0.01 for chart in page.locator(".chart svg[role=img]").all())
