"""What would be released, and the files of it."""

import io
import json
import os
import re
import zipfile
from pathlib import Path

from starlette.testclient import TestClient

from poisonwatch.config_file import load_config
from poisonwatch.ledger.batches import count_by_status
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.release import write_release
from poisonwatch.text.sqlite_files import find_sqlite_file


def test_a_download_is_what_release_writes_and_releases_nothing(
    client: TestClient, config: Path, tmp_path: Path
) -> None:
    """Counts add up; the ledger is as before; the manifest is the release's but for its time."""
    settings = load_config(config)
    numbers = [
        int(n)
        for n in re.findall(r'<td class="number">([0-9,]+)</td>', client.get("/release").text)
    ]
    assert sum(numbers[:3]) == numbers[3] > 0
    with Ledger.at(settings.state) as ledger:
        before = count_by_status(ledger, settings.name)
        packed = zipfile.ZipFile(io.BytesIO(client.get("/release/files.zip").content))
        manifest = client.get("/release/manifest.json").json()
        assert count_by_status(ledger, settings.name) == before
        write_release(ledger, settings.name, tmp_path / "out")
    written = (tmp_path / "out", tmp_path / "out.held-back")
    assert {Path(name).name for name in packed.namelist()} == {
        file.name for folder in written for file in folder.iterdir()
    }
    assert "release-tiny.held-back/quarantine.jsonl" in packed.namelist()
    for file in (tmp_path / "out").iterdir():
        if file.name != "manifest.json":
            assert packed.read(f"release-tiny/{file.name}") == file.read_bytes()
    assert {**manifest, "created": ""} == {
        **json.loads((tmp_path / "out" / "manifest.json").read_text()),
        "created": "",
    }
    assert client.get("/release?name=unknown").status_code == 400


def test_a_ledger_whose_file_has_two_names_is_not_released_from(
    client: TestClient, config: Path
) -> None:
    """Neither counts nor files: what is decided may be missing in it."""
    file = find_sqlite_file(load_config(config).state.partition(":///")[2])
    assert file is not None
    other = file.with_name("other.db")
    os.link(file, other)
    try:
        for page in ("/release", "/release/files.zip", "/release/manifest.json"):
            answer = client.get(page)
            assert answer.status_code == 503
            assert "has another name" in answer.text
            assert "Traceback" not in answer.text
    finally:
        other.unlink()
    assert client.get("/release").status_code == 200
