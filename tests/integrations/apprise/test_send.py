"""Messages reach real receivers by Apprise, and row text is inert in each."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack
from clusters import audit, settings
from notified import SMALL, delivered, hostile_rows
from servers import HttpReceiver, smtp_receiver

from poisonwatch.alerts.targets import list_targets
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.notify import send_message
from poisonwatch.ledger.ledger import Ledger


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
    send_message(target, replace(SMALL, body="word " * 700))
    assert len(receiver.received) == 2
    assert sum(sent["content"].count("word") for sent in receiver.received) == 700


def test_an_unusable_setting_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the audit file, not of the world."""
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(ConfigError, match="alerts: the environment variable"):
        send_message(list_targets(settings("json://${NOT_SET_HERE}/"))[0], SMALL)
