"""A group that several people review: who has it, what they say to each other, and the next row
that is left to somebody.
"""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.assignees import check_assignee
from poisonwatch.dashboards.audits import encode_filter, find_audit, parse_filter
from poisonwatch.dashboards.decide import ROWS_PER_PAGE
from poisonwatch.dashboards.pages import (
    get_desk,
    get_ledger,
    make_address,
    read_field,
    read_form,
    redirect_to,
    render_page,
)
from poisonwatch.errors import InputError
from poisonwatch.ledger.agreement import add_up, list_agreement
from poisonwatch.ledger.assignments import record_assignment
from poisonwatch.ledger.comments import record_comment
from poisonwatch.ledger.group_teams import load_teams
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import find_next_group, list_group_rows
from poisonwatch.text.names import fold_name


async def assign_group(request: Request) -> Response:
    """Assign a group to whoever asks, to somebody else, or to nobody."""
    key = request.path_params["key"]
    past = await run_in_threadpool(find_audit, request)
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    to, assignee = read_field(form, "to"), read_field(form, "assignee")
    if to == "me":
        assignee = request.state.user
    elif to == "nobody":
        assignee = ""
    elif not assignee:
        raise InputError("name somebody to assign the group to")

    def record() -> None:
        desk, user = get_desk(request), request.state.user
        checked = check_assignee(desk.config, desk.path, assignee, user)
        record_assignment(ledger, past.audit_id, key, checked, author=user)

    await run_in_threadpool(record)
    return _return_to_group(request, past.audit_id)


async def comment_group(request: Request) -> Response:
    """Say something of a group."""
    key = request.path_params["key"]
    past = await run_in_threadpool(find_audit, request)
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    text = read_field(form, "text")

    def record() -> None:
        record_comment(ledger, past.audit_id, key, text, author=request.state.user)

    await run_in_threadpool(record)
    return _return_to_group(request, past.audit_id, "#comments")


def _return_to_group(request: Request, audit_id: str, fragment: str = "") -> Response:
    kept = encode_filter(parse_filter(request))
    address = make_address(f"/triage/{audit_id}/{request.path_params['key']}", **kept)
    return RedirectResponse(address + fragment, 303)


def show_next_open(request: Request) -> Response:
    """Go to the first row that is left to whoever asks: in the group that the query names (`at`, as
    AUDIT/GROUP), or else in the next one of the queue.
    """
    ledger, wanted, user = get_desk(request).ledger, parse_filter(request), request.state.user
    audit_id, _, key = request.query_params.get("at", "").partition("/")
    kept = encode_filter(wanted)
    if audit_id and key:
        place = find_open_place(ledger, audit_id, key, user)
        if place is not None:
            return _redirect_to_row(audit_id, key, place, kept)
    following = find_next_group(ledger, wanted, audit_id, key, left_to=user)
    if following is None:
        return redirect_to("/triage", **kept)
    place = find_open_place(ledger, following.audit_id, following.key, user) or (0, "")
    return _redirect_to_row(following.audit_id, following.key, place, kept)


def find_open_place(ledger: Ledger, audit_id: str, key: str, user: str) -> tuple[int, str] | None:
    """Place and example id of the first row of a group that waits, and of which somebody has not
    said what it is.
    """
    rows = list_group_rows(ledger, audit_id, key)
    votes = load_teams(ledger, [(audit_id, key)])[audit_id, key].votes
    for place, row in enumerate(rows):
        people = {fold_name(vote.author) for vote in votes.get(row.example_id, ())}
        if row.is_open and fold_name(user) not in people:
            return place, row.example_id
    return None


def _redirect_to_row(
    audit_id: str, key: str, place: tuple[int, str], kept: dict[str, str]
) -> Response:
    nth, example_id = place
    page = nth // ROWS_PER_PAGE + 1
    address = make_address(f"/triage/{audit_id}/{key}", **kept, page=page if page > 1 else "")
    return RedirectResponse(f"{address}#row-{example_id[:16]}", 303)


def show_agreement(request: Request) -> Response:
    """How often people say the same of the same rows, month by month."""
    name = request.query_params.get("name") or None
    months = list_agreement(get_desk(request).ledger, name)
    return render_page(request, "agreement.html.j2", months=months, total=add_up(months))


# Before the page of a group, whose address these would be.
routes = [
    Route("/triage/agreement", show_agreement),
    Route("/triage/next", show_next_open),
    Route("/triage/{audit_id}/{key}/assign", assign_group, methods=["POST"]),
    Route("/triage/{audit_id}/{key}/comment", comment_group, methods=["POST"]),
]
