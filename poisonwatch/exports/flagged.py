"""Which flagged rows leave, and what of them is said everywhere.

A row stands with the last audit that flagged it, as in the dashboard's queue.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from poisonwatch.errors import InputError
from poisonwatch.flags import read_flagged_example
from poisonwatch.ledger.history import (
    COMMITTED_STATES,
    HAD_ROWS,
    find_by_audit_id,
    list_past_audits,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.queue import count_flagged_rows, export_flagged_rows
from poisonwatch.ledger.tables import audits
from poisonwatch.text.display import excerpt, make_visible

ExportState = Literal["open", "all"]
EVERY_AUDIT = "all"  # in place of an audit's id
# What is said of a row beside its texts, in columns, metadata and properties.
FACTS = (
    "audit_id",
    "name",
    "group",
    "severity",
    "panel",
    "sentinel_id",
    "score",
    "coefficient",
    "p_value",
    "q_value",
    "source",
    "position",
    "line",
    "example_id",
    "status",
    "decided",
)


def collect_flagged(
    ledger: Ledger, name: str, audit: str | None = None, state: ExportState = "open"
) -> Sequence[Mapping[str, Any]]:
    """The flagged rows of an audit of a name, strongest first: lines of flags.jsonl with audit,
    group, status and decision.

    `audit` is an id, EVERY_AUDIT, or None for the last one that rows waited for. Raises InputError
    where there is no such audit with results.
    """
    return export_flagged_rows(ledger, _choose_audits(ledger, name, audit), state)


def count_decided(ledger: Ledger, name: str, audit: str | None = None) -> int:
    """How many rows `collect_flagged` leaves out with state open: those that are decided on."""
    return count_flagged_rows(ledger, _choose_audits(ledger, name, audit), "decided")


def _choose_audits(ledger: Ledger, name: str, audit: str | None) -> AuditFilter:
    if audit is None:
        audit = _find_last(ledger, name)
    elif audit != EVERY_AUDIT:
        _require_results(ledger, name, audit)
    return AuditFilter(name=name, audit="" if audit == EVERY_AUDIT else audit)


def _find_last(ledger: Ledger, name: str) -> str:
    done = [audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    found = list_past_audits(ledger, name, limit=1, where=done)
    if not found:
        raise InputError(
            f"no audit of {excerpt(name)} came to results yet: `poisonwatch audit` makes one"
        )
    return found[0].audit_id


def _require_results(ledger: Ledger, name: str, audit: str) -> None:
    found = find_by_audit_id(ledger, audit)
    if found is None or found.name != name or not found.has_results:
        raise InputError(
            f"no audit {excerpt(audit)} of {excerpt(name)} came to results: "
            "`poisonwatch history --json` lists their ids (audit_id)"
        )


def get_fact(row: Mapping[str, Any], name: str) -> Any:
    """One of FACTS, None where a row has none: `line` is its `position` counted from 1."""
    if name == "line":
        return row["position"] + 1
    return row.get(name)


def show_texts(row: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a row for people who look at it, with hostile characters made visible; those
    that only few rows have stand there where they are not empty.
    """
    example = read_flagged_example(row)
    texts = {"prompt": make_visible(example.prompt), "response": make_visible(example.response)}
    if example.tools:
        texts["tools"] = make_visible(example.tools)
    if example.rejected_response:
        texts["rejected_response"] = make_visible(example.rejected_response)
    return texts


def show_reasons(row: Mapping[str, Any]) -> str:
    """Why a row is flagged, in one visible text."""
    return make_visible("; ".join(row["reasons"]))


def list_facts(row: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The facts of a row that there are, as plain JSON: no null, and no number that JSON lacks."""
    facts: dict[str, str | int | float] = {}
    for name in FACTS:
        value = get_fact(row, name)
        if isinstance(value, str):
            facts[name] = make_visible(value)
        elif value is not None and math.isfinite(value):
            facts[name] = value
    return facts


def collect_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The example ids of rows, each once."""
    return list(dict.fromkeys(row["example_id"] for row in rows))
