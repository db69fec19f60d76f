"""The documents of a release, in a folder of their own: a trainer would take JSON beside its rows
for more of them.

    croissant.json   the data set, and where it came from (Croissant, PROV)
    bom.cdx.json     its files and the models that audited it (CycloneDX 1.6)
    controls.json    what was done beside what catalogues ask for, and controls.html for people
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poisonwatch.atomic import get_part_path, sync_folder, sync_tree
from poisonwatch.errors import InputError
from poisonwatch.permissions import make_private_folder
from poisonwatch.provenance.bom import list_materials
from poisonwatch.provenance.controls import list_controls
from poisonwatch.provenance.croissant import describe_release
from poisonwatch.provenance.subject import Subject
from poisonwatch.reports.templating import load_template
from poisonwatch.text.display import excerpt


def write_documents(subject: Subject, folder: Path) -> list[Path]:
    """Write all of them into a new folder, or none. Raises InputError where the folder is there, or
    a package that writes one is not.
    """
    if folder.exists():
        raise InputError(f"{excerpt(str(folder), 200)} already exists: choose another folder")
    controls = list_controls(subject)
    try:
        contents: Mapping[str, Any] = {
            "croissant.json": describe_release(subject),
            "bom.cdx.json": list_materials(subject),
            "controls.json": {"release": subject.digest, "controls": controls},
        }
    except ImportError as error:
        raise InputError(
            f"{error.name} writes one of these documents, and is not installed: "
            "pip install 'poisonwatch[provenance]'"
        ) from None
    page = load_template("controls.html.j2").render(subject=subject, controls=controls)
    part = get_part_path(folder)
    shutil.rmtree(part, ignore_errors=True)
    make_private_folder(part)
    try:
        for name, content in contents.items():
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")
        (part / "controls.html").write_text(page, encoding="utf-8")
        sync_tree(part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(folder.absolute().parent)
    return sorted(folder.iterdir())
