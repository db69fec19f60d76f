"""What a receiver answered Apprise: Apprise itself says that a message was taken, or that it was
not, and no more.

Answers over HTTP are seen where Apprise's plugins get them, in `requests`; those of a mail server
are in what Apprise logs.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from poisonwatch.integrations.refusals import Cause, Refusal, judge_status

_ONE_WATCH = threading.RLock()
_MAIL_CODE = re.compile(r"\((\d{3}), b")
_NOBODY = ("refused", "not known", "No address", "unreachable", "No route", "name resolution")


@contextmanager
def watch_answers() -> Iterator[list[Refusal]]:
    """Yields a list of what requests of this thread, in the block, were refused for."""
    refusals: list[Refusal] = []
    thread = threading.get_ident()
    # Plugins call `requests.post`, which gives no other place to look from: each makes its own
    # session. One block at a time, so that the method that is put back is the library's own.
    with _ONE_WATCH:
        send = requests.Session.send

        def send_and_note(
            session: requests.Session, request: requests.PreparedRequest, **options: Any
        ) -> requests.Response:
            if threading.get_ident() != thread:
                return send(session, request, **options)
            try:
                answer = send(session, request, **options)
            except requests.RequestException as error:
                refusals.append(judge_error(error))
                raise
            if answer.status_code >= 400:
                retry_after = parse_retry_after(answer.headers.get("Retry-After"))
                refusals.append(judge_status(answer.status_code, retry_after))
            return answer

        requests.Session.send = send_and_note  # type: ignore[method-assign,assignment]
        try:
            yield refusals
        finally:
            requests.Session.send = send  # type: ignore[method-assign]


def judge_error(error: requests.RequestException) -> Refusal:
    """What a request that got no answer says."""
    said = str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return Refusal(Cause.DENIED, "has no certificate that can be verified, or speaks no TLS")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Refusal(Cause.UNREACHABLE, "cannot be reached")
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in said:
        return Refusal(Cause.LATE, "gave no answer in time")
    if isinstance(error, requests.exceptions.ProxyError):
        return Refusal(Cause.UNREACHABLE, "cannot be reached through the proxy")
    # The message may have got there: whoever reads it twice sees the same key.
    if "Connection aborted" in said or "Connection broken" in said:
        return Refusal(Cause.UNKNOWN, "closed the connection without an answer")
    return Refusal(Cause.UNREACHABLE, "cannot be reached")


def parse_retry_after(value: str | None) -> float | None:
    """Seconds, from a header that holds them, or a date; None where it holds neither."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d*)?", value.strip()):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def judge_mail(lines: Sequence[str]) -> Refusal | None:
    """What Apprise's log says of a mail server that did not take a message; None where it says
    nothing that is known.
    """
    said = "\n".join(line for line in lines if "Socket Exception" in line)
    if not said:
        return None
    if "STARTTLS extension not supported" in said:
        return Refusal(
            Cause.DENIED,
            "offers no STARTTLS: add ?mode=ssl to its address where it speaks TLS from the "
            "start (port 465), or write mailto:// in place of mailtos:// to send in the clear",
        )
    if "CERTIFICATE_VERIFY_FAILED" in said or "SSL:" in said:
        return Refusal(Cause.DENIED, "has no certificate that can be verified, or speaks no TLS")
    codes = _MAIL_CODE.findall(said)
    if codes:
        return _judge_mail_code(int(codes[-1]))
    if "timed out" in said:
        return Refusal(Cause.LATE, "gave no answer in time")
    if any(words in said for words in _NOBODY):
        return Refusal(Cause.UNREACHABLE, "cannot be reached")
    if "closed" in said or "reset" in said:
        return Refusal(Cause.UNKNOWN, "closed the connection without an answer")
    return None


def _judge_mail_code(code: int) -> Refusal:
    words = f"answered {code}"
    # 4yz: come back. 552 and 554 are of this mail: its size, its content; others of whoever sends,
    # and to whom (RFC 5321, 4.2.3).
    if code < 500:
        return Refusal(Cause.BUSY, words)
    if code in (552, 554):
        return Refusal(Cause.REFUSED, words)
    return Refusal(Cause.DENIED, words)
