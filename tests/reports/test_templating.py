"""What templates make of values."""

import pytest
from jinja2 import TemplateNotFound

from poisonwatch.reports.templating import keep_ends, load_template


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 50])
def test_ends_lose_only_what_they_count(length: int) -> None:
    """Start and end are the text's own, never overlap, and miss exactly what is counted."""
    text = "".join(chr(ord("a") + i % 26) for i in range(length))
    start, left_out, end = keep_ends(text, 8)
    assert len(start) + left_out + len(end) == length
    assert len(start) + len(end) == min(length, 8)
    assert text.startswith(start)
    assert text.endswith(end)


def test_whatever_a_template_prints_is_visible_and_escaped() -> None:
    """Markup becomes text, and control characters become signs that can be seen."""
    shown = (
        load_template("validation.html.j2")
        .environment.from_string("<p title='{{ x }}'>{{ x }}</p>")
        .render(x="<b>'\u202e\x00")
    )
    assert shown == "<p title='&lt;b&gt;&#39;\\u{202e}\\u{0}'>&lt;b&gt;&#39;\\u{202e}\\u{0}</p>"


def test_a_template_that_is_not_there_is_an_error() -> None:
    """Nothing outside the folder of templates is one."""
    for name in ("nothing.html.j2", "../README.md"):
        with pytest.raises(TemplateNotFound):
            load_template(name)
