"""How people stand with a group."""

from pathlib import Path

from clusters import pulled, settings
from muting import audit_two_groups

from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.decisions import record_decisions
from poisonwatch.ledger.group_teams import list_assignees, load_teams
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import list_group_rows


def stage(ledger: Ledger) -> str:
    return load_teams(ledger, [("one", "1")])["one", "1"].stage


def test_a_group_goes_from_open_to_decided_and_back(tmp_path: Path) -> None:
    """Being asked is not beginning; whoever takes it begins."""
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, settings("json://one"))
        stages = [stage(ledger)]
        record_assignment(ledger, "one", "1", "bob", author="ann")
        stages.append(stage(ledger))
        record_assignment(ledger, "one", "1", "Bob", author="bob")
        stages.append(stage(ledger))
        assert list_assignees(ledger) == ["Bob"]
        ids = [row.example_id for row in list_group_rows(ledger, "one", "1")]
        record_decisions(ledger, ids, "poison")
        stages.append(stage(ledger))
        record_decisions(ledger, ids[:1], "unsure")
        stages.append(stage(ledger))
    assert stages == ["open", "open", "in review", "decided", "reopened"]
