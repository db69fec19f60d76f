"""Messages reach real receivers by Apprise, and row text is inert in each."""

import json
import re
from dataclasses import replace
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.email import NotifyEmail
from apprise.plugins.ntfy import NotifyNtfy
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram
from apprise.plugins.workflows import NotifyWorkflows
from clusters import audit, settings
from notified import SMALL, delivered, hostile_rows
from servers import HttpReceiver, http_receiver, smtp_receiver, write_certificate

from poisonwatch.alerts.backlog import Patience
from poisonwatch.alerts.targets import list_targets
from poisonwatch.alerts.trial import make_trial_message
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.apprise.send import UrlSender
from poisonwatch.integrations.notify import send_message
from poisonwatch.ledger.ledger import Ledger


def read_parts(mail: EmailMessage) -> tuple[str, str]:
    """The HTML of a mail, and its plain text."""
    html, text = mail.get_body(["html"]), mail.get_body(["plain"])
    assert html is not None
    assert text is not None
    return html.get_content(), text.get_content()


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
    html, text = read_parts(mail)
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


# The largest message that there is: a hundred lines more than a trial's.
TRIAL = make_trial_message(settings("json://x", dashboard="https://audits.example.org"))
LARGE = replace(TRIAL, body=TRIAL.body + "\n  one more line ＜of＞ 40 characters or so" * 400)


def words_of(texts: list[str]) -> list[str]:
    return " ".join(texts).split()


def test_slack_gets_blocks_as_it_publishes_them(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 50 a message, and 3,000 characters of text in each; without blocks 40,000 in all."""
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{receiver.address}")
    monkeypatch.setattr(NotifySlack, "request_rate_per_sec", 0)
    hook = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
    assert UrlSender(f"{hook}?blocks=yes", Patience()).send(LARGE) is None
    texts = []
    for sent in receiver.received:
        (attachment,) = sent["attachments"]
        assert len(attachment["blocks"]) <= 50
        sections = [block for block in attachment["blocks"] if block["type"] == "section"]
        assert all(0 < len(block["text"]["text"]) <= 3_000 for block in sections)
        texts += [block["text"]["text"] for block in sections]
    assert set(LARGE.body.split()) <= set(words_of(texts))
    receiver.received.clear()
    assert UrlSender(hook, Patience()).send(TRIAL) is None
    (sent,) = receiver.received
    assert len(sent["attachments"][0]["text"]) <= 40_000


def test_teams_gets_cards_of_less_than_28_kb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Adaptive Card in each, of a version and with the elements that its schema asks for; a
    message of the usual size in one.
    """
    certificate = write_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setattr(NotifyWorkflows, "request_rate_per_sec", 0)
    with http_receiver(certificate) as receiver:
        sender = UrlSender(f"workflows://{receiver.address}/workflow/signature/", Patience())
        assert sender.send(TRIAL) is None
        assert len(receiver.received) == 1
        assert sender.send(LARGE) is None
    assert len(receiver.received) == 1 + 2
    for sent in receiver.received:
        assert len(json.dumps(sent)) < 28 * 1024
        (attachment,) = sent["attachments"]
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        # http://adaptivecards.io/schemas/adaptive-card.json
        card = attachment["content"]
        assert card["type"] == "AdaptiveCard"
        assert re.fullmatch(r"1\.[0-6]", card["version"])
        assert all(element["type"] == "TextBlock" and element["text"] for element in card["body"])


def test_telegram_gets_4096_characters_a_message(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its entities are parsed; and all of them."""
    monkeypatch.setattr(NotifyTelegram, "notify_url", f"http://{receiver.address}/bot")
    receiver.answer_body = b'{"ok": true, "result": {}}'
    sender = UrlSender("tgram://123456789:abcdefg_hijklmnop/12315544/", Patience())
    assert sender.send(LARGE) is None
    assert {sent["parse_mode"] for sent in receiver.received} == {"HTML"}
    texts = [unescape(re.sub(r"</?\w+>", "", sent["text"])) for sent in receiver.received]
    assert all(len(text) <= 4_096 for text in texts)
    assert set(LARGE.body.split()) <= set(words_of(texts))


def test_ntfy_gets_4096_bytes_a_message(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is longer would become a file."""
    monkeypatch.setattr(NotifyNtfy, "request_rate_per_sec", 0)
    assert UrlSender(f"ntfy://{receiver.address}/rows", Patience()).send(LARGE) is None
    assert len(receiver.received) > 5
    assert all(len(sent["message"].encode()) <= 4_096 for sent in receiver.received)
    assert set(LARGE.body.split()) <= set(words_of([m["message"] for m in receiver.received]))


def test_a_mail_has_both_parts_and_less_than_64_kb(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is longer than mail allows (RFC 5322, 2.1.1); nothing is fetched from elsewhere."""
    monkeypatch.setattr(NotifyEmail, "request_rate_per_sec", 0)
    with smtp_receiver() as (server, port):
        people = "from=poisonwatch@example.org&to=ann@example.org"
        url = f"mailto://127.0.0.1:{port}/?{people}"
        assert UrlSender(url, Patience()).send(LARGE) is None
    assert len(server.received) == 3
    for mail in server.received:
        whole = mail.as_bytes()
        assert len(whole) < 64_000
        assert max(map(len, whole.splitlines())) <= 998
        html, text = read_parts(mail)
        assert "one more line ＜of＞ 40 characters" in text
        assert not re.search(r"<(img|link|script|style|iframe|a)\b|src=|url\(", html)


def test_an_unusable_setting_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the audit file, not of the world."""
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(ConfigError, match="alerts: the environment variable"):
        send_message(list_targets(settings("json://${NOT_SET_HERE}/"))[0], SMALL)
