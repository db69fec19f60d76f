"""The sentinels: what moves them, what is wrong with them, and an editor that never changes a file in place."""

from pathlib import Path

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poisonwatch.config import load_config
from poisonwatch.dashboards.pages import LONGEST_FORM, desk, form_of, go, page
from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.history import RESULTS, PastAudit, past_audits
from poisonwatch.ledger.overview import LONGEST, names
from poisonwatch.ledger.tables import audits
from poisonwatch.reports.heatmap import STEPS, read_heat_map
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.editing import changes, check_text, save_version, sentinel_files, versions_of
from poisonwatch.sentinels.pack import PACK_PREFIX
from poisonwatch.sentinels.sentinel import text_of

SHOWN = 8  # audits side by side


def show_sentinels(request: Request) -> Response:
    """What the sentinels of a name did over its last audits, and which groups of flagged rows move them now."""
    ledger, config = desk(request).ledger, desk(request).config
    known = names(ledger)
    name = request.query_params.get("name") or (config.name if config.name in known else known[0])
    past = past_audits(ledger, name, LONGEST, where=[audits.c.state.in_(RESULTS)])
    audit_id = request.query_params.get("audit")
    flagged = [audit for audit in past if audit.summary["counts"]["flagged"]]  # the last that has something to show
    among = [audit for audit in past if audit.audit_id == audit_id] or flagged or past  # the run of another name is left behind with it
    chosen = among[0] if among else None
    return page(
        request,
        "sentinels.html.j2",
        names=known,
        name=name,
        past=past,
        chosen=chosen,
        heat=None if chosen is None else read_heat_map(chosen.run_dir),
        steps=STEPS,
        asked={} if chosen is None else readback.sentinels(chosen.run_dir),
        history=history(past[:SHOWN]),
        shown=[audit for audit in past[:SHOWN] if audit.summary.get("largest_coefficients")][::-1],
        files=[file.name for file in sentinel_files(config)],
        config=config,
    )


def history(past: list[PastAudit]) -> dict[str, list[float | None]]:
    """By sentinel, the largest coefficient of a new row in each audit, oldest first; None where it was not asked."""
    measured = [audit.summary["largest_coefficients"] for audit in reversed(past) if audit.summary.get("largest_coefficients")]
    ids = dict.fromkeys(id for of_audit in reversed(measured) for id in of_audit)
    return {id: [of_audit.get(id) for of_audit in measured] for id in ids}


def named(audit_file: Path, old: Path, new: Path) -> str:
    """The `sentinels` of the audit file as it is now, with a new version in the place of the old one."""
    folder = audit_file.resolve().parent

    def shown(place: str) -> str:
        if place.startswith(PACK_PREFIX):
            return place
        path = (new if Path(place) == old else Path(place)).resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    return yaml.safe_dump({"sentinels": [shown(place) for place in load_config(audit_file).sentinels]}, sort_keys=False, width=10_000)


async def edit(request: Request) -> Response:
    """The editor of one file: GET shows it, POST checks a text, or writes it as the file's next version."""
    files, config = sentinel_files(desk(request).config), desk(request).config
    nth = request.path_params["nth"]
    if nth >= len(files):
        raise HTTPException(404, "The audit file names no such file of sentinels.")
    path: Path = files[nth]
    old = await run_in_threadpool(text_of, str(path))
    asked = request.query_params.get("saved") if request.method == "GET" else None
    saved = next((file for file in versions_of(path) if file.name == asked), None)
    values = {"path": path, "nth": nth, "text": old, "problem": None, "read": None, "saved": saved, "changes": []}
    if saved is not None:
        values |= {
            "text": await run_in_threadpool(text_of, str(saved)),
            "named": await run_in_threadpool(named, desk(request).path, path, saved),
        }
    if request.method == "POST":
        form = await form_of(request)
        text = str(form.get("text", ""))[:LONGEST_FORM].replace("\r\n", "\n")
        values |= {"text": text, "changes": await run_in_threadpool(changes, old, text)}
        try:
            values["read"] = await run_in_threadpool(check_text, text, config, path)
            if form.get("do") == "save":
                written = await run_in_threadpool(save_version, text, config, path)
                return go(f"/sentinels/edit/{nth}", saved=written.name)
        except PoisonwatchError as error:
            values["problem"] = str(error)
    return page(request, "sentinel_edit.html.j2", status=422 if values["problem"] else 200, **values)


routes = [
    Route("/sentinels", show_sentinels),
    Route("/sentinels/edit/{nth:int}", edit, methods=["GET", "POST"]),
]
