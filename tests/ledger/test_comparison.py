"""Two audits side by side."""

from pathlib import Path

from clusters import HIGH, LOW, audit, pulled, settings
from muting import flagged

from poisonwatch.ledger.comparison import compare_audits

ALERTS = settings("json://one")


def test_rows_are_new_gone_changed_or_the_same(tmp_path: Path) -> None:
    """By panel and severity, whatever the score."""
    with pulled(tmp_path) as ledger:
        audit(ledger, tmp_path / "one", ALERTS, flagged((HIGH, slice(3)), (LOW, slice(4, 6))))
        audit(ledger, tmp_path / "two", ALERTS, flagged((HIGH + 1, slice(2)), (HIGH, slice(4, 8))))
        found = compare_audits(ledger, "one", "two")
        counts = {change: found.count(change) for change in ("new", "gone", "changed", "same")}
        assert counts == {"new": 2, "gone": 1, "changed": 2, "same": 2}
        assert all(row.looked_at for row in found.rows)
        (panel,) = found.panels
        assert (panel.flags_before, panel.flags_after) == (5, 6)
        assert panel.largest_after == HIGH + 1
        assert compare_audits(ledger, "one", "one").count("same") == 5
