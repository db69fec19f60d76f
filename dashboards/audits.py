"""The overview of past audits, and the page of each."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.group_lines import describe_groups
from poisonwatch.dashboards.pages import (
    LINES_PER_PAGE,
    get_desk,
    parse_number,
    redirect_beyond_last,
    render_page,
    send_figure,
)
from poisonwatch.failures import tell_failures
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger import overview
from poisonwatch.ledger.batches import load_examples
from poisonwatch.ledger.history import PastAudit, find_by_audit_id
from poisonwatch.ledger.mutes import tell_held_back
from poisonwatch.ledger.overview import AuditFilter
from poisonwatch.ledger.probe_looks import list_failed_probes
from poisonwatch.ledger.probes import list_last_probes
from poisonwatch.ledger.queue import count_flagged_rows, list_groups
from poisonwatch.pruning.missing import describe_missing_run
from poisonwatch.reports.coverage import (
    tell_guarded,
    tell_near_copies,
    tell_not_asked,
    tell_unmoved,
)
from poisonwatch.reports.links import locate_report, make_mlflow_run_url, make_prefect_run_url
from poisonwatch.reports.new_topics import TRUSTED_NEEDED, count_unjudged
from poisonwatch.reports.plots import draw_trend
from poisonwatch.run_directory.checksums import find_change, require_unchanged
from poisonwatch.run_directory.discovery import has_discovery
from poisonwatch.run_directory.seals import find_seal
from poisonwatch.screens.finding import NEW_TOPIC

# A report is a document of its own, with its own styles: it may neither run nor load anything, nor
# see the dashboard's cookies.
DOCUMENT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
GROUPS_SHOWN = 8  # groups named on the overview
PROBES_SHOWN = 5  # trained models named there
LONGEST_CELL = 300  # characters of a topic's example
# Files of a run directory by the last part of their address.
DOCUMENTS = {"report": "report.html", "validation": "validation.html"}


def parse_filter(request: Request) -> AuditFilter:
    """The filter that the query asks for. Raises InputError where a field is none."""
    wanted = {}
    # by the filter's own fields: a new one needs a place in the form, and nothing here
    for field in AuditFilter.__dataclass_fields__:
        wanted[field] = request.query_params.get(field, "").strip()
    return AuditFilter(**wanted)


def encode_filter(wanted: AuditFilter) -> dict[str, str]:
    """A filter as a query, for addresses that keep it."""
    return {name: value for name, value in asdict(wanted).items() if value}


def build_choices(request: Request, wanted: AuditFilter) -> dict[str, Any]:
    """What the filter's form offers, and what of it is chosen."""
    ledger = get_desk(request).ledger
    return {
        "wanted": wanted,
        "kept": encode_filter(wanted),
        "narrowed": wanted != AuditFilter(),
        "names": overview.list_audit_names(ledger),
        "sources": overview.list_source_files(ledger, wanted.name),
        "severities": SEVERITIES,
    }


def show_overview(request: Request) -> Response:
    """Audits over time, and what awaits a decision."""
    wanted, nth = parse_filter(request), parse_number(request)
    ledger = get_desk(request).ledger
    each = bool(request.query_params.get("each"))
    look_up = overview.list_audits if each else overview.list_lines
    listed, total = look_up(ledger, wanted, nth, LINES_PER_PAGE)
    beyond = redirect_beyond_last(request, nth, LINES_PER_PAGE, total=total)
    if beyond:
        return beyond
    points = overview.list_trend_points(ledger, wanted)
    name, is_first = wanted.name or None, nth == 1
    awaiting, _ = list_groups(ledger, wanted, "open", page=1, size=GROUPS_SHOWN)
    return render_page(
        request,
        "overview.html.j2",
        listed=listed,
        each=each,
        awaiting=awaiting,
        lines=describe_groups(request, awaiting),
        total=total,
        nth=nth,
        size=LINES_PER_PAGE,
        totals=overview.count_totals(ledger, wanted),
        waiting=count_flagged_rows(ledger, wanted),
        probes=list_last_probes(ledger, name)[:PROBES_SHOWN] if is_first else [],
        failed_probes=list_failed_probes(ledger, name)[:PROBES_SHOWN] if is_first else [],
        points=points,
        **build_choices(request, wanted),
    )


def show_trend(request: Request) -> Response:
    """The picture of the overview."""
    points = overview.list_trend_points(get_desk(request).ledger, parse_filter(request))
    return send_figure(draw_trend(points))


def find_audit(request: Request, audit_id: str | None = None) -> PastAudit:
    """The audit of an id; by default of that in the address. Raises HTTPException 404."""
    past = find_by_audit_id(get_desk(request).ledger, audit_id or request.path_params["audit_id"])
    if past is None:
        raise HTTPException(404, "The ledger knows no such audit.")
    return past


def check_run(request: Request, past: PastAudit) -> tuple[str | None, Path | None]:
    """What is wrong with an audit's run directory, in a sentence, and the run directory; None where
    it may not be shown, since it is not what the audit wrote.
    """
    # One that is gone may lie on another machine: pages say so.
    if not past.run_dir.is_dir():
        return None, past.run_dir
    change = find_change(past.run_dir, find_seal(get_desk(request).ledger, past.audit_id))
    if change is not None:
        return change, None
    return None, past.run_dir


def show_audit(request: Request) -> Response:
    """One audit: its counts, panels and groups, and where else it can be looked at."""
    past, nth = find_audit(request), parse_number(request)
    desk = get_desk(request)
    only = AuditFilter(audit=past.audit_id)
    groups, total = list_groups(desk.ledger, only, "all", page=nth, size=LINES_PER_PAGE)
    beyond = redirect_beyond_last(request, nth, LINES_PER_PAGE, total=total)
    if beyond:
        return beyond
    # not known where MLflow could not be reached when the audit began
    experiment = past.summary.get("mlflow_experiment_id")
    run = past.summary.get("mlflow_run_id")
    # a summary is the ledger's, of whatever version wrote it: earlier ones know no topics
    unjudged = count_unjudged(past.summary)
    topics = past.summary["new_topics"]["groups"] if unjudged else []
    return render_page(
        request,
        "audit.html.j2",
        past=past,
        groups=groups,
        lines=describe_groups(request, groups),
        total=total,
        nth=nth,
        size=LINES_PER_PAGE,
        plots=[plot.name for plot in sorted((past.run_dir / "plots").glob("*.png"))],
        documents=[name for name, file in DOCUMENTS.items() if (past.run_dir / file).is_file()],
        here=past.run_dir.is_dir(),
        absence=describe_missing_run(desk.ledger, past),
        change=check_run(request, past)[0],
        failures=tell_failures(past.summary),
        muted=tell_held_back(past.summary),
        unjudged=unjudged,
        held=NEW_TOPIC in past.summary.get("screens", {}),
        topics=topics,
        examples=load_examples(desk.ledger, [topic["example_id"] for topic in topics]),
        trusted_needed=TRUSTED_NEEDED,
        guarded=tell_guarded(past.summary),
        not_asked=tell_not_asked(past.summary),
        unmoved=tell_unmoved(past.summary),
        near_copies=tell_near_copies(past.summary),
        near=past.summary.get("coverage", {}).get("near_copies", {}).get("shown", []),
        longest_cell=LONGEST_CELL,
        discovered=has_discovery(past.run_dir),
        report=locate_report(past.run_dir),
        links={
            "MLflow run": make_mlflow_run_url(desk.config, experiment, run),
            "Prefect run": make_prefect_run_url(past.flow_run),
        },
    )


def send_document(request: Request) -> Response:
    """The report or the validation page of an audit, as it lies in the run directory."""
    # routes are made of the names in DOCUMENTS: no other can stand here
    name = request.url.path.rpartition("/")[2]
    return _send_file(request, find_audit(request), DOCUMENTS[name], "text/html")


def send_plot(request: Request) -> Response:
    """A picture of an audit's run directory."""
    past, name = find_audit(request), request.path_params["name"]
    # compared with what is there: nothing else can be asked for, whatever the name holds
    if name not in {plot.name for plot in (past.run_dir / "plots").glob("*.png")}:
        raise HTTPException(404, "This audit left no such picture.")
    return _send_file(request, past, f"plots/{name}", "image/png")


def _send_file(request: Request, past: PastAudit, name: str, media_type: str) -> Response:
    """A file of a run directory. Raises RunError where it is not what the audit wrote."""
    path = past.run_dir / name
    if not path.is_file():
        why = describe_missing_run(get_desk(request).ledger, past)
        raise HTTPException(404, f"The run directory cannot be shown: {why}.")
    seal = find_seal(get_desk(request).ledger, past.audit_id)
    require_unchanged(past.run_dir, name, seal=seal)
    headers = {"Content-Security-Policy": DOCUMENT_POLICY}
    return FileResponse(path, media_type=media_type, headers=headers)


routes = [
    Route("/", show_overview),
    Route("/trend.png", show_trend),
    Route("/audits/{audit_id}", show_audit),
    Route("/audits/{audit_id}/plots/{name}", send_plot),
    *(Route(f"/audits/{{audit_id}}/{name}", send_document) for name in DOCUMENTS),
]
