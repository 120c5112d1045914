"""The pictures in the report of a case, section by section."""

from collections.abc import Mapping

import numpy as np

from hetmorph.evaluation.cases import foreground
from hetmorph.evaluation.table import FEW, structure_heading
from hetmorph.metrics.ranking import area, sparsification
from hetmorph.viz.case import ReportedCase, finite, structure_colours
from hetmorph.viz.charts import sparsification_chart
from hetmorph.viz.html import Html, element, section
from hetmorph.viz.rasters import Scale, spread
from hetmorph.viz.sheet import Sheet, rounded
from hetmorph.viz.view import View

ON_FIXED = "fixed grid"
MEANINGS = {  # of a map, by its unit
    "voxels": "displacement, standard deviation",
    "intensity": "image, standard deviation",
    "no unit": "larger where the images are less alike after registration",
}
LEAST_RATIO, MOST_RATIO = 1.5, 8.0  # of the Jacobian's colours: from 1/ratio to ratio


def sheet_of(case: ReportedCase, view: View) -> Sheet:
    """A sheet that holds the images."""
    sheet = Sheet(view, case.unit)
    sheet.add("moving", case.pair.moving, case.window)
    sheet.add("fixed", case.pair.fixed, case.window)
    if case.prediction is not None:
        sheet.add("moved", case.prediction.moved, case.window)
    return sheet


def comparison(case: ReportedCase, sheet: Sheet) -> Html:
    """Fixed and moved, or moving, in one frame; of use with a script only, and shown by it."""
    over = ["moving"] if case.prediction is None else ["moved", "moving"]
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


def images(case: ReportedCase, sheet: Sheet) -> Html:
    """Moving, fixed, moved; differences and checkerboards before and after."""
    pair, window, moved = case.pair, case.window, case.prediction and case.prediction.moved
    difference = max(map(abs, spread([pair.fixed - pair.moving], 0.25, 99.75)))
    differences = Scale(-difference, difference, "RdBu_r", "difference of intensity", centre=0.0)
    plates = [
        sheet.plate("Moving", "moving grid · intensity", lambda i: [sheet.use("moving", i)], window),
        sheet.plate("Fixed", f"{ON_FIXED} · intensity", lambda i: [sheet.use("fixed", i)], window),
    ]
    if moved is not None:
        note = f"{ON_FIXED} · intensity, moving(x + u(x))"
        plates.append(sheet.plate("Moved", note, lambda i: [sheet.use("moved", i)], window))
    compared, names = [], [("moving", pair.moving, "before")]
    names += [("moved", moved, "after")] if moved is not None else []
    for name, image, when in names:
        shown = f"difference {when}"
        sheet.add(shown, pair.fixed - image, differences)
        note = f"{ON_FIXED} · fixed − {name}"
        compared.append(sheet.plate(f"Difference {when}", note, lambda i, n=shown: [sheet.use(n, i)], differences))
    for name, _, when in names:

        def squares(i, name=name):
            return [sheet.use("fixed", i), sheet.use(name, i, clip_path="url(#checker)")]

        note = f"{ON_FIXED} · squares of fixed and {name}"
        compared.append(sheet.plate(f"Checkerboard {when}", note, squares, window))
    low, high = rounded(window.low, window.high)
    return _section("images", "Images", [plates, compared], f"All in one window of intensity, {low} to {high}.")


def labels(case: ReportedCase, sheet: Sheet) -> Html:
    """Outlines over the fixed image, before and after."""
    if not case.labels:
        return _section("labels", "Labels", [], "No labels: moving and fixed image must both have them.")
    window, plates = case.window, []
    for masks, block, when in ((case.before, "undeformed", "before"), (case.after, "registered", "after")):
        if not masks:
            continue

        def layers(i, masks=masks):
            return [sheet.use("fixed", i), _outlines(case, sheet, masks, i)]

        plates.append(sheet.plate(f"Labels {when}", f"{ON_FIXED} · {_dice(case, block)}", layers, window))
    plates.append(element("div", _legend(case), class_="beside"))
    return _section("labels", "Labels", [plates], "")


def deformation(case: ReportedCase, sheet: Sheet) -> Html:
    """Deformed grid, Jacobian determinant with its zero contour, length of the displacement."""
    if case.prediction is None:
        return _section("deformation", "Deformation", [], "Nothing was registered.")
    view, field, determinant = sheet.view, case.prediction.displacement, case.determinant
    positive = determinant[determinant > 0]
    low, high = spread([np.log(positive)], 0.5, 99.5)
    ratio = float(np.clip(np.exp(max(-low, high)), LEAST_RATIO, MOST_RATIO))
    jacobian = Scale(1 / ratio, ratio, "PuOr", "volume ratio, no unit; black ≤ 0", centre=1.0, logarithmic=True)
    sheet.add("jacobian", determinant, jacobian, combine=_folds_kept)
    length = case.length
    lengths = Scale(0.0, spread([length], 0, 99.5)[1], "viridis", case.unit)
    sheet.add("length", length, lengths)

    def grid(i):
        return [
            sheet.use("moving", i, class_="faded"),
            element("path", d=view.grid(field, i), class_="gridlines"),
        ]

    def zero(i):
        return [sheet.use("jacobian", i), sheet.line(view.contour(determinant, i, 0.0), "zero")]

    within = " (the part within the slice)" if view.through is not None else ""
    told = _folds_told(determinant <= 0, view)
    how_long = f"{ON_FIXED} · length in {case.unit}"
    plates = [
        sheet.plate("Deformed grid", f"moving grid · x + u(x) of every {view.step}th line{within}", grid, None),
        sheet.plate("Jacobian determinant", f"{ON_FIXED} · det(I + ∇u), yellow: zero contour", zero, jacobian, told),
        sheet.plate("Displacement |u|", how_long, lambda i: [sheet.use("length", i)], lengths),
    ]
    note = (
        f"A determinant above 1: tissue shrinks from moving to fixed; below 1: it grows; at or below 0 the map folds. "
        f"Here {told}."
    )
    return _section("deformation", "Deformation", [plates], note)


def _folds_told(folds: np.ndarray, view: View) -> str:
    if not folds.any():
        return "the map folds nowhere: there is no zero contour"
    told = f"the map folds in {np.count_nonzero(folds)} voxels"
    if view.through is None:
        return told
    # Not every slice is shown.
    counts = folds.sum(tuple(axis for axis in range(3) if axis != view.through))
    where = np.flatnonzero(counts)
    return f"{told} of the slices {where[0]} to {where[-1]}, most of them in slice {counts.argmax()}"


def uncertainty(case: ReportedCase, sheet: Sheet) -> Html:
    """σ_I, weights, maps at test time, bound, true error; how they rank errors."""
    prediction, plates, notes = case.prediction, [], []

    def plate(title, note, values, scale):
        sheet.add(title, values, scale)
        hatched = not finite(values)
        note = f"{ON_FIXED} · {note}"
        plates.append(sheet.plate(title, note, lambda i: [sheet.use(title, i)], scale, hatched=hatched))

    sigma, weight = case.sigma, prediction and prediction.weight
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
        if name == "variance" and sigma is not None:
            continue  # it is σ_I, shown above
        values = one.std_mm(case.pair.spacing) if one.unit == "voxels" else one.std
        unit = case.unit if one.unit == "voxels" else one.unit
        scale = Scale(0.0, spread([values], 0, 99.5)[1], "viridis", unit)
        plate(f"Map: {name}", MEANINGS[one.unit], np.where(one.valid, values, np.nan), scale)
    if not case.maps:
        notes.append("No map of uncertainty at test time (such as equivariance) was made.")
    bound, error = case.verdict.bound, case.true_error
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


def _sparsification(case: ReportedCase, sigma, error) -> list[Html]:
    """Does σ_I rank the residual; do the maps rank the true error."""
    charts, mask = [], foreground(case.pair)
    note = "foreground; error left after removing the most uncertain voxels"
    if sigma is not None:
        curve = sparsification((case.pair.fixed - case.prediction.moved) ** 2, sigma, mask)
        if curve is not None:
            title = f"Sparsification of the residual by σ_I, area to the oracle {area(curve):.2g}"
            charts.append(
                sparsification_chart(title, note, "mean squared residual, intensity²", {"most uncertain by σ_I": curve})
            )
    if error is None or not case.maps:
        return charts
    for one in case.maps.values():
        mask = mask & one.valid
    curves = {f"by {name}": sparsification(error, np.where(mask, one.std, 0), mask) for name, one in case.maps.items()}
    if mask.any():
        charts.append(
            sparsification_chart("Sparsification of the true error by each map", note, "mean error, voxels", curves)
        )
    return charts


def _dice(case: ReportedCase, block: str) -> str:
    return " ".join(["Dice", *(f"{name} {score:.3f}" for name, score in case.dices(block).items())])


def _outlines(case: ReportedCase, sheet: Sheet, masks: Mapping[str, np.ndarray], index: int) -> list[Html]:
    """Masks in colour, the truth dotted white."""
    colours = dict(zip(case.labels, structure_colours(len(case.labels)), strict=True))
    own = [sheet.line(sheet.view.outline(mask, index), "outline", colours[name]) for name, mask in masks.items()]
    return own + [sheet.line(sheet.view.outline(mask, index), "truth") for mask in case.truth.values()]


def _legend(case: ReportedCase) -> Html:
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


def _section(name: str, title: str, rows: list[list], note: str, charts: list | None = None) -> Html:
    drawn = [element("div", row, class_="plates") for row in rows if row]
    return section(name, title, drawn, element("div", charts, class_="charts") if charts else None, note=note)


def _choice(name: str, legend: str, options: list[tuple[str, str]]) -> Html:
    buttons = [
        element("label", element("input", type="radio", name=name, value=value, checked=n == 0), " ", words)
        for n, (value, words) in enumerate(options)
    ]
    return element("fieldset", element("legend", legend), buttons)


def _when(name: str) -> str:
    return {"moved": "moved (after)", "moving": "moving (before)"}[name]


def _folds_kept(blocks: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Of blocks of determinants the mean, or the least where one folds: a fold must not vanish in a mean."""
    least = blocks.min(axes)
    return np.where(least <= 0, least, blocks.mean(axes))
