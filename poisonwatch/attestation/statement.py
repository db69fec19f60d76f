"""Statements: what somebody vouches for, in the in-toto format (Statement v1).

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": ..., "digest": {"sha256": ...}}, ...],
     "predicateType": "https://poisonwatch.dev/<kind>/v1",
     "predicate": {...}}

A statement is written in one way only, canonical JSON in ASCII, so that equal statements are equal
bytes, and a digest or a signature of them is one of what they say.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poisonwatch.errors import InputError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
KIND_PREFIX, KIND_SUFFIX = "https://poisonwatch.dev/", "/v1"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said (`predicate`) of what (`subjects`: SHA-256 in hex, by name); `kind` is what sort
    of statement it is.
    """

    kind: str
    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]


def build_statement(kind: str, subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> str:
    """The text of a statement; `subjects` are SHA-256 in hex, by name."""
    listed = []
    for name, digest in sorted(subjects.items()):
        listed.append({"name": name, "digest": {"sha256": digest}})
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": listed,
        "predicateType": f"{KIND_PREFIX}{kind}{KIND_SUFFIX}",
        "predicate": predicate,
    }
    return write_canonical(statement)


def parse_statement(text: str | bytes) -> Statement:
    """Read a statement. Raises InputError where the text is none of this project's."""
    try:
        stored = json.loads(text)
        return _read_statement(stored)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError("a record is no statement of Poisonwatch: it was changed") from None


def _read_statement(stored: Any) -> Statement:
    predicate_type = stored["predicateType"]
    kind = predicate_type.removeprefix(KIND_PREFIX).removesuffix(KIND_SUFFIX)
    is_ours = predicate_type == f"{KIND_PREFIX}{kind}{KIND_SUFFIX}"
    if stored["_type"] != STATEMENT_TYPE or not is_ours:
        raise ValueError
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in stored["subject"]}
    if not isinstance(stored["predicate"], dict):
        raise TypeError
    return Statement(kind, subjects, stored["predicate"])


def write_canonical(value: Any) -> str:
    """JSON that is the same wherever it is written: keys sorted, no white space, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def hash_text(text: str) -> str:
    """SHA-256 of a text, in hex."""
    # What is canonical is ASCII; what is not may hold lone surrogates.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
