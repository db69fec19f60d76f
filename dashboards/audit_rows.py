"""Every row of an audit with its score, file by file, and two audits side by side."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.audits import check_run, find_audit
from poisonwatch.dashboards.pages import (
    LINES_PER_PAGE,
    get_desk,
    parse_number,
    redirect_beyond_last,
    render_page,
)
from poisonwatch.ledger.comparison import compare_audits
from poisonwatch.ledger.history import COMMITTED_STATES, HAD_ROWS, list_past_audits
from poisonwatch.ledger.queue import list_flagged_ids
from poisonwatch.ledger.row_search import load_rows
from poisonwatch.ledger.tables import audits
from poisonwatch.run_directory.row_scores import list_row_scores, summarise_sources

MOST_OTHERS = 50  # audits that one may be compared with
MOST_COMPARED = 200  # rows of a comparison that are listed


def show_audit_rows(request: Request) -> Response:
    """The rows of an audit, largest score first, and a line for each of their files."""
    past, nth = find_audit(request), parse_number(request)
    source = request.query_params.get("source", "")
    ledger = get_desk(request).ledger
    change, run_dir = check_run(request, past)
    scores, total = list_row_scores(run_dir, source, nth, LINES_PER_PAGE)
    beyond = redirect_beyond_last(request, nth, LINES_PER_PAGE, total=total)
    if beyond:
        return beyond
    flagged = list_flagged_ids(ledger, past.audit_id)
    row_of = {row.example_id: row for row in load_rows(ledger, [s.example_id for s in scores])}
    return render_page(
        request,
        "audit_rows.html.j2",
        past=past,
        change=change,
        sources=summarise_sources(run_dir, flagged),
        source=source,
        listed=[(score, row_of.get(score.example_id)) for score in scores],
        flagged=flagged,
        total=total,
        nth=nth,
        size=LINES_PER_PAGE,
    )


def show_comparison(request: Request) -> Response:
    """What changed from another audit (`with`; the one before) to this one."""
    past, ledger = find_audit(request), get_desk(request).ledger
    which = [HAD_ROWS, audits.c.state.in_(COMMITTED_STATES), audits.c.audit != past.number]
    others = list_past_audits(ledger, limit=MOST_OTHERS, where=which)
    wanted = request.query_params.get("with", "")
    other = None
    if wanted:
        other = find_audit(request, wanted)
    elif others:
        # The latest of this name before it, else of any.
        earlier = [each for each in others if each.number < past.number]
        named = [each for each in earlier if each.name == past.name]
        other = (named or earlier or others)[0]
    comparison = None
    listed = []
    if other is not None:
        comparison = compare_audits(ledger, other.audit_id, past.audit_id)
        shown = comparison.rows[:MOST_COMPARED]
        row_of = {row.example_id: row for row in load_rows(ledger, [r.example_id for r in shown])}
        listed = [(row, row_of.get(row.example_id)) for row in shown]
    return render_page(
        request,
        "compare.html.j2",
        past=past,
        other=other,
        others=others,
        comparison=comparison,
        listed=listed,
    )


routes = [
    Route("/audits/{audit_id}/rows", show_audit_rows),
    Route("/audits/{audit_id}/compare", show_comparison),
]
