"""Alerts reach real receivers: HTTP, mail, and a block of a real Prefect server."""

import re
from pathlib import Path

import pytest
from audits import write_audit
from clusters import HIGH, LOW, MEDIUM, audit, found, settings
from notified import SECRET, delivered, owed, three_rows, to
from servers import HttpReceiver, free_port
from sqlalchemy import select

from poisonwatch.config import AlertConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import OperationError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import ChainHead, holds_head
from poisonwatch.ledger.tables import deliveries, flags


def test_a_whole_audit_tells_of_each_cluster_once(
    receiver: HttpReceiver, tiny_folder: Path, tmp_path: Path
) -> None:
    """A lax rate has random weights flag rows; all of them audited once more are no news."""
    url = f"json://{receiver.address}/"
    config = load_config(
        write_audit(tmp_path, tiny_folder, detection={"false_discovery_rate": 0.99}, alerts=[url])
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


def run(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["alert-test", str(path)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_alert_test_says_who_was_reached(
    receiver: HttpReceiver, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 where all were, 1 where one was not, 2 where there is nobody; no secret is
    printed.
    """
    good, bad = (
        f"json://{receiver.address}/{SECRET}",
        f"json://ann:{SECRET}@127.0.0.1:{free_port()}/",
    )
    code, said = run(capsys, write_audit(tmp_path / "good", tiny_folder, alerts=[good]))
    assert (code, said) == (0, "alerts[1] json: delivered\n")
    assert receiver.received[0]["title"] == "Poisonwatch: a test for tiny"
    code, said = run(capsys, write_audit(tmp_path / "both", tiny_folder, alerts=[bad, good]))
    assert (code, said) == (
        1,
        "alerts[1] json: failed: cannot be reached\nalerts[2] json: delivered\n",
    )
    code, said = run(capsys, write_audit(tmp_path / "none", tiny_folder))
    assert code == 2
    assert "has no alerts" in said
    assert not (tmp_path / "good" / "poisonwatch.db").exists()
