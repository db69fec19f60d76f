"""The sentinels: what moves them, what is wrong with them, and an editor that never changes a file
in place.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.audits import check_run
from poisonwatch.dashboards.pages import (
    LONGEST_FORM,
    Desk,
    get_desk,
    read_form,
    redirect_to,
    render_page,
)
from poisonwatch.dashboards.release import choose_default_name
from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.history import COMMITTED_STATES, HAD_ROWS, PastAudit, list_past_audits
from poisonwatch.ledger.overview import MAX_TREND_POINTS, list_audit_names
from poisonwatch.ledger.tables import audits
from poisonwatch.reports.heatmap import HeatMap, choose_steps, read_heat_map
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.editing import (
    check_sentinel_text,
    diff_lines,
    list_sentinel_files,
    list_versions,
    save_version,
)
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.sentinels.sentinel import Sentinel, read_sentinel_text

AUDITS_SHOWN = 8  # audits side by side


def show_sentinels(request: Request) -> Response:
    """What the sentinels of a name did over its last audits, and which groups of flagged rows move
    them now.
    """
    ledger, config = get_desk(request).ledger, get_desk(request).config
    known = list_audit_names(ledger)
    name = request.query_params.get("name") or choose_default_name(known, config.name)
    finished = [audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    past = list_past_audits(ledger, name, MAX_TREND_POINTS, where=finished)
    chosen = _choose_audit(past, request.query_params.get("audit"))
    heat: HeatMap | None = None
    change: str | None = None
    asked: Mapping[str, Sentinel] = {}
    if chosen is not None:
        change, run_dir = check_run(request, chosen)
        heat = read_heat_map(run_dir)
        asked = readback.read_asked_sentinels(run_dir)
    # newest first, as `past` is; the table shows them as time goes, from left to right
    latest = [audit for audit in past[:AUDITS_SHOWN] if audit.summary.get("largest_coefficients")]
    history = collect_largest_coefficients(latest)
    known_values = [value for values in history.values() for value in values if value is not None]
    return render_page(
        request,
        "sentinels.html.j2",
        names=known,
        name=name,
        past=past,
        chosen=chosen,
        heat=heat,
        change=change,
        asked=asked,
        history=history,
        history_steps=choose_steps(np.array(known_values)),
        shown=latest[::-1],
        files=[file.name for file in list_sentinel_files(config)],
        config=config,
    )


def _choose_audit(past: list[PastAudit], audit_id: str | None) -> PastAudit | None:
    """The audit that the query asks for; else the last that flagged something, or the last."""
    # The query may still have the run of another name, which is left behind with that name.
    asked = [audit for audit in past if audit.audit_id == audit_id]
    flagged = [audit for audit in past if audit.summary["counts"]["flagged"]]
    for audits_found in (asked, flagged, past):
        if audits_found:
            return audits_found[0]
    return None


def collect_largest_coefficients(past: list[PastAudit]) -> dict[str, list[float | None]]:
    """By sentinel, the largest coefficient of a new row in each of these audits that measured any,
    oldest first, where they come newest first; None where it was not asked.
    """
    measured: list[Mapping[str, float]] = []
    for audit in past:
        coefficients = audit.summary.get("largest_coefficients")
        if coefficients:
            measured.append(coefficients)
    # sentinels of the newest audit stand first, in their order there; older ones below them
    ids: dict[str, None] = {}
    for of_audit in measured:
        ids |= dict.fromkeys(of_audit)
    collected = {}
    for id in ids:
        collected[id] = [of_audit.get(id) for of_audit in reversed(measured)]
    return collected


def render_sentinels_setting(audit_file: Path, old: Path, new: Path) -> str:
    """The `sentinels` of the audit file as it is now, with a new version in the place of the old
    one.
    """
    folder = audit_file.resolve().parent

    places = []
    # read anew: the audit file may have changed since the dashboard was started
    for place in load_config(audit_file).sentinels:
        if place.startswith(PACK_PREFIX):
            places.append(place)
            continue
        path = new if Path(place) == old else Path(place)
        places.append(_shorten_path(path.resolve(), folder))
    # wide enough for any path: a folded line could not be copied
    return yaml.safe_dump({"sentinels": places}, sort_keys=False, width=10_000)


def _shorten_path(path: Path, folder: Path) -> str:
    """The path as it stands in an audit file in `folder`."""
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    return str(path)


async def edit_sentinels(request: Request) -> Response:
    """The editor of one file: GET shows it, POST checks a text, or writes it as the file's next
    version.
    """
    desk = get_desk(request)
    files = list_sentinel_files(desk.config)
    # by its number: no path from a request is ever opened
    nth = request.path_params["nth"]
    if nth >= len(files):
        raise HTTPException(404, "The audit file names no such file of sentinels.")
    path: Path = files[nth]
    old = await run_in_threadpool(read_sentinel_text, str(path))
    values: dict[str, Any] = {
        "path": path,
        "nth": nth,
        "text": old,
        "problem": None,
        "read": None,
        "saved": None,
        "changes": [],
    }
    if request.method != "POST":
        values |= await _read_saved(desk, path, request.query_params.get("saved"))
        return render_page(request, "sentinel_edit.html.j2", **values)
    form = await read_form(request)
    # browsers send line ends as \r\n, whatever the file had
    text = str(form.get("text", ""))[:LONGEST_FORM].replace("\r\n", "\n")
    values |= {"text": text, "changes": await run_in_threadpool(diff_lines, old, text)}
    try:
        values["read"] = await run_in_threadpool(check_sentinel_text, text, desk.config, path)
        if form.get("do") == "save":
            written = await run_in_threadpool(save_version, text, desk.config, path)
            return redirect_to(f"/sentinels/edit/{nth}", saved=written.name)
    except PoisonwatchError as error:
        values["problem"] = str(error)
        return render_page(request, "sentinel_edit.html.j2", status=422, **values)
    return render_page(request, "sentinel_edit.html.j2", **values)


async def _read_saved(desk: Desk, path: Path, name: str | None) -> dict[str, Any]:
    """What the page shows of the version of `path` called `name`; nothing where there is none."""
    for saved in list_versions(path):
        if saved.name == name:
            return {
                "saved": saved,
                "text": await run_in_threadpool(read_sentinel_text, str(saved)),
                "named": await run_in_threadpool(render_sentinels_setting, desk.path, path, saved),
            }
    return {}


routes = [
    Route("/sentinels", show_sentinels),
    Route("/sentinels/edit/{nth:int}", edit_sentinels, methods=["GET", "POST"]),
]
