"""How far people are, as filters of the queue."""

from pathlib import Path

from clusters import pulled, settings
from muting import audit_two_groups

from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import find_next_group, list_groups
from poisonwatch.ledger.stages import NOBODY, QueueState


def keys(ledger: Ledger, state: QueueState = "open", assignee: str = "") -> list[str]:
    groups, _ = list_groups(ledger, AuditFilter(assignee=assignee), state)
    return [group.key for group in groups]


def test_the_queue_is_narrowed_down_by_state_and_assignee(tmp_path: Path) -> None:
    """And what others have is not the next that is left to somebody."""
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, settings("json://one"))
        assert keys(ledger) == ["1", "2"]
        record_assignment(ledger, "one", "1", "Ann", author="Ann")
        assert (keys(ledger, "in review"), keys(ledger, "reopened")) == (["1"], [])
        assert (keys(ledger, assignee="ann"), keys(ledger, assignee=NOBODY)) == (["1"], ["2"])
        found = {}
        for person in ("ann", "bob"):
            group = find_next_group(ledger, AuditFilter(), "", "", left_to=person)
            assert group is not None
            found[person] = group.key
        assert found == {"ann": "1", "bob": "2"}
