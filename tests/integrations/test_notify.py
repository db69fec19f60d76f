"""Alerts reach real receivers: HTTP, mail, and a block of a real Prefect server."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack
from audits import write_audit
from clusters import HIGH, LOW, MEDIUM, audit, found, pulled, settings
from ledgers import NAME
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock, NotificationBlock
from prefect.blocks.system import Secret
from prefect.testing.utilities import prefect_test_harness
from servers import HttpReceiver, free_port, http_receiver, smtp_receiver
from sqlalchemy import select

from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AlertConfig, AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.examples import Example, Message
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.cli.app import main
from poisonwatch.integrations.notify import NOISY_LOGGERS, send_message
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import list_pending_alerts
from poisonwatch.ledger.tables import deliveries, flags
from poisonwatch.reports.summary import AttributionResult
from poisonwatch.tasks.alerts import deliver

HOSTILE = "@everyone <!channel> [x](http://evil.com) <b>bold</b> `code` | t | {{ token }} <@U1> https://evil.com **b** &lt;"
SECRET = "hunter2secret"


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture
def other() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        yield opened


def to(*receivers: HttpReceiver, **more: Any) -> AuditConfig:
    return settings(*(f"json://{receiver.address}/" for receiver in receivers), **more)


def delivered(ledger: Ledger, config: AuditConfig) -> int:
    with ledger.lock():
        return deliver.fn(ledger, config)


def owed(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return len(list_pending_alerts(connection, NAME))


def three_rows(rows: list[Example]) -> AttributionResult:
    return found([(HIGH, rows[:3])])


def test_a_whole_audit_tells_of_each_cluster_once(
    receiver: HttpReceiver, tiny_folder: Path, tmp_path: Path
) -> None:
    """A lax rate has random weights flag rows; all of them audited once more are no news."""
    url = f"json://{receiver.address}/"
    config = load_config(
        write_audit(tmp_path, tiny_folder, detection={"false_discovery_rate": 0.99}, alerts=[url])
    )
    outcome = audit_inline(config, tmp_path / "one")
    flagged = {flag.example.id for flag in outcome.verdicts.flags}
    assert outcome.warnings == []
    told = list(receiver.received)
    assert told
    assert f"Report: {tmp_path / 'one' / 'report.html'}" in told[0]["message"]
    with Ledger.at(config.state) as ledger, ledger.read() as connection:
        assert len(connection.execute(select(flags.c.row)).all()) == len(flagged)
    again = audit_inline(config, tmp_path / "two", again=True)
    assert {flag.example.id for flag in again.verdicts.flags} == flagged
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
    with ledger.read() as connection:
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


def hostile_rows(rows: list[Example]) -> AttributionResult:
    """The ledger's first row, saying what is hostile."""
    messages = (Message("user", HOSTILE), Message("assistant", HOSTILE))
    return found(
        [(HIGH, [Example(rows[0].id, messages, rows[0].source, rows[0].position)])], said=HOSTILE
    )


def test_hostile_rows_are_inert_in_mail(ledger: Ledger, tmp_path: Path) -> None:
    """A real mail server gets one message: its HTML part holds no element of the row's, no link but
    ours, and its text part neither.
    """
    with smtp_receiver() as (server, port):
        config = settings(
            f"mailto://127.0.0.1:{port}/?from=poisonwatch@example.org&to=ann@example.org",
            mlflow_ui="https://mlflow.example.org",
        )
        audit(ledger, tmp_path / "one", config, hostile_rows)
        assert delivered(ledger, config) == 1
    (mail,) = server.received
    assert mail["Subject"] == "Poisonwatch: 1 row pushes panel shop in tiny (severity high)"
    html, text = (mail.get_body([kind]).get_content() for kind in ("html", "plain"))  # type: ignore[union-attr]
    assert set(re.findall(r"<(\w+)", html.partition("<body")[2])) <= {"br", "p"}
    assert (
        re.findall(r"\w+://[\w.]+", html)
        == re.findall(r"\w+://[\w.]+", text)
        == ["https://mlflow.example.org"]
    )
    assert "＠everyone ＜!channel＞" in text


@pytest.mark.parametrize(
    ("url", "plugin"),
    [
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/", NotifySlack),
        ("discord://webhookid/webhooktoken/", NotifyDiscord),
        ("discord://webhookid/webhooktoken/?format=markdown", NotifyDiscord),
        ("mmost://{address}/3ccdd113474722377935511fc85d3dd4", None),
        ("json://{address}/", None),
    ],
)
def test_hostile_rows_are_inert_in_chats(
    url: str,
    plugin: Any,
    ledger: Ledger,
    receiver: HttpReceiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What Slack, Discord and Mattermost would be sent names nobody, links nothing, and is no
    markup; only their address is another.
    """
    if plugin is not None:
        name = "webhook_url" if plugin is NotifySlack else "notify_url"
        monkeypatch.setattr(plugin, name, f"http://{receiver.address}")
    config = settings(url.format(address=receiver.address))
    audit(ledger, tmp_path / "one", config, hostile_rows)
    assert delivered(ledger, config) == 1
    (sent,) = receiver.received
    embeds = sent.get("attachments") or sent.get("embeds") or [sent]
    bodies = [
        value
        for part in embeds
        for value in part.values()
        if isinstance(value, str) and "prompt:" in value
    ]
    bodies = bodies or [sent["content"] if "content" in sent else sent["text"]]
    assert len(bodies) == 1
    told = "\n".join(
        line
        for line in bodies[0].splitlines()
        if line.strip().startswith(("prompt", "answer", "it said", "it says"))
    )
    assert "everyone" in told
    assert not re.search(r"[@<>`|\[\]{}*&#]|://|evil\.", told.replace("[.]", ""))
    assert "allowed_mentions" not in sent  # Apprise found nobody to mention


def test_a_message_that_is_too_long_for_a_medium_is_split(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discord refuses more than 2,000 characters: it gets them in parts."""
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"http://{receiver.address}")
    monkeypatch.setattr(NotifyDiscord, "request_rate_per_sec", 0)
    (target,) = list_targets(settings("discord://webhookid/webhooktoken/"))
    send_message(target, "title", "word " * 700)
    assert len(receiver.received) == 2
    assert sum(sent["content"].count("word") for sent in receiver.received) == 700


def test_no_secret_is_said_written_or_logged(
    ledger: Ledger,
    receiver: HttpReceiver,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused, unreachable and unusable addresses: the password, the token in the path and the
    variable's value are nowhere.
    """
    monkeypatch.setenv("ALERT_TOKEN", SECRET)
    receiver.answer = 403
    config = settings(
        f"json://ann:{SECRET}@{receiver.address}/{SECRET}?token={SECRET}",
        f"json://ann:${{ALERT_TOKEN}}@127.0.0.1:{free_port()}/${{ALERT_TOKEN}}",
        f"mailto://ann:{SECRET}@127.0.0.1:{free_port()}/?to=bob@example.org&from=ann@example.org",
        f"nonsense://{SECRET}",
        f"slack://{SECRET}/bad",
    )
    audit(ledger, tmp_path / "one", config, three_rows)
    for name in NOISY_LOGGERS:
        caplog.set_level(logging.DEBUG, logger=name)
    with caplog.at_level(logging.DEBUG), pytest.raises(OperationError) as raised:
        delivered(ledger, config)
    kinds = [
        "(json) answered 403",
        "(json) cannot be reached",
        "(mailto) cannot be reached",
        "(nonsense) is no Apprise URL",
        "(slack) is no",
    ]
    assert all(kind in str(raised.value) for kind in kinds)
    assert SECRET not in str(raised.value) + repr(raised.value.__context__)
    assert SECRET not in caplog.text
    ledger.engine.dispose()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_variable_that_is_not_set_is_named(ledger: Ledger, tmp_path: Path) -> None:
    """It is asked for when the message is sent, and the message stays owed."""
    config = settings("json://${NOT_SET_HERE}/")
    audit(ledger, tmp_path / "one", config, three_rows)
    with pytest.raises(OperationError, match="the environment variable NOT_SET_HERE is not set"):
        delivered(ledger, config)
    assert owed(ledger) == 1


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    """A real Prefect server on its own database."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


def block(slug: str) -> AuditConfig:
    return settings(AlertConfig(block=slug))


def test_a_prefect_block_tells_people_too(
    prefect_server: None, ledger: Ledger, receiver: HttpReceiver, tmp_path: Path
) -> None:
    """Outside of a flow and within one; row text does not reach into the block's own template and
    its secrets.
    """
    template = {"text": "{{subject}}: {{body}}", "token": "{{token}}"}
    hook = CustomWebhookNotificationBlock(
        name="ops", url=f"http://{receiver.address}/", json_data=template, secrets={"token": SECRET}
    )
    hook.save("ops", overwrite=True)
    config = block("custom-webhook/ops")
    audit(ledger, tmp_path / "one", config, hostile_rows)
    receiver.answer = 500
    with pytest.raises(
        OperationError,
        match=r"alerts\[1\] \(block\) Prefect's block custom-webhook/ops did not take the message",
    ):
        delivered(ledger, config)
    receiver.answer = 200
    assert delivered(ledger, config) == 1
    assert receiver.received[0]["text"].startswith("Poisonwatch: 1 row pushes panel shop in tiny")
    assert SECRET not in receiver.received[0]["text"]

    audit(ledger, tmp_path / "two", config, lambda rows: found([(HIGH, rows[2:4])]))

    @flow
    def telling() -> int:
        with ledger.lock():
            return deliver(ledger, config)

    assert telling() == 1
    assert len(receiver.received) == 2


class Pigeon(NotificationBlock):
    """A block as Prefect's base class describes it: its `notify` is a coroutine."""

    address: str

    async def notify(self, body: str, subject: str | None = None) -> None:
        import httpx

        async with httpx.AsyncClient() as client:
            await client.post(self.address, json={"subject": subject, "body": body})


def test_a_block_of_anybody_s_own_is_told(prefect_server: None, receiver: HttpReceiver) -> None:
    """A coroutine is waited for."""
    Pigeon(address=f"http://{receiver.address}/").save("grey", overwrite=True)
    send_message(list_targets(block("pigeon/grey"))[0], "title", "body")
    assert receiver.received == [{"subject": "title", "body": "body"}]


def test_a_block_that_cannot_be_used_is_named(prefect_server: None) -> None:
    """One that does not exist, one that is no address at all, one that sends nothing."""
    Secret(value=SECRET).save("quiet", overwrite=True)
    for slug, said in (
        (
            "slack-webhook/nobody",
            "Prefect has no block slack-webhook/nobody: create it, or correct the name",
        ),
        ("nobody", "Prefect has no block nobody"),
        ("secret/quiet", "Prefect's block secret/quiet sends no notifications"),
    ):
        with pytest.raises(OperationError, match=said):
            send_message(list_targets(block(slug))[0], "title", "body")


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


def test_an_unusable_setting_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the audit file, not of the world."""
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(ConfigError, match="alerts: the environment variable"):
        send_message(list_targets(settings("json://${NOT_SET_HERE}/"))[0], "title", "body")
