import base64
import hashlib

import pytest

from hetmorph.viz.html import Html, element, page
from tests.viz.pages import Page, assert_self_contained

NASTY = ["<b>", "a & b", "\"'", "</script><script>alert(1)</script>", "&lt;", "--> ]]>", "\u2028é", "x" * 5]


@pytest.mark.parametrize("text", NASTY)
def test_text_comes_out_of_a_parser_as_it_went_in(text, tmp_path):
    path = tmp_path / "x.html"
    path.write_text(page(text, element("main", element("p", text, title=text, data_value=text))), encoding="utf-8")
    parsed = Page(path)
    (shown,) = parsed.all("p")
    assert shown["text"] == shown["title"] == shown["data-value"] == parsed.all("title")[0]["text"] == text
    assert len(parsed.all("script")) == 1
    assert_self_contained(parsed)


def test_markup_is_kept_and_what_is_missing_left_out():
    inner = element("b", "1 < 2")
    assert element("p", inner, None, [1, "&"], id=None, hidden=True, checked=False) == (
        "<p hidden><b>1 &lt; 2</b>1&amp;</p>"
    )
    assert isinstance(inner, Html)
    assert element("input", type="radio") == '<input type="radio"/>'


def test_other_objects_are_refused_rather_than_printed():
    with pytest.raises(TypeError):
        element("p", object())


def test_the_policy_allows_the_pages_own_script_alone(tmp_path):
    path = tmp_path / "x.html"
    path.write_text(page("x"), encoding="utf-8")
    parsed = Page(path)
    digest = base64.b64encode(hashlib.sha256(parsed.all("script")[0]["text"].encode()).digest()).decode()
    policy = next(one["content"] for one in parsed.all("meta") if one.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;") and policy.endswith(f"script-src 'sha256-{digest}'")
