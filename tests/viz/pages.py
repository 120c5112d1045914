"""Pages as a parser sees them, and what goes into them."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
from matplotlib.image import imread

from hetmorph.uncertainty import UncertaintyMap

VOID = {"meta", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """Elements with their attributes and text, from a file."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self._open = [], []
        self.feed(self.source)
        assert not self._open, f"never closed: {[one['tag'] for one in self._open]}"

    def handle_starttag(self, tag, attributes):
        one = {"tag": tag, "text": "", "inside": [*self._open], **dict(attributes)}
        self.elements.append(one)
        if tag not in VOID:
            self._open.append(one)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open and self._open[-1]["tag"] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, text):
        for one in self._open:
            one["text"] += text

    def all(self, tag, class_=None, within=None):
        return [
            one
            for one in self.elements
            if one["tag"] == tag
            and (class_ is None or class_ in (one.get("class") or "").split())
            and (within is None or any(within is outer for outer in one["inside"]))
        ]

    def by_id(self, name):
        found = [one for one in self.elements if one.get("id") == name]
        assert len(found) == 1, f"{len(found)} elements with id {name}"
        return found[0]

    @property
    def text(self):
        return "".join(one["text"] for one in self.elements if one["tag"] in ("header", "main"))

    def plate(self, title):
        """The figure of this title."""
        return next(one for one in self.all("figure") if one["text"].startswith(title))

    def titles(self):
        return [one["text"] for figure in self.all("figure", "plate") for one in self.all("b", within=figure)]

    def picture(self, title, slice_index=0):
        """RGBA of the first map of a plate, `[rows, columns, 4]` in 0..1."""
        plane = self.all("svg", within=self.plate(title))[slice_index]
        return self.picture_of(self.all("use", within=plane)[0]["href"])

    def picture_of(self, reference):
        uri = self.by_id(reference.removeprefix("#"))["href"]
        return imread(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))

    def paths(self, title, class_):
        """Lines of this class, without their rims."""
        uses = [one for one in self.all("use", class_, within=self.plate(title)) if "rim" not in one["class"]]
        return [self.by_id(one["href"][1:])["d"] for one in uses]

    def numbers(self, within):
        """Every digit and what is shown, of the scores inside."""
        return [(float(one["value"]), one["text"]) for one in self.all("data", within=within)]

    def table(self, within):
        """Rows of a table as lists of their cells."""
        rows = self.all("tr", within=within)
        return [
            [one for one in self.elements if one["tag"] in ("th", "td") and one["inside"][-1] is row] for row in rows
        ]


def assert_self_contained(page):
    """No address leads out of the page, but relative ones of links to be followed."""
    for one in page.elements:
        assert one["tag"] not in ("link", "iframe", "object", "embed", "base", "img"), one["tag"]
        assert "src" not in one and "srcset" not in one and "xlink:href" not in one
        assert not [key for key in one if key.startswith("on")], "a handler in an attribute"
        if "href" in one:
            allowed = "./" if one["tag"] == "a" else ("#", "data:image/png;base64,")
            assert one["href"].startswith(allowed), one["href"][:80]
    assert not re.search(r"https?:|@import", page.source)
    assert all(address == "#checker" for address in re.findall(r"url\(([^)]*)\)", page.source))
    names = [one["id"] for one in page.elements if one.get("id")]
    assert len(names) == len(set(names))
    assert {one["href"][1:] for one in page.all("use")} <= set(names)


def displacement_map(name, std, valid=None):
    """An estimate that says `std` voxels."""
    std = np.asarray(std, np.float32)
    valid = np.ones(std.shape, bool) if valid is None else valid
    variances = np.repeat(std[..., None] ** 2 / std.ndim, std.ndim, -1)
    return UncertaintyMap(name, np.where(valid, std, np.nan), valid, "voxels", None, 5, 5, 0.1, variances=variances)


def hostile(pair):
    """The same pair, with names that try to become markup."""
    return dataclasses.replace(
        pair,
        case_id="<script>alert(1)</script>",
        patient="\"><img src=x onerror='alert(2)'>",
        group="&lt;b&gt; </style>",
    )
