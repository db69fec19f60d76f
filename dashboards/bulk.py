"""A decision on many rows at once: those that were chosen in a list, or all of a filter. What it
would come to is shown before anything is decided; it is taken back as one.
"""

from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.audits import encode_filter, parse_filter
from poisonwatch.dashboards.pages import (
    get_desk,
    get_ledger,
    make_address,
    read_field,
    read_form,
    render_page,
)
from poisonwatch.dashboards.rows import encode_row_filter, parse_row_filter
from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import export_flagged_rows
from poisonwatch.ledger.row_search import index_rows, list_matching_ids, load_rows
from poisonwatch.ledger.two_people import submit_verdict

MOST_DECIDED = 20_000  # rows of one decision
MOST_SHOWN = 5  # rows of it that are shown before
INDEXING_S = 60.0


async def take_bulk_verdict(request: Request) -> Response:
    """Show what a verdict on many rows would come to; once that is confirmed, take it."""
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    scope = read_field(form, "scope")
    ids = await run_in_threadpool(_list_ids, request, ledger, form, scope)
    if not ids:
        raise InputError("no rows are meant: choose some, or change the filter")
    if len(ids) > MOST_DECIDED:
        raise InputError(
            f"{len(ids):,} rows are more than are decided on at once ({MOST_DECIDED:,}): narrow "
            "the filter down"
        )
    if read_field(form, "confirmed") != "yes":
        return await run_in_threadpool(_ask, request, ledger, form, scope, ids)
    if read_field(form, "count") != str(len(ids)):
        raise InputError(
            f"there are {len(ids):,} rows now, and other ones than you were shown: look again"
        )
    verdict, note = read_field(form, "verdict"), read_field(form, "note")
    two_people, user = get_desk(request).config.review.two_people, request.state.user

    def submit() -> dict[str, Any]:
        outcome = submit_verdict(ledger, ids, verdict, note, user, two_people=two_people)
        outcome.require_news()
        made, proposal = outcome.decisions, outcome.proposal
        return {
            "done": f"{made[0].number}-{made[-1].number}" if made else "",
            "proposed": proposal.number if proposal is not None else "",
        }

    said = await run_in_threadpool(submit)
    return RedirectResponse(_return_address(request, scope, **said), 303)


def _list_ids(request: Request, ledger: Ledger, form: FormData, scope: str) -> list[str]:
    """The example ids that a form means: what was chosen, all of the search, or of the queue."""
    if scope == "rows":
        # What is not indexed yet would be left out.
        if index_rows(ledger, INDEXING_S):
            raise InputError("rows are still being indexed: try again in a minute")
        return list_matching_ids(ledger, parse_row_filter(request))
    if scope == "queue":
        waiting = export_flagged_rows(ledger, parse_filter(request), "open")
        return [row["example_id"] for row in waiting]
    chosen = [value for value in form.getlist("row") if isinstance(value, str)]
    return [id for id in dict.fromkeys(chosen) if len(id) == 64]


def _ask(
    request: Request, ledger: Ledger, form: FormData, scope: str, ids: Sequence[str]
) -> Response:
    kept = encode_filter(parse_filter(request))
    if scope != "queue":
        kept = encode_row_filter(parse_row_filter(request))
    return render_page(
        request,
        "bulk.html.j2",
        scope=scope,
        ids=ids if scope == "chosen" else (),
        total_rows=len(ids),
        shown=load_rows(ledger, ids[:MOST_SHOWN]),
        verdict=read_field(form, "verdict"),
        note=read_field(form, "note"),
        action=make_address("/triage/bulk", **kept),
        back=_return_address(request, scope),
    )


def _return_address(request: Request, scope: str, **said: Any) -> str:
    """The list that a form was on."""
    if scope == "queue":
        return make_address("/triage", **encode_filter(parse_filter(request)), **said)
    return make_address("/rows", **encode_row_filter(parse_row_filter(request)), **said)


# Before the pages of groups.
routes = [Route("/triage/bulk", take_bulk_verdict, methods=["POST"])]
