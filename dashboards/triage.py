"""The queue of flagged rows, and the page of a group."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.audits import (
    build_choices,
    check_run,
    encode_filter,
    find_audit,
    parse_filter,
)
from poisonwatch.dashboards.decide import ROWS_PER_PAGE, find_recent_decisions, find_recent_proposal
from poisonwatch.dashboards.group_lines import describe_groups
from poisonwatch.dashboards.mutes import find_standing, find_standings
from poisonwatch.dashboards.pages import (
    LINES_PER_PAGE,
    get_desk,
    parse_number,
    redirect_beyond_last,
    render_page,
    send_figure,
)
from poisonwatch.dashboards.row_view import build_row_view
from poisonwatch.errors import InputError
from poisonwatch.exports.spreadsheet import format_csv
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger.answers import MAX_ANSWER_CHARACTERS
from poisonwatch.ledger.decisions import VERDICTS
from poisonwatch.ledger.group_teams import list_assignees, load_teams
from poisonwatch.ledger.queue import (
    FlaggedRow,
    QueueState,
    count_flagged_rows,
    export_flagged_rows,
    find_next_group,
    list_group_rows,
    list_groups,
)
from poisonwatch.ledger.saved_views import list_views
from poisonwatch.ledger.stages import NOBODY
from poisonwatch.pruning.missing import describe_missing_run
from poisonwatch.reports.plots import draw_coefficients
from poisonwatch.review_config import needs_two
from poisonwatch.run_directory import read as readback
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.seals import find_seal


def show_queue(request: Request) -> Response:
    """Groups of flagged rows, gravest first."""
    wanted, state, nth = parse_filter(request), parse_state(request), parse_number(request)
    ledger = get_desk(request).ledger
    groups, total = list_groups(ledger, wanted, state, page=nth, size=LINES_PER_PAGE)
    beyond = redirect_beyond_last(request, nth, LINES_PER_PAGE, total=total)
    if beyond:
        return beyond
    return render_page(
        request,
        "triage.html.j2",
        groups=groups,
        lines=describe_groups(request, groups),
        standings=find_standings(request, groups),
        teams=load_teams(ledger, [(group.audit_id, group.key) for group in groups]),
        assignees=list_assignees(ledger),
        total=total,
        nth=nth,
        size=LINES_PER_PAGE,
        state=state,
        states=get_args(QueueState),
        nobody=NOBODY,
        verdicts=VERDICTS,
        waiting=count_flagged_rows(ledger, wanted),
        views=list_views(ledger),
        here=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        done=request.query_params.get("done", ""),
        **build_choices(request, wanted),
    )


def show_group(request: Request) -> Response:
    """A group: what its rows have in common and do together, and each row with its evidence."""
    past, key = find_audit(request), request.path_params["key"]
    nth, wanted = parse_number(request), parse_filter(request)
    ledger = get_desk(request).ledger
    rows = list_group_rows(ledger, past.audit_id, key)
    beyond = redirect_beyond_last(request, nth, ROWS_PER_PAGE, total=len(rows))
    if beyond:
        return beyond
    change, run_dir = check_run(request, past)
    evidence = find_evidence(run_dir, key)
    first = (nth - 1) * ROWS_PER_PAGE
    # only those of the page: each reads the run directory, and compares texts
    views = [build_row_view(run_dir, evidence, row) for row in rows[first : first + ROWS_PER_PAGE]]
    return render_page(
        request,
        "group.html.j2",
        past=past,
        key=key,
        rows=rows,
        undecided=sum(row.is_open for row in rows),
        cards=views,
        evidence=evidence,
        standing=find_standing(request, past.name, [(past.audit_id, key)])[0],
        today=datetime.now(UTC).date(),
        soon=datetime.now(UTC).date() + timedelta(days=14),
        sentinels=readback.read_asked_sentinels(run_dir),
        verdicts=VERDICTS,
        team=load_teams(ledger, [(past.audit_id, key)])[past.audit_id, key],
        takes_two=takes_two(request, rows),
        are_pairs=all(row.record.get("rejected") for row in rows),
        longest_answer=MAX_ANSWER_CHARACTERS,
        following=find_next_group(ledger, wanted, past.audit_id, key=key),
        kept=encode_filter(wanted),
        done=find_recent_decisions(request, rows),
        proposed=find_recent_proposal(request, past.audit_id, key),
        total=len(rows),
        nth=nth,
        size=ROWS_PER_PAGE,
        here=run_dir is not None and run_dir.is_dir(),
        absence=describe_missing_run(ledger, past),
        whole=_is_whole(run_dir, key, evidence),
        change=change,
    )


def takes_two(request: Request, rows: Sequence[FlaggedRow]) -> bool:
    """Whether a decision on these rows of a group takes two people."""
    severity = max((row.severity for row in rows), key=SEVERITIES.index)
    return needs_two(get_desk(request).config.review.two_people, severity)


def _is_whole(run_dir: Path | None, key: str, evidence: Any) -> bool:
    """Whether the run directory still has all that was found out of a group."""
    # a row that belongs to no group is named by its id, and never had any evidence
    if not key.isdigit():
        return True
    return evidence is not None and readback.is_group_complete(run_dir, evidence)


def parse_state(request: Request) -> QueueState:
    """Which flagged rows the query asks for. Raises InputError."""
    state: Any = request.query_params.get("state", "open")
    if state not in get_args(QueueState):
        raise InputError(f"state is one of {', '.join(get_args(QueueState))}")
    return state  # type: ignore[no-any-return]


def find_evidence(run_dir: Path | None, key: str) -> Any:
    """The group's line of evidence.jsonl; None where the row was not grouped, or the run directory
    is not here, or may not be shown.
    """
    found = readback.read_evidence(run_dir)
    # groups are numbered from 1, as their lines are
    if key.isdigit() and 0 < int(key) <= len(found):
        return found[int(key) - 1]
    return None


def show_coefficient(request: Request) -> Response:
    """The picture of a row's coefficient among all others."""
    past, query = find_audit(request), request.query_params
    sentinel = query.get("sentinel", "")
    seal = find_seal(get_desk(request).ledger, past.audit_id)
    if past.run_dir.is_dir():
        require_unchanged(past.run_dir, "scores.parquet", "trusted.parquet", seal=seal)
    found = readback.read_coefficients(past.run_dir, sentinel, query.get("row", ""))
    if found is None:
        raise HTTPException(404, "The audit left no coefficients for this row.")
    return send_figure(draw_coefficients(found.own, found.new, found.trusted, sentinel))


def export_flags(request: Request) -> Response:
    """The flagged rows of a filter as a CSV file that no spreadsheet takes for formulas."""
    rows = export_flagged_rows(
        get_desk(request).ledger, parse_filter(request), parse_state(request)
    )
    return Response(
        format_csv(rows),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="poisonwatch-flags.csv"'},
    )


routes = [
    Route("/triage", show_queue),
    Route("/triage/export.csv", export_flags),
    Route("/triage/{audit_id}/coefficient.png", show_coefficient),
    Route("/triage/{audit_id}/{key}", show_group),
]
