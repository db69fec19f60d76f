"""What people call a group, and what is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HIGH, audit, found, pulled, settings
from ledgers import NAME
from muting import audit_two_groups, flagged, muted

from poisonwatch.config import AlertConfig
from poisonwatch.errors import InputError
from poisonwatch.ledger.history import list_undecided_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.muted_groups import list_members
from poisonwatch.ledger.outbox import list_pending_alerts

ALERTS = settings("json://one")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, ALERTS)
        yield opened


def test_a_group_has_several_names(ledger: Ledger) -> None:
    """That of the dashboard, an alert's key, and any of its rows."""
    with ledger.read() as connection:
        keys = [alert.key for alert in list_pending_alerts(connection, NAME)]
    named = muted(ledger, "one/1")
    for what in (keys[0], sorted(named.rows)[1][:8], sorted(named.rows)[2].upper()):
        other = muted(ledger, what)
        assert (other.on, other.rows) == (named.on, named.rows)


def test_a_row_in_no_group_is_one(tmp_path: Path, ledger: Ledger) -> None:
    """By the digits of its id, with its audit or without."""
    audit(ledger, tmp_path / "two", ALERTS, lambda rows: found([], alone=rows[8:10]))
    first = list_undecided_ids(ledger, 2)[0]
    with ledger.read() as connection:
        members, files = list_members(connection, "two", first[:16])
    assert [member.id for member in members] == [first]
    assert [Path(name).name for name in files] == ["rows.jsonl"]
    for what in (first, f"two/{first[:16]}"):
        mute = muted(ledger, what)
        assert (mute.on, mute.rows) == (f"two/{first[:16]}", {first})


def test_rows_are_in_the_group_that_they_were_flagged_in_last(
    tmp_path: Path, ledger: Ledger
) -> None:
    """Another audit groups them anew."""
    row = sorted(muted(ledger, "one/2").rows)[0]
    audit(ledger, tmp_path / "two", ALERTS, flagged((HIGH, slice(3, 7))))
    assert muted(ledger, row).on == "two/1"


@pytest.mark.parametrize(
    "what", ["one/3", "one/", "two/1", "1", "abc", "ffffffff", "panel:", "", "one/" + "9" * 30]
)
def test_what_names_no_group_is_refused(ledger: Ledger, what: str) -> None:
    """Saying what would."""
    with pytest.raises(InputError, match=r"names no flagged group|no row was ever flagged"):
        muted(ledger, what)


def test_a_message_about_several_groups_names_none(tmp_path: Path, ledger: Ledger) -> None:
    """A digest."""
    audit(
        ledger,
        tmp_path / "two",
        settings(AlertConfig(url="json://x", severity="high")),
        flagged((5.0, slice(6, 8)), (5.0, slice(8, 10))),
    )
    with ledger.read() as connection:
        digest = list_pending_alerts(connection, NAME)[-1]
    with pytest.raises(InputError, match="2 groups"):
        muted(ledger, digest.key)
