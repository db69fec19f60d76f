"""Past audits as a list that can be narrowed down: read page by page, never whole."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select

from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.history import (
    COMMITTED_STATES,
    PastAudit,
    count_undecided,
    list_past_audits,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits, files, flags, places, results


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audits, or which flags of them: by name or id, a file of the source, days (YYYY-MM-DD,
    both included), severity.

    An empty field leaves everything in. Raises InputError where a day or severity is none.
    """

    name: str = ""
    source: str = ""
    since: str = ""
    until: str = ""
    severity: str = ""
    audit: str = ""

    def __post_init__(self) -> None:
        for day in filter(None, (self.since, self.until)):
            _parse_day(day)
        if self.severity and self.severity not in SEVERITIES:
            raise InputError(f"severity is one of {', '.join(SEVERITIES)}")

    @property
    def audit_conditions(self) -> list[ColumnElement[bool]]:
        """What an audit must fulfil by its own name, id and days."""
        wanted = [audits.c.name == self.name] if self.name else []
        wanted += [audits.c.audit_id == self.audit] if self.audit else []
        wanted += [audits.c.started_at >= self.since] if self.since else []
        last = _parse_day(self.until) if self.until else date.max
        wanted += (
            [audits.c.started_at < (last + timedelta(days=1)).isoformat()]
            if last < date.max
            else []
        )
        return wanted


@dataclass(frozen=True, slots=True)
class AuditTotals:
    """How many audits there are, how many came to no results, and, over their results: rows and
    flags.
    """

    audits: int
    failed: int
    rows: int
    flags: int


@dataclass(frozen=True, slots=True)
class ListedAudit:
    """An audit in the list; `severity` is the highest of its flags ("" without flags), `undecided`
    how many of them wait for a decision.
    """

    past: PastAudit
    severity: str
    undecided: int


def list_audit_names(ledger: Ledger) -> list[str]:
    """The names of all audits."""
    with ledger.read() as connection:
        return list(
            connection.execute(select(audits.c.name).distinct().order_by(audits.c.name)).scalars()
        )


def list_source_files(ledger: Ledger, name: str = "") -> list[str]:
    """The files that audits (of a name) read their rows from."""
    query = select(files.c.name).distinct().order_by(files.c.name)
    with ledger.read() as connection:
        return list(
            connection.execute(query.where(files.c.audit == name) if name else query).scalars()
        )


def list_audits(
    ledger: Ledger, wanted: AuditFilter, page: int = 1, size: int = 50
) -> tuple[list[ListedAudit], int]:
    """The `page`th `size` audits, newest first, and how many there are in all."""
    where = _build_conditions(wanted)
    past = list_past_audits(ledger, limit=size, offset=(page - 1) * size, where=where)
    numbers = [audit.number for audit in past]
    waiting, grave = count_undecided(ledger, numbers), _find_highest_severities(ledger, numbers)
    with ledger.read() as connection:
        total = connection.execute(
            select(func.count()).select_from(audits).where(*where)
        ).scalar_one()
    return [
        ListedAudit(audit, grave.get(audit.number, ""), waiting.get(audit.number, 0))
        for audit in past
    ], total


def count_totals(ledger: Ledger, wanted: AuditFilter) -> AuditTotals:
    """What the audits of a filter come to."""
    where = _build_conditions(wanted)
    numbers = select(audits.c.audit).where(*where)
    of_flags = select(func.count()).select_from(flags).where(flags.c.audit.in_(numbers))
    if wanted.severity:
        of_flags = of_flags.where(flags.c.severity == wanted.severity)
    with ledger.read() as connection:
        by_state = (
            connection.execute(
                select(audits.c.state, func.count()).where(*where).group_by(audits.c.state)
            )
            .tuples()
            .all()
        )
        return AuditTotals(
            audits=sum(n for _, n in by_state),
            failed=sum(n for state, n in by_state if state == "interrupted"),
            rows=connection.execute(
                select(func.count()).select_from(results).where(results.c.audit.in_(numbers))
            ).scalar_one(),
            flags=connection.execute(of_flags).scalar_one(),
        )


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """One audit: when it was `created`, how many rows were `new` and `flagged`, and its stages'
    `seconds`.

    `largest` has each panel's largest score, in robust standard deviations; it is empty where no
    row was new.
    """

    audit_id: str
    created: str
    new: int
    flagged: int
    largest: Mapping[str, float]
    seconds: float

    @property
    def flag_rate(self) -> float | None:
        """The flagged share of the new rows; None without new rows."""
        return self.flagged / self.new if self.new else None

    @property
    def largest_score(self) -> float | None:
        """Over all panels; None without new rows."""
        return max(self.largest.values(), default=None)


def list_trend_points(ledger: Ledger, wanted: AuditFilter) -> list[TrendPoint]:
    """The last audits of a filter that came to results, oldest first, at most LONGEST; each at the
    time it started, as in the list.
    """
    done = list_past_audits(
        ledger,
        limit=MAX_TREND_POINTS,
        where=[*_build_conditions(wanted), audits.c.state.in_(COMMITTED_STATES)],
    )
    return [
        replace(to_trend_point(audit.summary), created=audit.started_at) for audit in reversed(done)
    ]


def _build_conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    where = wanted.audit_conditions
    if wanted.source:
        read = (
            select(places.c.row)
            .join(files, files.c.file == places.c.file)
            .where(files.c.name == wanted.source)
        )
        where.append(audits.c.audit.in_(select(results.c.audit).where(results.c.row.in_(read))))
    if wanted.severity:
        where.append(
            exists().where(flags.c.audit == audits.c.audit, flags.c.severity == wanted.severity)
        )
    return where


def _find_highest_severities(ledger: Ledger, numbers: Sequence[int]) -> dict[int, str]:
    """The highest severity of each audit's flags; audits without flags are left out."""
    with ledger.read() as connection:
        found = (
            connection.execute(
                select(flags.c.audit, flags.c.severity).where(flags.c.audit.in_(numbers)).distinct()
            )
            .tuples()
            .all()
        )
    highest: dict[int, str] = {}
    for audit, severity in sorted(found, key=lambda pair: SEVERITIES.index(pair[1])):
        highest[audit] = severity
    return highest


def _parse_day(text: str) -> date:
    with suppress(ValueError):
        day = date.fromisoformat(text)
        if (
            day.isoformat() == text
        ):  # other spellings of ISO 8601 would not compare with the times of audits
            return day
    raise InputError(f"{text[:20]!r} is no day: write YYYY-MM-DD")


MAX_TREND_POINTS = 30  # audits

MAX_AUDITS_SEARCHED = 10 * MAX_TREND_POINTS  # audits looked through for those that came to results


def list_previous_audits(ledger: Ledger, name: str) -> list[PastAudit]:
    """The last audits of a name that came to results, newest first, as many as fit into a trend
    beside one more.
    """
    return [
        audit for audit in list_past_audits(ledger, name, MAX_AUDITS_SEARCHED) if audit.has_results
    ][: MAX_TREND_POINTS - 1]


def build_trend(past: Sequence[PastAudit], summary: Mapping[str, Any]) -> list[TrendPoint]:
    """The audits in `past` (newest first, in any state) that came to results, and the one of the
    summary: oldest first, at most LONGEST.

    An audit that is in `past` and is the summary's counts once, as the summary tells it.
    """
    done = [
        audit.summary
        for audit in past
        if audit.has_results and audit.summary.get("audit_id") != summary["audit_id"]
    ]
    return [
        *(to_trend_point(of) for of in reversed(done[: MAX_TREND_POINTS - 1])),
        to_trend_point(summary),
    ]


def to_trend_point(summary: Mapping[str, Any]) -> TrendPoint:
    """The audit of a summary."""
    return TrendPoint(
        audit_id=summary["audit_id"],
        created=summary["created"],
        new=summary["counts"]["new"],
        flagged=summary["counts"]["flagged"],
        largest={panel["name"]: panel["largest_score"] for panel in summary["panels"]},
        seconds=sum(stage["seconds"] for stage in summary["stages"]),
    )
