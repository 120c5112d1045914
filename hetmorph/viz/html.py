"""HTML that escapes by construction, and the frame of a page that holds everything it needs."""

import base64
import hashlib
import html
from importlib.resources import files

from hetmorph.version import __version__

VOID = {"input", "meta", "br", "hr", "image", "use", "path", "line", "circle", "rect"}


class Html(str):
    """Markup. Any other string is text, and is escaped where it becomes part of a page."""


def element(name: str, /, *children, **attributes) -> Html:
    """One element.

    Args:
        name: tag of the element.
        children: markup, text, numbers, or sequences of these; None is left out.
        attributes: a trailing underscore is dropped (`class_`), others become hyphens (`aria_label`); True stands for
            an attribute without value; None and False leave it out.

    Example:
        >>> element("p", "1 < 2", class_="note")
        '<p class="note">1 &lt; 2</p>'
    """
    opening = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    # SVG elements that hold nothing must be closed, those of HTML must not; HTML parsers take both of these.
    return Html(opening[:-1] + "/>") if name in VOID and not children else Html(f"{opening}{join(children)}</{name}>")


def join(children) -> Html:
    """Markup and text, one after the other, the text escaped."""
    return Html("".join(_child(child) for child in children))


def section(name: str, title: str, *children, note=None) -> Html:
    """A part of a page under a heading.

    Args:
        name: identifier of the part, for links and style.
        title: the heading.
        children: what is below it.
        note: a remark between the two; None or "" for none.
    """
    remark = element("p", note, class_="note") if note else None
    return element("section", element("h2", title), remark, children, id=name)


def table(rows, head=(), class_: str | None = None) -> Html:
    """A table.

    Args:
        rows: sequences of cells, the first of which is the row's heading.
        head: headings of the columns; none for a list of facts.
        class_: for the style.
    """
    top = element("thead", element("tr", [element("th", text, scope="col") for text in head])) if head else None
    lines = [
        element("tr", element("th", name, scope="row"), [element("td", cell) for cell in cells])
        for name, *cells in rows
    ]
    return element("table", top, element("tbody", lines), class_=class_)


def tiles(numbers) -> Html:
    """Numbers that are asked for first, each under its name.

    Args:
        numbers: pairs of name and value.
    """
    pairs = [element("div", element("dt", name), element("dd", value)) for name, value in numbers]
    return element("dl", pairs, class_="tiles")


def header(title: str, line: str, back: Html | None = None) -> Html:
    """The top of a page: its title, a line below it, and perhaps a link to the page above."""
    button = element("button", "light / dark", id="theme", type="button", hidden=True)
    return element("header", back, button, element("h1", title), element("p", line), class_="top")


def source(facts, note: str) -> Html:
    """Where a page comes from.

    Args:
        facts: values by name, besides the version.
        note: what the page is not for.
    """
    rows = [(name, str(value)) for name, value in {"hetmorph": __version__, **facts}.items()]
    return section("source", "Where this comes from", table(rows), element("p", note))


def page(title: str, *body, data: dict | None = None) -> str:
    """A whole document without reference to any other: its style and script are inside.

    Its policy forbids the browser to load anything, and to run any other script than the page's own.

    Args:
        title: text.
        body: markup or text.
        data: attributes of the body, for the script.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"hetmorph {__version__}"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    # The script stands last: it finds the whole page, and a page without it is complete.
    whole = element("body", *body, element("script", Html(script)), **(data or {}))
    return f"<!DOCTYPE html>\n{element('html', head, whole, lang='en')}\n"


def _child(child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int, float)):
        return html.escape(str(child), quote=False)
    return join(child)


def _attribute(key: str, value) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'


def _asset(name: str) -> str:
    return files("hetmorph.viz").joinpath("page", name).read_text(encoding="utf-8")
