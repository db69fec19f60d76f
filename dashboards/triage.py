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

from poisonwatch.dashboards.audits import asked, audit_of, choices, kept
from poisonwatch.dashboards.pages import (
    LONGEST_TEXT,
    MOST_MESSAGES,
    PAGE,
    address,
    beyond,
    desk,
    field,
    form_of,
    ledger_of,
    number,
    page,
    picture,
)
from poisonwatch.errors import InputError
from poisonwatch.examples import Example
from poisonwatch.flags import flagged_example
from poisonwatch.ledger import decisions
from poisonwatch.ledger.decisions import VERDICTS
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.queue import FlaggedRow, State, exported, following, queue, rows_of
from poisonwatch.reports.plots import coefficient_figure
from poisonwatch.reports.templating import ends
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.diff import Piece, differences
from poisonwatch.text.display import visible

ROWS = 10  # of a group on one page
COLUMNS: tuple[str, ...] = ("audit_id", "name", "group", "severity", "panel", "sentinel_id", "score", "coefficient", "p_value", "q_value")
COLUMNS += ("source", "position", "example_id", "status", "decided")  # of the export, before the texts
FORMULA = tuple("=+-@\t\r|%＝＋－＠")  # what a spreadsheet takes for a formula where a cell begins with it


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
    if there := beyond(request, nth, PAGE, total):
        return there
    shown: dict[str, Any] = {"groups": groups, "total": total, "nth": nth, "size": PAGE, "state": state, "states": get_args(State)}
    return page(request, "triage.html.j2", **shown, **choices(request, wanted))


def show_group(request: Request) -> Response:
    """A group: what its rows have in common and do together, and each row with its evidence."""
    past, key, nth, wanted = audit_of(request), request.path_params["key"], number(request), asked(request)
    rows = rows_of(desk(request).ledger, past.audit_id, key)
    if there := beyond(request, nth, ROWS, len(rows)):
        return there
    evidence = evidence_of(past, key)
    return page(
        request,
        "group.html.j2",
        past=past,
        key=key,
        rows=rows,
        undecided=sum(row.waits for row in rows),
        cards=[card(past, evidence, row) for row in rows[(nth - 1) * ROWS : nth * ROWS]],
        evidence=evidence,
        sentinels=readback.sentinels(past.run_dir),
        verdicts=VERDICTS,
        following=following(desk(request).ledger, wanted, past.audit_id, key),
        kept=kept(wanted),
        done=done_of(request, rows),
        total=len(rows),
        nth=nth,
        size=ROWS,
        here=past.run_dir.is_dir(),
        whole=not key.isdigit() or (evidence is not None and readback.is_whole(past.run_dir, evidence)),
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
    """Take a verdict on one row, on the rows of a group that wait for one ("open"), or on all of it."""
    past, key, form = await run_in_threadpool(audit_of, request), request.path_params["key"], await form_of(request)
    ledger = await run_in_threadpool(ledger_of, request)
    rows = await run_in_threadpool(rows_of, ledger, past.audit_id, key)
    chosen, wanted = field(form, "row"), asked(request)
    ids = [row.example_id for row in rows if chosen in ("all", row.example_id) or (chosen == "open" and row.waits)]
    if not ids and chosen == "open":
        raise InputError("somebody has decided on these rows meanwhile: open the group again")
    if not ids:
        raise InputError("choose a row of this group, or all of them")
    said = (field(form, "verdict"), field(form, "note"), request.state.user)
    made = await run_in_threadpool(decisions.decide_all, ledger, ids, *said)
    done = f"{made[0].number}-{made[-1].number}"
    nth, place = field(form, "page"), ""
    if len(ids) == 1:  # on to the next row that waits
        last = next(k for k, row in enumerate(rows) if row.example_id == ids[0])
        after = next((k for k in (*range(last + 1, len(rows)), *range(last)) if rows[k].waits), last)
        nth, place = str(after // ROWS + 1), f"#row-{rows[after].example_id[:16]}"
    there = address(f"/triage/{past.audit_id}/{key}", **kept(wanted), done=done, page=nth)
    return RedirectResponse(there + place, 303)


async def undo(request: Request) -> Response:
    """Take back what was decided at once, by new decisions."""
    form = await form_of(request)
    first, last = numbers_of(field(form, "done"))
    await run_in_threadpool(decisions.undo, await run_in_threadpool(ledger_of, request), range(first, last + 1), request.state.user)
    back, place = field(form, "back"), field(form, "place")
    return RedirectResponse((back if back.startswith("/triage/") else "/triage") + (f"#{quote(place)}" if place else ""), 303)


def numbers_of(done: str) -> tuple[int, int]:
    """The first and last number of decisions that were made at once. Raises InputError."""
    numbers = re.fullmatch("([0-9]{1,12})-([0-9]{1,12})", done)
    if numbers is None or not 0 <= int(numbers[2]) - int(numbers[1]) < 10**5:
        raise InputError("nothing can be undone here: decide anew instead")
    return int(numbers[1]), int(numbers[2])


@dataclass(frozen=True, slots=True)
class Done:
    """What was decided on `rows` rows just now, the decisions' `numbers` as `undo` takes them; `place` is the row's, where it was one."""

    numbers: str
    verdict: str
    rows: int
    place: str


def done_of(request: Request, rows: Sequence[FlaggedRow]) -> Done | None:
    """What the query says was decided just now; None unless these are decisions on rows of the group, and nothing was decided since."""
    try:
        first, last = numbers_of(request.query_params.get("done", ""))
    except InputError:
        return None
    decided = {row.decided.number: (row.example_id, row.decided.verdict) for row in rows if row.decided is not None}
    if last - first >= len(decided) or not all(number in decided for number in range(first, last + 1)):
        return None
    example_id, verdict = decided[first]
    return Done(f"{first}-{last}", verdict, last - first + 1, f"row-{example_id[:16]}" if first == last else "")


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
