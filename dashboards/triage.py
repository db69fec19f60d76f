"""The queue of flagged rows, the page of a group, and what people decide there."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.audits import build_choices, encode_filter, find_audit, parse_filter
from poisonwatch.dashboards.pages import (
    LINES_PER_PAGE,
    LONGEST_TEXT,
    MOST_MESSAGES,
    get_desk,
    get_ledger,
    make_address,
    parse_number,
    read_field,
    read_form,
    redirect_beyond_last,
    render_page,
    send_figure,
)
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.flags import read_flagged_example
from poisonwatch.ledger import decisions
from poisonwatch.ledger.decisions import VERDICTS
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.queue import (
    FlaggedRow,
    QueueState,
    export_flagged_rows,
    find_next_group,
    list_group_rows,
    list_groups,
)
from poisonwatch.reports.plots import draw_coefficients
from poisonwatch.reports.templating import keep_ends
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.diff import Piece, diff_words
from poisonwatch.text.display import make_visible

ROWS_PER_PAGE = 10  # of a group on one page
EXPORT_COLUMNS: tuple[str, ...] = (
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
)
EXPORT_COLUMNS += (
    "source",
    "position",
    "example_id",
    "status",
    "decided",
)  # of the export, before the texts
FORMULA_STARTS = tuple(
    "=+-@\t\r|%＝＋－＠"
)  # what a spreadsheet takes for a formula where a cell begins with it


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text with the words marked that another text does not have: its start, how many characters
    are left out, its end.
    """

    start: tuple[Piece, ...]
    left_out: int
    end: str


@dataclass(frozen=True, slots=True)
class MarkedTurn:
    """One message of a row, beside what is most like it."""

    role: str
    text: MarkedText


@dataclass(frozen=True, slots=True)
class RowView:
    """A flagged row as it is looked at: its `turns` against the nearest trusted row, the trusted
    rows, and the sentinel it pushes.

    `others` are further places of the same content; `nearest` has each trusted row with its turns,
    against the flagged one, and likeness.
    """

    row: FlaggedRow
    turns: tuple[MarkedTurn, ...]
    turns_left_out: int
    rejected: str
    others: tuple[tuple[str, int], ...]
    nearest: tuple[tuple[Example, tuple[MarkedTurn, ...], float], ...]
    sentinel: Sentinel | None


def show_queue(request: Request) -> Response:
    """Groups of flagged rows, gravest first."""
    wanted, state, nth = parse_filter(request), parse_state(request), parse_number(request)
    groups, total = list_groups(get_desk(request).ledger, wanted, state, nth, LINES_PER_PAGE)
    if there := redirect_beyond_last(request, nth, LINES_PER_PAGE, total):
        return there
    shown: dict[str, Any] = {
        "groups": groups,
        "total": total,
        "nth": nth,
        "size": LINES_PER_PAGE,
        "state": state,
        "states": get_args(QueueState),
    }
    return render_page(request, "triage.html.j2", **shown, **build_choices(request, wanted))


def show_group(request: Request) -> Response:
    """A group: what its rows have in common and do together, and each row with its evidence."""
    past, key, nth, wanted = (
        find_audit(request),
        request.path_params["key"],
        parse_number(request),
        parse_filter(request),
    )
    rows = list_group_rows(get_desk(request).ledger, past.audit_id, key)
    if there := redirect_beyond_last(request, nth, ROWS_PER_PAGE, len(rows)):
        return there
    evidence = find_evidence(past, key)
    return render_page(
        request,
        "group.html.j2",
        past=past,
        key=key,
        rows=rows,
        undecided=sum(row.is_open for row in rows),
        cards=[
            build_row_view(past, evidence, row)
            for row in rows[(nth - 1) * ROWS_PER_PAGE : nth * ROWS_PER_PAGE]
        ],
        evidence=evidence,
        sentinels=readback.read_asked_sentinels(past.run_dir),
        verdicts=VERDICTS,
        following=find_next_group(get_desk(request).ledger, wanted, past.audit_id, key),
        kept=encode_filter(wanted),
        done=find_recent_decisions(request, rows),
        total=len(rows),
        nth=nth,
        size=ROWS_PER_PAGE,
        here=past.run_dir.is_dir(),
        whole=not key.isdigit()
        or (evidence is not None and readback.is_group_complete(past.run_dir, evidence)),
    )


def parse_state(request: Request) -> QueueState:
    """Which flagged rows the query asks for. Raises InputError."""
    state: Any = request.query_params.get("state", "open")
    if state not in get_args(QueueState):
        raise InputError(f"state is one of {', '.join(get_args(QueueState))}")
    return state  # type: ignore[no-any-return]


def find_evidence(past: PastAudit, key: str) -> Any:
    """The group's line of evidence.jsonl; None where the row was not grouped, or the run directory
    is not here.
    """
    found = readback.read_evidence(past.run_dir)
    return found[int(key) - 1] if key.isdigit() and 0 < int(key) <= len(found) else None


def build_row_view(past: PastAudit, evidence: Any, row: FlaggedRow) -> RowView:
    """A flagged row with its surroundings."""
    example = read_flagged_example(row.record)
    nearest = readback.find_nearest(past.run_dir, evidence, row.example_id)
    closest = nearest[0][0] if nearest else None
    own = (row.record["source"], row.record["position"])
    return RowView(
        row=row,
        turns=mark_turns(example, closest),
        turns_left_out=max(len(example.messages) - MOST_MESSAGES, 0),
        rejected=example.rejected_response,
        others=tuple(place for place in row.places if place != own),
        nearest=tuple((near, mark_turns(near, example), likeness) for near, likeness in nearest),
        sentinel=readback.read_asked_sentinels(past.run_dir).get(row.record["sentinel_id"]),
    )


def mark_turns(example: Example, other: Example | None) -> tuple[MarkedTurn, ...]:
    """The messages of a row, at most MOST_MESSAGES, with what the other row does not say marked;
    nothing is where there is none.
    """
    shown, _, rest = keep_ends(example.messages, MOST_MESSAGES)
    return tuple(
        MarkedTurn(
            message.role,
            mark_text(
                message.content,
                None
                if other is None
                else other.response
                if message.role == "assistant"
                else other.prompt,
            ),
        )
        for message in (*shown, *rest)
    )


def mark_text(text: str, other: str | None) -> MarkedText:
    """The text, both ends of a long one, with the words marked that the other does not have."""
    start, left_out, end = keep_ends(text, LONGEST_TEXT)
    return MarkedText(
        (Piece(start, False),) if other is None else diff_words(start, other), left_out, end
    )


def show_coefficient(request: Request) -> Response:
    """The picture of a row's coefficient among all others."""
    past, query = find_audit(request), request.query_params
    sentinel = query.get("sentinel", "")
    found = readback.read_coefficients(past.run_dir, sentinel, query.get("row", ""))
    if found is None:
        raise HTTPException(404, "The audit left no coefficients for this row.")
    return send_figure(draw_coefficients(found.own, found.new, found.trusted, sentinel))


async def take_verdict(request: Request) -> Response:
    """Take a verdict on one row, on the rows of a group that wait for one ("open"), or on all of
    it.
    """
    past, key, form = (
        await run_in_threadpool(find_audit, request),
        request.path_params["key"],
        await read_form(request),
    )
    ledger = await run_in_threadpool(get_ledger, request)
    rows = await run_in_threadpool(list_group_rows, ledger, past.audit_id, key)
    chosen, wanted = read_field(form, "row"), parse_filter(request)
    ids = [
        row.example_id
        for row in rows
        if chosen in ("all", row.example_id) or (chosen == "open" and row.is_open)
    ]
    if not ids and chosen == "open":
        raise InputError("somebody has decided on these rows meanwhile: open the group again")
    if not ids:
        raise InputError("choose a row of this group, or all of them")
    said = (read_field(form, "verdict"), read_field(form, "note"), request.state.user)
    made = await run_in_threadpool(decisions.record_decisions, ledger, ids, *said)
    done = f"{made[0].number}-{made[-1].number}"
    nth, place = read_field(form, "page"), ""
    if len(ids) == 1:  # on to the next row that waits
        last = next(k for k, row in enumerate(rows) if row.example_id == ids[0])
        after = next(
            (k for k in (*range(last + 1, len(rows)), *range(last)) if rows[k].waits), last
        )
        nth, place = str(after // ROWS_PER_PAGE + 1), f"#row-{rows[after].example_id[:16]}"
    there = make_address(
        f"/triage/{past.audit_id}/{key}", **encode_filter(wanted), done=done, page=nth
    )
    return RedirectResponse(there + place, 303)


async def undo_recent(request: Request) -> Response:
    """Take back what was decided at once, by new decisions."""
    form = await read_form(request)
    first, last = parse_decision_numbers(read_field(form, "done"))
    await run_in_threadpool(
        decisions.revert_decisions,
        await run_in_threadpool(get_ledger, request),
        range(first, last + 1),
        request.state.user,
    )
    back, place = read_field(form, "back"), read_field(form, "place")
    return RedirectResponse(
        (back if back.startswith("/triage/") else "/triage")
        + (f"#{quote(place)}" if place else ""),
        303,
    )


def parse_decision_numbers(done: str) -> tuple[int, int]:
    """The first and last number of decisions that were made at once. Raises InputError."""
    numbers = re.fullmatch("([0-9]{1,12})-([0-9]{1,12})", done)
    if numbers is None or not 0 <= int(numbers[2]) - int(numbers[1]) < 10**5:
        raise InputError("nothing can be undone here: decide anew instead")
    return int(numbers[1]), int(numbers[2])


@dataclass(frozen=True, slots=True)
class RecentDecisions:
    """What was decided on `rows` rows just now, the decisions' `numbers` as `undo` takes them;
    `place` is the row's, where it was one.
    """

    numbers: str
    verdict: str
    rows: int
    place: str


def find_recent_decisions(request: Request, rows: Sequence[FlaggedRow]) -> RecentDecisions | None:
    """What the query says was decided just now; None unless these are decisions on rows of the
    group, and nothing was decided since.
    """
    try:
        first, last = parse_decision_numbers(request.query_params.get("done", ""))
    except InputError:
        return None
    decided = {
        row.decided.number: (row.example_id, row.decided.verdict)
        for row in rows
        if row.decided is not None
    }
    if last - first >= len(decided) or not all(
        number in decided for number in range(first, last + 1)
    ):
        return None
    example_id, verdict = decided[first]
    return RecentDecisions(
        f"{first}-{last}",
        verdict,
        last - first + 1,
        f"row-{example_id[:16]}" if first == last else "",
    )


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


def format_csv(rows: Sequence[Any]) -> str:
    """Flags as CSV: every text is made visible, and one that begins like a formula gets an
    apostrophe before it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([*EXPORT_COLUMNS, "prompt", "response", "reasons"])
    for row in rows:
        example = read_flagged_example(row)
        texts = (example.prompt, example.response, "; ".join(row["reasons"]))
        writer.writerow(
            [neutralise_cell(row.get(column)) for column in EXPORT_COLUMNS]
            + [neutralise_cell(text) for text in texts]
        )
    return file.getvalue()


def neutralise_cell(value: Any) -> Any:
    """A value for a cell: numbers stay numbers; text never begins like a formula (OWASP, CSV
    injection).
    """
    if not isinstance(value, str):
        return value
    text = make_visible(value)
    return (
        f"'{text}"
        if text.lstrip().startswith(FORMULA_STARTS) or text.startswith(FORMULA_STARTS)
        else text
    )


routes = [
    Route("/triage", show_queue),
    Route("/triage/export.csv", export_flags),
    Route("/triage/undo", undo_recent, methods=["POST"]),
    Route("/triage/{audit_id}/coefficient.png", show_coefficient),
    Route("/triage/{audit_id}/{key}", show_group),
    Route("/triage/{audit_id}/{key}", take_verdict, methods=["POST"]),
]
