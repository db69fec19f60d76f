"""The table of checks, read back with a parser as a browser would."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_pages import HOSTILE, Page, shape

from poisonwatch.examples import Example, Message, Rejection
from poisonwatch.reports.validation_report import (
    LONGEST_CHECK_TEXT,
    render_validation,
    write_validation,
    write_validation_page,
)
from poisonwatch.text.display import make_visible
from poisonwatch.validation import Check, Severity, Validation


def check(
    reason: str = "the response is empty",
    severity: Severity = "reject",
    passed: bool = False,
    failing: int | None = 3,
) -> Check:
    share, observed = (
        (None, f"saw {reason}") if failing is None else (failing / 9, f"{failing} of 9 rows fail")
    )
    return Check(
        "expect_column_values_to_match_regex",
        "response",
        severity,
        passed,
        failing,
        share,
        reason,
        observed,
    )


def validation(*checks: Check, rejected: int = 1) -> Validation:
    example = Example.from_messages([Message("user", "x")])
    return Validation(
        [example] * 8,
        [Rejection("s", i, "s, line 1", "e", "r", "text") for i in range(rejected)],
        list(checks),
    )


def everywhere(text: str) -> str:
    """A page with the text wherever the audit file or rows can write to."""
    return render_validation(validation(check(text), check(text, "warn", failing=None)), text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_shown_and_never_becomes_markup(text: str) -> None:
    """The elements and attributes are those of a harmless text; no control character reaches the
    page.
    """
    html = everywhere(text)
    assert shape(Page(html)) == shape(Page(everywhere("harmless")))
    assert Page(html).text.count(make_visible(text)) >= 5
    assert make_visible(html) == html
    assert html.encode("utf-8")


def test_the_page_loads_and_runs_nothing() -> None:
    """No script, no image, no link, no address; the content security policy says so before anything
    else could load.
    """
    page = Page(everywhere(HOSTILE["script"]))
    assert page.tags[2] == ("meta", {"charset": "utf-8"})
    assert page.tags[3][1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    }
    assert not {tag for tag, _ in page.tags} & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "svg",
        "form",
        "a",
    }
    assert not [
        name
        for _, attributes in page.tags
        for name in attributes
        if name.startswith("on") or name in ("src", "href")
    ]
    assert "url(" not in page.within("style")
    assert "prefers-color-scheme: dark" in page.within("style")


def test_every_check_has_its_line_those_that_failed_first() -> None:
    """Result, meaning, rows, share, and what follows."""
    checks = [
        check("fine", passed=True, failing=0),
        check("counted", "note", passed=True),
        check("wrong"),
        check("few", "stop", failing=None),
    ]
    page = Page(render_validation(validation(*checks), "audit"))
    said = " ".join(
        " ".join(
            text for path, text in page.pieces if any(step.startswith("tbody") for step in path)
        ).split()
    )
    kind = "expect_column_values_to_match_regex on response"
    assert said == (
        f"failed wrong {kind} 3 33.3 % row kept out failed few {kind} saw few audit stops "
        f"passed fine {kind} 0 0 % row kept out noted counted {kind} 3 33.3 % counted only"
    )


def test_the_outcome_counts_rows() -> None:
    """Rejected of all, none rejected, or no rows."""
    assert (
        Page(render_validation(validation(check()), "a")).within("outcome")
        == "1 of 9 rows rejected"
    )
    assert (
        Page(render_validation(validation(rejected=0), "a")).within("outcome") == "No row rejected"
    )
    assert Page(render_validation(Validation.empty(), "a")).within("outcome") == "No rows"
    assert "Nothing was asked." in Page(render_validation(Validation.empty(), "a")).text


def test_copies_are_shown_where_there_are_any() -> None:
    """A tile, and how many have the same bytes; they count among the rows, not as rejected."""
    found = replace(validation(check()), copies=1204, identical=1000)
    page = Page(render_validation(found, "a"))
    assert page.within("outcome") == "1 of 1,213 rows rejected"
    assert "copies1,204" in page.text
    assert "1,000 of 1,204 copies" in page.text
    assert "has the content of" not in Page(render_validation(validation(), "a")).text


def test_long_texts_keep_both_ends() -> None:
    """And say how much is left out."""
    page = Page(render_validation(validation(check("start " + "x" * 5000 + " end")), "audit"))
    assert "start x" in page.text
    assert "x end" in page.text
    assert f"{5010 - LONGEST_CHECK_TEXT:,} characters left out here" in page.within("cut")


def test_files_hold_the_page_and_the_record(tmp_path: Path) -> None:
    """JSON in ASCII, whatever the reasons are."""
    found = validation(check("\ud800 \x1b[31m \u202e"), check("w", "warn"))
    write_validation(tmp_path, found)
    write_validation_page(tmp_path, found, "audit")
    assert (tmp_path / "validation.html").read_text(encoding="utf-8") == render_validation(
        found, "audit"
    )
    assert (
        json.loads((tmp_path / "validation.json").read_bytes().decode("ascii")) == found.to_record()
    )
