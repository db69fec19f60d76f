"""What audits and people said of one row."""

from pathlib import Path

from clusters import pulled, settings
from muting import audit_two_groups

from poisonwatch.ledger.audits_of_row import list_audits_of_row, list_decisions_on_row
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.queue import list_group_rows


def test_a_row_has_its_audits_and_decisions(tmp_path: Path) -> None:
    """One that nobody knows has none."""
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, settings("json://one"))
        id = list_group_rows(ledger, "one", "1")[0].example_id
        record_decision(ledger, id, "poison", author="ann")
        record_decision(ledger, id, "benign", author="bob")
        assert [past.audit_id for past in list_audits_of_row(ledger, id)] == ["one"]
        made = list_decisions_on_row(ledger, id)
        assert [decision.author for decision in made] == ["ann", "bob"]
        assert list_audits_of_row(ledger, "0" * 64) == list_decisions_on_row(ledger, "0" * 64) == []
