"""Rows that nobody decides on are told of again, and what was muted once it is no more: by real
HTTP.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from audits import benign, write_rows
from clusters import HIGH, LOW, audit, pulled, settings
from ledgers import NAME, pull
from muting import audit_two_groups, days, flagged, muted
from notified import delivered, to
from servers import HttpReceiver, http_receiver, postgres_server
from tampering import LostSigner, make_signer, tamper, verify

from poisonwatch.alert_config import WhenConfig
from poisonwatch.alerts.reminders import write_reminders
from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.errors import SigningError
from poisonwatch.ledger.decisions import record_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import end_mutes
from poisonwatch.ledger.reminders import list_open_groups


@pytest.fixture(scope="module")
def server() -> Iterator[HttpReceiver]:
    with http_receiver() as running:
        yield running


@pytest.fixture
def receiver(server: HttpReceiver) -> HttpReceiver:
    server.received.clear()
    server.paths.clear()
    return server


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        yield opened


def remind(ledger: Ledger, config: AuditConfig, n: float) -> int:
    """What is written and sent n days from now: how many messages."""
    count = write_reminders(ledger, config, days(n))
    delivered(ledger, config, at=days(n))
    return count


def undecided(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        groups = list_open_groups(connection, NAME)
    return [row.example_id for group in groups for row in group.rows]


def check_reminders(ledger: Ledger, config: AuditConfig, receiver: HttpReceiver) -> None:
    """At the end of each interval, and no more once all is decided."""
    delivered(ledger, config, at=days(0.01))
    sent = len(receiver.received)
    ids = undecided(ledger)
    assert [remind(ledger, config, n) for n in (1, 6.9)] == [0, 0]
    assert [remind(ledger, config, n) for n in (7.1, 7.2, 14)] == [1, 0, 0]
    assert len(receiver.received) == sent + 1
    message = receiver.received[-1]
    assert message["title"] == (
        "Poisonwatch: 5 flagged rows of tiny undecided, the oldest for 7 days (severity high)"
    )
    first, second = (line for line in message["message"].splitlines() if "on panel" in line)
    assert (ids[0][:16] in first, ids[3][:16] in second) == (True, True)
    record_decisions(ledger, ids[:3], "poison")
    assert remind(ledger, config, 14.2) == 1
    assert receiver.received[-1]["title"].startswith("Poisonwatch: 2 flagged rows of tiny")
    record_decisions(ledger, ids[3:], "benign")
    assert remind(ledger, config, 60) == 0
    assert verify(ledger).differences == []


def test_undecided_rows_are_told_of_again_once_an_interval(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """Oldest first, until somebody decides."""
    config = to(receiver)
    audit_two_groups(ledger, tmp_path, config)
    check_reminders(ledger, config, receiver)


def test_undecided_rows_are_told_of_again_on_postgresql(
    tmp_path: Path, receiver: HttpReceiver
) -> None:
    """On a real server."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "rows.jsonl", benign(12))
    config = to(receiver)
    with postgres_server() as url, Ledger.at(url) as ledger:
        pull(ledger, tmp_path / "data")
        audit_two_groups(ledger, tmp_path, config)
        check_reminders(ledger, config, receiver)


def test_none_asks_for_none(tmp_path: Path, ledger: Ledger, receiver: HttpReceiver) -> None:
    """`remind: none`."""
    config = to(receiver, remind="none")
    audit_two_groups(ledger, tmp_path, config)
    delivered(ledger, config)
    assert remind(ledger, config, 300) == 0


def test_those_who_were_told_are_told_again(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """Each of its own rows, with whose they are."""
    base = f"json://{receiver.address}"
    config = settings(
        AlertConfig(url=f"{base}/highs", when=WhenConfig(severity="high"), owner="security"),
        AlertConfig(url=f"{base}/rest"),
    )
    audit_two_groups(ledger, tmp_path, config)
    assert remind(ledger, config, 0.01) == 0
    assert remind(ledger, config, 8) == 2
    sent = dict(zip(receiver.paths[-2:], receiver.received[-2:], strict=True))
    assert sent["/highs"]["title"].startswith("Poisonwatch: 3 flagged rows")
    assert "owner security" in sent["/highs"]["message"]
    assert sent["/rest"]["title"].startswith("Poisonwatch: 2 flagged rows")


def test_what_is_on_its_way_is_not_told_of_again(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """A target that was down has the alert first."""
    config = to(receiver)
    audit_two_groups(ledger, tmp_path, config)
    assert write_reminders(ledger, config, days(8)) == 0
    delivered(ledger, config, at=days(8))
    assert write_reminders(ledger, config, days(9)) == 0


def test_muted_rows_are_told_of_when_they_are_muted_no_more(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """At once, where the mute was ended or has ended; no reminder speaks of them meanwhile."""
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, flagged((HIGH, slice(0, 2))))
    remind(ledger, config, 0)
    muted(ledger, "panel:shop", days(30))
    audit(ledger, tmp_path / "two", config, flagged((HIGH, slice(0, 2)), (LOW, slice(4, 7))))
    assert [remind(ledger, config, n) for n in (0, 8, 29)] == [0, 0, 0]
    assert len(receiver.received) == 1
    assert remind(ledger, config, 31) == 2
    titles = sorted(message["title"] for message in receiver.received[-2:])
    assert titles[0].startswith("Poisonwatch: 2 flagged rows of tiny undecided")
    assert titles[1] == "Poisonwatch: 3 flagged rows of tiny no longer muted (severity low)"
    assert remind(ledger, config, 32) == 0
    assert verify(ledger).differences == []


def test_a_mute_that_is_ended_tells_what_it_held_back(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """By the next audit or sync, whatever reminders there are."""
    config = to(receiver, remind=0)
    audit(ledger, tmp_path / "one", config, flagged((HIGH, slice(0, 2))))
    remind(ledger, config, 0)
    muted(ledger, "panel:shop", days(30))
    audit(ledger, tmp_path / "two", config, flagged((LOW, slice(4, 7))))
    end_mutes(ledger, NAME, "panel:shop", "", author="ann")
    assert remind(ledger, config, 0.1) == 1
    assert receiver.received[-1]["title"].endswith("no longer muted (severity low)")
    assert remind(ledger, config, 0.2) == 0


def test_an_alert_on_its_way_waits_while_its_rows_are_muted(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """It is owed to nobody meanwhile, and is sent afterwards."""
    config = to(receiver)
    audit_two_groups(ledger, tmp_path, config)
    muted(ledger, "one/2", days(3))
    assert delivered(ledger, config) == 1
    assert "severity high" in receiver.received[-1]["title"]
    assert delivered(ledger, config, at=days(3) - timedelta(hours=1)) == 0
    assert delivered(ledger, config, at=days(4)) == 1
    assert "severity low" in receiver.received[-1]["title"]


def test_rows_of_a_target_that_is_gone_are_told_to_those_that_are_there(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """Nothing is told to nobody."""
    gone, config = to(receiver), settings(f"json://{receiver.address}/other")
    audit_two_groups(ledger, tmp_path, gone)
    delivered(ledger, gone)
    assert remind(ledger, config, 8) == 1
    assert receiver.paths[-1] == "/other"


def test_a_reminder_that_was_forged_is_found(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """Changed, removed, put in, or about other rows."""
    signer = make_signer()
    config = to(receiver)
    audit_two_groups(ledger, tmp_path, config)
    remind(ledger, config, 0)
    ledger.signer = signer
    assert remind(ledger, config, 8) == 1
    for change in (
        "UPDATE alerts SET body = 'all is well' WHERE kind = 'reminder'",
        "DELETE FROM notified_rows WHERE alert = 3 AND row = 1",
        "UPDATE alerts SET kind = 'reminder' WHERE alert = 1",
        "DELETE FROM alerts WHERE kind = 'reminder'",
    ):
        assert tamper(ledger, change)
        words = [each.words for each in verify(ledger).differences]
        assert any("reminder" in line for line in words), (change, words)


def test_a_key_that_is_lost_writes_no_reminder(
    tmp_path: Path, ledger: Ledger, receiver: HttpReceiver
) -> None:
    """It is said, and tried again."""
    config = to(receiver)
    audit_two_groups(ledger, tmp_path, config)
    remind(ledger, config, 0)
    ledger.signer = LostSigner()
    with pytest.raises(SigningError):
        write_reminders(ledger, config, days(8))
    ledger.signer = None
    assert remind(ledger, config, 8) == 1
