"""What was discovered without sentinels: the groups of an audit, the rows of each, and sentinels
made of one.

Groups are looked for by an audit (`discover: true`) or by `poisonwatch discover`: here they are
shown, and no model is loaded.
"""

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.audits import check_run, find_audit
from poisonwatch.dashboards.pages import (
    LONGEST_FORM,
    get_desk,
    read_form,
    render_page,
)
from poisonwatch.discovery.described import DescribedGroup, DiscoveryReport
from poisonwatch.discovery.proposal import write_proposal
from poisonwatch.errors import PoisonwatchError
from poisonwatch.examples import Example
from poisonwatch.ledger.batches import load_examples
from poisonwatch.ledger.history import COMMITTED_STATES, HAD_ROWS, PastAudit, list_past_audits
from poisonwatch.ledger.tables import audits
from poisonwatch.run_directory.discovery import has_discovery, read_discovery
from poisonwatch.sentinels.adopting import adopt_sentinels, check_adoption
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.text.words import unify_line_ends

AUDITS_OFFERED = 30


def show_discovery(request: Request) -> Response:
    """The groups that were discovered in an audit; by default the latest in which any were looked
    for.
    """
    desk = get_desk(request)
    finished = [audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    past = list_past_audits(desk.ledger, limit=AUDITS_OFFERED, where=finished)
    wanted = request.query_params.get("audit")
    offered: list[PastAudit] = []
    chosen: tuple[PastAudit, DiscoveryReport] | None = None
    for audit in past:
        report = _read_report(request, audit)
        if report is None:
            continue
        offered.append(audit)
        if chosen is None or audit.audit_id == wanted:
            chosen = audit, report
    examples: Mapping[str, Example] = {}
    if chosen is not None:
        typical = [group.rows[0].example_id for group in chosen[1].groups]
        examples = load_examples(desk.ledger, typical)
    return render_page(
        request,
        "discovery.html.j2",
        offered=offered,
        past=None if chosen is None else chosen[0],
        report=None if chosen is None else chosen[1],
        examples=examples,
        latest=past[0] if past else None,
        config=desk.config,
        path=desk.path,
    )


def show_group(request: Request) -> Response:
    """One group: its rows, what the steered model says, and the form that guards it."""
    past, report, group = _find_group(request)
    examples = load_examples(get_desk(request).ledger, [row.example_id for row in group.rows])
    values: dict[str, Any] = {"text": "", "problem": None, "read": None, "saved": None}
    try:
        values["text"] = _propose(request, report, group, examples)
    except PoisonwatchError as error:
        values["problem"] = str(error)
    return _render(request, past, report, group, examples, values)


async def guard_group(request: Request) -> Response:
    """Check sentinels, or add them to the audit's: the next audit asks them."""
    past, report, group = await run_in_threadpool(_find_group, request)
    desk = get_desk(request)
    form = await read_form(request)
    # browsers send line ends as \r\n
    text = unify_line_ends(str(form.get("text", ""))[:LONGEST_FORM])
    values: dict[str, Any] = {"text": text, "problem": None, "read": None, "saved": None}
    status = 200
    try:
        # read anew: the audit file may have changed since the dashboard was started
        config = await run_in_threadpool(load_config, desk.path)
        values["read"] = await run_in_threadpool(check_adoption, text, config)
        if form.get("do") == "save":
            values["saved"] = await run_in_threadpool(adopt_sentinels, text, desk.path)
    except PoisonwatchError as error:
        values["problem"], status = str(error), 422
    ids = [row.example_id for row in group.rows]
    examples = await run_in_threadpool(load_examples, desk.ledger, ids)
    return _render(request, past, report, group, examples, values, status)


def _render(
    request: Request,
    past: PastAudit,
    report: DiscoveryReport,
    group: DescribedGroup,
    examples: Mapping[str, Example],
    values: Mapping[str, Any],
    status: int = 200,
) -> Response:
    return render_page(
        request,
        "discovered_group.html.j2",
        status=status,
        past=past,
        report=report,
        group=group,
        relation=report.relations.get(group.number),
        examples=examples,
        path=get_desk(request).path,
        **values,
    )


def _find_group(request: Request) -> tuple[PastAudit, DiscoveryReport, DescribedGroup]:
    """Raises HTTPException 404 where there is no such audit or group."""
    past = find_audit(request)
    report = _read_report(request, past)
    if report is None:
        raise HTTPException(404, "Nobody has looked for groups in this audit.")
    for group in report.groups:
        if group.number == request.path_params["number"]:
            return past, report, group
    raise HTTPException(404, "There is no such group in this audit.")


def _read_report(request: Request, past: PastAudit) -> DiscoveryReport | None:
    """What was discovered in an audit; None where nobody looked, or it may not be shown, since the
    run directory is not what the audit wrote.
    """
    # asked first: a run directory is read to be checked
    if not has_discovery(past.run_dir):
        return None
    return read_discovery(check_run(request, past)[1])


def _propose(
    request: Request,
    report: DiscoveryReport,
    group: DescribedGroup,
    examples: Mapping[str, Example],
) -> str:
    sentinels = load_sentinels(load_config(get_desk(request).path).sentinels)
    by = getattr(request.state, "user", None) or "dashboard"
    return write_proposal(group, examples, sentinels, audit_id=report.audit_id, by=by)


routes = [
    Route("/discovery", show_discovery),
    Route("/discovery/{audit_id}/{number:int}", show_group),
    Route("/discovery/{audit_id}/{number:int}", guard_group, methods=["POST"]),
]
