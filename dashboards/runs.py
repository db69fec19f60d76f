"""Audits and drills that are started from here: each is a process of its own, which outlives the
dashboard, and whose page shows how far it is.
"""

import os
from collections.abc import Sequence
from datetime import timedelta

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.dashboards.access import PASSWORD_VARIABLE, PROXY_SECRET_VARIABLE
from poisonwatch.dashboards.pages import (
    Desk,
    NoAuditError,
    get_desk,
    read_field,
    read_form,
    redirect_to,
    render_page,
)
from poisonwatch.dashboards.secret_settings import FILE_SUFFIX
from poisonwatch.detached.runs import DetachedRun, end_run, find_run, list_runs, start_run
from poisonwatch.drills.recipe import list_recipes
from poisonwatch.drills.results import DEFAULT_COUNTS, DEFAULT_REPEATS, find_most_rows
from poisonwatch.errors import InputError
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.durations import tell_duration

CLIENT_SECRET_VARIABLE = "POISONWATCH_OIDC_CLIENT_SECRET"  # noqa: S105  (the name of a variable)
# What lets people in is nothing that an audit needs.
_OWN_SECRETS = (PASSWORD_VARIABLE, PROXY_SECRET_VARIABLE, CLIENT_SECRET_VARIABLE)
MOST_REPEATS = 100


def show_runs(request: Request) -> Response:
    """What can be started, and what was."""
    desk = get_desk(request)
    runs = list_runs(desk.path)
    return render_page(
        request,
        "runs.html.j2",
        name=desk.config.name,
        runs=runs,
        at_work=next((run for run in runs if run.is_at_work), None),
        recipes=list_recipes(),
        counts=" ".join(map(str, DEFAULT_COUNTS)),
        repeats=DEFAULT_REPEATS,
        most_repeats=MOST_REPEATS,
    )


def show_run(request: Request) -> Response:
    """How far a run is, or what came of it."""
    desk, run = get_desk(request), _get_run(request)
    progress = run.progress
    left = None
    if run.is_at_work and progress is not None and progress.left_s is not None:
        left = tell_duration(timedelta(seconds=progress.left_s))
    log = desk.config.find_secrets().conceal(run.read_log())
    return render_page(
        request, "run.html.j2", run=run, progress=progress, left=left, log=make_visible(log)
    )


async def start_audit(request: Request) -> Response:
    """Start an audit of the audit file that the dashboard was started with."""
    form = await read_form(request)
    options = ["--again"] if read_field(form, "again") else []
    return await run_in_threadpool(_start, request, "audit", options)


async def start_drill(request: Request) -> Response:
    """Start a drill of it."""
    options = _read_drill(await read_form(request))
    return await run_in_threadpool(_start, request, "drill", options)


async def stop_run(request: Request) -> Response:
    """Have a run end."""
    run = await run_in_threadpool(_get_run, request)
    await run_in_threadpool(end_run, run)
    return redirect_to(f"/runs/{run.id}")


def _start(request: Request, kind: str, options: Sequence[str]) -> Response:
    desk = get_desk(request)
    if kind == "audit":
        _require_free(desk)
    # With a server, Prefect shows it, too; a temporary one would only cost time.
    engine = "prefect" if os.environ.get("PREFECT_API_URL") else "inline"
    run = start_run(
        desk.path,
        desk.config.name,
        kind,
        ["--engine", engine, *options],
        author=request.state.user,
        environment=_make_environment(),
    )
    return redirect_to(f"/runs/{run.id}")


def _require_free(desk: Desk) -> None:
    """Raises InputError where an audit of the name is at work, whoever started it."""
    try:
        ledger = desk.ledger
    except NoAuditError:
        return
    if ledger.is_locked(desk.config.name):
        raise InputError(
            "an audit of this name is at work on the ledger, started elsewhere: wait for its end"
        )


def _make_environment() -> dict[str, str]:
    hidden = {name + suffix for name in _OWN_SECRETS for suffix in ("", FILE_SUFFIX)}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _read_drill(form: FormData) -> list[str]:
    """The options of a drill. Raises InputError, in the words of the form, where they make no
    sense.
    """
    recipe = read_field(form, "recipe")
    chosen = [recipe] if recipe else []
    most = find_most_rows(chosen)
    words = read_field(form, "counts").split() or [""]
    counts = [_read_number(word, "planted rows", most) for word in words]
    repeats = _read_number(read_field(form, "repeats"), "drawn anew", MOST_REPEATS)
    options = ["--counts", *map(str, counts), "--repeats", str(repeats)]
    return [*options, "--recipes", *chosen] if chosen else options


def _read_number(text: str, label: str, most: int) -> int:
    """What stands in the field of a label."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0
    if not 1 <= number <= most:
        said = excerpt(text, 20) if text else "nothing"
        raise InputError(f"“{label}” says {said}: choose whole numbers from 1 to {most}")
    return number


def _get_run(request: Request) -> DetachedRun:
    run = find_run(get_desk(request).path, request.path_params["id"])
    if run is None:
        raise HTTPException(404, "This run is not remembered any more, or never was.")
    return run


routes = [
    Route("/runs", show_runs),
    Route("/runs/audit", start_audit, methods=["POST"]),
    Route("/runs/drill", start_drill, methods=["POST"]),
    Route("/runs/{id}", show_run),
    Route("/runs/{id}/end", stop_run, methods=["POST"]),
]
