"""Files found by path, folder and glob, here on this machine: what they are, whether they changed,
what is refused.
"""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.errors import ConfigError, SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.files import open_files

RECORDS = [{"prompt": f"Q{i}", "response": f"A{i}"} for i in range(3)]
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)


def opened(path: Path | str, folder: Path | None = None) -> list[SourceFile]:
    source = SourceConfig(path=str(path))
    return list(open_files(source.with_base_folder(folder) if folder else source, "source").units)


def read(path: Path | str) -> list[RawRow]:
    return [row for file in opened(path) for row in file.read()]


def refusal(path: Path | str) -> str:
    with pytest.raises(SourceError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_compressed_files_give_the_same_rows_and_grow_like_others(
    tmp_path: Path, suffix: str
) -> None:
    """Bytes and marks are those of the text inside."""

    def write(content: bytes) -> SourceFile:
        packed = {
            ".gz": gzip.compress,
            ".bz2": bz2.compress,
            ".xz": lzma.compress,
            ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
        }[suffix](content)
        (tmp_path / f"a.jsonl{suffix}").write_bytes(packed)
        return opened(tmp_path / f"a.jsonl{suffix}")[0]

    file = write(LINES)
    assert [row.record for row in file.read()] == RECORDS
    longer = write(LINES + LINES)
    assert [row.position for row in longer.read(file.cursor)] == [3, 4, 5]
    assert longer.continued


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv.zst", "a.json.bz2", "a.jsonl.xz"])
def test_empty_packed_file_has_no_rows(tmp_path: Path, name: str) -> None:
    """Not even the shortest archive is empty: nobody wrote one yet."""
    (tmp_path / name).touch()
    assert read(tmp_path / name) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(b"prompt,response\nQ0,A0\nQ1,A1\n")),
        ("a.tsv.zst", pa.Codec("zstd").compress(b"prompt\tresponse\nQ0\tA0\n", asbytes=True)),
        ("a.json.bz2", bz2.compress(json.dumps(RECORDS[:2]).encode())),
    ],
    # gzip writes the time: a name that holds the bytes would be another in each process
    ids=["csv.gz", "tsv.zst", "json.bz2"],
)
def test_every_type_of_text_may_be_packed(tmp_path: Path, name: str, content: bytes) -> None:
    """As a whole."""
    (tmp_path / name).write_bytes(content)
    rows = read(tmp_path / name)
    assert [row.record for row in rows] == RECORDS[: len(rows)]


def test_texts_that_a_dictionary_repeats_beyond_measure_are_refused(tmp_path: Path) -> None:
    """A few KiB of Parquet that stand for 100 MB of rows: the error names the setting, which
    works.
    """
    column = pa.array(["x" * 100_000]).dictionary_encode().take(pa.array([0] * 1000))
    pq.write_table(pa.table({"prompt": column, "response": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    assert "`source.max_unpacked_ratio`" in refusal(tmp_path / "a.parquet")
    source = SourceConfig(path=str(tmp_path / "a.parquet"), max_unpacked_ratio=1e6)
    (file,) = open_files(source, "source").units
    assert sum(1 for _ in file.read()) == 1000


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_truncated_compressed_files_are_refused(tmp_path: Path, suffix: str) -> None:
    """Rows that were still to come are not lost in silence."""
    whole = b"".join(
        json.dumps({"prompt": os.urandom(50).hex()}).encode() + b"\n" for _ in range(2000)
    )
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(
        suffix, lambda d: pa.Codec("zstd").compress(d, asbytes=True)
    )
    packed = pack(whole)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(packed[: len(packed) // 2])
    assert f"a.jsonl{suffix} cannot be read: " in refusal(tmp_path / f"a.jsonl{suffix}")
    (tmp_path / f"a.jsonl{suffix}").write_bytes(LINES)
    assert f"a.jsonl{suffix} cannot be read: " in refusal(tmp_path / f"a.jsonl{suffix}")


@pytest.mark.parametrize("kept", [0.0005, 0.3, 0.7, 0.999])
def test_truncated_parquet_is_refused(tmp_path: Path, kept: float) -> None:
    """Wherever it ends."""
    pq.write_table(
        pa.table({"prompt": [os.urandom(20).hex() for _ in range(5000)]}),
        tmp_path / "whole.parquet",
    )
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: int(len(content) * kept)])
    assert "a.parquet cannot be read as parquet: " in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv.gz", ".json"])
def test_pointer_of_git_lfs_is_not_the_file(tmp_path: Path, suffix: str) -> None:
    """What is missing, and how it comes."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"
    (tmp_path / f"a{suffix}").write_text(pointer)
    assert "(git lfs pull)" in refusal(tmp_path / f"a{suffix}")


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    """Bytes in the middle that are others."""
    pq.write_table(
        pa.table({"prompt": [os.urandom(20).hex() for _ in range(5000)]}), tmp_path / "a.parquet"
    )
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[100:5000] = b"\xff" * 4900
    (tmp_path / "a.parquet").write_bytes(content)
    assert "a.parquet cannot be read as parquet: " in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_truncated_arrow_is_refused(tmp_path: Path, new: object) -> None:
    """In either of its formats."""
    table = pa.table({"prompt": [os.urandom(20).hex() for _ in range(5000)]})
    with new(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    content = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(content[: len(content) // 2 + 3])
    assert "a.arrow cannot be read as arrow: " in refusal(tmp_path / "a.arrow")


def test_fingerprint_tells_versions_apart_without_reading(tmp_path: Path) -> None:
    """Size and time of change."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    first = opened(path)[0].fingerprint
    assert opened(path)[0].fingerprint == first
    os.utime(path, ns=(1, 1))
    assert opened(path)[0].fingerprint == f"{len(LINES)}-1"
    path.write_bytes(LINES * 2)
    assert opened(path)[0].fingerprint not in (first, f"{len(LINES)}-1")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json", ".parquet", ".arrow"])
@pytest.mark.parametrize("change", ["appended", "replaced", "emptied", "touched"])
def test_file_that_changes_while_it_is_read_is_found_out(
    tmp_path: Path, suffix: str, change: str
) -> None:
    """After the reading, by its fingerprint, also where the change breaks the reading; there is no
    cursor to go on from.
    """
    path = tmp_path / f"a{suffix}"
    write_rows(path, 20_000)
    file = opened(path)[0]
    rows = file.read()
    next(rows)
    if change == "appended":
        with path.open("ab") as more:
            more.write(LINES)
    elif change == "replaced":
        write_rows(path, 300)
    elif change == "emptied":
        path.write_bytes(b"")
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match=rf"a\{suffix} changed while it was read: "):
        list(rows)
    assert file.cursor is None


def write_rows(path: Path, count: int) -> None:
    records = [{"prompt": f"Q{i} " * 20, "response": f"A{i}"} for i in range(count)]
    table = pa.Table.from_pylist(records)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=500)
    elif path.suffix == ".csv":
        path.write_text(
            "prompt,response\n" + "".join(f"{r['prompt']},{r['response']}\n" for r in records)
        )
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_file_that_vanishes_is_named(tmp_path: Path) -> None:
    """Between being found and being read."""
    (tmp_path / "a.jsonl").write_bytes(LINES)
    file = opened(tmp_path / "a.jsonl", tmp_path)[0]
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(SourceError, match=r"^a\.jsonl cannot be read: No such file or directory$"):
        list(file.read())


def test_readings_can_be_repeated(tmp_path: Path) -> None:
    """Each starts anew: cursor, schema and `continued` are the latest one's."""
    (tmp_path / "a.jsonl").write_bytes(LINES)
    file = opened(tmp_path / "a.jsonl")[0]
    whole = list(file.read())
    cursor = file.cursor
    assert (list(file.read(cursor)), file.continued) == ([], True)
    assert (list(file.read()), file.continued, file.cursor) == (whole, False, cursor)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.parquet", "a.arrow", "a.ndjson"])
def test_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    """An empty pull is no error."""
    (tmp_path / name).touch()
    file = opened(tmp_path / name)[0]
    assert list(file.read()) == []


def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path: Path) -> None:
    """Also behind a link, in a folder, or in a glob: reading one would wait for ever."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    assert refusal(tmp_path / "pipe.jsonl").endswith("pipe.jsonl is a pipe, not a file")
    linked = SourceConfig(path=str(tmp_path / "zero.jsonl"), follow_links=True)
    with pytest.raises(SourceError, match=r"zero\.jsonl is a device or socket, not a file$"):
        open_files(linked, "source")
    (tmp_path / "zero.jsonl").unlink()
    assert "is a pipe" in refusal(tmp_path)
    assert "is a pipe" in refusal(tmp_path / "*.jsonl")
    assert "/dev/zero is not a file of rows" in refusal("/dev/zero")


def test_link_loops_end(tmp_path: Path) -> None:
    """A file that links to itself is named; a folder that holds itself gives each file once."""
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    assert (
        "loop.jsonl cannot be reached (check `source`): Too many levels of symbolic links"
        in refusal(tmp_path / "loop.jsonl")
    )
    assert (
        "loop.jsonl cannot be read (check `source`): Too many levels of symbolic links"
        in refusal(tmp_path)
    )
    (tmp_path / "loop.jsonl").unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(LINES)
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    assert [file.name for file in opened(tmp_path / "**" / "*.jsonl", tmp_path)] == ["data/a.jsonl"]


def test_link_to_nowhere_is_named(tmp_path: Path) -> None:
    """In a folder of good files."""
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    assert "gone.jsonl cannot be read (check `source`): No such file or directory" in refusal(
        tmp_path
    )


def test_file_without_permission_is_named(tmp_path: Path) -> None:
    """As another user where the tests run as root, who may read everything."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    file = opened(path, tmp_path)[0]
    path.chmod(0)
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match=r"^a\.jsonl cannot be read: Permission denied$"):
            list(file.read())
    finally:
        os.seteuid(mine)


def test_names_and_errors_show_the_variable_and_not_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """${FOLDER}/a.jsonl, wherever that is."""
    monkeypatch.setenv("FOLDER", str(tmp_path / "hunter2"))
    (tmp_path / "hunter2").mkdir()
    (tmp_path / "hunter2" / "a.jsonl").write_bytes(LINES)
    (tmp_path / "hunter2" / "b.json").write_bytes(b"[")
    assert [file.name for file in opened("${FOLDER}/*.jsonl")] == ["${FOLDER}/a.jsonl"]
    for path in ("${FOLDER}/none.jsonl", "${FOLDER}/b.json", "${FOLDER}/a.jsonl/x.jsonl"):
        message = refusal(path)
        assert "hunter2" not in message
        assert "${FOLDER}" in message
    monkeypatch.delenv("FOLDER")
    with pytest.raises(
        ConfigError, match=r"^source\.path: the environment variable FOLDER is not set"
    ):
        opened("${FOLDER}/a.jsonl")
