"""The page of a group: the evidence of each row."""

import json
import math
import os
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from browsing import asking, audit_of, audit_page, flags, groups
from starlette.testclient import TestClient


def copy_as_unsealed(config: Path, folder: Path) -> Path:
    """The same audit as one from before run directories were sealed: its audit file."""
    shutil.copytree(config.parent, folder)
    (folder / "run" / "SHA256SUMS").unlink()
    with closing(sqlite3.connect(folder / "poisonwatch.db")) as connection:
        connection.execute("UPDATE audits SET run_dir = ?", [str(folder / "run")])
        connection.execute("DELETE FROM records")
        connection.commit()
    return folder / config.name


def test_a_group_shows_the_evidence_of_each_row(client: TestClient, config: Path) -> None:
    """Text, reasons, sentinel, nearest trusted rows with differences marked, a plot."""
    record = flags(config)[0]
    pages = {address: client.get(address).text for address in groups(client)}
    address, page = next(
        (address, page)
        for address, page in pages.items()
        if f'id="row-{record["example_id"][:16]}"' in page
    )
    assert "<mark>" in page
    assert "trusted.jsonl" in page
    assert record["reasons"][0][:40] in page
    assert "it says after" in page
    assert f"line {record['position'] + 1}" in page
    picture = client.get(
        f"{address.rpartition('/')[0]}/coefficient.png",
        params={"row": record["example_id"], "sentinel": record["sentinel_id"]},
    )
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize(
    ("grade", "outcome"),
    [
        ({"grade": "weak", "said": True}, "{} by steering: a weak effect"),
        ({"grade": "none", "said": False}, "{} by steering: no sure effect"),
        ({}, "{} by steering"),
    ],
)
def test_a_group_is_shown_with_its_grade_or_as_an_older_audit_left_it(
    config: Path, tmp_path: Path, confirmed: bool, grade: dict[str, Any], outcome: str
) -> None:
    """Audits before grades said whether a group is confirmed, and nothing of what a reply says; nor
    were their run directories sealed.
    """
    older = copy_as_unsealed(config, tmp_path / "older")
    path = older.parent / "run" / "evidence.jsonl"
    lines = list(map(json.loads, path.read_bytes().splitlines()))
    for group in lines:
        found = group["confirmation"]
        del found["grade"], found["excess"]
        found["confirmed"] = confirmed
        if grade:
            found["grade"] = grade["grade"]
        for effect in found["effects"]:
            effect.pop("said_forbidden")
            if grade:
                effect["said_forbidden"] = grade["said"]
    path.write_text("".join(json.dumps(group) + "\n" for group in lines))
    with asking(older) as client:
        page = client.get(groups(client)[0]).text
    assert f">{outcome.format('confirmed' if confirmed else 'not confirmed')}</span>" in page
    assert ("it says after, in words of the forbidden answer" in page) is bool(grade.get("said"))
    assert ('class="sheet card calm"' in page) is not confirmed


@pytest.mark.parametrize(
    "name",
    ["evidence.jsonl", "nearest.jsonl", "sentinels.jsonl", "scores.parquet", "trusted.parquet"],
)
@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"\xff{", None])
def test_rows_of_a_damaged_run_directory_can_be_decided_on(
    client: TestClient,
    config: Path,
    name: str,
    content: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is damaged, or cut in half, is named and left out with all else of the run directory; once
    it is whole again it is shown again.
    """
    # the head of a page says how long ago the last audit was
    monkeypatch.setattr("poisonwatch.dashboards.pages.GLANCE_LASTS_S", math.inf)
    path, address = config.parent / "run" / name, groups(client)[0]
    whole, shown, heat = path.read_bytes(), client.get(address).text, client.get("/sentinels").text
    image = re.findall(r'/triage/[0-9a-f-]+/coefficient.png\?[^"]+', shown)[0].replace("&amp;", "&")
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    try:
        change = f"{name} of {config.parent / 'run'} is not what the audit wrote"
        page = client.get(address).text
        assert 'name="verdict"' in page
        assert "No trusted row is known to be like it" in page
        for told in (page, client.get("/sentinels").text, client.get(audit_page(client)).text):
            assert change in told
        image_shown = client.get(image)
        is_of_image = name in ("scores.parquet", "trusted.parquet")
        assert image_shown.status_code == (400 if is_of_image else 200)
        assert (change in image_shown.text) == is_of_image
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
    assert client.get(address).text == shown
    assert client.get("/sentinels").text == heat


def test_a_run_directory_that_is_gone_leaves_what_the_ledger_knows(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Rows can still be read and decided; what lay in the directory is missed, and said to be."""
    config = audit_of(tmp_path, tiny_folder)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with asking(config) as client:
        for address in (groups(client)[0], audit_page(client)):
            page = client.get(address)
            assert page.status_code == 200
            assert "gone, or on another machine" in page.text
        assert client.get(f"{audit_page(client)}/report").status_code == 404
        for path in ("/sentinels", "/explain", "/"):
            assert client.get(path).status_code == 200
