"""One registration as one HTML file: pictures, maps, scores and a verdict; nothing is loaded from elsewhere."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np

from hetmorph.data import Pair
from hetmorph.evaluation import Checks, Prediction
from hetmorph.evaluation.cases import NO_LABELS, foreground
from hetmorph.evaluation.table import structure_heading
from hetmorph.io.atomic import write_text
from hetmorph.viz import case_pictures as pictures
from hetmorph.viz import html
from hetmorph.viz.case import ReportedCase, report_on
from hetmorph.viz.html import Html, element
from hetmorph.viz.scores import better, change, every_score, number, score_table
from hetmorph.viz.verdict import WORDS, looked_at, promise
from hetmorph.viz.view import View, view_of


def case_report(
    pair: Pair,
    prediction: Prediction | None,
    path,
    row: Mapping | None = None,
    maps: Mapping | None = None,
    calibration=None,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = NO_LABELS,
    main: str | None = None,
    affine=None,
    axis: int | None = None,
    about: Mapping[str, object] | None = None,
    home: str | None = None,
    checks: Checks | None = None,
) -> Path:
    """Write the report of one registration.

    A 2-D report stays below 2 MB, a volume's below 8 MB: a volume shows up to 15 slices (5 where they are large), and
    pictures of more than 256 voxels a side are shown in blocks. The same arguments give the same file.

    Args:
        pair: moving and fixed image, 2-D or 3-D, with labels, true displacement where known.
        prediction: the model's answer on the pair; None where none was found.
        path: file to write, .html.
        row: row of the pair in the table of `evaluation.evaluate`; None scores the prediction here.
        maps: by name, `uncertainty.UncertaintyMap`s of the pair.
        calibration: `uncertainty.Calibration` that judges the maps; None leaves the verdict to the checks.
        convention: how warped labels become masks, as the row was made with.
        labels: label value of each structure.
        main: the structure that surface distances refer to.
        affine: `[4, 4]`, voxel index to RAS+ millimetres, of the grid: pictures are then turned as radiologists read,
            and lettered. None shows axis 0 from left to right and axis 1 from top to bottom.
        axis: array axis through the slices of a volume; None for that of the widest spacing.
        about: lines on where the result comes from (model, files, command).
        home: relative address of the cohort's report.
        checks: `evaluation.Checks` of the registration; None checks the prediction here.

    Returns:
        The path written.

    Raises:
        ValueError: maps that do not lie on the grid of the pair, or a main structure without label.

    Example:
        >>> case_report(pair, predictor(pair.moving, pair.fixed), "case.html")
    """
    case = report_on(pair, prediction, row, dict(maps or {}), calibration, convention, labels, main, checks)
    sheet = pictures.sheet_of(case, _view(case, affine, axis))
    sections = [
        _verdict(case, calibration),
        _slices(sheet.view),
        pictures.comparison(case, sheet),
        pictures.images(case, sheet),
        pictures.labels(case, sheet),
        pictures.deformation(case, sheet),
        pictures.uncertainty(case, sheet),
        _scores(case),
        _frames(case, sheet.view),
        _source(case, calibration, about or {}),
    ]
    top = _top(case, home)
    body = element("main", sheet.definitions(), sections)
    cursor = {"data_view": json.dumps(_cursor(sheet.view))}
    write_text(path, html.page(f"{pair.case_id} – registration report", top, body, data=cursor))
    return Path(path)


def _view(case: ReportedCase, affine, axis: int | None) -> View:
    pair, start = case.pair, None
    view = view_of(pair.fixed.shape, pair.spacing, affine, axis=axis)
    if view.through is None:
        return view
    region = foreground(pair)
    if case.labels:
        region = np.isin(pair.fixed_labels, [*case.labels.values()])
        chosen = case.truth[case.main] if case.truth[case.main].any() else region
        across = tuple(i for i in range(3) if i != view.through)
        inside = np.flatnonzero(chosen.any(across))
        start = int(inside[inside.size // 2]) if inside.size else None
    return view_of(pair.fixed.shape, pair.spacing, affine, region, start, view.through)


def _top(case: ReportedCase, home: str | None) -> Html:
    pair = case.pair
    facts = [("patient", pair.patient), ("group", pair.group), ("slice of the volume", pair.slice_index)]
    facts += [("size", f"{' × '.join(map(str, pair.fixed.shape))} voxels")]
    facts += [("voxel", f"{' × '.join(f'{s:.3g}' for s in pair.spacing)} mm" if pair.in_mm else "of unknown size")]
    line = " · ".join(f"{name} {value}" for name, value in facts if value not in (None, ""))
    back = element("a", "← all cases", href=f"./{quote(home)}", class_="back") if home else None
    return html.header(pair.case_id, line, back)


def _verdict(case: ReportedCase, calibration) -> Html:
    said, row = case.verdict, case.row
    word = element("strong", WORDS[said.flag])
    parts = [element("p", word, " ", said.reason)]
    if case.prediction is None:
        parts = [
            element("p", element("strong", "Not registered"), " ", row["failed"] or "the prediction is not finite")
        ]
    elif row["failed"]:
        told = f"Failed: {row['failed']}. Of the labels the verdict knows nothing."
        parts.append(element("p", told, class_="note"))
    elif row["unscored"] and case.labels:
        told = f"Not scored, which says nothing of the registration: {row['unscored']}."
        parts.append(element("p", told, class_="note"))
    if case.prediction is not None:
        rests = [element("p", looked_at())]
        if calibration is not None:
            rests.insert(0, element("p", promise(calibration)))
        parts.append(element("details", element("summary", "What this verdict rests on"), rests))
    flag = "reject" if case.prediction is None else said.flag
    return element("section", element("div", parts, class_=f"verdict {flag}"), _glance(case), id="verdict")


def _glance(case: ReportedCase) -> Html:
    """The few numbers that are asked for first."""
    row, tiles = case.row, []

    def both(title, metric, factor, decimals, unit):
        scores = [row.get(f"{block}_{metric}", math.nan) for block in ("undeformed", "registered")]
        if any(map(math.isfinite, scores)):
            before, after = (number(score, factor, decimals) for score in scores)
            word = better(metric, *scores)
            tiles.append((title, [before, " → ", after, f"{unit} ", change(word) if word == "worse" else None]))

    if case.main:
        both(f"Dice {structure_heading(case.main)}", f"dice_{case.main}", 1, 3, "")
        metric, unit = ("hd95_mm", " mm") if case.pair.in_mm else ("hd95_px", " px")
        both(f"HD95 {structure_heading(case.main)}", metric, 1, 2, unit)
    both("mean squared residual", "mse", 1e3, 2, " ·10⁻³")
    both("displacement error", "epe", 1, 2, " voxels")
    both("distance of landmarks", *(("tre_mm", 1, 2, " mm") if case.pair.in_mm else ("tre_px", 1, 2, " voxels")))
    if case.prediction is not None:
        tiles.append(("folds", [number(row["registered_folds_percent"], 1, 3), " % of the voxels"]))
        tiles.append(("longest displacement", [number(float(case.length.max()), 1, 1), f" {case.unit}"]))
    if math.isfinite(case.verdict.score):
        tiles.append(("mean bound of the error", [number(case.verdict.score, 1, 2), " voxels"]))
    return html.tiles(tiles)


def _slices(view: View) -> Html | None:
    """Choice of the slice: buttons that need no script, in whose place the script puts a slider."""
    if view.through is None:
        return None
    rules = "".join(f"body:has(#slice-{i}:checked) .slice-{i}{{display:block}}" for i in view.slices)
    buttons = [
        element("label", element("input", type="radio", name="slice", id=f"slice-{i}", checked=i == view.start), i)
        for i in view.slices
    ]
    legend = (
        f"Slice along array axis {view.through} ({len(view.slices)} of {view.shape[view.through]} are in this file)"
    )
    slider = element(
        "label", element("span", ""), element("input", type="range", min=0, max=len(view.slices) - 1, step=1)
    )
    slider = element("div", slider, class_="slider", hidden=True)
    choice = element("fieldset", element("legend", legend), element("div", buttons, class_="choices"), slider)
    return element("nav", element("style", Html(rules)), choice, id="slices", aria_label="Slices")


def _scores(case: ReportedCase) -> Html:
    scores = element("div", score_table(case.row, case.main), class_="wide")
    note = "Each beside that of the undeformed pair; px are voxels of the fixed grid."
    return html.section("scores", "Scores", scores, every_score(case.row), note=note)


def _frames(case: ReportedCase, view: View) -> Html:
    axes = [f"array axis {axis} runs {'against' if flip else 'along'} the {way}" for axis, flip, way in zip(
        (view.across, view.down), view.flipped, ("row", "column"), strict=True)]  # fmt: skip
    letters = (
        "Letters name the patient's right R, left L, anterior A, posterior P, superior S and inferior I."
        if view.sides
        else "The orientation in the patient is not known: no affine was given."
    )
    blocks = f"Pictures show blocks of {view.factor} × {view.factor} voxels; contours are of every voxel. "
    lines_of = [
        "The displacement u is in voxels on the grid of the fixed image, and pulls: moved(x) = moving(x + u(x)). Every "
        "map lies on that grid; only the moving image and the deformed grid are drawn on the moving one.",
        f"Pictures: {', '.join(axes)}. {letters} {blocks if view.factor > 1 else ''}Colours end at the given limits; "
        "values beyond have the last colour. Colours are told apart by the colour-blind.",
    ]
    if view.through is not None:
        lines_of.append(
            f"{len(view.slices)} of {view.shape[view.through]} slices are shown (indices "
            f"{', '.join(map(str, view.slices))}), through its labels or foreground; numbers are of the whole volume."
        )
    return html.section("frames", "How to read this", [element("p", one) for one in lines_of])


def _source(case: ReportedCase, calibration, about: Mapping) -> Html:
    facts = dict(about) | {
        f"map {name}": f"{one.passes} registrations, valid in {one.valid_share:.1%} of the voxels"
        for name, one in case.maps.items()
    }
    if calibration is not None:
        listed = {key: ", ".join(map(str, v)) if isinstance(v, list) else v for key, v in calibration.about.items()}
        facts |= {f"calibration, {key}": value for key, value in listed.items()}
    return html.source(facts, "For research. No medical device, and no substitute for looking at the images.")


def _cursor(view: View) -> dict:
    """What the script needs to tell the voxel under the pointer."""
    return {
        "axes": [view.across, view.down],
        "sizes": [view.shape[view.across], view.shape[view.down]],
        "flipped": [*view.flipped],
        "through": view.through,
    }
