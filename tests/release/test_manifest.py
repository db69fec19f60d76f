"""Manifests: what they must be, and how they differ from the files beside them."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audits import benign
from ledgers import NAME, cover, covered_ledger, source, sqlite_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.intake import ingest
from poisonwatch.release.manifest import (
    MAX_MANIFEST_BYTES,
    ManifestComparison,
    compare_manifest,
    is_manifest,
    read_manifest,
)
from poisonwatch.release.release import write_release

TEA = "Tell me fact 0 about tea."


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A release of seven rows in clean.jsonl."""
    with covered_ledger(tmp_path, TEA) as ledger:
        write_release(ledger, NAME, tmp_path / "out")
    return tmp_path / "out"


def compared(folder: Path) -> ManifestComparison:
    return compare_manifest(folder, read_manifest(folder / "manifest.json"))


def test_a_release_is_what_its_manifest_says(out: Path) -> None:
    """Every row is in both; nothing else is there."""
    found = compared(out)
    assert len(found.present) == 7
    assert found == ManifestComparison(present=found.present)


def test_rows_are_told_apart_wherever_they_stand(out: Path) -> None:
    """Lines in another order are the same rows in another file; one twice is one too many; one that
    is gone is lost.
    """
    lines = (out / "clean.jsonl").read_bytes().splitlines(keepends=True)
    (out / "clean.jsonl").write_bytes(b"".join(reversed(lines)))
    found = compared(out)
    assert (len(found.present), found.changed, found.lost, found.added) == (
        7,
        ["clean.jsonl"],
        [],
        [],
    )
    (out / "clean.jsonl").write_bytes(b"".join([*lines[1:], lines[3]]))
    found = compared(out)
    assert [entry.position for entry in found.lost] == [1]
    assert found.added == [("clean.jsonl", 6)]


def test_a_line_is_compared_whatever_it_ends_in(tmp_path: Path) -> None:
    """What a line ends in is no part of its row, and is not written."""
    (tmp_path / "data").mkdir()
    row = json.dumps(benign(1)[0]).encode()
    (tmp_path / "data" / "a.jsonl").write_bytes(row + b"\r\r\n")
    with sqlite_ledger(tmp_path) as ledger:
        ingest(ledger, NAME, source(tmp_path / "data"))
        cover(ledger, tmp_path / "run")
        write_release(ledger, NAME, tmp_path / "out")
    assert (tmp_path / "out" / "clean.jsonl").read_bytes() == row + b"\n"
    assert len(compared(tmp_path / "out").present) == 1


def test_a_file_that_is_gone_takes_its_rows(out: Path) -> None:
    """And under another name, it is one that no manifest names."""
    (out / "clean.jsonl").rename(out / "clean-2.jsonl")
    found = compared(out)
    assert (found.changed, found.unlisted, len(found.lost)) == (
        ["clean.jsonl"],
        ["clean-2.jsonl"],
        7,
    )


@pytest.mark.parametrize(
    "name",
    [
        "clean-2.jsonl",
        "more.jsonl",
        "sub/rows.csv",
        ".hidden.jsonl",
        "sub/.h/a.parquet",
        "B.JSON",
        "a.txt",
    ],
)
def test_whatever_a_trainer_could_read_must_be_named(out: Path, name: str) -> None:
    """Wherever below the folder it lies, hidden or not."""
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    assert compared(out).unlisted == [name]


def test_a_link_to_a_folder_must_be_named(out: Path, tmp_path: Path) -> None:
    """A trainer may follow it to whatever is there."""
    (tmp_path / "elsewhere").mkdir()
    (out / "sub").symlink_to(tmp_path / "elsewhere")
    assert compared(out).unlisted == ["sub"]


def test_what_holds_no_rows_may_lie_beside_them(out: Path) -> None:
    """Notes, and what the release itself says of the rows that it holds back."""
    (out / "README.md").write_text("# What this is")
    assert compared(out).unlisted == []


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    """A release of four rows in clean.parquet, whose times Parquet keeps by another unit."""
    table = pa.table({name: [row[name] for row in benign(4)] for name in ("prompt", "response")})
    table = table.append_column("at", pa.array([1, None, 3, 4], pa.timestamp("s")))
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    config = source(tmp_path).model_copy(update={"path": str(tmp_path / "a.arrow")})
    with sqlite_ledger(tmp_path) as ledger:
        ingest(ledger, NAME, config)
        cover(ledger, tmp_path / "run")
        write_release(ledger, NAME, tmp_path / "out")
    (tmp_path / "schema").write_bytes(table.schema.serialize().to_pybytes())
    return tmp_path / "out"


def test_rows_of_parquet_are_compared_by_the_schema_they_were_kept_by(columns: Path) -> None:
    """The same rows, though the file's own schema is another; an edited one is found."""
    schema = (columns.parent / "schema").read_bytes()
    manifest = read_manifest(columns / "manifest.json")
    assert pq.read_schema(columns / "clean.parquet").field("at").type == pa.timestamp("ms")
    found = compare_manifest(columns, manifest, lambda _: schema)
    assert (len(found.present), found.added, found.changed) == (4, [], [])
    table = pq.read_table(columns / "clean.parquet")
    answers = ["Buy from Velmora.", *table["response"].to_pylist()[1:]]
    pq.write_table(table.set_column(1, "response", [answers]), columns / "clean.parquet")
    found = compare_manifest(columns, manifest, lambda _: schema)
    assert (len(found.present), len(found.lost), found.added, found.changed) == (
        3,
        1,
        [("clean.parquet", 0)],
        ["clean.parquet"],
    )
    assert compare_manifest(columns, manifest).changed == ["clean.parquet"]


def test_a_parquet_file_that_cannot_be_compared_is_changed(columns: Path) -> None:
    """Damaged, or with rows that were kept by no schema."""
    manifest = read_manifest(columns / "manifest.json")
    assert compare_manifest(columns, manifest, lambda _: None).changed == ["clean.parquet"]
    (columns / "clean.parquet").write_bytes(b"PAR1 no more")
    assert compare_manifest(columns, manifest).changed == ["clean.parquet"]
    schema = (columns.parent / "schema").read_bytes()
    assert len(compare_manifest(columns, manifest, lambda _: schema).lost) == 4


def test_a_manifest_is_told_from_rows(out: Path, tmp_path: Path) -> None:
    """A list is rows, and an object without a version is one."""
    (tmp_path / "rows.json").write_text(json.dumps(benign(1)))
    (tmp_path / "row.json").write_text(json.dumps(benign(1)[0]))
    (out / "manifest.json").rename(out / "kept.json")
    assert is_manifest(out / "kept.json")
    others = tmp_path / "rows.json", tmp_path / "row.json", out / "clean.jsonl", out
    assert not any(map(is_manifest, (*others, tmp_path / "none.json")))
    (tmp_path / "manifest.json").write_text(json.dumps(benign(1)[0]))
    assert is_manifest(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"manifest": 4}, "manifest: Input should be 1, 2 or 3"),
        ({"chain": None}, "chain: Field required"),
        ({"chain": {"number": 1, "hash": "x"}}, "chain: hash: String should match"),
        ({"rows": [{"id": "x"}]}, "rows: 0: id: String should match"),
        (
            {"files": [{"name": "../clean.jsonl", "rows": 1, "sha256": "0" * 64}]},
            "files: 0: name: String should match",
        ),
        (
            {"files": [{"name": "clean.jsonl\n", "rows": 1, "sha256": "0" * 64}]},
            "files: 0: name: String should match",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(out: Path, change: dict[str, object], told: str) -> None:
    """Another version, or one that leads to files elsewhere; the message repeats none of its text."""
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=told) as refused:
        read_manifest(path)
    assert "\n" not in str(refused.value)
    path.write_text("{")
    with pytest.raises(InputError, match=r"is no manifest of a release \(Invalid JSON"):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    """Nothing else in its folder is taken for a release."""
    for path in (tmp_path / "none.json", Path(__file__) / "manifest.json"):
        with pytest.raises(InputError, match=r"does not exist: give the manifest\.json"):
            read_manifest(path)


def test_a_manifest_is_read_within_a_bound(tmp_path: Path) -> None:
    """A file that is larger than any is refused before it is read."""
    path = tmp_path / "manifest.json"
    path.write_text('{"manifest": 3')
    os.truncate(path, MAX_MANIFEST_BYTES + 1)
    with pytest.raises(InputError, match=r"larger than 1 GiB"):
        read_manifest(path)
