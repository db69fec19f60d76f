"""`discovery.json` read back. Whoever may write into a run directory may have changed it: whatever
comes is a report in order, whose parts can be shown as they are, or an error.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from poisonwatch.discovery.described import (
    DescribedGroup,
    DiscoveryReport,
    EarlierRows,
    FoundRow,
    Precedents,
    Reply,
)
from poisonwatch.examples import Message

T = TypeVar("T")

LARGEST = 2**63 - 1  # what databases and Parquet hold
ID_DIGITS = 64


def parse_report(record: Mapping[str, Any]) -> DiscoveryReport:
    """A report from its JSON. Raises LookupError, TypeError or ValueError where it is none."""
    report = DiscoveryReport(
        audit_id=_parse_text(record["audit_id"]),
        rows=_parse_count(record["rows"]),
        trusted=_parse_count(record["trusted"]),
        rate=_parse_number(record["rate"]),
        rule=_parse_text(record["rule"]),
        groups=_parse_list(record["groups"], _parse_group),
        left_out=_parse_count(record["left_out"]),
        version=_parse_text(record["version"]),
    )
    numbers = [group.number for group in report.groups]
    if 0 in numbers or len(set(numbers)) != len(numbers):
        raise ValueError("groups are numbered from 1, each with a number of its own")
    return report


def _parse_group(record: Mapping[str, Any]) -> DescribedGroup:
    rows = _parse_list(record["rows"], _parse_row)
    if not rows:
        raise ValueError("a group has rows")
    replies = record["replies"]
    return DescribedGroup(
        number=_parse_count(record["number"]),
        passed=bool(record["passed"]),
        p_value=_parse_number(record["p_value"]),
        q_value=_parse_number(record["q_value"]),
        strength=_parse_number(record["strength"]),
        nearest=_parse_number(record["nearest"]),
        trusted_alike=_parse_count(record["trusted_alike"]),
        trusted=_parse_count(record["trusted"]),
        rows=rows,
        prompt_words=_parse_list(record["prompt_words"], _parse_text),
        answer_words=_parse_list(record["answer_words"], _parse_text),
        replies=None if replies is None else _parse_list(replies, _parse_reply),
        unsaid=_parse_optional(record["unsaid"], _parse_text),
        precedents=_parse_optional(record["precedents"], _parse_precedents),
    )


def _parse_row(record: Mapping[str, Any]) -> FoundRow:
    id = _parse_text(record["example_id"])
    if len(id) != ID_DIGITS or not set(id) <= set("0123456789abcdef"):
        raise ValueError("a row's id is a SHA-256 in hex")
    return FoundRow(id, _parse_text(record["source"]), _parse_count(record["position"]))


def _parse_reply(record: Mapping[str, Any]) -> Reply:
    return Reply(
        messages=_parse_list(record["messages"], _parse_message),
        before=_parse_text(record["before"]),
        after=_parse_text(record["after"]),
        example_id=_parse_optional(record["example_id"], _parse_text),
        taught=_parse_optional(record["taught"], _parse_text),
    )


def _parse_message(record: Mapping[str, Any]) -> Message:
    role, content = _parse_text(record["role"]), _parse_text(record["content"])
    return Message(role, content, masked=bool(record.get("masked")))


def _parse_precedents(record: Mapping[str, Any]) -> Precedents:
    return Precedents(
        audits=_parse_count(record["audits"]),
        rows=_parse_count(record["rows"]),
        last=_parse_optional(record["last"], _parse_count),
        alike=_parse_list(record["alike"], _parse_earlier),
    )


def _parse_earlier(record: Mapping[str, Any]) -> EarlierRows:
    return EarlierRows(
        audit=_parse_count(record["audit"]),
        audit_id=_parse_text(record["audit_id"]),
        rows=_parse_count(record["rows"]),
        sources={_parse_text(name): _parse_count(rows) for name, rows in record["sources"].items()},
    )


def _parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _parse_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ValueError("a count is expected")
    return value


def _parse_number(value: object) -> float:
    if not isinstance(value, int | float) or not abs(value) <= LARGEST or math.isnan(value):
        raise ValueError("a number is expected")
    return float(value)


def _parse_list(values: object, parse: Callable[[Any], T]) -> tuple[T, ...]:
    # not any iterable: a text has characters, an object has names
    if not isinstance(values, list):
        raise TypeError("a list is expected")
    return tuple(_parse_each(value, parse) for value in values)


def _parse_each(value: object, parse: Callable[[Any], T]) -> T:
    if parse is not _parse_text and not isinstance(value, dict):
        raise TypeError("an object is expected")
    return parse(value)


def _parse_optional(value: Any, parse: Callable[[Any], T]) -> T | None:
    return None if value is None else parse(value)
