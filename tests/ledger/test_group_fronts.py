"""What a group shows of itself in a list."""

from pathlib import Path

from clusters import HIGH, MEDIUM, audit, found, pulled, settings

from poisonwatch.ledger.group_fronts import load_fronts
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import list_group_rows, list_groups


def test_a_group_is_fronted_by_its_strongest_row(tmp_path: Path) -> None:
    """A row in no group by itself; with the number of files that hold the group's rows."""
    with pulled(tmp_path) as ledger:
        audit(
            ledger,
            tmp_path / "first",
            settings(),
            lambda e: found([(MEDIUM, e[:3]), (HIGH, e[3:5])], alone=e[5:6]),
        )
        groups, total = list_groups(ledger, AuditFilter())
        fronts = load_fronts(ledger, groups)
        assert len(fronts) == total == 3
        for group in groups:
            front = fronts[group.audit_id, group.key]
            strongest = list_group_rows(ledger, group.audit_id, group.key)[0]
            assert front.record == strongest.record
            assert front.record["score"] == group.score
            assert front.files == 1
