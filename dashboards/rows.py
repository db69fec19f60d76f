"""All rows of the ledger, flagged or not: by their words, and each with the rows like it."""

import re
from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.audits import check_run
from poisonwatch.dashboards.likeness import find_alike_rows
from poisonwatch.dashboards.pages import (
    LINES_PER_PAGE,
    get_desk,
    parse_number,
    redirect_beyond_last,
    render_page,
)
from poisonwatch.dashboards.row_view import mark_turns
from poisonwatch.ledger.audits_of_row import (
    list_agreed_on_row,
    list_audits_of_row,
    list_decisions_on_row,
)
from poisonwatch.ledger.decisions import VERDICTS
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.overview import list_source_files
from poisonwatch.ledger.row_search import (
    STATUSES,
    RowFilter,
    index_rows,
    load_rows,
    search_rows,
)
from poisonwatch.ledger.saved_views import list_views
from poisonwatch.run_directory.row_scores import read_row_scores
from poisonwatch.text.words import split_words

INDEXING_S = 2.0  # seconds that a page may wait for rows to be indexed
EXCERPT_CHARS = 160  # of a prompt, and of an answer


def parse_row_filter(request: Request) -> RowFilter:
    """The filter that the query asks for."""
    wanted = {name: request.query_params.get(name, "").strip() for name in ("source", "status")}
    return RowFilter(words=request.query_params.get("words", "").strip()[:1000], **wanted)


def encode_row_filter(wanted: RowFilter) -> dict[str, str]:
    """A filter as a query."""
    return {name: value for name, value in asdict(wanted).items() if value}


def show_rows(request: Request) -> Response:
    """The rows of a filter, newest first."""
    wanted, nth = parse_row_filter(request), parse_number(request)
    ledger = get_desk(request).ledger
    left = index_rows(ledger, INDEXING_S) if wanted.words else 0
    found, total = search_rows(ledger, wanted, nth, LINES_PER_PAGE)
    beyond = redirect_beyond_last(request, nth, LINES_PER_PAGE, total=total)
    if beyond:
        return beyond
    return render_page(
        request,
        "rows.html.j2",
        rows=found,
        total=total,
        nth=nth,
        size=LINES_PER_PAGE,
        left=left,
        wanted=wanted,
        kept=encode_row_filter(wanted),
        words=split_words(wanted.words),
        longest=EXCERPT_CHARS,
        sources=list_source_files(ledger),
        statuses=STATUSES,
        verdicts=VERDICTS,
        views=list_views(ledger),
        here=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        done=request.query_params.get("done", ""),
    )


def show_row(request: Request) -> Response:
    """A row: what it says, what audits and people said of it, and the rows like it."""
    example_id = request.path_params["example_id"]
    if re.fullmatch("[0-9a-f]{64}", example_id) is None:
        raise HTTPException(404, "A row is named by all 64 digits of its id.")
    ledger = get_desk(request).ledger
    found = load_rows(ledger, [example_id])
    if not found:
        raise HTTPException(404, "The ledger knows no such row.")
    row = found[0]
    audits = list_audits_of_row(ledger, example_id)
    alike = None
    if row.example is not None:
        index_rows(ledger, INDEXING_S)
        shown = [past for past in audits if _may_be_shown(request, past)]
        alike = find_alike_rows(ledger, example_id, row.example, shown)
    scores = []
    for past in audits:
        scores = read_row_scores(check_run(request, past)[1], example_id)
        if scores:
            break
    return render_page(
        request,
        "row.html.j2",
        row=row,
        own_turns=mark_turns(row.example, None) if row.example is not None else (),
        audits=audits,
        decisions=list_decisions_on_row(ledger, example_id),
        agreed=list_agreed_on_row(ledger, example_id),
        alike=alike,
        scores=scores,
        longest=EXCERPT_CHARS,
        verdicts=VERDICTS,
    )


def _may_be_shown(request: Request, past: PastAudit) -> bool:
    """Whether an audit's run directory is here, and what the audit wrote."""
    return past.run_dir.is_dir() and check_run(request, past)[1] is not None


routes = [
    Route("/rows", show_rows),
    Route("/rows/{example_id}", show_row),
]
