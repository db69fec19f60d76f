"""Files on other servers: a stand-in for Google Cloud Storage, and a file system in memory."""

import gzip
import http.server
import io
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from remote_files import LINES, RECORDS, opened, parquet, read, refusal
from servers import web_server

from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.files import open_files


class Storage(http.server.BaseHTTPRequestHandler):
    """As much of Google Cloud Storage's API as reading takes, over a folder of buckets."""

    def __init__(self, *arguments: Any, directory: str) -> None:
        self.folder = Path(directory)
        super().__init__(*arguments)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = urllib.parse.parse_qs(url.query)
        parts = url.path.removeprefix("/download").split("/")
        bucket, name = parts[4], urllib.parse.unquote(parts[6]) if len(parts) > 6 else None
        objects = {
            str(p.relative_to(self.folder / bucket)): p
            for p in sorted((self.folder / bucket).rglob("*"))
            if p.is_file()
        }
        if name is None:
            prefix = asked.get("prefix", [""])[0]
            self.answer(
                200,
                {
                    "items": [
                        self.about(bucket, key, path)
                        for key, path in objects.items()
                        if key.startswith(prefix)
                    ]
                },
            )
        elif name not in objects:
            self.answer(404, {"error": {"code": 404, "message": "No such object"}})
        elif asked.get("alt") == ["media"] or url.path.startswith("/download"):
            content = objects[name].read_bytes()
            start, _, end = (
                self.headers.get("Range", f"bytes=0-{len(content)}")
                .removeprefix("bytes=")
                .partition("-")
            )
            self.answer(206, content[int(start) : int(end or len(content)) + 1])
        else:
            self.answer(200, self.about(bucket, name, objects[name]))

    def about(self, bucket: str, name: str, path: Path) -> dict[str, object]:
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": path.stat().st_size,
            "etag": str(path.stat().st_mtime_ns),
        }

    def answer(self, status: int, content: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type",
            "application/octet-stream" if isinstance(content, bytes) else "application/json",
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_google_storage_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects, globs, fingerprints, what is not there, and a server that does not answer."""
    (tmp_path / "rows" / "data").mkdir(parents=True)
    (tmp_path / "rows" / "data" / "a.jsonl").write_bytes(LINES)
    (tmp_path / "rows" / "data" / "b.parquet").write_bytes(parquet(1))
    cloud = fsspec.get_filesystem_class("gs")
    with web_server(tmp_path, Storage) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        cloud.clear_instance_cache()
        rows = read("gs://rows/data/*")
        assert {name: [row.record for row in found] for name, found in rows.items()} == {
            "gs://rows/data/a.jsonl": RECORDS,
            "gs://rows/data/b.parquet": RECORDS,
        }
        (file,) = opened("gs://rows/data/a.jsonl")
        assert (
            file.fingerprint
            == f"{len(LINES)}-{(tmp_path / 'rows' / 'data' / 'a.jsonl').stat().st_mtime_ns}"
        )
        assert "gs://rows/data/none.jsonl does not exist" in refusal("gs://rows/data/none.jsonl")
    cloud.clear_instance_cache()


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system in memory, with a folder of folders."""
    fs = fsspec.filesystem("memory")
    fs.pipe("/hub/data/train-0.jsonl", LINES)
    fs.pipe("/hub/data/year=2024/a.jsonl.gz", gzip.compress(LINES))
    fs.pipe("/hub/.git/b.jsonl", LINES)
    fs.pipe("/hub/_c.parquet", parquet(1))
    fs.pipe("/hub/._d.jsonl", b"\x00\x05\x16\x07 of macOS")
    fs.pipe("/hub/README.md", b"# Rows")
    yield fs
    fs.rm("/hub", recursive=True)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("path", ["memory://hub", "memory://hub/", "memory://hub/*"])
def test_folders_of_a_server_are_read_with_all_below_them(path: str) -> None:
    """As folders here are: what is hidden is passed over, and told."""
    found = open_files(SourceConfig(path=path), "source")
    assert [unit.name for unit in found.units] == [
        "memory:///hub/data/train-0.jsonl",
        "memory:///hub/data/year=2024/a.jsonl.gz",
    ]
    assert [len(list(unit.read())) for unit in found.units] == [3, 3]
    assert {one.name: one.may_hold_rows for one in found.passed_over} == {
        "memory:///hub/._d.jsonl": False,
        "memory:///hub/.git": True,
        "memory:///hub/README.md": False,
        "memory:///hub/_c.parquet": True,
    }


def test_saved_data_set_on_a_server_is_read_by_its_state(memory: Any) -> None:
    """Its description is fetched, and only what it names is rows."""
    file = io.BytesIO()
    table = pa.Table.from_pylist(RECORDS)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    memory.pipe("/hub/saved/b.arrow", file.getvalue())
    memory.pipe("/hub/saved/cache-1.arrow", file.getvalue())
    memory.pipe("/hub/saved/state.json", b'{"_data_files": [{"filename": "b.arrow"}]}')
    assert list(read("memory://hub/saved")) == ["memory:///hub/saved/b.arrow"]
    memory.rm("/hub/saved/b.arrow")
    assert "hub/saved is not complete" in refusal("memory://hub/saved")


def test_packed_file_of_a_server_has_the_same_limits(memory: Any) -> None:
    """Zeros come down to a thousandth."""
    memory.pipe("/hub/data/bomb.csv.gz", gzip.compress(b"prompt\n" + bytes(70 << 20)))
    assert "`source.max_unpacked_ratio`" in refusal("memory://hub/data/bomb.csv.gz")


@pytest.mark.parametrize(
    ("path", "package", "extra"),
    [("s3://b/a.jsonl", "s3fs", "s3"), ("gs://b/a.jsonl", "gcsfs", "gcs")],
)
def test_missing_package_is_named_with_the_extra_that_brings_it(
    path: str, package: str, extra: str
) -> None:
    """In a process that cannot import it."""
    without = f"import sys; sys.modules[{package!r}] = None"
    checked = f"check_source(SourceConfig(path={path!r}))"
    code = f"{without}; from poisonwatch.sources.open import *; {checked}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(
        f"SourceError: {path} needs the package {package}: pip install 'poisonwatch[{extra}]'"
    )
