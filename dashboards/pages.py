"""From what a page is about to an answer: HTML, pictures, and what went wrong."""

import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, cast
from urllib.parse import urlencode

from jinja2 import Environment
from matplotlib.figure import Figure
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from poisonwatch import __version__
from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError, PoisonwatchError
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.liveness.liveness import Liveness, expect, find_liveness
from poisonwatch.reports.plots import render_png
from poisonwatch.reports.templating import (
    FOLDER,
    LONGEST_MESSAGE,
    MOST_MESSAGES,
    make_environment,
)
from poisonwatch.sources.sql import parse_database_url
from poisonwatch.text.display import make_visible
from poisonwatch.text.sqlite_files import find_sqlite_file

LINES_PER_PAGE = 50  # lines of a table
LONGEST_FIELD = 2000  # characters of a note
LONGEST_FORM = 2 * 1024 * 1024  # bytes: a file of sentinels fits
MOST_FIELDS = LINES_PER_PAGE + 20  # of a form: each line of a page can be chosen
# For another process that writes to the ledger: whoever decides is told, and tries again.
LEDGER_WAIT_S = 5
GLANCE_LASTS_S = 5.0  # seconds that the head of a page may be old


@cache
def _environment() -> Environment:
    """Pages share macros with reports."""
    return make_environment("dashboards/templates", FOLDER)


class NoAuditError(Exception):
    """No audit has run: there is nothing to show yet."""


class Desk:
    """What every page works with: the audit file that the dashboard was started with, and its
    ledger. What is decided there is signed, where the audit file names a key.

    Raises ConfigError where the key cannot be used.
    """

    def __init__(self, config: AuditConfig, path: Path) -> None:
        self.config, self.path = config, path
        self._signer = config.signing.load_signer()
        self.closing = ExitStack()
        self._ledger: Ledger | None = None
        self._file: int | None = None
        self._begun = False
        self._opening = Lock()
        self._glance: tuple[float, Liveness | None] | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened when first asked for, and anew where another file has taken its place:
        what is written to a file that was removed would be lost. Raises NoAuditError until an audit
        has begun, and what `Ledger.at` does.
        """
        # Pages are made on several threads: one opens the ledger, the others wait for it.
        with self._opening:
            file = self._inode()
            if self._ledger is not None and file != self._file:
                self.closing.close()
                self._ledger, self._begun = None, False
            if self._ledger is None:
                self._file = file
                try:
                    self._ledger = self.closing.enter_context(
                        Ledger.existing(self.config.state, LEDGER_WAIT_S, self._signer)
                    )
                except InputError:
                    raise NoAuditError from None
            if not self._begun and not list_past_audits(self._ledger, limit=1):
                raise NoAuditError
            self._begun = True
            return self._ledger

    def look(self, now: datetime) -> Liveness:
        """Whether audits of the audit file's name come. Raises what `ledger` does."""
        ledger = self.ledger
        with ledger.read() as connection:
            expected = expect(connection, self.config.name, self.config.schedule, now)
        return find_liveness(ledger, self.config.name, expected, now)

    def glance(self) -> Liveness | None:
        """The same for the head of every page, and no older than GLANCE_LASTS_S; None where it
        cannot be known: a page that says why must not wait for it once more.
        """
        moment = time.monotonic()
        if self._glance is None or moment > self._glance[0] + GLANCE_LASTS_S:
            seen = None
            with suppress(NoAuditError, PoisonwatchError, SQLAlchemyError, OSError):
                seen = self.look(datetime.now(UTC))
            self._glance = moment, seen
        return self._glance[1]

    def _inode(self) -> int | None:
        """Which file the ledger is; None where it is none, or not there."""
        place = parse_database_url(self.config.state, "state")
        file = find_sqlite_file(place.database)
        if place.get_backend_name() != "sqlite" or file is None:
            return None
        with suppress(OSError):
            return file.stat().st_ino
        return None


def get_desk(request: Request) -> Desk:
    """The desk of the dashboard that answers the request."""
    return cast(Desk, request.app.state.desk)


def get_ledger(request: Request) -> Ledger:
    """The desk's ledger, for pages that must not wait for it themselves."""
    return get_desk(request).ledger


def render_page(request: Request, name: str, /, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template of dashboards/."""
    # The gatekeeper sets what `state` holds; what went wrong before it did is shown to nobody.
    role = getattr(request.state, "role", None)
    read_only = getattr(request.state, "read_only", False)
    user = getattr(request.state, "user", None)
    desk = getattr(request.app.state, "desk", None)
    liveness = None
    # Whoever has not come in is told nothing of audits.
    if user is not None and desk is not None:
        liveness = desk.glance()
    shared = {
        "request": request,
        "liveness": liveness,
        "user": user,
        "role": role,
        "read_only": read_only,
        "may_decide": role in ("reviewer", "admin") and not read_only,
        "may_edit": role == "admin" and not read_only,
        "may_release": role == "admin",
        "may_start": role == "admin" and not read_only,
        "may_leave": getattr(request.state, "may_leave", False),
        "version": __version__,
        # as much of a text as reports show
        "longest_text": LONGEST_MESSAGE,
        "longest_row": LONGEST_MESSAGE,
        "most_messages": MOST_MESSAGES,
        "address": make_address,
    }
    return HTMLResponse(_environment().get_template(name).render({**shared, **values}), status)


def send_figure(figure: Figure) -> Response:
    """A figure as a PNG file."""
    return Response(render_png(figure), media_type="image/png")


def redirect_to(path: str, **query: Any) -> RedirectResponse:
    """Send the browser to another page with GET, after a form was taken."""
    return RedirectResponse(make_address(path, **query), 303)


def make_address(path: str, **query: Any) -> str:
    """A path of the dashboard with a query; values that are empty are left out."""
    given = {key: value for key, value in query.items() if value not in (None, "", [])}
    if not given:
        return path
    return f"{path}?{urlencode(given, doseq=True)}"


def redirect_beyond_last(request: Request, nth: int, size: int, total: int) -> Response | None:
    """Where a page behind the last one is asked for, as when its lines have been decided on
    meanwhile: send the browser to the last.
    """
    last = max((total + size - 1) // size, 1)
    if nth <= last:
        return None
    # path and query alone: the request's host and scheme may be a proxy's
    there = request.url.include_query_params(page=last)
    return RedirectResponse(f"{there.path}?{there.query}", 303)


def parse_number(request: Request, key: str = "page") -> int:
    """A number from 1 in the query; 1 where there is none. Raises InputError where it is no such
    number.
    """
    text = request.query_params.get(key, "1")
    # isdigit alone takes digits of all scripts, and int a text of any length
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise InputError(f"{key} is a number from 1")
    return int(text)


async def read_form(request: Request) -> FormData:
    """The fields of a posted form. Raises InputError where it is larger than any form of the
    dashboard.
    """
    # asked first: a form of unknown length would be read, and kept, to its end
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > LONGEST_FORM:
        raise InputError(f"a form says its length, at most {LONGEST_FORM:,} bytes")
    return await request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=LONGEST_FORM)


def read_field(form: FormData, name: str, longest: int = LONGEST_FIELD) -> str:
    """A text of a form, as it can be shown. Raises InputError where it is too long."""
    text = form.get(name, "")
    # an uploaded file is no text
    if not isinstance(text, str) or len(text) > longest:
        raise InputError(f"{name} holds at most {longest:,} characters")
    return make_visible(text).strip()
