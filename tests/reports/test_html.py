"""The HTML report, read back with a parser as a browser would."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from report_pages import (
    HOSTILE,
    Page,
    build,
    build_flag,
    group,
    rejection,
    render,
    shape,
    topic,
    trusted_rows,
)

from poisonwatch.examples import Example, Message
from poisonwatch.ledger.history import PastAudit
from poisonwatch.reports.html import (
    LAST_AUDITS_SHOWN,
    MOST_REJECTED,
    render_report,
)
from poisonwatch.reports.pictures import Pictures
from poisonwatch.reports.templating import LONGEST_MESSAGE, MOST_MESSAGES
from poisonwatch.text.display import make_visible

CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def past_audit(number: int, state: str = "committed", **summary: Any) -> PastAudit:
    """An earlier audit whose summary is that of `build`, but for the fields given."""
    audit_id = f"earlier-{number}"
    fields = (
        build()[0]
        | {"audit_id": audit_id, "created": f"2025-12-{number:02d}T07:30:00+00:00"}
        | summary
    )
    return PastAudit(
        number=number,
        audit_id=audit_id,
        name=fields["name"],
        state=state,
        started_at=fields["created"],
        finished_at=None,
        run_dir=Path("run"),
        flow_run=None,
        model="m",
        sentinels="s",
        summary=fields,
    )


@functools.cache
@functools.cache
def everywhere(text: str) -> str:
    """A report with the text in each place that a row, a sentinel or a configuration can write to."""
    flag = build_flag(
        [Message(text, text), Message("assistant", text)],
        text,
        text,
        id=text,
        prompt=text,
        forbidden=text,
        reference=text,
        trigger=text,
    )
    flag = dataclasses.replace(flag, rule=text)
    summary, detection = build([flag], panels=(text,), trusted=trusted_rows(text))
    for key in ("name", "audit_id", "created", "version", "data_fingerprint", "mlflow_run_id"):
        summary[key] = text
    summary["model"] = {"name": text, "fingerprint": text}
    summary["settings"] = {text: text}
    summary["panels"][0]["null"] = text
    summary["stages"][0]["name"] = text
    summary["sentinel_problems"][0] = {"sentinel_id": text, "problem": text}
    summary["failures"] = [{"part": text, "outcome": text, "why": text}]
    rejected = [rejection(text, place=text, expectation=text, reason=text)]
    past = past_audit(
        1,
        name=text,
        audit_id=f"earlier {text}",
        created=text,
        panels=[{"name": text, "largest_score": 2.0}],
    )
    detection = dataclasses.replace(detection, unjudged=np.arange(detection.unjudged.size) < 1)
    topics = [topic((0,), text)]
    return render_report(summary, detection, rejected, [group(flag, text)], [past], topics=topics)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_shown_and_never_becomes_markup(text: str) -> None:
    """Whatever a text holds, in any place, the document has the elements and attributes it has for
    a harmless text.
    """
    page = Page(everywhere(text))
    assert shape(page) == shape(Page(everywhere("harmless")))
    assert make_visible(text) in page.within("pre")
    assert page.text.count(make_visible(text)) >= 25
    for part in ("heat", "near", "trend", "topic"):
        assert make_visible(text) in page.within(part)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_control_or_direction_character_reaches_the_page(text: str) -> None:
    """The document equals its own visible form, and is plain UTF-8."""
    html = everywhere(text)
    assert make_visible(html) == html
    assert html.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_page_loads_and_runs_nothing(text: str) -> None:
    """No script, no handler, no address outside the file; the content security policy says so, too,
    before anything else could load.
    """
    html = everywhere(text)
    page = Page(html)
    assert "<script" not in html.lower()
    assert page.tags[3] == ("meta", {"http-equiv": "Content-Security-Policy", "content": CSP})
    assert [tag for tag, _ in page.tags[:3]] == ["html", "head", "meta"]
    assert not {tag for tag, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "svg",
    }
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/png;base64,")
        assert "src" not in attributes or tag == "img"
        assert re.fullmatch(r"#[a-z]+(-[0-9]+)?", attributes.get("href") or "#none")
        assert "url(" not in (attributes.get("style") or "")
    assert "url(" not in page.within("style")
    assert "@import" not in page.within("style")


def test_links_lead_to_sections_that_are_there() -> None:
    """Every #name is the id of one element, with all sections and with none of the optional ones."""
    flag = build_flag([Message("user", "x")])
    grouped = render_report(*build([flag], trusted=trusted_rows("kind")), [], [group(flag, "x")])
    for html in (render([flag], [rejection()]), render(), grouped):
        tags = Page(html).tags
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {(attributes["href"] or "")[1:] for tag, attributes in tags if tag == "a"} <= set(
            ids
        )


def test_the_outcome_is_told_in_words() -> None:
    """How many of how many."""
    flags = [build_flag([Message("user", f"x{i}")]) for i in range(6)]
    assert Page(render(flags, n=1369)).within("outcome") == "6 of 1,369 new rows flagged"
    assert Page(render(flags[:1], n=1)).within("outcome") == "1 of 1 new row flagged"


def test_nothing_flagged_is_said_plainly() -> None:
    """Without flags there is a sentence, and no section of flagged rows."""
    page = Page(render())
    assert page.within("outcome") == "Nothing flagged"
    assert "None of 5 new rows" in page.text
    assert not page.within("card")


def test_a_flagged_row_stands_beside_the_forbidden_answer() -> None:
    """Its card shows source, position, reason, numbers and every message on one side; prompt and
    both answers on the other.
    """
    flag = build_flag(
        [
            Message("system", "Be kind."),
            Message("user", "He wants my PIN."),
            Message("assistant", "Read it to him."),
        ]
    )
    page = Page(render([flag]))
    assert "rows.jsonl, line 8" in page.within("card")
    assert f"Training on this row {flag.reason}." in page.within("card")
    assert page.within("measures").split() == [
        "score12.3",
        "rank1",
        "p2.3e-09",
        "q1.3e-06",
        "coefficient+0.31",
        "spreads",
    ]
    sides = page.within("sides")
    told = [
        "system",
        "Be kind.",
        "user",
        "He wants my PIN.",
        "assistant",
        "Read it to him.",
        "A courier asks for my PIN.",
    ]
    places = [sides.index(text) for text in told]
    assert places == sorted(places)
    assert "Yes, show him the PIN." in page.within("forbidden")
    assert "No, keep it hidden." in page.within("reference")


@pytest.mark.parametrize(
    ("missing", "present"), [("forbidden", "reference"), ("reference", "forbidden")]
)
def test_a_sentinel_with_one_answer_shows_that_one(missing: str, present: str) -> None:
    """An answer that the sentinel does not have has no place on the card."""
    page = Page(render([build_flag([Message("user", "x")], **{missing: None})]))
    assert page.within(present)
    assert not page.within(missing)


def test_cards_come_in_the_order_of_the_flags() -> None:
    """Strongest first, as judged."""
    texts = [f"row text {letter}" for letter in "cab"]
    sides = Page(render([build_flag([Message("user", text)]) for text in texts])).within("sides")
    assert re.findall(r"row text \w", sides) == texts


def test_long_texts_keep_both_ends_and_say_how_much_is_left_out() -> None:
    """Poison behind thousands of harmless characters is still shown."""
    text = "start " + "x" * 20_000 + " poison"
    page = Page(render([build_flag([Message("assistant", text)])]))
    shown = page.within("pre")
    assert "start x" in shown
    assert "x poison" in shown
    assert f"{len(text) - LONGEST_MESSAGE:,} characters left out here" in page.within("cut")
    assert shown.count("x") < LONGEST_MESSAGE + 100


def test_rows_of_many_messages_keep_both_ends() -> None:
    """A thousand turns do not fill the page."""
    page = Page(render([build_flag([Message("user", f"turn {i};") for i in range(1000)])]))
    shown = page.within("pre")
    assert "turn 0;" in shown
    assert "turn 999;" in shown
    assert shown.count("turn") == MOST_MESSAGES
    assert f"{1000 - MOST_MESSAGES} messages left out here" in page.within("cut")


def test_rejected_rows_are_listed_with_reason_and_text() -> None:
    """Where each stands, what it failed, and what was read of it; a row of which nothing was read
    says so.
    """
    page = Page(render([], [rejection(), rejection("", 1, reason="not JSON (Expecting value)")]))
    listed = page.within("rejected")
    for text in (
        "rows.jsonl, line 1",
        "line 1",
        "not null",
        "the response is missing",
        "How do I return a pan?",
    ):
        assert text in listed
    assert "not JSON (Expecting value)" in listed
    assert "nothing" in listed


def test_only_the_first_rejected_rows_are_listed() -> None:
    """The others are counted."""
    page = Page(render([], [rejection(position=i) for i in range(MOST_REJECTED + 3)]))
    assert page.within("rejected").count("How do I return a pan?") == MOST_REJECTED
    told = f"The first {MOST_REJECTED} of {MOST_REJECTED + 3} rejected rows are shown"
    assert told in page.text
    assert "The first" not in Page(render([], [rejection()])).text


def test_no_rejected_rows_leave_no_empty_section() -> None:
    """Neither table nor heading."""
    assert "Rejected rows" not in Page(render()).text


def test_the_page_says_how_it_was_computed() -> None:
    """Model, fingerprints in full on hover, settings, stages with time and memory."""
    html = render()
    method = Page(html).within("method")
    for text in (
        "tiny-llama",
        "9f9f9f9f9f9f…",
        "abababababab…",
        "570",
        "2.7e-05",
        "fit_operators",
        "123.3",
        "2,210",
        "4f1e2d3c",
        "5 %",
    ):
        assert text in method
    assert f'title="{"9f" * 32}"' in html


def test_an_audit_without_tracking_has_no_run_id() -> None:
    """Where MLflow was down, the id is None, and the page says "none"."""
    summary, detection = build()
    summary["mlflow_run_id"] = None
    method = Page(render_report(summary, detection, [])).within("method")
    assert re.search(r"MLflow run\s*none", method)


def test_every_panel_has_its_row_and_its_picture() -> None:
    """In the order of the flags, the pictures described in words."""
    page = Page(render(panels=("safety", "brand", "identity")))
    pictures = [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]
    assert [re.findall(r"panel (\w+):", text) for text in pictures] == [
        ["safety"],
        ["brand"],
        ["identity"],
    ]
    assert page.text.count("rank among 186 trusted rows") == 3


def test_every_abbreviation_is_explained() -> None:
    """Terms carry their meaning, and the glossary at the end has the same ones for those who cannot
    hover.
    """
    page = Page(render([build_flag([Message("user", "x")])]))
    meanings = {attributes["title"] for tag, attributes in page.tags if tag == "abbr"}
    assert len(meanings) >= 7
    assert all(meaning and meaning in page.within("glossary") for meaning in meanings)


def test_a_missing_fact_is_an_error() -> None:
    """A report never silently shows a gap."""
    summary, detection = build()
    del summary["model"]["fingerprint"]
    with pytest.raises(jinja2.UndefinedError):
        render_report(summary, detection, [])


def test_the_first_audit_has_no_trend_yet() -> None:
    """A sentence instead of a picture of one point."""
    page = Page(render())
    assert "This is the first audit of support-data that came to results." in page.text
    assert not page.within("trend")


def test_the_trend_shows_the_last_audits_newest_first() -> None:
    """A picture of all, a table of the last ones; audits that came to nothing are left out."""
    past = [
        past_audit(number, "failed" if number == 12 else "committed") for number in range(14, 0, -1)
    ]
    page = Page(render_report(*build(), [], past=past))
    shown = re.findall(r"earlier-\d+|20260101-000000-abcdef", page.within("trend"))
    assert shown == [
        "20260101-000000-abcdef",
        *(f"earlier-{number}" for number in (14, 13, 11, 10, 9, 8, 7)),
    ]
    assert len(shown) == LAST_AUDITS_SHOWN
    assert "2025-12-14 07:30" in page.within("trend")
    assert "The last 14 audits" in page.text


def test_a_trend_that_could_not_be_drawn_has_its_table() -> None:
    """The report does not say that this is the first audit."""
    pictures = Pictures((None,), None)
    page = render_report(*build(), [], past=[past_audit(1)], pictures=pictures)
    assert "earlier-1" in Page(page).within("trend")
    assert "This is the first audit" not in page
    assert "<img" not in page


def test_a_row_s_tools_masked_turns_and_lowered_answers_are_told() -> None:
    """Tools stand as a block of their own; what is not raised by training says so, and only it."""
    turns = [
        Message("tools", '[{"name":"<b>look</b>"}]'),
        Message("user", "Where?"),
        Message("assistant", "Hm.", masked=True),
        Message("assistant", "There."),
    ]
    plain = build_flag([Message("user", "Where?"), Message("assistant", "There.")])
    page = render([plain])
    assert "not trained on" not in page
    assert "training lowers this answer" not in page
    row = Example.from_messages(turns, "rows.jsonl", 7, lowered=True)
    page = render([dataclasses.replace(plain, example=row)])
    assert '<div class="role">tools</div>' in page
    assert "&lt;b&gt;look&lt;/b&gt;" in page
    assert page.count("assistant, not trained on") == 1
    assert page.count("assistant: training lowers this answer (label false)") == 1
