"""All documents of a release in one new folder, or none."""

import json
from pathlib import Path

import pytest

from poisonwatch.errors import InputError
from poisonwatch.provenance.documents import write_documents
from poisonwatch.provenance.subject import Subject

WRITTEN = ["bom.cdx.json", "controls.html", "controls.json", "croissant.json"]


def test_all_documents_are_written_and_hostile_names_stay_text(
    subject: Subject, tmp_path: Path
) -> None:
    folder = tmp_path / "provenance"
    assert [path.name for path in write_documents(subject, folder)] == WRITTEN
    assert json.loads((folder / "controls.json").read_text())["release"] == subject.digest
    page = (folder / "controls.html").read_text()
    assert "AML.M0007" in page
    assert "&lt;b&gt;ann" in page
    assert "<b>ann" not in page
    with pytest.raises(InputError, match="already exists"):
        write_documents(subject, folder)
