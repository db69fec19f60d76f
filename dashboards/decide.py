"""What people decide on the page of a group, and how the latest of it is taken back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.audits import encode_filter, find_audit, parse_filter
from poisonwatch.dashboards.pages import (
    get_desk,
    get_ledger,
    make_address,
    read_field,
    read_form,
)
from poisonwatch.errors import InputError
from poisonwatch.ledger.group_teams import Vote, load_teams
from poisonwatch.ledger.queue import FlaggedRow, list_group_rows
from poisonwatch.ledger.two_people import (
    Outcome,
    revert_submitted,
    submit_verdict,
    withdraw_proposal,
)

ROWS_PER_PAGE = 10  # of a group on one page
MOST_REVERTED = 100_000  # decisions that are taken back at once


async def take_verdict(request: Request) -> Response:
    """Take a verdict on one row, on the rows of a group that wait for one ("open"), or on all of
    it.
    """
    key, wanted = request.path_params["key"], parse_filter(request)
    # The ledger is asked on other threads: here, one that waits for it would hold up all pages.
    past = await run_in_threadpool(find_audit, request)
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    rows = await run_in_threadpool(list_group_rows, ledger, past.audit_id, key)
    ids = _choose_ids(rows, read_field(form, "row"))
    verdict, note = read_field(form, "verdict"), read_field(form, "note")
    answer = read_answer(form)
    two_people = get_desk(request).config.review.two_people

    def submit() -> Outcome:
        said = {"verdict": verdict, "note": note, "author": request.state.user}
        return submit_verdict(ledger, ids, two_people=two_people, answer=answer, **said)

    outcome = await run_in_threadpool(submit)
    outcome.require_news()
    made, proposal = outcome.decisions, outcome.proposal
    # The numbers go with the address, not with a session: `undo` takes back these decisions, also
    # where the same person has decided elsewhere in another window.
    done = f"{made[0].number}-{made[-1].number}" if made else ""
    proposed = proposal.number if proposal is not None else ""
    page, fragment = read_field(form, "page"), ""
    if len(ids) == 1:
        place = _find_next_waiting(rows, ids[0])
        page = str(place // ROWS_PER_PAGE + 1)
        fragment = f"#row-{rows[place].example_id[:16]}"
    address = make_address(
        f"/triage/{past.audit_id}/{key}",
        **encode_filter(wanted),
        done=done,
        proposed=proposed,
        page=page,
    )
    return RedirectResponse(address + fragment, 303)


def read_answer(form: FormData) -> str | None:
    """The answer that a form gives a row; None where it has none. What it may be, the ledger
    says.
    """
    answer = form.get("answer")
    if not isinstance(answer, str):
        return None
    # Browsers write line ends so, whatever stood in the field.
    return answer.replace("\r\n", "\n")


def _choose_ids(rows: Sequence[FlaggedRow], chosen: str) -> list[str]:
    """The example ids that a form means: of one row, of those that wait, or of all. Raises
    InputError where these are none.
    """
    if chosen == "all":
        ids = [row.example_id for row in rows]
    elif chosen == "open":
        ids = [row.example_id for row in rows if row.is_open]
    else:
        ids = [row.example_id for row in rows if row.example_id == chosen]
    if ids:
        return ids
    if chosen == "open":
        raise InputError("somebody has decided on these rows meanwhile: open the group again")
    raise InputError("choose a row of this group, or all of them")


def _find_next_waiting(rows: Sequence[FlaggedRow], example_id: str) -> int:
    """The place of the next row that waits for a verdict after this one, from the start again
    behind the last; this row's own, where none does.
    """
    own = [row.example_id for row in rows].index(example_id)
    following: list[int] = [*range(own + 1, len(rows)), *range(own)]
    for place in following:
        if rows[place].is_open:
            return place
    return own


async def undo_recent(request: Request) -> Response:
    """Take back what was decided at once, by new decisions, or what was proposed."""
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    user, two_people = request.state.user, get_desk(request).config.review.two_people
    proposed = read_field(form, "proposed")
    if proposed:
        await run_in_threadpool(withdraw_proposal, ledger, parse_proposal(proposed), user)
    else:
        first, last = parse_decision_numbers(read_field(form, "done"))
        numbers = range(first, last + 1)
        await run_in_threadpool(revert_submitted, ledger, numbers, user, two_people)
    back, place = read_field(form, "back"), read_field(form, "place")
    # a form can hold anything: it leads to pages of rows only
    if not back.startswith(("/triage/", "/rows")):
        back = "/triage"
    if place:
        back += f"#{quote(place)}"
    return RedirectResponse(back, 303)


def parse_decision_numbers(done: str) -> tuple[int, int]:
    """The first and last number of decisions that were made at once. Raises InputError."""
    numbers = re.fullmatch("([0-9]{1,12})-([0-9]{1,12})", done)
    if numbers is None or not 0 <= int(numbers[2]) - int(numbers[1]) < MOST_REVERTED:
        raise InputError("nothing can be undone here: decide anew instead")
    return int(numbers[1]), int(numbers[2])


def parse_proposal(number: str) -> int:
    """The number of a proposal's record. Raises InputError."""
    if re.fullmatch("[0-9]{1,12}", number) is None:
        raise InputError("nothing can be taken back here: say anew what the rows are")
    return int(number)


def find_recent_proposal(request: Request, audit_id: str, key: str) -> Vote | None:
    """What the query says that whoever asks has proposed just now; None unless it is theirs, on
    rows of the group, and waits.
    """
    number = request.query_params.get("proposed", "")
    team = load_teams(get_desk(request).ledger, [(audit_id, key)])[audit_id, key]
    for vote in team.list_votes():
        if str(vote.proposal) == number and vote.author == request.state.user:
            return vote
    return None


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
    latest = {row.decided.number: row for row in rows if row.decided is not None}
    # Anybody can write an address: decisions that are not the latest of rows of this group are not
    # offered to be undone. The first condition keeps the range short before it is gone through.
    if last - first >= len(latest) or any(k not in latest for k in range(first, last + 1)):
        return None
    row = latest[first]
    assert row.decided is not None
    return RecentDecisions(
        numbers=f"{first}-{last}",
        verdict=row.decided.verdict,
        rows=last - first + 1,
        place=f"row-{row.example_id[:16]}" if first == last else "",
    )


routes = [
    Route("/triage/undo", undo_recent, methods=["POST"]),
    Route("/triage/{audit_id}/{key}", take_verdict, methods=["POST"]),
]
