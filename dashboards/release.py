"""What would be released now, and the files of it. Nothing here changes the ledger: rows count as released by `poisonwatch release`."""

import shutil
import tempfile
import zipfile
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.pages import desk, page
from poisonwatch.errors import InputError
from poisonwatch.ledger.overview import names
from poisonwatch.release.release import counts_of, preview
from poisonwatch.text.display import plain_name


def name_of(request: Request) -> str:
    """The audit name that the query asks for; that of the audit file by default. Raises InputError where the ledger has none of it."""
    known, own = names(desk(request).ledger), desk(request).config.name
    name = request.query_params.get("name") or (own if own in known or not known else known[0])
    if name not in known:
        raise InputError("the ledger knows no audits of this name")
    return name


def show_release(request: Request) -> Response:
    """Counts that add up."""
    name = name_of(request)
    return page(request, "release.html.j2", names=names(desk(request).ledger), name=name, counts=counts_of(desk(request).ledger, name))


def send_release(request: Request) -> Response:
    """Manifest, clean split, and what is held back, as one ZIP file."""
    name, scratch = name_of(request), Path(tempfile.mkdtemp(prefix="poisonwatch-"))
    try:
        folder = scratch / f"release-{plain_name(name)}"
        preview(desk(request).ledger, name, folder)
        packed = scratch / f"{folder.name}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
        shutil.rmtree(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return FileResponse(packed, filename=packed.name, background=BackgroundTask(shutil.rmtree, scratch, ignore_errors=True))


def send_manifest(request: Request) -> Response:
    """The manifest alone."""
    name = name_of(request)
    with tempfile.TemporaryDirectory(prefix="poisonwatch-") as scratch:
        folder = Path(scratch) / "release"
        preview(desk(request).ledger, name, folder)
        manifest = (folder / "manifest.json").read_bytes()
    headers = {"Content-Disposition": f'attachment; filename="manifest-{plain_name(name)}.json"'}
    return Response(manifest, media_type="application/json", headers=headers)


routes = [
    Route("/release", show_release),
    Route("/release/files.zip", send_release),
    Route("/release/manifest.json", send_manifest),
]
