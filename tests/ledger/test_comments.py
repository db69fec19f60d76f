"""What people say of rows to each other."""

from pathlib import Path

import pytest
from clusters import HIGH, audit, found, pulled, settings
from muting import audit_two_groups
from tampering import verify

from poisonwatch.errors import InputError
from poisonwatch.ledger.comments import record_comment
from poisonwatch.ledger.group_teams import load_teams

ALERTS = settings("json://one")


def test_comments_stay_with_their_rows(tmp_path: Path) -> None:
    """In their order, also where a later audit puts the rows into another group."""
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, ALERTS)
        made = record_comment(ledger, "one", "1", " \x1b[31m<b>look</b> ", author="ann")
        assert (made.text, len(made.rows)) == ("\x1b[31m<b>look</b>", 3)
        record_comment(ledger, "one", "1", "again", author="bob")
        for wrong in ("", "x" * 2001):
            with pytest.raises(InputError):
                record_comment(ledger, "one", "1", wrong, author="ann")
        audit(ledger, tmp_path / "two", ALERTS, lambda rows: found([(HIGH, rows[2:6])], []))
        comments = load_teams(ledger, [("two", "1")])["two", "1"].comments
        assert [comment.author for comment in comments] == ["ann", "bob"]
        assert verify(ledger).differences == []
