"""URLs as people write them: what may be shown of them, and what of them can be used again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.text.addresses import parse_address, show_address, write_address

# Characters that end a host, a path or a query, that libraries quote, and that nobody expects.
HARD = "/:@#?&=%+ '\"\\;,.-_~$!*()[]{}|<>^`äß漢🙂\u2028\t"
PASSWORDS = st.text(st.sampled_from("abcXYZ0123456789" + HARD), min_size=1, max_size=40)


def shown(text: str) -> str:
    address = parse_address(text)
    assert address is not None
    return show_address(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ann:hunter2@db:5432/x", "postgresql://db:5432/x"),
        ("postgresql+psycopg://ann:hunter2@db/x?sslmode=require", "postgresql+psycopg://db/x"),
        ("postgresql://ann@db/x", "postgresql://db/x"),
        ("postgresql:///x?host=db&password=hunter2", "postgresql:///x"),
        ("postgresql://ann:p@ss/w:rd#?a b@db:5432/x", "postgresql://db:5432/x"),
        ("postgresql://ann:pw@[::1]:5432/x", "postgresql://[::1]:5432/x"),
        ("postgresql://ann:${PW}@db/x", "postgresql://db/x"),
        ("postgresql://ann:pw@${HOST}:${PORT}/x", "postgresql://${HOST}:${PORT}/x"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dhunter2", "mssql+pyodbc:///"),
        ("redis://:hunter2@host:6379/0", "redis://host:6379/0"),
        ("sqlite:///a/b.db?mode=ro", "sqlite:///a/b.db"),
        ("sqlite:////data/a@b#c.db", "sqlite:////data/a@b#c.db"),
        ("https://ann:pw@host:8080/a.jsonl?page=2#part", "https://host:8080/a.jsonl"),
        ("https://tok@host/a.jsonl", "https://host/a.jsonl"),
        ("https://host/a.jsonl?X-Amz-Signature=abc&X-Amz-Date=1", "https://host/a.jsonl"),
        ("https://blob.example.net/c/a?sv=1&sig=ab%2Fc%3D", "https://blob.example.net/c/a"),
        ("https://ann:to/ken@host/x", "https://host/x"),
        ("https://ann:1/2@host/x", "https://host/x"),
        ("https://tok?en@host/x", "https://host/x"),
        ("https://ann:${PW}@host/a@b.jsonl", "https://host/a@b.jsonl"),
        ("s3://bucket/a@b.jsonl", "s3://bucket/a@b.jsonl"),
        ("https://cdn.example.org:443/pkg@1/a.jsonl", "https://cdn.example.org:443/pkg@1/a.jsonl"),
        ("s3://bucket/odd?[1]#2.jsonl", "s3://bucket/odd?[1]#2.jsonl"),
        ("s3://bucket/a.jsonl?X-Amz-Signature=abc", "s3://bucket/a.jsonl"),
        ("hf://datasets/a/b@main/c.jsonl", "hf://datasets/a/b@main/c.jsonl"),
        ("https://hooks.slack.com/services/T1/B2/x3", "https://hooks.slack.com/***"),
        ("https://api.telegram.org/bot123:abc/sendMessage", "https://api.telegram.org/***"),
        ("HTTPS://Ann:hunter2@Host", "HTTPS://Host"),
        ("https://ho st/x", "https://***/x"),
        ("zip://a@b.jsonl", "zip://a@b.jsonl"),
    ],
)
def test_shown_are_scheme_host_port_and_path_alone(text: str, expected: str) -> None:
    """User names, passwords, queries and fragments are dropped, also where a password that is not
    quoted holds what ends a host. What is shown can be shown again.
    """
    assert shown(text) == expected
    assert "***" in expected or shown(expected) == expected


@given(PASSWORDS)
def test_no_password_of_a_database_is_shown(password: str) -> None:
    """Whatever it holds, quoted or not: of an address that holds it nothing else changes."""
    for scheme in ("postgresql", "postgresql+psycopg", "mysql", "redis"):
        assert shown(f"{scheme}://ann:{password}@db:5432/x") == f"{scheme}://db:5432/x"


@given(PASSWORDS)
def test_no_password_of_a_web_address_is_shown(password: str) -> None:
    """The same of files on servers, and of what a query or fragment holds."""
    for scheme in ("https", "s3", "hf", "odd"):
        assert shown(f"{scheme}://ann:{password}@host/x") == f"{scheme}://host/x"
    quiet = password.replace("@", "")
    assert shown(f"https://host/x?token={quiet}") == "https://host/x"
    assert shown(f"https://host/x#{quiet}") == "https://host/x"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("postgresql://ann:${PW}@db/x", "postgresql://ann:${PW}@db/x"),
        ("postgresql://${USER}:${PW}@db/x", "postgresql://${USER}:${PW}@db/x"),
        ("https://${TOKEN}@host/x", "https://${TOKEN}@host/x"),
        ("postgresql://ann:hunter2@db/x", "postgresql://***@db/x"),
        ("postgresql://ann:x${PW}@db/x", "postgresql://***@db/x"),
        ("https://tok@host/x", "https://***@host/x"),
        ("postgresql://db/x?sslmode=require&a=b", "postgresql://db/x?sslmode=require&a=***"),
        ("https://host/x?token=${T}&sig=abc#part", "https://host/x?token=${T}&sig=***"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("https://host/x", "https://host/x"),
    ],
)
def test_what_is_written_can_be_used_again(text: str, written: str) -> None:
    """Variables stay, with the user whose password one is; secrets are ***, and seen as missing."""
    address = parse_address(text)
    assert address is not None
    assert write_address(address) == written


@pytest.mark.parametrize("text", ["", "rows.jsonl", "/data/a@b", "not a scheme://x", "1a://x"])
def test_what_is_no_url_has_no_parts(text: str) -> None:
    """A path stays a path."""
    assert parse_address(text) is None
