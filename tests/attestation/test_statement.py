"""Statements are canonical, and only this project's are read."""

import hashlib
import json

import pytest

from poisonwatch.attestation.statement import (
    STATEMENT_TYPE,
    build_statement,
    hash_text,
    parse_statement,
)
from poisonwatch.errors import InputError

TEXT = build_statement("audit", {"b": "2" * 64, "a": "1" * 64}, {"name": "té", "counts": {"n": 1}})


def test_equal_statements_are_equal_bytes() -> None:
    """Whatever order their parts come in; ASCII, without white space."""
    other = build_statement(
        "audit", {"a": "1" * 64, "b": "2" * 64}, {"counts": {"n": 1}, "name": "té"}
    )
    assert other == TEXT
    assert TEXT.isascii()
    assert " " not in TEXT
    assert hash_text(TEXT) == hashlib.sha256(TEXT.encode()).hexdigest()


def test_it_is_a_statement_of_in_toto() -> None:
    """As its specification names the fields."""
    stored = json.loads(TEXT)
    assert stored["_type"] == STATEMENT_TYPE == "https://in-toto.io/Statement/v1"
    assert stored["predicateType"] == "https://poisonwatch.dev/audit/v1"
    assert stored["subject"][0] == {"name": "a", "digest": {"sha256": "1" * 64}}


def test_what_is_written_is_read_back() -> None:
    statement = parse_statement(TEXT)
    assert statement.kind == "audit"
    assert statement.subjects == {"a": "1" * 64, "b": "2" * 64}
    assert statement.predicate == {"name": "té", "counts": {"n": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        "null",
        TEXT.replace("in-toto.io", "example.com"),
        TEXT.replace("https://poisonwatch.dev/", "https://example.com/"),
        TEXT.replace('"sha256"', '"md5"'),
        TEXT.replace('"predicate":{"counts":{"n":1},"name":"t\\u00e9"}', '"predicate":[]'),
        TEXT.replace('"subject"', '"subjects"'),
    ],
    ids=range(9),
)
def test_what_is_no_statement_of_ours_is_refused(text: str) -> None:
    """One error, which repeats nothing of it."""
    assert text != TEXT
    with pytest.raises(InputError, match="no statement"):
        parse_statement(text)
