"""The sentinels: what moves them, what is wrong with them, and an editor that never changes a file
in place.
"""

from pathlib import Path

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.config_file import load_config
from poisonwatch.dashboards.pages import LONGEST_FORM, get_desk, read_form, redirect_to, render_page
from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.history import COMMITTED_STATES, PastAudit, list_past_audits
from poisonwatch.ledger.overview import MAX_TREND_POINTS, list_audit_names
from poisonwatch.ledger.tables import audits
from poisonwatch.reports.heatmap import HEAT_STEPS, read_heat_map
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.editing import (
    check_sentinel_text,
    diff_lines,
    list_sentinel_files,
    list_versions,
    save_version,
)
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.sentinels.sentinel import read_sentinel_text

AUDITS_SHOWN = 8  # audits side by side


def show_sentinels(request: Request) -> Response:
    """What the sentinels of a name did over its last audits, and which groups of flagged rows move
    them now.
    """
    ledger, config = get_desk(request).ledger, get_desk(request).config
    known = list_audit_names(ledger)
    name = request.query_params.get("name") or (config.name if config.name in known else known[0])
    past = list_past_audits(
        ledger, name, MAX_TREND_POINTS, where=[audits.c.state.in_(COMMITTED_STATES)]
    )
    audit_id = request.query_params.get("audit")
    flagged = [
        audit for audit in past if audit.summary["counts"]["flagged"]
    ]  # the last that has something to show
    among = (
        [audit for audit in past if audit.audit_id == audit_id] or flagged or past
    )  # the run of another name is left behind with it
    chosen = among[0] if among else None
    return render_page(
        request,
        "sentinels.html.j2",
        names=known,
        name=name,
        past=past,
        chosen=chosen,
        heat=None if chosen is None else read_heat_map(chosen.run_dir),
        steps=HEAT_STEPS,
        asked={} if chosen is None else readback.read_asked_sentinels(chosen.run_dir),
        history=collect_largest_coefficients(past[:AUDITS_SHOWN]),
        shown=[audit for audit in past[:AUDITS_SHOWN] if audit.summary.get("largest_coefficients")][
            ::-1
        ],
        files=[file.name for file in list_sentinel_files(config)],
        config=config,
    )


def collect_largest_coefficients(past: list[PastAudit]) -> dict[str, list[float | None]]:
    """By sentinel, the largest coefficient of a new row in each audit, oldest first; None where it
    was not asked.
    """
    measured = [
        audit.summary["largest_coefficients"]
        for audit in reversed(past)
        if audit.summary.get("largest_coefficients")
    ]
    ids = dict.fromkeys(id for of_audit in reversed(measured) for id in of_audit)
    return {id: [of_audit.get(id) for of_audit in measured] for id in ids}


def render_sentinels_setting(audit_file: Path, old: Path, new: Path) -> str:
    """The `sentinels` of the audit file as it is now, with a new version in the place of the old
    one.
    """
    folder = audit_file.resolve().parent

    def shown(place: str) -> str:
        if place.startswith(PACK_PREFIX):
            return place
        path = (new if Path(place) == old else Path(place)).resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    return yaml.safe_dump(
        {"sentinels": [shown(place) for place in load_config(audit_file).sentinels]},
        sort_keys=False,
        width=10_000,
    )


async def edit_sentinels(request: Request) -> Response:
    """The editor of one file: GET shows it, POST checks a text, or writes it as the file's next
    version.
    """
    files, config = list_sentinel_files(get_desk(request).config), get_desk(request).config
    nth = request.path_params["nth"]
    if nth >= len(files):
        raise HTTPException(404, "The audit file names no such file of sentinels.")
    path: Path = files[nth]
    old = await run_in_threadpool(read_sentinel_text, str(path))
    asked = request.query_params.get("saved") if request.method == "GET" else None
    saved = next((file for file in list_versions(path) if file.name == asked), None)
    values = {
        "path": path,
        "nth": nth,
        "text": old,
        "problem": None,
        "read": None,
        "saved": saved,
        "changes": [],
    }
    if saved is not None:
        values |= {
            "text": await run_in_threadpool(read_sentinel_text, str(saved)),
            "named": await run_in_threadpool(
                render_sentinels_setting, get_desk(request).path, path, saved
            ),
        }
    if request.method == "POST":
        form = await read_form(request)
        text = str(form.get("text", ""))[:LONGEST_FORM].replace("\r\n", "\n")
        values |= {"text": text, "changes": await run_in_threadpool(diff_lines, old, text)}
        try:
            values["read"] = await run_in_threadpool(check_sentinel_text, text, config, path)
            if form.get("do") == "save":
                written = await run_in_threadpool(save_version, text, config, path)
                return redirect_to(f"/sentinels/edit/{nth}", saved=written.name)
        except PoisonwatchError as error:
            values["problem"] = str(error)
    return render_page(
        request, "sentinel_edit.html.j2", status=422 if values["problem"] else 200, **values
    )


routes = [
    Route("/sentinels", show_sentinels),
    Route("/sentinels/edit/{nth:int}", edit_sentinels, methods=["GET", "POST"]),
]
