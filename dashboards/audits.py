"""The overview of past audits, and the page of each."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.pages import PAGE, beyond, desk, number, page, picture
from poisonwatch.flags import SEVERITIES
from poisonwatch.ledger import overview
from poisonwatch.ledger.history import PastAudit, of_id
from poisonwatch.ledger.overview import Filter
from poisonwatch.ledger.queue import queue, waiting
from poisonwatch.reports.links import mlflow_run_url, prefect_run_url, report_of
from poisonwatch.reports.plots import trend_figure

# A report is a document of its own, with its own styles: it may neither run nor load anything, nor see the dashboard's cookies.
DOCUMENT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
AWAITING = 8  # groups named on the overview
DOCUMENTS = {"report": "report.html", "validation": "validation.html"}


def asked(request: Request) -> Filter:
    """The filter that the query asks for. Raises InputError where a field is none."""
    return Filter(**{field: request.query_params.get(field, "").strip() for field in Filter.__dataclass_fields__})


def kept(wanted: Filter) -> dict[str, str]:
    """A filter as a query, for addresses that keep it."""
    return {name: value for name, value in asdict(wanted).items() if value}


def choices(request: Request, wanted: Filter) -> dict[str, Any]:
    """What the filter's form offers."""
    ledger = desk(request).ledger
    names = overview.names(ledger)
    offered = {"names": names, "sources": overview.sources(ledger, wanted.name), "severities": SEVERITIES}
    return {"wanted": wanted, "kept": kept(wanted), "narrowed": wanted != Filter(), **offered}


def show_overview(request: Request) -> Response:
    """Audits over time, and what awaits a decision."""
    wanted, nth = asked(request), number(request)
    ledger = desk(request).ledger
    listed, total = overview.list_audits(ledger, wanted, nth, PAGE)
    if there := beyond(request, nth, PAGE, total):
        return there
    points = overview.points(ledger, wanted)
    awaiting, _ = queue(ledger, wanted, "open", 1, AWAITING)
    return page(
        request,
        "overview.html.j2",
        listed=listed,
        awaiting=awaiting,
        total=total,
        nth=nth,
        size=PAGE,
        totals=overview.totals(ledger, wanted),
        waiting=waiting(ledger, wanted),
        points=points,
        **choices(request, wanted),
    )


def show_trend(request: Request) -> Response:
    """The picture of the overview."""
    return picture(trend_figure(overview.points(desk(request).ledger, asked(request))))


def audit_of(request: Request, audit_id: str | None = None) -> PastAudit:
    """The audit of an id; by default of that in the address. Raises HTTPException 404."""
    past = of_id(desk(request).ledger, audit_id or request.path_params["audit_id"])
    if past is None:
        raise HTTPException(404, "The ledger knows no such audit.")
    return past


def show_audit(request: Request) -> Response:
    """One audit: its counts, panels and groups, and where else it can be looked at."""
    past = audit_of(request)
    config, ids = desk(request).config, (past.summary.get("mlflow_experiment_id"), past.summary.get("mlflow_run_id"))
    nth = number(request)
    groups, total = queue(desk(request).ledger, Filter(audit=past.audit_id), "all", nth, PAGE)
    if there := beyond(request, nth, PAGE, total):
        return there
    return page(
        request,
        "audit.html.j2",
        past=past,
        groups=groups,
        total=total,
        nth=nth,
        size=PAGE,
        plots=[plot.name for plot in sorted((past.run_dir / "plots").glob("*.png"))],
        documents=[name for name, file in DOCUMENTS.items() if (past.run_dir / file).is_file()],
        here=past.run_dir.is_dir(),
        report=report_of(past.run_dir),
        links={"MLflow run": mlflow_run_url(config, *ids), "Prefect run": prefect_run_url(past.flow_run)},
    )


def send_document(request: Request) -> Response:
    """The report or the validation page of an audit, as it lies in the run directory."""
    return _file(audit_of(request).run_dir / DOCUMENTS[request.url.path.rpartition("/")[2]], "text/html")


def send_plot(request: Request) -> Response:
    """A picture of an audit's run directory."""
    folder, name = audit_of(request).run_dir / "plots", request.path_params["name"]
    if name not in {plot.name for plot in folder.glob("*.png")}:  # nothing else can be asked for, whatever the name holds
        raise HTTPException(404, "This audit left no such picture.")
    return _file(folder / name, "image/png")


def _file(path: Path, media_type: str) -> Response:
    if not path.is_file():
        raise HTTPException(404, "The run directory is gone, or on another machine.")
    return FileResponse(path, media_type=media_type, headers={"Content-Security-Policy": DOCUMENT_POLICY})


routes = [
    Route("/", show_overview),
    Route("/trend.png", show_trend),
    Route("/audits/{audit_id}", show_audit),
    Route("/audits/{audit_id}/plots/{name}", send_plot),
    *(Route(f"/audits/{{audit_id}}/{name}", send_document) for name in DOCUMENTS),
]
