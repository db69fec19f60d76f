"""Saved views: names for filters of the queue, and of the rows."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.pages import get_ledger, read_field, read_form
from poisonwatch.ledger.saved_views import ADDRESS, remove_view, save_view


async def change_views(request: Request) -> Response:
    """Save the filter of a page under a name, or remove what has the name."""
    form = await read_form(request)
    ledger = await run_in_threadpool(get_ledger, request)
    name, address = read_field(form, "name"), read_field(form, "address")
    if read_field(form, "remove"):
        await run_in_threadpool(remove_view, ledger, name)
    else:
        await run_in_threadpool(save_view, ledger, name, address, request.state.user)
    back = address if ADDRESS.fullmatch(address) else "/triage"
    return RedirectResponse(back, 303)


routes = [Route("/triage/views", change_views, methods=["POST"])]
