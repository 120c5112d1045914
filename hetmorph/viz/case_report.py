"""One registration as one HTML file: pictures, maps, scores and a verdict; nothing is loaded from elsewhere."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from hetmorph.data import Pair
from hetmorph.evaluation import Prediction, RegistrationFailed, evaluate_pair
from hetmorph.evaluation import uncertainty as judged
from hetmorph.evaluation.cases import LABELS, MAIN, foreground, warp_labels
from hetmorph.evaluation.summary import write_text
from hetmorph.evaluation.table import FEW, structure_heading
from hetmorph.metrics.calibration import Sparsification, area, sparsification
from hetmorph.ops.fields import jacobian_determinant
from hetmorph.version import __version__
from hetmorph.viz import html
from hetmorph.viz.charts import Line, line_chart
from hetmorph.viz.html import Html, element
from hetmorph.viz.panels import structure_colours
from hetmorph.viz.plates import Sheet, rounded
from hetmorph.viz.rasters import Scale, spread
from hetmorph.viz.scores import as_numbers, better, change, every_score, number, score_table
from hetmorph.viz.verdict import WORDS, Verdict, promise, verdict
from hetmorph.viz.views import View, view_of

ON_FIXED = "fixed grid"
LEAST_RATIO, MOST_RATIO = 1.5, 8.0  # of the Jacobian's colours: from 1/ratio to ratio


@dataclass(frozen=True, eq=False)
class Shown:
    """A case with everything that needs all of its voxels.

    Attributes:
        pair, row, maps, verdict: as given or found.
        prediction: None where nothing was registered.
        determinant: of the Jacobian of x + u(x), `[*S]`; None without prediction.
        labels: values by structure; empty without labels.
        truth, before, after: masks `[*S]` by structure; `after` is empty without prediction.
        main: the main structure.
    """

    pair: Pair
    prediction: Prediction | None
    row: dict
    maps: Mapping
    verdict: Verdict
    determinant: np.ndarray | None
    labels: Mapping[str, int]
    truth: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    main: str | None


def case_report(
    pair: Pair,
    prediction: Prediction | None,
    path,
    row: Mapping | None = None,
    maps: Mapping | None = None,
    calibration=None,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = LABELS,
    main: str | None = MAIN,
    affine=None,
    axis: int | None = None,
    about: Mapping[str, object] | None = None,
    home: str | None = None,
) -> Path:
    """Write the report of one registration.

    A 2-D report stays below 2 MB, a volume's below 8 MB: a volume shows up to 15 slices (5 where they are large), and
    pictures of more than 256 voxels a side are shown in blocks. The same arguments give the same file.

    Args:
        pair: moving and fixed image, 2-D or 3-D, with labels, true displacement where known.
        prediction: of the pair; None where none was found.
        path: file to write, .html.
        row: its row of `evaluation.evaluate`; None scores the prediction here.
        maps: by name, `uncertainty.UncertaintyMap`s of the pair.
        calibration: `uncertainty.Calibration` that judges the maps; None leaves the case without verdict.
        convention: of warped labels, as the row was made with.
        labels: label value of each structure.
        main: the structure that surface distances refer to.
        affine: `[4, 4]`, voxel index to RAS+ millimetres, of the grid: pictures are then turned as radiologists read,
            and lettered. None shows axis 0 from left to right and axis 1 from top to bottom.
        axis: array axis through the slices of a volume; None for that of the widest spacing.
        about: lines on where the result comes from (model, files, command).
        home: relative address of the cohort's report.

    Returns:
        The path written.

    Raises:
        ValueError: maps that do not lie on the grid of the pair.

    Example:
        >>> case_report(pair, predictor(pair.moving, pair.fixed), "case.html")
    """
    case = _shown(pair, prediction, row, dict(maps or {}), calibration, convention, labels, main)
    sheet = Sheet(_view(case, affine, axis))
    sections = [
        _verdict(case, calibration),
        _slices(sheet.view),
        _comparison(case, sheet),
        _images(case, sheet),
        _labels(case, sheet),
        _deformation(case, sheet),
        _uncertainty(case, sheet),
        _scores(case),
        _frames(case, sheet.view),
        _source(case, calibration, about or {}),
    ]
    top = _top(case, home)
    body = element("main", sheet.definitions(), sections)
    cursor = {"data_view": json.dumps(_cursor(sheet.view))}
    write_text(path, html.page(f"{pair.case_id} – registration report", top, body, data=cursor))
    return Path(path)


def _shown(pair, prediction, row, maps, calibration, convention, labels, main) -> Shown:
    for name, one in maps.items():
        if one.std.shape != pair.fixed.shape:
            raise ValueError(f"{pair.case_id}: expected the map {name} of {pair.fixed.shape}, got {one.std.shape}")
    labelled = bool(labels) and pair.moving_labels is not None and pair.fixed_labels is not None
    labels, main = (labels, main) if labelled else ({}, None)
    row = _row(pair, prediction, convention, labels, main) if row is None else as_numbers([row])[0]
    if prediction is not None and not (_finite(prediction.displacement) and _finite(prediction.moved)):
        prediction = None
    masks = [{name: one == value for name, value in labels.items()} for one in (pair.fixed_labels, pair.moving_labels)]
    after, determinant = {}, None
    if prediction is not None:
        field = np.asarray(prediction.displacement, np.float32)
        determinant = jacobian_determinant(field[None])[0].numpy()
        if labels:
            after = dict(
                zip(labels, warp_labels(pair.moving_labels, field, [*labels.values()], convention), strict=True)
            )
    said = Verdict("none", "Nothing was registered.")
    if prediction is not None:
        said = verdict(pair, maps, calibration)
    return Shown(pair, prediction, row, maps, said, determinant, labels, *masks, after, main)


def _row(pair, prediction, convention, labels, main) -> dict:
    def known(moving, fixed):
        if prediction is None:
            raise RegistrationFailed("no prediction")
        return prediction

    row = evaluate_pair(known, pair, convention, labels, main)
    row.pop("registered_seconds_per_pair")  # of looking the prediction up
    return row


def _view(case: Shown, affine, axis: int | None) -> View:
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


def _top(case: Shown, home: str | None) -> Html:
    pair = case.pair
    facts = [("patient", pair.patient), ("group", pair.group), ("slice of the volume", pair.slice_index)]
    facts += [("size", f"{' × '.join(map(str, pair.fixed.shape))} voxels")]
    facts += [("voxel", f"{' × '.join(f'{s:.3g}' for s in pair.spacing)} mm")]
    line = " · ".join(f"{name} {value}" for name, value in facts if value is not None)
    back = element("a", "← all cases", href=f"./{quote(home)}", class_="back") if home else None
    button = element("button", "light / dark", id="theme", type="button", hidden=True)
    return element("header", back, button, element("h1", pair.case_id), element("p", line), class_="top")


def _verdict(case: Shown, calibration) -> Html:
    said, row = case.verdict, case.row
    word = element("strong", WORDS[said.flag])
    parts = [element("p", word, " ", said.reason)]
    if case.prediction is None:
        parts = [
            element("p", element("strong", "Not registered"), " ", row["failed"] or "the prediction is not finite")
        ]
    elif row["failed"] and case.labels:
        parts.append(element("p", f"Not scored: {row['failed']}.", class_="note"))
    if calibration is not None:
        parts.append(
            element("details", element("summary", "What this verdict rests on"), element("p", promise(calibration)))
        )
    flag = "reject" if case.prediction is None else said.flag
    return element("section", element("div", parts, class_=f"verdict {flag}"), _glance(case), id="verdict")


def _glance(case: Shown) -> Html:
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
        both("HD95", "hd95_mm", 1, 2, " mm")
    both("mean squared residual", "mse", 1e3, 2, " ·10⁻³")
    both("displacement error", "epe", 1, 2, " voxels")
    if case.prediction is not None:
        tiles.append(("folds", [number(row["registered_folds_percent"], 1, 3), " % of the voxels"]))
        tiles.append(("longest displacement", [number(float(_length_mm(case).max()), 1, 1), " mm"]))
    if math.isfinite(case.verdict.score):
        tiles.append(("mean bound of the error", [number(case.verdict.score, 1, 2), " voxels"]))
    return element(
        "dl", [element("div", element("dt", name), element("dd", value)) for name, value in tiles], class_="tiles"
    )


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


def _comparison(case: Shown, sheet: Sheet) -> Html:
    """Fixed and moved, or moving, in one frame; of use with a script only, and shown by it."""
    window = _window(case)
    sheet.add("moving", case.pair.moving, window)
    sheet.add("fixed", case.pair.fixed, window)
    over = ["moving"]
    if case.prediction is not None:
        sheet.add("moved", case.prediction.moved, window)
        over.insert(0, "moved")
    labelled = {"moving": case.before, "moved": case.after}

    def layers(index):
        yield sheet.use("fixed", index)
        yield element("g", [sheet.use(name, index, class_=f"over {name}") for name in over], class_="cut")
        for name in over:
            yield element("g", _outlines(case, sheet, labelled[name], index), class_=f"outlines {name}")

    stage = element("div", sheet.planes(layers, "fixed image with the other above it"), class_="frame stage")
    controls = [
        _choice("over", "Compare fixed with", [(name, _when(name)) for name in over]),
        _choice("mode", "Show", [("wipe", "wipe"), ("blend", "blend"), ("checker", "checkerboard")]),
        element(
            "label",
            element("span", "left of the line: ", element("output", _when(over[0])), ", right: fixed", class_="what"),
            element("input", type="range", id="cut", min=0, max=100, value=50),
        ),
    ]
    if case.labels:
        box = element("input", type="checkbox", id="outlines", checked=True)
        controls.append(element("label", box, " outlines of the labels (dotted: fixed image)"))
        controls.append(_legend(case))
    keys = [("B", "moved or moving"), ("M", "next way to show"), ("L", "outlines"), ("← →", "move the line")]
    keys += [("↑ ↓", "slices")] if sheet.view.through is not None else []
    told = element("p", [[element("kbd", key), f" {what}  "] for key, what in keys], class_="note")
    panel = element("div", controls, told, class_="controls")
    title = element("h2", "Compare")
    return element("section", title, element("div", stage, panel, class_="compare"), id="compare", hidden=True)


def _images(case: Shown, sheet: Sheet) -> Html:
    pair, window, moved = case.pair, _window(case), case.prediction and case.prediction.moved
    difference = max(map(abs, spread([pair.fixed - pair.moving], 0.25, 99.75)))
    differences = Scale(-difference, difference, "RdBu_r", "difference of intensity", centre=0.0)
    second, plates = (
        [],
        [
            sheet.plate("Moving", "moving grid · intensity", lambda i: [sheet.use("moving", i)], window),
            sheet.plate("Fixed", f"{ON_FIXED} · intensity", lambda i: [sheet.use("fixed", i)], window),
        ],
    )
    if moved is not None:
        note = f"{ON_FIXED} · intensity, moving(x + u(x))"
        plates.append(sheet.plate("Moved", note, lambda i: [sheet.use("moved", i)], window))
    names = [("moving", pair.moving, "before")] + ([("moved", moved, "after")] if moved is not None else [])
    for name, image, when in names:
        shown = f"difference {when}"
        sheet.add(shown, pair.fixed - image, differences)
        note = f"{ON_FIXED} · fixed − {name}"
        second.append(sheet.plate(f"Difference {when}", note, lambda i, n=shown: [sheet.use(n, i)], differences))
    for name, _, when in names:

        def squares(i, name=name):
            return [sheet.use("fixed", i), sheet.use(name, i, clip_path="url(#checker)")]

        note = f"{ON_FIXED} · squares of fixed and {name}"
        second.append(sheet.plate(f"Checkerboard {when}", note, squares, window))
    low, high = rounded(window.low, window.high)
    return _section("images", "Images", [plates, second], f"All in one window of intensity, {low} to {high}.")


def _deformation(case: Shown, sheet: Sheet) -> Html:
    if case.prediction is None:
        return _section("deformation", "Deformation", [], "Nothing was registered.")
    view, field, determinant = sheet.view, case.prediction.displacement, case.determinant
    positive = determinant[determinant > 0]
    low, high = spread([np.log(positive)], 0.5, 99.5)
    ratio = float(np.clip(np.exp(max(-low, high)), LEAST_RATIO, MOST_RATIO))
    jacobian = Scale(
        1 / ratio, ratio, "PuOr", "volume ratio det(I + ∇u), no unit; black ≤ 0", centre=1.0, logarithmic=True
    )
    sheet.add("jacobian", determinant, jacobian, combine=_folds_kept)
    length = _length_mm(case)
    lengths = Scale(0.0, spread([length], 0, 99.5)[1], "viridis", "mm")
    sheet.add("length", length, lengths)

    def grid(i):
        return [
            sheet.use("moving", i, class_="faded"),
            element("path", d=view.grid(field, i), class_="gridlines"),
        ]

    def zero(i):
        return [sheet.use("jacobian", i), sheet.line(view.contour(determinant, i, 0.0), "zero")]

    within = " (the part within the slice)" if view.through is not None else ""
    folds = int(np.count_nonzero(determinant <= 0))
    told = f"the map folds in {folds} voxels" if folds else "the map folds nowhere: there is no zero contour"
    plates = [
        sheet.plate("Deformed grid", f"moving grid · x + u(x) of every {view.step}th line{within}", grid, None),
        sheet.plate("Jacobian determinant", f"{ON_FIXED} · yellow: zero contour", zero, jacobian, told),
        sheet.plate("Displacement |u|", f"{ON_FIXED} · length in mm", lambda i: [sheet.use("length", i)], lengths),
    ]
    note = (
        f"A determinant above 1: tissue shrinks from moving to fixed; below 1: it grows; at or below 0 the map folds. "
        f"Here {told}."
    )
    return _section("deformation", "Deformation", [plates], note)


def _uncertainty(case: Shown, sheet: Sheet) -> Html:
    prediction, plates, notes = case.prediction, [], []

    def plate(title, note, values, scale):
        sheet.add(title, values, scale)
        hatched = not _finite(values)
        note = f"{ON_FIXED} · {note}"
        plates.append(sheet.plate(title, note, lambda i: [sheet.use(title, i)], scale, hatched=hatched))

    sigma, weight = (None, None) if prediction is None else (_sigma(prediction), prediction.weight)
    if sigma is not None:
        scale = Scale(0.0, spread([sigma], 0, 99.5)[1], "viridis", "intensity")
        plate("σ_I", "predicted noise, standard deviation", sigma, scale)
    else:
        notes.append("No σ_I: the model predicts no variance.")
    if weight is not None:
        scale = Scale(*spread([weight], 0.5, 99.5), "magma", "relative, no unit")
        plate("Likelihood weight", "of each voxel in the image loss", weight, scale)
    elif sigma is not None:
        notes.append("No likelihood weights: the model gives none.")
    for name, one in case.maps.items():
        values = one.std_mm(case.pair.spacing) if one.unit == "voxels" else one.std
        unit = "mm" if one.unit == "voxels" else "intensity"
        scale = Scale(0.0, spread([values], 0, 99.5)[1], "viridis", unit)
        what = "displacement" if one.unit == "voxels" else "image"
        plate(f"Map: {name}", f"{what}, standard deviation", np.where(one.valid, values, np.nan), scale)
    if not case.maps:
        notes.append("No map of uncertainty at test time (such as equivariance) was made.")
    bound, error = case.verdict.bound, _true_error(case)
    scale = Scale(0.0, spread([bound, error], 0, 99.5)[1], "viridis", "voxels")
    if bound is not None:
        plate("Bound of the error", "of the displacement, by the calibration", bound, scale)
    if error is not None:
        plate("True error |u − u_true|", "the true displacement is known", error, scale)
    charts = _sparsification(case, sigma, error)
    if not charts:
        notes.append("No sparsification: it needs a predicted σ_I, or a map and the true displacement.")
    if plates:
        notes.append("Hatched: not known. Small values say that a model is consistent, not that it is right.")
    return _section("uncertainty", "Uncertainty", [plates], " ".join(notes), charts)


def _sparsification(case: Shown, sigma, error) -> list[Html]:
    """Does σ_I rank the residual; do the maps rank the true error."""
    charts, mask = [], foreground(case.pair)
    note = "foreground; error left after removing the most uncertain voxels"
    if sigma is not None:
        curve = judged.judge(case.pair, case.prediction, mask).curves.get("residual_foreground")
        if curve is not None:
            title = f"Sparsification of the residual by σ_I, area to the oracle {area(curve):.2g}"
            charts.append(_curves(title, note, "mean squared residual, intensity²", {"most uncertain by σ_I": curve}))
    if error is None or not case.maps:
        return charts
    for one in case.maps.values():
        mask = mask & one.valid
    curves = {f"by {name}": sparsification(error, np.where(mask, one.std, 0), mask) for name, one in case.maps.items()}
    if mask.any():
        charts.append(_curves("Sparsification of the true error by each map", note, "mean error, voxels", curves))
    return charts


def _curves(title: str, note: str, unit: str, curves: Mapping[str, Sparsification]) -> Html:
    first = next(iter(curves.values()))
    drawn = [Line(name, one.fraction, one.curve, f"s{n % 6}") for n, (name, one) in enumerate(curves.items())]
    drawn.append(Line("largest errors (oracle)", first.fraction, first.oracle, "oracle"))
    drawn.append(Line("at random", np.array([0, 1]), np.full(2, first.curve[0]), "random"))
    return line_chart(title, note, "removed fraction of the voxels", unit, drawn)


def _labels(case: Shown, sheet: Sheet) -> Html:
    if not case.labels:
        return _section("labels", "Labels", [], "No labels: moving and fixed image must both have them.")
    window, plates = _window(case), []
    for masks, block, when in ((case.before, "undeformed", "before"), (case.after, "registered", "after")):
        if not masks:
            continue

        def layers(i, masks=masks):
            return [sheet.use("fixed", i), _outlines(case, sheet, masks, i)]

        plates.append(sheet.plate(f"Labels {when}", f"{ON_FIXED} · {_dice(case, block)}", layers, window))
    plates.append(element("div", _legend(case), class_="beside"))
    return _section("labels", "Labels", [plates], "")


def _dice(case: Shown, block: str) -> str:
    names = [*case.labels] if len(case.labels) <= FEW else [case.main, "mean"]
    scores = {structure_heading(name): case.row.get(f"{block}_dice_{name}", math.nan) for name in names}
    return " ".join(["Dice", *(f"{name} {score:.3f}" for name, score in scores.items() if math.isfinite(score))])


def _outlines(case: Shown, sheet: Sheet, masks: Mapping[str, np.ndarray], index: int) -> list[Html]:
    """Masks in colour, the truth dotted white."""
    colours = dict(zip(case.labels, structure_colours(len(case.labels)), strict=True))
    own = [sheet.line(sheet.view.outline(mask, index), "outline", colours[name]) for name, mask in masks.items()]
    return own + [sheet.line(sheet.view.outline(mask, index), "truth") for mask in case.truth.values()]


def _legend(case: Shown) -> Html:
    colours = dict(zip(case.labels, structure_colours(len(case.labels)), strict=True))
    # Of many structures the outlines are told apart by their place.
    shown = colours if len(colours) <= FEW else {}
    items = [
        element("li", element("i", style=f"background:{colour}"), structure_heading(name))
        for name, colour in shown.items()
    ]
    return element(
        "ul", items, element("li", element("i", class_="dotted"), "fixed image (truth)"), class_="key legend"
    )


def _scores(case: Shown) -> Html:
    table = element("div", score_table(case.row, case.main), class_="wide")
    return element(
        "section",
        element("h2", "Scores"),
        element("p", "Each beside that of the undeformed pair; px are voxels of the fixed grid.", class_="note"),
        table,
        every_score(case.row),
        id="scores",
    )


def _frames(case: Shown, view: View) -> Html:
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
            f"{', '.join(map(str, view.slices))}), so that this file stays below 8 MB; numbers are of the whole volume."
        )
    return element("section", element("h2", "How to read this"), [element("p", one) for one in lines_of], id="frames")


def _source(case: Shown, calibration, about: Mapping) -> Html:
    facts = {"hetmorph": __version__} | dict(about)
    facts |= {
        f"map {name}": f"{one.passes} registrations, valid in {one.valid_share:.1%} of the voxels"
        for name, one in case.maps.items()
    }
    if calibration is not None:
        facts |= {f"calibration, {key}": value for key, value in calibration.about.items()}
    rows = [element("tr", element("th", key, scope="row"), element("td", str(value))) for key, value in facts.items()]
    note = "For research. No medical device, and no substitute for looking at the images."
    return element(
        "section", element("h2", "Where this comes from"), element("table", rows), element("p", note), id="source"
    )


def _section(name: str, title: str, rows: list[list], note: str, charts: list | None = None) -> Html:
    return element(
        "section",
        element("h2", title),
        element("p", note, class_="note") if note else None,
        [element("div", row, class_="plates") for row in rows if row],
        element("div", charts, class_="charts") if charts else None,
        id=name,
    )


def _choice(name: str, legend: str, options: list[tuple[str, str]]) -> Html:
    buttons = [
        element("label", element("input", type="radio", name=name, value=value, checked=n == 0), " ", words)
        for n, (value, words) in enumerate(options)
    ]
    return element("fieldset", element("legend", legend), buttons)


def _when(name: str) -> str:
    return {"moved": "moved (after)", "moving": "moving (before)"}[name]


def _window(case: Shown) -> Scale:
    """Of both images, so that moving, fixed and moved are seen alike."""
    return Scale(*spread([case.pair.moving, case.pair.fixed], 0.2, 99.8), "gray", "intensity")


def _sigma(prediction: Prediction) -> np.ndarray | None:
    if prediction.log_variance is None:
        return None
    with np.errstate(over="ignore"):
        sigma = np.exp(0.5 * np.float64(prediction.log_variance))
    return sigma if _finite(sigma) and sigma.min() > 0 else None


def _length_mm(case: Shown) -> np.ndarray:
    return np.linalg.norm(case.prediction.displacement * np.asarray(case.pair.spacing), axis=-1)


def _true_error(case: Shown) -> np.ndarray | None:
    if case.prediction is None or case.pair.displacement is None:
        return None
    return np.linalg.norm(case.prediction.displacement - case.pair.displacement, axis=-1)


def _folds_kept(blocks: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Of blocks of determinants the mean, or the least where one folds: a fold must not vanish in a mean."""
    least = blocks.min(axes)
    return np.where(least <= 0, least, blocks.mean(axes))


def _finite(values) -> bool:
    return bool(np.isfinite(values).all())


def _cursor(view: View) -> dict:
    """What the script needs to tell the voxel under the pointer."""
    return {
        "axes": [view.across, view.down],
        "sizes": [view.shape[view.across], view.shape[view.down]],
        "flipped": [*view.flipped],
        "through": view.through,
    }
