"""What would be released now, and the files of it. Nothing here changes the ledger: rows count as
released by `poisonwatch release`.
"""

import shutil
import tempfile
import zipfile
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.pages import get_desk, render_page
from poisonwatch.errors import InputError
from poisonwatch.ledger.overview import list_audit_names
from poisonwatch.ledger.two_people import require_two_people
from poisonwatch.release.release import count_release, get_held_back_path, preview_release
from poisonwatch.release.selection import Duplicates
from poisonwatch.text.display import to_plain_name


def choose_audit_name(request: Request) -> str:
    """The audit name that the query asks for; that of the audit file by default. Raises InputError
    where the ledger has none of it.
    """
    desk = get_desk(request)
    known = list_audit_names(desk.ledger)
    name = request.query_params.get("name") or choose_default_name(known, desk.config.name)
    if name not in known:
        raise InputError("the ledger knows no audits of this name")
    return name


def choose_default_name(known: list[str], own: str) -> str:
    """The name of the audit file where the ledger knows audits of it, else the first that it knows:
    a ledger may be shared, and the audit file new to it.
    """
    if own in known or not known:
        return own
    return known[0]


def get_duplicates(request: Request) -> Duplicates:
    """What becomes of copies, by the audit file."""
    return get_desk(request).config.validation.duplicates


def show_release(request: Request) -> Response:
    """Counts that add up."""
    name = choose_audit_name(request)
    return render_page(
        request,
        "release.html.j2",
        names=list_audit_names(get_desk(request).ledger),
        name=name,
        counts=count_release(get_desk(request).ledger, name, get_duplicates(request)),
    )


def send_release(request: Request) -> Response:
    """Manifest, clean split, and what is held back, as one ZIP file."""
    name = choose_audit_name(request)
    # not a `with`: the file is sent after this function has returned, and removed after that
    scratch = Path(tempfile.mkdtemp(prefix="poisonwatch-"))
    try:
        folder = scratch / f"release-{to_plain_name(name)}"
        preview(request, name, folder)
        packed = scratch / f"{folder.name}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            # what is held back lies in a folder of its own, beside the one that is trained on
            for part in (folder, get_held_back_path(folder)):
                for file in sorted(part.iterdir()):
                    archive.write(file, f"{part.name}/{file.name}")
                # of a large release, two copies need not lie there while it is sent
                shutil.rmtree(part)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return FileResponse(
        packed,
        filename=packed.name,
        background=BackgroundTask(shutil.rmtree, scratch, ignore_errors=True),
    )


def preview(request: Request, name: str, folder: Path) -> None:
    """Write what a release would hold. Raises InputError where two people must agree first."""
    desk = get_desk(request)
    require_two_people(desk.ledger, name, desk.config.review.two_people)
    preview_release(desk.ledger, name, folder, get_duplicates(request))


def send_manifest(request: Request) -> Response:
    """The manifest alone."""
    name = choose_audit_name(request)
    with tempfile.TemporaryDirectory(prefix="poisonwatch-") as scratch:
        folder = Path(scratch) / "release"
        preview(request, name, folder)
        manifest = (folder / "manifest.json").read_bytes()
    headers = {"Content-Disposition": f'attachment; filename="manifest-{to_plain_name(name)}.json"'}
    return Response(manifest, media_type="application/json", headers=headers)


routes = [
    Route("/release", show_release),
    Route("/release/files.zip", send_release),
    Route("/release/manifest.json", send_manifest),
]
