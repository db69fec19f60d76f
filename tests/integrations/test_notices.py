"""That audits do not come reaches real receivers: once each, by whoever is alive."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP, NotifyPagerDuty
from ledgers import NAME
from servers import HttpReceiver
from silent import HOUR, MINUTE, NOON, add_audit, expecting

from poisonwatch.errors import InputError, OperationError
from poisonwatch.integrations.notices import tell_silences
from poisonwatch.ledger.ledger import Ledger

LATE = NOON + 2 * HOUR


def test_a_silence_reaches_every_target_once(
    ledger: Ledger, receiver: HttpReceiver, other: HttpReceiver
) -> None:
    """Also where several processes look at the same moment, and an audit that hangs holds the
    ledger's lock.
    """
    config = expecting(ledger.url, receiver, other)
    add_audit(ledger, NOON, NOON)
    assert [seen.name for seen in tell_silences(config, NOON)] == [NAME]
    assert receiver.received == []
    with ledger.lock(NAME), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: tell_silences(config, LATE), range(4)))
    for told in (receiver.received, other.received):
        (message,) = told
        assert message["title"] == f"Poisonwatch: audits of {NAME} do not come"
        assert message["message"].startswith(
            "last audit 2 h ago, expected every 1 h: overdue since"
        )
        assert message["type"] == "failure"
    add_audit(ledger, LATE, LATE)
    tell_silences(config, LATE + MINUTE)
    tell_silences(config, LATE + MINUTE)
    for told in (receiver.received, other.received):
        later = [message["title"] for message in told[1:]]
        assert later == [f"Poisonwatch: audits of {NAME} are back"]
        assert told[1]["type"] == "info"


def test_a_target_that_is_out_of_order_hears_of_it_later(
    ledger: Ledger, receiver: HttpReceiver, other: HttpReceiver
) -> None:
    """The others at once; it waits a minute, and is told of in one line."""
    config = expecting(ledger.url, receiver, other)
    add_audit(ledger, NOON, NOON)
    tell_silences(config, NOON)
    receiver.answer = 500
    with pytest.raises(OperationError, match=r"^1 notice not delivered; sent later: alerts\[1\]"):
        tell_silences(config, LATE)
    assert len(other.received) == 1
    tell_silences(config, LATE)
    receiver.answer = 200
    tell_silences(config, LATE + 2 * MINUTE)
    assert (len(receiver.received), len(receiver.refused), len(other.received)) == (1, 1, 1)


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Whoever looks writes no file."""
    config = expecting(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(InputError, match="no audit has run"):
        tell_silences(config, datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []


def test_a_silence_is_one_incident_that_its_end_closes(
    ledger: Ledger, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a paging service: opened under the silence's key, and nobody is paged that audits are
    back.
    """
    monkeypatch.setitem(PAGERDUTY_API_LOOKUP, "us", f"http://{receiver.address}/v2/enqueue")
    monkeypatch.setattr(NotifyPagerDuty, "request_rate_per_sec", 0)
    config = expecting(ledger.url, alerts=[f"pagerduty://{'k' * 32}@abcdefgh"])
    add_audit(ledger, NOON, NOON)
    tell_silences(config, NOON)
    tell_silences(config, LATE)
    add_audit(ledger, LATE, LATE)
    tell_silences(config, LATE + MINUTE)
    opened, closed = receiver.received
    assert (opened["event_action"], closed["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == closed["dedup_key"]
    assert f"audits of {NAME} do not come" in opened["payload"]["summary"]
