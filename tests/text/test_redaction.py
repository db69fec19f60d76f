"""Secrets by their shape, taken out of any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_tests import sample

from poisonwatch.text import redaction
from poisonwatch.text.redaction import LONGEST_TEXT, redact_url, show_place

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:hunter2@db/x", "postgresql://db/x"),
        ("https://ghp_hunter2@host/x", "https://host/x"),
        ("see http://u:a@h and http://v:b@h", "see http://h and http://h"),
        ("no route to https://h/x?sig=abc&n=1", "no route to https://h/x"),
        ("postgresql://ann:pa ss@h/x is gone", "postgresql://h/x is gone"),
        ("postgresql://ann:pa'ss@h/x is gone", "postgresql://h/x is gone"),
        ("got 'https://u:p@h/x'", "got 'https://h/x'"),
        ("slack://a/b/c", "slack://***"),
        ("tgram://123:abc/456", "tgram://***"),
        ("mailto://ann:pw@example.org", "mailto://***"),
        ("://u:p@h", "://***"),
        (
            "zip://*.jsonl::https://ann:pw@host/x.zip?sig=1",
            "zip://*.jsonl::https://host/x.zip",
        ),
        ("url: /api/x?token=abc&page=2", "url: /api/x?token=***&page=2"),
        ("db?password=hunter2", "db?password=***"),
        ("host=db password=hunter2 user=ann", "host=db password=*** user=ann"),
        ("host=db password='it\\'s a b' x=1", "host=db password='***' x=1"),
        ("password = 'a''b' c", "password = '***' c"),
        ("password='never closed", "password='***"),
        ("DRIVER={PG};PWD={a;b};UID=x", "DRIVER={PG};PWD={***};UID=x"),
        ("AccountName=a;AccountKey=b==;x=1", "AccountName=a;AccountKey=***;x=1"),
        ('{"password": "x", "n": 1}', '{"password": "***", "n": 1}'),
        ("Authorization: Basic YTpi", "Authorization: Basic ***"),
        ("{'authorization': 'Bearer abc'}", "{'authorization': '***'}"),
        ("login with hf_" + "a" * 34, "login with ***"),
        ("ghp_" + "b" * 36 + " is refused", "*** is refused"),
        (f"got {JWT}", "got ***"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, shown: str) -> None:
    """Addresses as they may be shown; *** after names that secrets have, and for tokens. What is
    left is left alone.
    """
    assert redact_url(text) == shown
    assert redact_url(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sqlite:///poisonwatch.db",
        "data/*.jsonl",
        "s3://bucket/a@b.jsonl",
        "mail ann@host at 10:30 about ?n=1",
        "https://host: refused, ask ann@site",
        "https://host:8080 is down, ask ann@site",
        "stride.max_tokens=512, longest token: 7, password authentication failed",
        "pack:brand?name=Velmora&rival=Other",
        "https://${HOST}/${PART}",
        "?token=${TOKEN}",
        "password=${PW}",
    ],
)
def test_text_without_secrets_is_left_alone(text: str) -> None:
    """redact_url(x) = x."""
    assert redact_url(text) == text


@pytest.mark.parametrize(
    "part",
    sample(
        (
            *("x", "a.", "?token", "&key", "?", "=", "\n", "://", "://u:", "a://b:c ", "a://b:c\n"),
            *(
                "password=",
                "password='",
                "' = ",
                "&k=",
                "\\'",
                'token="\\"',
                "eyJeyJeyJ.eyJ",
                "hf_",
            ),
            *("bearer   ", "?a=b://", "zip://::", "a@", "a://@", "{'token': "),
        ),
        3,
    ),
)
def test_a_megabyte_of_any_text_comes_to_its_end(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every character is looked at a bounded number of times, also where nothing is cut: where time
    grew with the square, 20 kB took 15 seconds, and this would take hours.
    """
    monkeypatch.setattr(redaction, "LONGEST_TEXT", 10**7)
    text = (part * 10**6)[: 10**6]
    assert len(redact_url(text)) < 10**7


def test_a_long_text_is_cut_before_anything_is_looked_for() -> None:
    """Half of a secret is none that anybody finds: an address that the cut goes through is left
    out.
    """
    assert redact_url("x" * 10**6) == "x" * LONGEST_TEXT + "…"
    start = "x" * (LONGEST_TEXT - 20) + " "
    assert redact_url(f"{start}https://ann:hunter2hunter2@host") == f"{start}https://***…"


@given(st.text())
def test_any_text_is_taken_and_looked_at_once(text: str) -> None:
    """No text fails; what was taken out once is not found again."""
    once = redact_url(text)
    assert redact_url(once) == once


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ("odd://ann:pw@host/x@1", "odd://1"),
        ("odd://host/x", "odd://host/x"),
        ("zip://*.jsonl::https://ann:pw@host/a.zip", "zip://*.jsonl::https://host/a.zip"),
        ("host/rows.jsonl?X-Amz-Signature=abc", "host/rows.jsonl?X-Amz-Signature=***"),
        ("host=db password='a b'", "host=db password='***'"),
        ("${URL}", "${URL}"),
    ],
)
def test_a_place_of_any_kind_is_shown_as_one(setting: str, shown: str) -> None:
    """A setting that names a place holds no tokens but where logins and queries do."""
    assert show_place(setting) == shown
