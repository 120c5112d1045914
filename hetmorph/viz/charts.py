"""Small charts as SVG within a page; they take their colours for text and lines from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hetmorph.metrics.ranking import Sparsification
from hetmorph.viz.html import Html, element

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 44
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST_DOTS = 400  # of a distribution; of more, only the box is drawn


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its points, and its class, which gives its colour and dashes (`report.css`)."""

    name: str
    x: np.ndarray
    y: np.ndarray
    class_: str


def line_chart(title: str, note: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Html:
    """Lines over a range from 0 to 1, their values not negative.

    Args:
        title, note: above the chart; the note says what is shown of which voxels.
        x_label, y_label: with units.
        lines: at least one.
    """
    top = max(float(np.max(line.y)) for line in lines) or 1.0
    ticks = _ticks(0, top)
    power = _power(ticks[-1])
    y_label += f" · 10{str(power).translate(SUPERSCRIPTS)}" if power else ""

    def place(x, y):
        return _across(x, 0, 1), HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / ticks[-1]

    drawn = [_line(*place(0, y), *place(1, y), "rule") for y in ticks]
    drawn += [_text(LEFT - 6, place(0, y)[1] + 4, f"{y / 10.0**power:.3g}", "end") for y in ticks]
    drawn += [_text(place(x, 0)[0], HEIGHT - BOTTOM + 16, f"{x:g}", "middle") for x in (0, 0.25, 0.5, 0.75, 1)]
    for line in lines:
        points = " L".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(line.x, line.y, strict=True))
        drawn.append(element("path", d=f"M{points}", class_=f"line {line.class_}"))
    drawn += [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"), _upright(y_label)]
    key = [element("li", _sample(line), line.name) for line in lines]
    return _figure(title, note, drawn, element("ul", key, class_="key"))


def sparsification_chart(title: str, note: str, y_label: str, curves: Mapping[str, Sparsification]) -> Html:
    """Error left after removing the most uncertain voxels by each of the curves, between the oracle and chance."""
    first = next(iter(curves.values()))
    lines = [Line(name, one.fraction, one.curve, f"s{n % 6}") for n, (name, one) in enumerate(curves.items())]
    lines.append(Line("largest errors (oracle)", first.fraction, first.oracle, "oracle"))
    lines.append(Line("at random", np.array([0, 1]), np.full(2, first.curve[0]), "random"))
    return line_chart(title, note, "removed fraction of the voxels", y_label, lines)


def _sample(line: Line) -> Html:
    return element("svg", _line(0, 5, 26, 5, f"line {line.class_}"), viewBox="0 0 26 10", aria_hidden="true")


def distribution(title: str, note: str, unit: str, groups: Mapping[str, Sequence[float]]) -> Html:
    """A box and a dot a case for each group: median, quartiles, least and largest.

    Args:
        title, note, unit: in words.
        groups: values by name; those not finite are left out, and groups without any.
    """
    values = {name: np.array([v for v in own if math.isfinite(v)]) for name, own in groups.items()}
    values = {name: np.sort(own) for name, own in values.items() if own.size}
    every = np.concatenate([*values.values()])
    ticks = _ticks(every.min(), every.max())
    height = TOP + 70 * len(values) + BOTTOM
    drawn = []
    for x in ticks:
        at = _across(x, ticks[0], ticks[-1])
        drawn += [_line(at, TOP, at, height - BOTTOM, "rule"), _text(at, height - BOTTOM + 16, f"{x:.3g}", "middle")]
    for row, (name, own) in enumerate(values.items()):
        drawn += _box(own, (ticks[0], ticks[-1]), TOP + 70 * row + 40, name, row)
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, unit, "middle"))
    medians = ", ".join(f"{name} {np.median(own):.3g} of {own.size} cases" for name, own in values.items())
    return _figure(title, note, drawn, element("p", f"median: {medians}", class_="note"), height)


def _box(own: np.ndarray, ends: tuple[float, float], y: float, name: str, row: int) -> list[Html]:
    least, low, median, high, largest = (_across(q, *ends) for q in np.percentile(own, [0, 25, 50, 75, 100]))
    drawn = [_text(LEFT, y - 24, name, "start"), _line(least, y, largest, y, "whisker")]
    drawn.append(element("rect", x=f"{low:.1f}", y=y - 11, width=f"{high - low:.1f}", height=22, class_=f"box g{row}"))
    if own.size <= MOST_DOTS:
        # Dots of like value are moved up and down in turn, so that none hides another.
        drawn += [
            element(
                "circle", cx=f"{_across(v, *ends):.1f}", cy=y + 7 * ((i * 5) % 7 - 3) / 3, r=2, class_=f"dot g{row}"
            )
            for i, v in enumerate(own)
        ]
    return [*drawn, _line(median, y - 14, median, y + 14, "median")]


def _figure(title: str, note: str, drawn: list[Html], below: Html, height: int = HEIGHT) -> Html:
    chart = element("svg", drawn, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=f"{title}. {note}")
    return element("figure", _caption(title, note), chart, below, class_="chart")


def _caption(title: str, note: str) -> Html:
    return element("figcaption", element("b", title), element("span", note))


def _power(value: float) -> int:
    """Of ten, to stand in the axis' title: long numbers at the ticks would run into it."""
    power = math.floor(math.log10(value))
    return power if power < -1 or power > 3 else 0


def _ticks(low: float, high: float) -> np.ndarray:
    """Round numbers that enclose a range."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high if high > low else low + 1)


def _across(x: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / (high - low)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", **{key: f"{value:.1f}" for key, value in ends.items()}, class_=class_)


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _upright(text: str) -> Html:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return element("text", text, transform=f"translate(13 {middle:.0f}) rotate(-90)", text_anchor="middle")
