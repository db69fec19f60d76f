"""Pictures for the report: one that fails is missing, and no other."""

from pathlib import Path

import pytest
from report_pages import Page, build

from poisonwatch.failures import Attempts
from poisonwatch.ledger.overview import TrendPoint
from poisonwatch.reports import pictures as module
from poisonwatch.reports.html import render_report, render_stand_in
from poisonwatch.reports.pictures import draw_pictures, write_plots

PNG = b"\x89PNG"


def test_a_picture_that_fails_is_missing_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure names the panel; the others are drawn, written, and in the report."""
    summary, detection = build(panels=("one", "two", "one"))
    draw = module.draw_panel_scores

    def draw_some(*args: object) -> object:
        if args[1] == 1:
            raise RuntimeError("no font")
        return draw(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "draw_panel_scores", draw_some)
    attempts = Attempts()
    found = draw_pictures(detection, [], attempts)
    assert [picture is not None for picture in found.panels] == [True, False, True]
    assert found.trend is None
    (failure,) = attempts.failures
    assert (failure.part, failure.outcome) == ("the picture of panel two", "not drawn")
    write_plots(tmp_path, detection.panels, found)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "00-one.png",
        "02-one.png",
    ]
    assert (tmp_path / "plots" / "00-one.png").read_bytes().startswith(PNG)
    summary["failures"] = attempts.to_records()
    page = Page(render_report(summary, detection, [], pictures=found))
    shown = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert [str(alt).split(":")[0] for alt in shown] == ["Scores on panel one"] * 2
    assert "1 part of this audit failed." in page.text
    assert "the picture of panel two not drawn: RuntimeError: no font" in page.text


def test_a_trend_is_drawn_of_two_audits() -> None:
    """Of one there is none, and that is no failure."""
    _, detection = build()
    attempts = Attempts()
    points = []
    for day in (1, 2):
        created = f"2026-01-0{day}T07:30:00+00:00"
        points.append(TrendPoint(f"audit-{day}", created, 100, 2, {"safety": 2.0}, 3.0))
    assert draw_pictures(detection, points[:1], attempts).trend is None
    trend = draw_pictures(detection, points, attempts).trend
    assert trend is not None
    assert trend.startswith(PNG)
    assert attempts.failures == []


def test_a_page_in_place_of_the_report_escapes_what_it_shows() -> None:
    """Names and errors are text in it, visible and without effect."""
    summary, _ = build(n=5)
    summary["name"] = "<script>\u202e"
    page = render_stand_in(summary, ["the report not drawn: <b>\x1b"])
    assert "0 of 5 new rows flagged" in page
    assert "&lt;script&gt;\\u{202e}" in page
    assert "<li>the report not drawn: &lt;b&gt;\\u{1b}</li>" in page
    assert Page(page).text
