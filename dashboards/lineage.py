"""Where rows came from, and where they went: of all of them, of one row, or of a release."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.pages import get_desk, render_page
from poisonwatch.dashboards.release import choose_audit_name
from poisonwatch.ledger.overview import list_audit_names
from poisonwatch.lineage.step import KINDS
from poisonwatch.lineage.trace import trace
from poisonwatch.text.display import make_visible

LONGEST_WHAT = 300  # characters


def show_lineage(request: Request) -> Response:
    """The steps of a lineage, by kind. Raises InputError where there is no such row or release."""
    ledger, name = get_desk(request).ledger, choose_audit_name(request)
    what = request.query_params.get("of", "").strip()[:LONGEST_WHAT]
    # Of a path the server's own files would be looked at: a release is named by its digits here.
    found = trace(ledger, name, what or None, reads_files=False)
    return render_page(
        request,
        "lineage.html.j2",
        names=list_audit_names(ledger),
        name=name,
        what=make_visible(what),
        lineage=found,
        kinds=KINDS,
    )


routes = [Route("/lineage", show_lineage)]
