"""Past audits as a list that can be narrowed down, and as a trend.

The list is read page by page, never whole. The trend is what the audits of one name came to: a
point each, oldest first, of the audits that came to results.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select

from poisonwatch.errors import InputError
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.audit_lines import AuditLine, list_audit_lines, list_audits_of
from poisonwatch.ledger.history import (
    COMMITTED_STATES,
    HAD_ROWS,
    PastAudit,
    count_undecided,
    list_past_audits,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queries import select_rows_of_file
from poisonwatch.ledger.tables import audits, files, flags, results
from poisonwatch.ledger.transactions import retried

MAX_TREND_POINTS = 30  # audits


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audits, or which flags of them: by name or id, a file of the source, days (YYYY-MM-DD,
    both included), severity; of flags, by who has their rows (`stages.NOBODY`: nobody).

    An empty field leaves everything in. Raises InputError where a day or severity is none.
    """

    name: str = ""
    source: str = ""
    since: str = ""
    until: str = ""
    severity: str = ""
    audit: str = ""
    assignee: str = ""

    def __post_init__(self) -> None:
        for day in filter(None, (self.since, self.until)):
            _parse_day(day)
        if self.severity and self.severity not in SEVERITIES:
            raise InputError(f"severity is one of {', '.join(SEVERITIES)}")

    @property
    def audit_conditions(self) -> list[ColumnElement[bool]]:
        """What an audit must fulfil by its own name, id and days."""
        wanted = []
        if self.name:
            wanted.append(audits.c.name == self.name)
        if self.audit:
            wanted.append(audits.c.audit_id == self.audit)
        # Times and days are compared as text: ISO 8601 sorts so.
        if self.since:
            wanted.append(audits.c.started_at >= self.since)
        if self.until:
            last = _parse_day(self.until)
            # No day comes after the last one that a date can hold, and it leaves nothing out.
            if last < date.max:
                wanted.append(audits.c.started_at < (last + timedelta(days=1)).isoformat())
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
    how many of them wait for a decision. Where it stands for others that no row waited for, either,
    `line` says which, and `newest` names the last of them: id, and when it began.
    """

    past: PastAudit
    severity: str
    undecided: int
    line: AuditLine | None = None
    newest: Sequence[tuple[str, str]] = ()


@retried
def list_audit_names(ledger: Ledger) -> list[str]:
    """The names of all audits."""
    query = select(audits.c.name).distinct().order_by(audits.c.name)
    with ledger.read() as connection:
        return list(connection.execute(query).scalars())


@retried
def list_source_files(ledger: Ledger, name: str = "") -> list[str]:
    """The files that audits (of a name) read their rows from."""
    query = select(files.c.name).distinct().order_by(files.c.name)
    if name:
        query = query.where(files.c.audit == name)
    with ledger.read() as connection:
        return list(connection.execute(query).scalars())


@retried
def list_audits(
    ledger: Ledger, wanted: AuditFilter, page: int = 1, size: int = 50
) -> tuple[list[ListedAudit], int]:
    """The `page`th `size` audits, newest first, and how many there are in all."""
    where = _build_conditions(wanted)
    past = list_past_audits(ledger, limit=size, offset=(page - 1) * size, where=where)
    counted = select(func.count()).select_from(audits).where(*where)
    with ledger.read() as connection:
        total = connection.execute(counted).scalar_one()
    return _look_at_flags(ledger, past), total


@retried
def list_lines(
    ledger: Ledger, wanted: AuditFilter, page: int = 1, size: int = 50
) -> tuple[list[ListedAudit], int]:
    """The same with a line for audits that follow each other and that no row waited for, of which
    at most `size` are named: the `page`th `size` lines, and how many there are in all.
    """
    where = _build_conditions(wanted)
    lines, total = list_audit_lines(ledger, where, limit=size, offset=(page - 1) * size)
    listed = []
    for audit, line in zip(
        _look_at_flags(ledger, [line.newest for line in lines]), lines, strict=True
    ):
        if line.is_collapsed:
            newest = list_audits_of(ledger, line, where, limit=size)
            listed.append(replace(audit, line=line, newest=newest))
        else:
            listed.append(audit)
    return listed, total


def _look_at_flags(ledger: Ledger, past: Sequence[PastAudit]) -> list[ListedAudit]:
    numbers = [audit.number for audit in past]
    undecided = count_undecided(ledger, numbers)
    severities = _find_highest_severities(ledger, numbers)
    listed = []
    for audit in past:
        severity = severities.get(audit.number, "")
        listed.append(ListedAudit(audit, severity, undecided.get(audit.number, 0)))
    return listed


@retried
def count_totals(ledger: Ledger, wanted: AuditFilter) -> AuditTotals:
    """What the audits of a filter come to."""
    where = _build_conditions(wanted)
    numbers = select(audits.c.audit).where(*where)
    flag_count = select(func.count()).select_from(flags).where(flags.c.audit.in_(numbers))
    if wanted.severity:
        flag_count = flag_count.where(flags.c.severity == wanted.severity)
    row_count = select(func.count()).select_from(results).where(results.c.audit.in_(numbers))
    states = select(audits.c.state, func.count()).where(*where).group_by(audits.c.state)
    with ledger.read() as connection:
        by_state = dict(connection.execute(states).tuples().all())
        return AuditTotals(
            audits=sum(by_state.values()),
            failed=by_state.get("interrupted", 0),
            rows=connection.execute(row_count).scalar_one(),
            flags=connection.execute(flag_count).scalar_one(),
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
        if not self.new:
            return None
        return self.flagged / self.new

    @property
    def largest_score(self) -> float | None:
        """Over all panels; None without new rows."""
        return max(self.largest.values(), default=None)


def list_trend_points(ledger: Ledger, wanted: AuditFilter) -> list[TrendPoint]:
    """The last audits of a filter that rows waited for and that came to results, oldest first, at
    most MAX_TREND_POINTS; each at the time it started, as in the list.
    """
    where = [*_build_conditions(wanted), audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    points = []
    for audit in list_past_audits(ledger, limit=MAX_TREND_POINTS, where=where):
        points.append(replace(to_trend_point(audit.summary), created=audit.started_at))
    return points[::-1]


def _build_conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    where = wanted.audit_conditions
    if wanted.source:
        read = select_rows_of_file(wanted.source)
        where.append(audits.c.audit.in_(select(results.c.audit).where(results.c.row.in_(read))))
    if wanted.severity:
        has_severity = flags.c.severity == wanted.severity
        where.append(exists().where(flags.c.audit == audits.c.audit, has_severity))
    return where


@retried
def _find_highest_severities(ledger: Ledger, numbers: Sequence[int]) -> dict[int, str]:
    """The highest severity of each audit's flags; audits without flags are left out."""
    query = select(flags.c.audit, flags.c.severity).where(flags.c.audit.in_(numbers)).distinct()
    with ledger.read() as connection:
        found = connection.execute(query).tuples().all()
    # The last one written stays: the gravest.
    return dict(sorted(found, key=lambda pair: SEVERITIES.index(pair[1])))


def _parse_day(text: str) -> date:
    with suppress(ValueError):
        day = date.fromisoformat(text)
        # Other spellings of ISO 8601 would not compare with the times of audits.
        if day.isoformat() == text:
            return day
    raise InputError(f"{text[:20]!r} is no day: write YYYY-MM-DD")


def list_previous_audits(ledger: Ledger, name: str) -> list[PastAudit]:
    """The last audits of a name that rows waited for and that came to results, newest first, as
    many as fit into a trend beside one more.
    """
    done = [audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    return list_past_audits(ledger, name, MAX_TREND_POINTS - 1, where=done)


def build_trend(past: Sequence[PastAudit], summary: Mapping[str, Any]) -> list[TrendPoint]:
    """The audits in `past` (newest first, in any state) that came to results, and the one of the
    summary: oldest first, at most MAX_TREND_POINTS.

    An audit that is in `past` and is the summary's counts once, as the summary tells it.
    """
    points = [to_trend_point(summary)]
    for audit in past:
        if len(points) == MAX_TREND_POINTS:
            break
        # A report that is written again finds its own audit among the past ones.
        is_this_one = audit.summary.get("audit_id") == summary["audit_id"]
        if audit.has_results and not is_this_one:
            points.append(to_trend_point(audit.summary))
    return points[::-1]


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
