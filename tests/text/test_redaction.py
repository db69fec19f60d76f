"""Secrets in URLs: found, and taken out."""

import time

import pytest

from poisonwatch.text.redaction import find_secrets, redact_url


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("postgresql://ann:hunter2@db/x", ["hunter2"], "postgresql://ann:***@db/x"),
        ("https://ghp_hunter2@host/x", ["ghp_hunter2"], "https://***@host/x"),
        ("see http://u:a@h and http://v:b@h", ["a", "b"], "see http://u:***@h and http://v:***@h"),
        ("https://h/x?sig=abc&n=1", ["abc"], "https://h/x?sig=***&n=1"),
        ("https://h/x?n=1&X-Amz-Signature=abc", ["abc"], "https://h/x?n=1&X-Amz-Signature=***"),
        ("https://u:a@h/x?api_key=b", ["a", "b"], "https://u:***@h/x?api_key=***"),
        ("mail ann@host about ?n=1", [], "mail ann@host about ?n=1"),
        ("", [], ""),
    ],
)
def test_what_is_found_is_what_is_taken_out(text: str, secrets: list[str], shown: str) -> None:
    """Passwords and bare tokens before an @, and tokens in queries; users, hosts and the rest stay."""
    assert find_secrets(text) == secrets
    assert redact_url(text) == shown


@pytest.mark.parametrize("part", ["x", "a.", "?token", "&key", "?", "://u:"])
def test_a_long_text_takes_no_longer_a_character_than_a_short_one(part: str) -> None:
    """Any text may be quoted by an error; where time grew with the square, this took minutes."""
    started = time.process_time()
    redact_url(part * 100_000)
    assert time.process_time() - started < 10


def test_a_variable_is_no_secret() -> None:
    """It tells where one is."""
    assert redact_url("https://ann:${PW}@h/x?token=${T}") == "https://ann:${PW}@h/x?token=${T}"
    assert redact_url("https://ann:x${PW}@h") == "https://ann:***@h"
