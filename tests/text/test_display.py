"""Secrets out, hostile characters visible."""

import pytest

from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.redaction import redact_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ann:hunter2@db/x", "postgresql://ann:***@db/x"),
        ("postgresql+psycopg://ann:hunter2@db:5432/x", "postgresql+psycopg://ann:***@db:5432/x"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("postgresql://ann:hunter2@hunter2@db/x", "postgresql://ann:***@db/x"),
        ("https://hunter2@host/rows.jsonl", "https://***@host/rows.jsonl"),
        ("https://host/a?token=hunter2&page=2", "https://host/a?token=***&page=2"),
        (
            "https://host/a?X-Amz-Signature=hunter2&X-Amz-Date=1",
            "https://host/a?X-Amz-Signature=***&X-Amz-Date=1",
        ),
        ("https://host/a?b=1&api_key=hunter2", "https://host/a?b=1&api_key=***"),
        ("https://host/a?sv=1&sig=hunter2%3D", "https://host/a?sv=1&sig=***"),
        ("db?password=hunter2", "db?password=***"),
        ("HTTPS://Ann:hunter2@Host", "HTTPS://Ann:***@Host"),
        ("postgresql://ann:${PW}hunter2@db/x", "postgresql://ann:***@db/x"),
        ("https://host/a?token=${PW}hunter2&b=1", "https://host/a?token=***&b=1"),
        ("two: a://u:hunter2@h and b://v:hunter2@h", "two: a://u:***@h and b://v:***@h"),
    ],
)
def test_secrets_in_urls_become_stars(text: str, expected: str) -> None:
    """Passwords, bare tokens before an @, and secret query values go; the rest stays readable."""
    assert redact_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///poisonwatch.db",
        "https://host:8080/a?page=2",
        "data/*.jsonl",
        "mail ann@host at 10:30",
        "s3://bucket/a@b.jsonl",
        "",
        "postgresql://ann:${PW}@db/x",
        "https://${USER}:${PW}@host/a?token=${TOKEN}&b=1",
    ],
)
def test_text_without_secrets_is_left_alone(text: str) -> None:
    """redact_url(x) = x."""
    assert redact_url(text) == text


def test_redaction_is_idempotent() -> None:
    """redact(redact(x)) = redact(x)."""
    once = redact_url("https://u:p@h/x?token=t&sig=s")
    assert redact_url(once) == once


def test_invisible_characters_are_written_out() -> None:
    """Escapes, direction marks, zero-width and private-use characters, half surrogates: all become
    \\u{...}.
    """
    assert make_visible("a\x1b[31mb") == "a\\u{1b}[31mb"
    assert (
        make_visible("\u202egpj.exe\u200b\ufeff\ue000\ud800")
        == "\\u{202e}gpj.exe\\u{200b}\\u{feff}\\u{e000}\\u{d800}"
    )
    assert make_visible("\r\x00") == "\\u{d}\\u{0}"


def test_ordinary_text_of_any_script_stays_as_it_is() -> None:
    """visible(x) = x, line ends and tabs included."""
    text = "naïve 红色 שלום 🙂\n\tindented"
    assert make_visible(text) == text


@pytest.mark.parametrize("length", [1, 2, 10, 80])
@pytest.mark.parametrize(
    "text", ["word " * 50, "x" * 500, "short", "a\n\nb\t c", "\u202e" * 100, ""]
)
def test_excerpt_is_one_line_of_bounded_length(text: str, length: int) -> None:
    """len <= length, no line end, and an ellipsis exactly where something was cut."""
    line = excerpt(text, length)
    whole = " ".join(make_visible(text).split())
    assert len(line) <= length
    assert "\n" not in line
    assert line == whole or (line.endswith("…") and len(whole) > length)
