"""The review dashboard: a web application that reads the ledger and run directories through the
library, and writes decisions only.

    /            past audits            audits.py       /sentinels   what moves them         sentinels.py
    /triage      what awaits a decision triage.py       /explain     where an answer is from explain.py
    /release     what would be released release.py      /login       who comes in            access.py

Pages are made on the server, and need no script but for keys: row text is hostile, and the policy
that every page is sent with lets nothing run that is not in this folder.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from poisonwatch.config import AuditConfig
from poisonwatch.dashboards import audits, explain, release, sentinels, triage
from poisonwatch.dashboards.access import Access, build_access_routes, build_middleware
from poisonwatch.dashboards.pages import Desk, NoAuditError, get_desk, render_page
from poisonwatch.errors import InputError, PoisonwatchError
from poisonwatch.text.display import get_first_line
from poisonwatch.text.environment import conceal

STATIC_FILES = resources.files("poisonwatch") / "dashboards/static"
SENT = {  # name to media type and file
    "style.css": ("text/css", resources.files("poisonwatch") / "reports/templates/style.css"),
    "dashboard.css": ("text/css", STATIC_FILES / "dashboard.css"),
    "dashboard.js": ("text/javascript", STATIC_FILES / "dashboard.js"),
    "icon.svg": ("image/svg+xml", STATIC_FILES / "icon.svg"),
}


def create_app(config: AuditConfig, path: Path, access: Access) -> Starlette:
    """The dashboard of the audit file at `path`, with its settings."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with app.state.desk.closing:
            yield

    app = Starlette(
        routes=[
            *audits.routes,
            *triage.routes,
            *sentinels.routes,
            *explain.routes,
            *release.routes,
            *build_access_routes(access),
            Route("/static/{name}", send_static),
        ],
        middleware=build_middleware(access),
        exception_handlers={
            NoAuditError: show_empty,
            InputError: show_mistake,
            PoisonwatchError: show_failure,
            SQLAlchemyError: show_busy,
            HTTPException: show_http_error,
        },
        lifespan=lifespan,
    )
    app.state.desk = Desk(config, path)
    app.state.explainer = explain.Explainer()
    return app


def send_static(request: Request) -> Response:
    """Styles and the script: the only files that are sent."""
    name = request.path_params["name"]
    if name not in SENT:
        raise HTTPException(404)
    media_type, file = SENT[name]
    return FileResponse(str(file), media_type=media_type, headers={"Cache-Control": "no-cache"})


def show_empty(request: Request, _: Exception) -> Response:
    """No audit has run yet: how to run the first."""
    return render_page(
        request, "empty.html.j2", path=get_desk(request).path, name=get_desk(request).config.name
    )


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
    said = conceal(
        get_first_line(getattr(error, "orig", None) or error), get_desk(request).config.state
    )
    problem = f"The ledger cannot be used at this moment ({said}). Nothing was changed: try again."
    return render_page(
        request, "error.html.j2", 503, title="The ledger is busy, or out of order", problem=problem
    )


def show_http_error(request: Request, error: Exception) -> Response:
    """A page that is not there, or that may not be used so."""
    assert isinstance(error, HTTPException)
    missing = error.status_code == 404
    title = "There is no such page" if missing else "That cannot be done"
    problem = (
        error.detail
        if error.detail != "Not Found"
        else "The address leads nowhere: begin at the overview."
    )
    return render_page(request, "error.html.j2", error.status_code, title=title, problem=problem)
