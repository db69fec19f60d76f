"""What a receiver answered is known, though Apprise says only that a message was not taken."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
from aiosmtpd.controller import Controller
from notified import SMALL
from servers import Answer, HttpReceiver, free_port, smtp_receiver

from poisonwatch.alerts.backlog import Patience
from poisonwatch.integrations.apprise.answers import parse_retry_after, watch_answers
from poisonwatch.integrations.apprise.send import UrlSender
from poisonwatch.integrations.refusals import Cause, Refusal


def mail_to(port: int, scheme: str = "mailto", more: str = "") -> Refusal | None:
    people = "from=poisonwatch@example.org&to=ann@example.org"
    url = f"{scheme}://127.0.0.1:{port}/?{people}{more}"
    return UrlSender(url, Patience(read_seconds=5.0)).send(SMALL)


class Refuser:
    """A mail server that takes no message, and says so by a code."""

    def __init__(self, said: str) -> None:
        self.said = said

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        return self.said


@contextmanager
def refusing_server(said: str) -> Iterator[int]:
    server = Controller(Refuser(said), hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def test_a_mail_server_without_starttls_is_told_of_with_the_remedy() -> None:
    """And is sent nothing in the clear."""
    with smtp_receiver() as (server, port):
        refusal = mail_to(port, "mailtos", "&mode=starttls")
        assert refusal is not None
        assert refusal.cause == Cause.DENIED
        assert refusal.words.startswith("offers no STARTTLS: add ?mode=ssl to its address")
        assert mail_to(port) is None
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("451 try again", Cause.BUSY),
        ("552 too long", Cause.REFUSED),
        ("550 nobody here", Cause.DENIED),
    ],
)
def test_a_mail_server_s_code_says_whose_fault_it_is(said: str, cause: Cause) -> None:
    """Its own, the message's, or the address's."""
    with refusing_server(said) as port:
        refusal = mail_to(port)
    assert refusal is not None
    assert (refusal.cause, refusal.words) == (cause, f"answered {said[:3]}")


def test_a_mail_server_that_is_not_there_cannot_be_reached() -> None:
    """No time-out: the connection is refused."""
    refusal = mail_to(free_port())
    assert refusal == Refusal(Cause.UNREACHABLE, "cannot be reached")


def test_answers_of_other_threads_are_not_taken_for_ours(receiver: HttpReceiver) -> None:
    """While we watch, another thread is refused."""
    receiver.script = [Answer(500), Answer(503)]

    def ask() -> None:
        requests.post(f"http://{receiver.address}/", json={}, timeout=30)

    own = requests.Session.send
    with watch_answers() as refusals:
        other = threading.Thread(target=ask)
        other.start()
        other.join()
        assert refusals == []
        ask()
    assert [refusal.words for refusal in refusals] == ["answered 503"]
    assert requests.Session.send is own


def test_a_pause_is_read_in_seconds_or_as_a_date() -> None:
    """What is neither says nothing."""
    later = datetime.now(UTC) + timedelta(hours=1)
    assert parse_retry_after("120") == 120
    assert 3500 < (parse_retry_after(format_datetime(later, usegmt=True)) or 0) <= 3600
    assert parse_retry_after("Wed, 01 Jul 2020 10:00:00 GMT") == 0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_a_certificate_that_nobody_vouches_for_is_said(receiver: HttpReceiver) -> None:
    """Here there is no TLS at all."""
    refusal = UrlSender(f"jsons://{receiver.address}/", Patience()).send(SMALL)
    assert refusal is not None
    assert refusal.cause == Cause.DENIED
    assert "certificate" in refusal.words
