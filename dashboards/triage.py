"""The queue of flagged rows, the page of a group, and what people decide there."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch import decisions, readback
from poisonwatch.dashboards.audits import asked, audit_of, choices
from poisonwatch.dashboards.pages import LONGEST_TEXT, MOST_MESSAGES, PAGE, desk, field, form_of, go, number, page, picture
from poisonwatch.decisions import VERDICTS
from poisonwatch.differences import Piece, differences
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.flags import flagged_example
from poisonwatch.history import PastAudit
from poisonwatch.markup import ends
from poisonwatch.overview import Filter
from poisonwatch.plots import coefficient_figure
from poisonwatch.redaction import visible
from poisonwatch.sentinels import Sentinel
from poisonwatch.triage import FlaggedRow, Group, State, exported, queue, rows_of

ROWS = 10  # of a group on one page
COLUMNS: tuple[str, ...] = ("audit_id", "name", "group", "severity", "panel", "sentinel_id", "score", "coefficient", "p_value", "q_value")
COLUMNS += ("source", "position", "example_id", "status", "decided")  # of the export, before the texts
FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")  # what a spreadsheet takes for a formula where a cell begins with it


@dataclass(frozen=True, slots=True)
class Marked:
    """A text with the words marked that another text does not have: its start, how many characters are left out, its end."""

    start: tuple[Piece, ...]
    left_out: int
    end: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a row, beside what is most like it."""

    role: str
    text: Marked


@dataclass(frozen=True, slots=True)
class Card:
    """A flagged row as it is looked at: its `turns` against the nearest trusted row, the trusted rows, and the sentinel it pushes.

    `others` are further places of the same content; `nearest` has each trusted row with its turns, against the flagged one, and likeness.
    """

    row: FlaggedRow
    turns: tuple[Turn, ...]
    turns_left_out: int
    rejected: str
    others: tuple[tuple[str, int], ...]
    nearest: tuple[tuple[Example, tuple[Turn, ...], float], ...]
    sentinel: Sentinel | None


def show_queue(request: Request) -> Response:
    """Groups of flagged rows, gravest first."""
    wanted, state, nth = asked(request), state_of(request), number(request)
    groups, total = queue(desk(request).ledger, wanted, state, nth, PAGE)
    shown: dict[str, Any] = {"groups": groups, "total": total, "nth": nth, "size": PAGE, "state": state, "states": get_args(State)}
    return page(request, "triage.html.j2", **shown, done=done_of(request), **choices(request, wanted))


def show_group(request: Request) -> Response:
    """A group: what its rows have in common and do together, and each row with its evidence."""
    past, key, nth = audit_of(request), request.path_params["key"], number(request)
    rows = rows_of(desk(request).ledger, past.audit_id, key)
    evidence = evidence_of(past, key)
    following = next_group(request, past, key)
    return page(
        request,
        "group.html.j2",
        past=past,
        key=key,
        rows=rows,
        undecided=sum(row.decided is None or row.decided.verdict == "unsure" for row in rows),
        cards=[card(past, evidence, row) for row in rows[(nth - 1) * ROWS : nth * ROWS]],
        evidence=evidence,
        sentinels=readback.sentinels(past.run_dir),
        verdicts=VERDICTS,
        following=following,
        done=done_of(request),
        total=len(rows),
        nth=nth,
        size=ROWS,
        here=past.run_dir.is_dir(),
    )


def state_of(request: Request) -> State:
    """Which flagged rows the query asks for. Raises InputError."""
    state: Any = request.query_params.get("state", "open")
    if state not in get_args(State):
        raise InputError(f"state is one of {', '.join(get_args(State))}")
    return state  # type: ignore[no-any-return]


def evidence_of(past: PastAudit, key: str) -> Any:
    """The group's line of evidence.jsonl; None where the row was not grouped, or the run directory is not here."""
    found = readback.evidence(past.run_dir)
    return found[int(key) - 1] if key.isdigit() and 0 < int(key) <= len(found) else None


def next_group(request: Request, past: PastAudit, key: str) -> Group | None:
    """The gravest open group that is not this one."""
    groups, _ = queue(desk(request).ledger, Filter(), "open", 1, 2)
    return next((group for group in groups if (group.audit_id, group.key) != (past.audit_id, key)), None)


def card(past: PastAudit, evidence: Any, row: FlaggedRow) -> Card:
    """A flagged row with its surroundings."""
    example = flagged_example(row.record)
    nearest = readback.nearest_to(past.run_dir, evidence, row.example_id)
    closest = nearest[0][0] if nearest else None
    own = (row.record["source"], row.record["position"])
    return Card(
        row=row,
        turns=turns(example, closest),
        turns_left_out=max(len(example.messages) - MOST_MESSAGES, 0),
        rejected=example.rejected_response,
        others=tuple(place for place in row.places if place != own),
        nearest=tuple((near, turns(near, example), likeness) for near, likeness in nearest),
        sentinel=readback.sentinels(past.run_dir).get(row.record["sentinel_id"]),
    )


def turns(example: Example, other: Example | None) -> tuple[Turn, ...]:
    """The messages of a row, at most MOST_MESSAGES, with what the other row does not say marked; nothing is where there is none."""
    shown, _, rest = ends(example.messages, MOST_MESSAGES)
    return tuple(
        Turn(
            message.role,
            marked(message.content, None if other is None else other.response if message.role == "assistant" else other.prompt),
        )
        for message in (*shown, *rest)
    )


def marked(text: str, other: str | None) -> Marked:
    """The text, both ends of a long one, with the words marked that the other does not have."""
    start, left_out, end = ends(text, LONGEST_TEXT)
    return Marked((Piece(start, False),) if other is None else differences(start, other), left_out, end)


def show_coefficient(request: Request) -> Response:
    """The picture of a row's coefficient among all others."""
    past, query = audit_of(request), request.query_params
    sentinel = query.get("sentinel", "")
    found = readback.coefficients(past.run_dir, sentinel, query.get("row", ""))
    if found is None:
        raise HTTPException(404, "The audit left no coefficients for this row.")
    return picture(coefficient_figure(found.of_row, found.new, found.trusted, sentinel))


async def decide(request: Request) -> Response:
    """Take a verdict on one row, or on every row of a group."""
    past, key, form = await run_in_threadpool(audit_of, request), request.path_params["key"], await form_of(request)
    ledger = desk(request).ledger
    rows = await run_in_threadpool(rows_of, ledger, past.audit_id, key)
    chosen = field(form, "row")
    ids = [row.example_id for row in rows if chosen in ("all", row.example_id)]
    if not ids:
        raise InputError("choose a row of this group, or all of them")
    said = (field(form, "verdict"), field(form, "note"), request.state.user)
    made = await run_in_threadpool(decisions.decide_all, ledger, ids, *said)
    return go(f"/triage/{past.audit_id}/{key}", done=f"{made[0].number}-{made[-1].number}", page=field(form, "page"))


async def undo(request: Request) -> Response:
    """Take back what was decided at once, by new decisions."""
    form = await form_of(request)
    first, last = numbers_of(field(form, "done"))
    await run_in_threadpool(decisions.undo, desk(request).ledger, range(first, last + 1), request.state.user)
    back = field(form, "back")
    return go(back if back.startswith("/triage/") else "/triage")


def numbers_of(done: str) -> tuple[int, int]:
    """The first and last number of decisions that were made at once. Raises InputError."""
    first, _, last = done.partition("-")
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()) or not 0 <= int(last) - int(first) < 10**5:
        raise InputError("nothing can be undone here: decide anew instead")
    return int(first), int(last)


def done_of(request: Request) -> str | None:
    """What was decided just now, as `undo` takes it."""
    done = request.query_params.get("done", "")
    try:
        first, last = numbers_of(done)
    except InputError:
        return None
    return f"{first}-{last}"


def export(request: Request) -> Response:
    """The flagged rows of a filter as a CSV file that no spreadsheet takes for formulas."""
    rows = exported(desk(request).ledger, asked(request), state_of(request))
    return Response(
        csv_of(rows), media_type="text/csv; charset=utf-8", headers={"Content-Disposition": 'attachment; filename="poisonwatch-flags.csv"'}
    )


def csv_of(rows: Sequence[Any]) -> str:
    """Flags as CSV: every text is made visible, and one that begins like a formula gets an apostrophe before it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([*COLUMNS, "prompt", "response", "reasons"])
    for row in rows:
        example = flagged_example(row)
        texts = (example.prompt, example.response, "; ".join(row["reasons"]))
        writer.writerow([inert_cell(row.get(column)) for column in COLUMNS] + [inert_cell(text) for text in texts])
    return file.getvalue()


def inert_cell(value: Any) -> Any:
    """A value for a cell: numbers stay numbers; text never begins like a formula (OWASP, CSV injection)."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) or text.startswith(FORMULA) else text


routes = [
    Route("/triage", show_queue),
    Route("/triage/export.csv", export),
    Route("/triage/undo", undo, methods=["POST"]),
    Route("/triage/{audit_id}/coefficient.png", show_coefficient),
    Route("/triage/{audit_id}/{key}", show_group),
    Route("/triage/{audit_id}/{key}", decide, methods=["POST"]),
]
