"""Pictures of one case on a page: maps and lines over the same grid, at the same size, in the same orientation."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from hetmorph.viz.html import Html, element, join
from hetmorph.viz.rasters import Scale, reduced
from hetmorph.viz.view import View

BARS_MM = (1, 2, 5, 10, 20, 50, 100)
BAR_SHARE = 0.35  # of the width that the bar of length takes at most
TEXT_SHARE = 0.05  # of the shorter side


class Sheet:
    """Everything drawn of one case; each map is stored once, and used by every plate that shows it.

    Args:
        view: how the grid lies on the page.
        unit: unit of the view's spacing, and so of the bar of length.
    """

    def __init__(self, view: View, unit: str = "mm"):
        self.view, self.unit = view, unit
        self._stored, self._numbers, self._lines = [], {}, {}

    def add(self, name: str, values: np.ndarray, scale: Scale, combine: Callable | None = None) -> None:
        """Store a map `[*S]`; of blocks that are shown as one pixel the mean, or what `combine` makes of them."""
        self._numbers[name] = len(self._numbers)
        factor = self.view.factor
        for index in self.view.slices:
            picture = reduced(self.view.picture(values, index), factor, combine)
            width, height = (n * factor * s for n, s in zip(picture.shape[::-1], self.view.scale, strict=True))
            place = {"width": _number(width), "height": _number(height), "preserveAspectRatio": "none"}
            self._stored.append(element("image", id=self._id(name, index), href=scale.uri(picture), **place))

    def use(self, name: str, index: int, **attributes) -> Html:
        """A stored map, drawn here too."""
        return element("use", href=f"#{self._id(name, index)}", **attributes)

    def line(self, path: str, class_: str, colour: str | None = None) -> Html | None:
        """A thin line with a dark rim, to be seen on any ground; None for an empty path."""
        if not path:
            return None
        if path not in self._lines:
            self._lines[path] = f"line{len(self._lines)}"
            # As an attribute: browsers do not agree on whether a style sheet reaches what is used elsewhere.
            thin = {"vector_effect": "non-scaling-stroke", "stroke_linejoin": "round"}
            self._stored.append(element("path", id=self._lines[path], d=path, **thin))
        style = None if colour is None else f"stroke:{colour}"
        href = f"#{self._lines[path]}"
        return join(
            [element("use", href=href, class_=f"{class_} rim"), element("use", href=href, class_=class_, style=style)]
        )

    def definitions(self) -> Html:
        """The stored maps and lines; they belong into the page once, before the plates."""
        width, height = self.view.size
        tile = max(width, height) / 8
        squares = [
            element("rect", x=_number(x * tile), y=_number(y * tile), width=_number(tile), height=_number(tile))
            for x in range(8)
            for y in range(8)
            if (x + y) % 2
        ]
        checker = element("clipPath", squares, id="checker")
        return element(
            "svg", element("defs", self._stored, checker), class_="store", width="0", height="0", aria_hidden="true"
        )

    def plate(
        self,
        title: str,
        note: str,
        layers: Callable[[int], Sequence],
        scale: Scale | None,
        alt: str = "",
        hatched: bool = False,
    ) -> Html:
        """One plate: title, note (unit and frame), picture, colour bar.

        Args:
            layers: what is drawn of a slice, from bottom to top.
            scale: colours and limits of the colour bar; None for lines alone.
            alt: what to tell who cannot see it, beside title and note.
            hatched: the map is not known everywhere.
        """
        caption = element("figcaption", element("b", title), element("span", note))
        told = ". ".join(filter(None, (title, note, alt)))
        pictures = self.planes(layers, told, marks=scale is None or scale.colours == "gray")
        frame = element("div", pictures, class_="frame hatched" if hatched else "frame")
        return element("figure", caption, frame, scale and colour_bar(scale), class_="plate")

    def planes(self, layers: Callable[[int], Sequence], alt: str, marks: bool = True) -> list[Html]:
        """The picture alone, an SVG a slice; `marks` are the letters of the orientation and a bar of known length."""
        width, height = self.view.size
        box = f"0 0 {_number(width)} {_number(height)}"
        return [
            element(
                "svg",
                layers(index),
                self._marks() if marks else None,
                viewBox=box,
                class_=f"plane{self.slice_class(index)}",
                role="img",
                aria_label=alt if self.view.through is None else f"{alt}, slice {index}",
            )
            for index in self.view.slices
        ]

    def slice_class(self, index: int) -> str:
        """Class of what belongs to one slice."""
        return "" if self.view.through is None else f" slice slice-{index}"

    def _marks(self) -> Html:
        """Letters of the orientation, and a bar of known length."""
        width, height = self.view.size
        text = TEXT_SHARE * min(width, height)
        places = {"left": (0.01 * width, height / 2, "start"), "right": (0.99 * width, height / 2, "end")}
        places |= {"top": (width / 2, 1.1 * text, "middle"), "bottom": (width / 2, 0.985 * height, "middle")}
        letters = [_mark(letter, *places[side], text) for side, letter in self.view.sides.items()]
        fitting = [mm for mm in BARS_MM if mm / self.view.unit_mm <= BAR_SHARE * width]
        if not fitting:
            return element("g", letters, class_="marks")
        length, left, low = fitting[-1] / self.view.unit_mm, 0.03 * width, 0.96 * height
        bar = self.line(f"M{left:.1f},{low:.1f}h{length:.1f}", "length")
        label = _mark(f"{fitting[-1]} {self.unit}", left, low - 0.35 * text, "start", 0.85 * text)
        return element("g", letters, bar, label, class_="marks")

    def _id(self, name: str, index: int) -> str:
        return f"map{self._numbers[name]}-{index}"


def colour_bar(scale: Scale) -> Html:
    """The colours, the values at both ends and in the middle, and the unit."""
    middle = scale.centre
    if middle is None:
        middle = (scale.low + scale.high) / 2
    ticks = [element("span", text) for text in rounded(scale.low, middle, scale.high)]
    strip = element("div", class_="colours", style=f"background:{scale.gradient()}")
    return element("div", strip, element("div", ticks, class_="ticks"), element("p", scale.unit), class_="bar")


def rounded(*values: float) -> list[str]:
    """Numbers with as many decimals as tell them apart."""
    spread = max(values) - min(values)
    decimals = max(0, 2 - math.floor(math.log10(spread))) if spread > 0 else 3
    # No minus before a zero.
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values]


def _mark(text: str, x: float, y: float, anchor: str, size: float) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, font_size=f"{size:.1f}")


def _number(value: float) -> str:
    return f"{value:.6g}"
