"""The review dashboard: a web application that reads the ledger and run directories through the
library, and writes decisions only.

    /            past audits                            audits.py, audit_rows.py
    /rows        all rows, by words and likeness        rows.py, likeness.py, bulk.py, views.py
    /triage      what awaits a decision, and deciding   triage.py, row_view.py, decide.py, team.py
    /sentinels   what moves them                        sentinels.py
    /discovery   groups found without sentinels         discovery.py
    /explain     where an answer is from                explain.py
    /release     what would be released                 release.py
    /runs        audits and drills, started from here   runs.py
    /lineage     where rows came from, and went         lineage.py
    /account     who somebody is, and who may come in   account.py
    /metrics     whether audits come, for Prometheus    app.py, lookout.py
    /login       who comes in                           login.py, openid.py
                                                        before all pages: gatekeeper.py, door.py

Pages are made on the server, and need no script but for keys: row text is hostile, and the policy
that every page is sent with lets nothing run that is not in this folder.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from poisonwatch.config import AuditConfig
from poisonwatch.dashboards import (
    audit_rows,
    audits,
    bulk,
    decide,
    discovery,
    explain,
    lineage,
    mutes,
    release,
    rows,
    runs,
    sentinels,
    team,
    triage,
    views,
)
from poisonwatch.dashboards.account import build_account_routes
from poisonwatch.dashboards.door import ClosedError, Door
from poisonwatch.dashboards.gatekeeper import build_middleware
from poisonwatch.dashboards.login import CLOSED, build_login_routes
from poisonwatch.dashboards.lookout import keep_lookout
from poisonwatch.dashboards.openid import build_openid_routes
from poisonwatch.dashboards.pages import Desk, NoAuditError, get_desk, render_page
from poisonwatch.errors import InputError, PoisonwatchError
from poisonwatch.liveness.metrics import write_liveness_metrics

PACKAGE = resources.files("poisonwatch")
STATIC_FOLDER = PACKAGE / "dashboards/static"
# Media type and file by name. The first is the style that reports hold inside, too.
STATIC_FILES = {
    "style.css": ("text/css", PACKAGE / "reports/templates/style.css"),
    "dashboard.css": ("text/css", STATIC_FOLDER / "dashboard.css"),
    "dashboard.js": ("text/javascript", STATIC_FOLDER / "dashboard.js"),
    "icon.svg": ("image/svg+xml", STATIC_FOLDER / "icon.svg"),
}


def create_app(config: AuditConfig, path: Path, door: Door) -> Starlette:
    """The dashboard of the audit file at `path`, with its settings, behind a door."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with app.state.desk.closing, keep_lookout(app.state.desk):
            yield

    app = Starlette(
        routes=[
            *audits.routes,
            *audit_rows.routes,
            *rows.routes,
            *bulk.routes,
            *views.routes,
            *team.routes,
            *triage.routes,
            *decide.routes,
            *mutes.routes,
            *sentinels.routes,
            *discovery.routes,
            *explain.routes,
            *release.routes,
            *runs.routes,
            *lineage.routes,
            *build_account_routes(door),
            *build_login_routes(door),
            *build_openid_routes(door),
            Route("/metrics", send_metrics),
            Route("/static/{name}", send_static),
        ],
        middleware=build_middleware(door),
        exception_handlers={
            NoAuditError: show_empty,
            ClosedError: show_closed,
            InputError: show_mistake,
            PoisonwatchError: show_failure,
            SQLAlchemyError: show_busy,
            HTTPException: show_http_error,
        },
        lifespan=lifespan,
    )
    # Desk and explainer are of the application, not of the module: tests have several at a time.
    app.state.desk = Desk(config, path)
    app.state.explainer = explain.Explainer()
    return app


def send_static(request: Request) -> Response:
    """Styles and the script: the only files that are sent."""
    # looked up, and never joined to a folder: no name leads to any other file
    name = request.path_params["name"]
    if name not in STATIC_FILES:
        raise HTTPException(404)
    media_type, file = STATIC_FILES[name]
    return FileResponse(str(file), media_type=media_type, headers={"Cache-Control": "no-cache"})


def send_metrics(request: Request) -> Response:
    """Whether audits come, in Prometheus' text format."""
    desk = get_desk(request)
    text = write_liveness_metrics([desk.look(datetime.now(UTC))])
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def show_empty(request: Request, _: Exception) -> Response:
    """No audit has run yet: how to run the first."""
    desk = get_desk(request)
    return render_page(request, "empty.html.j2", path=desk.path, name=desk.config.name)


def show_closed(request: Request, _: Exception) -> Response:
    """The users cannot be read: nobody is let in."""
    return render_page(request, "error.html.j2", 503, title="Nobody can log in", problem=CLOSED)


def show_mistake(request: Request, error: Exception) -> Response:
    """What was asked for cannot be."""
    return render_page(
        request, "error.html.j2", 400, title="That cannot be done", problem=str(error)
    )


def show_failure(request: Request, error: Exception) -> Response:
    """The world got in the way."""
    return render_page(
        request, "error.html.j2", 503, title="Something is in the way", problem=str(error)
    )


def show_busy(request: Request, error: Exception) -> Response:
    """The database does not do what it is asked: a transaction is there whole or not at all, so
    nothing was changed.
    """
    # SQLAlchemy's own message holds the statement with its values, which are rows: only the
    # database's first line is shown, and without the address, which may hold a password.
    cause = getattr(error, "orig", None) or error
    said = get_desk(request).config.find_secrets().conceal_error(cause)
    problem = f"The ledger cannot be used at this moment ({said}). Nothing was changed: try again."
    return render_page(
        request, "error.html.j2", 503, title="The ledger is busy, or out of order", problem=problem
    )


def show_http_error(request: Request, error: Exception) -> Response:
    """A page that is not there, or that may not be used so."""
    assert isinstance(error, HTTPException)
    title = "There is no such page" if error.status_code == 404 else "That cannot be done"
    problem = error.detail
    # the router's own words, where no page of ours gave any
    if problem == "Not Found":
        problem = "The address leads nowhere: begin at the overview."
    return render_page(request, "error.html.j2", error.status_code, title=title, problem=problem)
