"""Alerts reach real receivers: HTTP, mail, and a block of a real Prefect server."""

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apprise.plugins.custom_json import NotifyJSON
from audits import write_audit
from clusters import HIGH, LOW, MEDIUM, audit, found, settings
from notified import delivered, owed, three_rows, to
from servers import Answer, HttpReceiver
from sqlalchemy import select

from poisonwatch.alerts.backlog import Patience
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.detection.result import AttributionResult
from poisonwatch.errors import OperationError
from poisonwatch.examples import Example
from poisonwatch.flows.audit import audit_inline
from poisonwatch.integrations.apprise.send import UrlSender
from poisonwatch.integrations.notify import make_sender
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outages import Outage, list_outages
from poisonwatch.ledger.outbox import count_owed_alerts, list_notified_ids
from poisonwatch.ledger.records import ChainHead, holds_head
from poisonwatch.ledger.tables import alerts, deliveries, flags


def test_a_whole_audit_tells_of_each_cluster_once(
    receiver: HttpReceiver, tiny_folder: Path, tmp_path: Path
) -> None:
    """A lax rate has random weights flag rows; all of them audited once more are no news."""
    url = f"json://{receiver.address}/"
    config = load_config(
        write_audit(
            tmp_path,
            tiny_folder,
            detection={"false_discovery_rate": 0.99},
            alerts=[url],
            tracking="none",
        )
    )
    outcome = audit_inline(config, tmp_path / "one")
    flagged = {flag.example.id for flag in outcome.detection.flags}
    assert outcome.warnings == []
    told = list(receiver.received)
    assert told
    assert f"Report: {tmp_path / 'one' / 'report.html'}" in told[0]["message"]
    with Ledger.at(config.state) as ledger, ledger.read() as connection:
        assert len(connection.execute(select(flags.c.row)).all()) == len(flagged)
    again = audit_inline(config, tmp_path / "two", again=True)
    assert {flag.example.id for flag in again.detection.flags} == flagged
    assert receiver.received == told


def test_a_receiver_that_fails_gets_the_message_later_and_once(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """The task fails loudly, the flags are in the ledger, and the next delivery sends what is owed,
    exactly once.
    """
    receiver.answer = 500
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, three_rows)
    with pytest.raises(
        OperationError,
        match=r"^1 alert not delivered; the next audit sends them: alerts\[1\] \(json\) answered 500$",
    ):
        delivered(ledger, config)
    with ledger.read() as connection:
        assert len(connection.execute(select(flags.c.row)).all()) == 3
    receiver.answer = 200
    assert delivered(ledger, config) == 1
    assert delivered(ledger, config) == 0
    (message,) = receiver.received
    assert message["title"] == "Poisonwatch: 3 rows push panel shop in tiny (severity high)"
    assert receiver.refused[0]["message"] == message["message"]
    assert re.search(r"^Alert [0-9a-f]{16} of audit one$", message["message"], flags=re.MULTILINE)
    last = message["message"].splitlines()[-1]
    (head,) = re.findall(r"^Chain of records (\d+:[0-9a-f]{32}) \(poisonwatch verify ", last)
    with ledger.read() as connection:
        assert holds_head(connection, ChainHead.parse(head))
        assert connection.execute(select(deliveries.c.attempts)).scalars().all() == [2]


def test_a_target_that_is_down_keeps_nothing_from_the_others(
    ledger: Ledger, receiver: HttpReceiver, other: HttpReceiver, tmp_path: Path
) -> None:
    """Two messages for two targets, the first of which is down: the second has both, once, however
    often it is tried.
    """
    other.shutdown()
    other.server_close()
    config = to(other, receiver)
    audit(
        ledger,
        tmp_path / "one",
        config,
        lambda rows: found([(HIGH, rows[:3]), (MEDIUM, rows[4:6])]),
    )
    for _ in range(2):
        with pytest.raises(
            OperationError,
            match=r"2 alerts not delivered; .*: alerts\[1\] \(json\) cannot be reached$",
        ):
            delivered(ledger, config)
    assert len(receiver.received) == 2
    assert owed(ledger) == 2


def test_a_message_that_is_refused_keeps_no_other_back(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """A target that answers is given every message."""
    receiver.answer = 413
    config = to(receiver)
    audit(
        ledger,
        tmp_path / "one",
        config,
        lambda rows: found([(HIGH, rows[:3]), (MEDIUM, rows[4:6])]),
    )
    with pytest.raises(OperationError, match="2 alerts not delivered"):
        delivered(ledger, config)
    assert len(receiver.refused) == 2


def test_thresholds_decide_who_gets_a_message_and_who_a_digest(
    ledger: Ledger, receiver: HttpReceiver, other: HttpReceiver, tmp_path: Path
) -> None:
    """The low cluster is a message to one target, and a line in the other's digest."""
    all_of_it, grave = (
        AlertConfig(url=f"json://{to.address}/", severity=s)
        for to, s in ((receiver, "low"), (other, "high"))
    )
    config = settings(all_of_it, grave)
    audit(
        ledger, tmp_path / "one", config, lambda rows: found([(HIGH, rows[:3]), (LOW, rows[4:6])])
    )
    assert delivered(ledger, config) == 4
    assert [m["title"].split(": ")[1].split(" in ")[0] for m in receiver.received] == [
        "3 rows push panel shop",
        "2 rows push panel shop",
    ]
    assert [m["title"].split(": ")[1].split(" in ")[0] for m in other.received] == [
        "3 rows push panel shop",
        "digest of 2 flagged rows",
    ]
    assert [m["type"] for m in receiver.received] == ["failure", "info"]


def test_a_variable_that_is_not_set_is_named(ledger: Ledger, tmp_path: Path) -> None:
    """It is asked for when the message is sent, and the message stays owed."""
    config = settings("json://${NOT_SET_HERE}/")
    audit(ledger, tmp_path / "one", config, three_rows)
    with pytest.raises(OperationError, match="the environment variable NOT_SET_HERE is not set"):
        delivered(ledger, config)
    assert owed(ledger) == 1


def two_groups(rows: list[Example]) -> AttributionResult:
    return found([(HIGH, rows[:3]), (MEDIUM, rows[4:6])])


def read_outage(ledger: Ledger, config: AuditConfig) -> Outage | None:
    with ledger.read() as connection:
        return list_outages(connection, config.name).get(list_targets(config)[0].id)


def test_an_answer_that_is_late_is_told_apart_and_keeps_no_other_back(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """The receiver takes longer over the first message than anybody waits; it has the second, and
    the first with the next run.
    """
    answers = threading.Event()
    receiver.script = [Answer(after=answers)]
    config = settings(f"json://{receiver.address}/?rto=0.3")
    audit(ledger, tmp_path / "one", config, two_groups)
    with pytest.raises(OperationError, match=r"1 alert not delivered.* gave no answer in time$"):
        delivered(ledger, config)
    answers.set()
    assert [m["title"].split(": ")[1][:6] for m in receiver.received] == ["2 rows"]
    assert delivered(ledger, config) == 1


def test_answers_are_waited_for_longer_than_six_seconds() -> None:
    """Where the address says nothing else: Apprise's own four seconds are too few."""
    sender = make_sender(list_targets(settings("json://127.0.0.1/"))[0])
    assert isinstance(sender, UrlSender)
    assert sender.server.request_timeout == (10.0, 30.0)
    own = make_sender(list_targets(settings("json://127.0.0.1/?rto=3&cto=2"))[0])
    assert isinstance(own, UrlSender)
    assert own.server.request_timeout == (2.0, 3.0)


def test_a_pause_that_is_asked_for_is_made(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """429 with Retry-After, and 503 with a date that is past: both messages arrive in one run."""
    past = {"Retry-After": "Wed, 01 Jul 2026 10:00:00 GMT"}
    receiver.script = [Answer(429, {"Retry-After": "0"}), Answer(200), Answer(503, past)]
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, two_groups)
    assert delivered(ledger, config) == 2
    assert len(receiver.refused) == 2


def test_a_pause_that_is_too_long_is_kept_and_holds_up_nothing(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """Asked to wait for two hours: no second message is tried, and none before they are over."""
    receiver.script = [Answer(429, {"Retry-After": "7200"})]
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, two_groups)
    start = datetime.now(UTC)
    asked = r"2 alerts not delivered; .* answered 429 \(asks for 7200 s\)"
    for hours in (0.0, 1.9):
        with pytest.raises(OperationError, match=asked):
            delivered(ledger, config, at=start + timedelta(hours=hours), at_once=False)
    assert len(receiver.refused) == 1
    assert delivered(ledger, config, at=start + timedelta(hours=2.1), at_once=False) == 2


def test_a_target_that_asks_for_years_and_a_clock_that_jumps_back_hold_nothing_up(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """A day is the most that is waited; what was noted in the future says nothing."""
    receiver.script = [Answer(503, {"Retry-After": "999999999"})] * 2
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, three_rows)
    start = datetime.now(UTC)
    for days in (0.0, 1.1):
        with pytest.raises(OperationError, match="answered 503"):
            delivered(ledger, config, at=start + timedelta(days=days), at_once=False)
    assert len(receiver.refused) == 2
    assert delivered(ledger, config, at=start, at_once=False) == 1


def test_messages_of_one_run_keep_their_distance(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many seconds as Apprise's plugin for the service says."""
    monkeypatch.setattr(NotifyJSON, "request_rate_per_sec", 1.0)
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, two_groups)
    assert delivered(ledger, config) == 2
    first, second = receiver.times
    assert second - first > 0.15


def test_a_reset_is_told_apart(ledger: Ledger, receiver: HttpReceiver, tmp_path: Path) -> None:
    """The message may have got there: it is sent again, under the same key."""
    receiver.script = [Answer(resets=True)]
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, three_rows)
    with pytest.raises(OperationError, match="closed the connection without an answer"):
        delivered(ledger, config)
    assert delivered(ledger, config) == 1
    assert receiver.refused[0]["message"] == receiver.received[0]["message"]


def test_attempts_at_a_broken_target_are_few_and_wait_longer_each_time(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """It answers 503 to five messages: three are tried. Then not before a minute has passed, and
    after that two; whoever asks (`sync`) tries at once. The first success forgets it all.
    """
    receiver.answer = 503
    config = to(receiver)
    groups = [(HIGH, slice(i, i + 2)) for i in (0, 2, 4, 6, 8)]
    audit(
        ledger,
        tmp_path / "one",
        config,
        lambda rows: found([(score, rows[which]) for score, which in groups]),
    )
    start = datetime.now(UTC).replace(microsecond=0)

    def fail(seconds: int, **more: bool) -> int:
        with pytest.raises(OperationError, match=r"5 alerts not delivered; .* answered 503"):
            delivered(
                ledger, config, at=start + timedelta(seconds=seconds), **{"at_once": False, **more}
            )
        return len(receiver.refused)

    assert [fail(0), fail(59), fail(60), fail(179), fail(180)] == [3, 3, 6, 6, 9]
    outage = read_outage(ledger, config)
    assert outage is not None
    assert (outage.failures, outage.reason) == (3, "answered 503")
    assert outage.since == start.isoformat()
    assert fail(181, at_once=True) == 12
    receiver.answer = 200
    assert delivered(ledger, config, at=start + timedelta(days=1), at_once=False) == 5
    assert read_outage(ledger, config) is None


def test_a_day_of_outage_ends_in_one_digest(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """Nothing is lost: the rows stay told of, and each alert's key is in the digest."""
    receiver.answer = 502
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, two_groups)
    with pytest.raises(OperationError, match="2 alerts not delivered"):
        delivered(ledger, config)
    receiver.answer = 200
    later = datetime.now(UTC) + timedelta(hours=30)
    assert delivered(ledger, config, at=later, at_once=False) == 2
    (digest,) = receiver.received
    title = "Poisonwatch: 2 alerts of the last 2 days in tiny (severity high)"
    assert digest["title"] == title
    with ledger.read() as connection:
        keys = connection.execute(select(alerts.c.key)).scalars().all()
        sent_as = set(connection.execute(select(deliveries.c.sent_as)).scalars())
        assert len(list_notified_ids(connection, config.name)) == 5
    assert all(f"alert {key}" in digest["message"] for key in keys)
    assert sent_as == {re.findall(r"^Alert (\w+)$", digest["message"], re.MULTILINE)[0]}
    assert delivered(ledger, config, at=later) == 0


def test_a_message_that_is_refused_for_days_is_given_up_in_words(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """413 to the first message, always; the second arrives. For three days it is tried, hourly at
    most; then its key and its report are named, and it is owed no more.
    """
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, two_groups)
    start = datetime.now(UTC)
    receiver.script = [Answer(413)]
    with pytest.raises(OperationError, match=r"1 alert not delivered.*\(json\) answered 413$"):
        delivered(ledger, config, at=start, at_once=False)
    assert len(receiver.received) == 1
    with pytest.raises(OperationError, match=r"refused 1 alert before, to be tried again$"):
        delivered(ledger, config, at=start, at_once=False)
    receiver.answer = 413
    for hours in (24, 48):
        with pytest.raises(OperationError, match="1 alert not delivered"):
            delivered(ledger, config, at=start + timedelta(hours=hours), at_once=False)
    with pytest.raises(OperationError) as told:
        delivered(ledger, config, at=start + timedelta(hours=73), at_once=False)
    (key,) = {sent["message"].split("\nAlert ")[1][:16] for sent in receiver.refused}
    assert f"answered 413 to alert {key} for 3 days, which is given up" in str(told.value)
    assert "read it in the report of audit one" in str(told.value)
    receiver.answer = 200
    assert delivered(ledger, config, at=start + timedelta(hours=80)) == 0
    with ledger.read() as connection:
        (owed_to,) = count_owed_alerts(connection, config.name)
    assert (owed_to.pending, owed_to.oldest, owed_to.given_up) == (0, None, 1)


def test_credentials_that_are_refused_give_nothing_up(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """401 says nothing of the message: it waits until somebody mends the address."""
    receiver.answer = 401
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, three_rows)
    for days in range(9):
        with pytest.raises(OperationError, match=r"1 alert not delivered.* answered 401$"):
            delivered(ledger, config, at=datetime.now(UTC) + timedelta(days=days))
    receiver.answer = 200
    assert delivered(ledger, config) == 1


def test_one_run_sends_no_more_than_its_share(
    ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """What is left is said, and comes with the next."""
    config = to(receiver)
    audit(ledger, tmp_path / "one", config, two_groups)
    with pytest.raises(
        OperationError, match=r"1 alert not delivered.* is told 1 more message next"
    ):
        delivered(ledger, config, patience=Patience(most_messages=1))
    assert delivered(ledger, config, patience=Patience(most_messages=1)) == 1
    assert len(receiver.received) == 2
