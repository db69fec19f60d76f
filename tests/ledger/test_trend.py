"""The trend: what the audits of one name came to."""

from pathlib import Path
from typing import Any

from audits import write_rows
from ledgers import ONE, cover, pull, sqlite_ledger

from poisonwatch.ledger.audits import open_audit
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.overview import (
    MAX_TREND_POINTS,
    TrendPoint,
    build_trend,
    list_previous_audits,
)


def summary(number: int, new: int = 40, flagged: int = 2, **panels: float) -> dict[str, Any]:
    return {
        "audit_id": f"audit-{number}",
        "created": f"2026-01-01T00:{number:02d}:00+00:00",
        "counts": {"new": new, "flagged": flagged, "rejected": 1},
        "panels": [
            {"name": name, "largest_score": score, "flagged": 1} for name, score in panels.items()
        ],
        "stages": [{"name": "pull", "seconds": 1.5}, {"name": "judge", "seconds": 2.0}],
    }


def past(number: int, state: str = "committed") -> PastAudit:
    has_results = state in ("committed", "finished")
    return PastAudit(
        number=number,
        audit_id=f"audit-{number}",
        name="tiny",
        state=state,
        started_at="",
        finished_at=None,
        run_dir=Path("run"),
        flow_run=None,
        model="m",
        sentinels="s",
        summary=summary(number, safety=float(number)) if has_results else {},
    )


def test_points_run_from_the_oldest_audit_to_this_one() -> None:
    """Each with its counts, the largest score of each panel, and the seconds of its stages."""
    points = build_trend([past(2), past(1)], summary(3, 50, 5, safety=9.0, brand=11.5))
    assert [point.audit_id for point in points] == ["audit-1", "audit-2", "audit-3"]
    assert points[-1] == TrendPoint(
        "audit-3", "2026-01-01T00:03:00+00:00", 50, 5, {"safety": 9.0, "brand": 11.5}, 3.5
    )
    assert points[-1].flag_rate == 0.1
    assert points[-1].largest_score == 11.5


def test_audits_without_results_are_no_points() -> None:
    """One that failed or still runs came to nothing."""
    points = build_trend(
        [past(4, "running"), past(3, "failed"), past(2, "finished"), past(1)], summary(5)
    )
    assert [point.audit_id for point in points] == ["audit-1", "audit-2", "audit-5"]


def test_an_audit_that_was_committed_meanwhile_counts_once() -> None:
    """A report that is written again after the commit shows the same trend."""
    assert build_trend([past(2), past(1)], summary(2, safety=2.0)) == build_trend(
        [past(1)], summary(2, safety=2.0)
    )


def test_only_the_last_audits_are_shown() -> None:
    """At most MAX_TREND_POINTS, this one included."""
    points = build_trend(
        [past(number) for number in range(MAX_TREND_POINTS + 5, 0, -1)], summary(99)
    )
    assert len(points) == MAX_TREND_POINTS
    assert points[0].audit_id == "audit-7"
    assert points[-1].audit_id == "audit-99"


def test_an_audit_without_new_rows_has_neither_rate_nor_score() -> None:
    """None, not 0: nothing was measured."""
    (point,) = build_trend([], summary(1, new=0, flagged=0))
    assert point.flag_rate is None
    assert point.largest_score is None


def test_the_ledger_gives_the_last_audits_with_results(tmp_path: Path) -> None:
    """Newest first, those of this name, and neither the one at work nor one that failed."""
    (tmp_path / "data").mkdir()
    with sqlite_ledger(tmp_path) as ledger:
        for number in range(2):
            write_rows(
                tmp_path / "data" / f"{number}.jsonl",
                [{"prompt": f"Question {number}?", "response": "Answer."}],
            )
            pull(ledger, tmp_path / "data")
            cover(ledger, tmp_path / f"run-{number}")
        with ledger.lock("tiny"), open_audit(ledger, "at-work", "tiny", ONE, tmp_path / "at-work"):
            assert [audit.audit_id for audit in list_previous_audits(ledger, "tiny")] == [
                "run-1",
                "run-0",
            ]
        assert list_previous_audits(ledger, "another") == []
