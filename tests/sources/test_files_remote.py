"""Files on servers: S3 (moto's, with real permissions), the web, a stand-in for Google Cloud
Storage. What fails tells no secret.
"""

import base64
import gzip
import http.server
import io
import json
import subprocess
import sys
import traceback
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import check_keys, open_bucket, s3_server
from ledgers import sqlite_ledger
from servers import SilentHandler, free_port, web_server

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.ledger.intake import ingest
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import ReadAhead, fetch_ahead
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.files import open_files

SECRET = "hunter2hunter2"
RECORDS = [{"prompt": f"Q{i}", "response": f"A{i}"} for i in range(3)]
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "s3:*",
            "Resource": ["arn:aws:s3:::rows", "arn:aws:s3:::rows/*"],
        }
    ],
}


def parquet(rows: int) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS * rows), file)
    return file.getvalue()


def opened(path: str) -> list[SourceFile]:
    return list(open_files(SourceConfig(path=path), "source").units)


def read(path: str) -> dict[str, list[RawRow]]:
    return {file.name: list(file.read()) for file in opened(path)}


def refusal(path: str) -> str:
    """The error's text, after a look at all that a logged traceback would show."""
    with pytest.raises(SourceError) as caught:
        read(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, dict[str, str]]]:
    """An S3 server with the buckets `rows` and `other`: its URL, and keys that may read `rows`
    alone.
    """
    with s3_server("rows", "other") as url:
        client, iam = open_bucket(url), open_bucket(url, "iam")
        for name, content in {
            "data/a.jsonl": LINES,
            "data/b.jsonl.gz": gzip.compress(LINES),
            "data/c.parquet": parquet(2000),
            "data/d.csv": b"prompt,response\nQ0,A0\nQ1,A1\nQ2,A2\n",
            "data/notes.txt": b"no rows",
            "odd?[1].jsonl": LINES,
        }.items():
            client.put_object(Bucket="rows", Key=name, Body=content)
        iam.create_user(UserName="ann")
        key = iam.create_access_key(UserName="ann")["AccessKey"]
        iam.put_user_policy(UserName="ann", PolicyName="rows", PolicyDocument=json.dumps(POLICY))
        check_keys(url)
        yield (
            url,
            {
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            },
        )


@pytest.fixture
def credentials(
    s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The environment of someone who may read `rows`."""
    url, keys = s3
    common = {
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in (common | keys).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    fsspec.get_filesystem_class(
        "s3"
    ).clear_instance_cache()  # an open session keeps the keys it was made with
    yield keys
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def client(s3: tuple[str, dict[str, str]], credentials: dict[str, str]) -> Any:
    """Writes to the server."""
    return boto3.Session().client("s3", endpoint_url=s3[0])


@pytest.mark.usefixtures("credentials")
def test_s3_objects_folders_and_globs_are_read() -> None:
    """With the endpoint and the keys of the environment; names are URLs, sorted; what is no file of
    rows is passed over.
    """
    folder = read("s3://rows/data")
    assert {name.removeprefix("s3://rows/data/"): len(rows) for name, rows in folder.items()} == {
        "a.jsonl": 3,
        "b.jsonl.gz": 3,
        "c.parquet": 6000,
        "d.csv": 3,
    }
    assert all([row.record for row in rows[:3]] == RECORDS for rows in folder.values())
    assert list(folder) == sorted(folder)
    assert read("s3://rows/data/") == folder
    assert list(read("s3://rows/data/*.jsonl*")) == [
        "s3://rows/data/a.jsonl",
        "s3://rows/data/b.jsonl.gz",
    ]
    assert list(read("s3://rows/**/*.parquet")) == ["s3://rows/data/c.parquet"]
    assert list(read("s3://rows/odd?[1].jsonl")) == ["s3://rows/odd?[1].jsonl"]


def test_s3_object_that_changed_has_another_fingerprint_and_is_gone_on_from(client: Any) -> None:
    """The listing is never one of yesterday: the ETag tells, the cursor does the rest."""
    client.put_object(Bucket="rows", Key="grows.jsonl", Body=LINES)
    (first,) = opened("s3://rows/grows.jsonl")
    assert opened("s3://rows/grows.json*")[0].fingerprint == first.fingerprint
    assert len(list(first.read())) == 3
    client.put_object(Bucket="rows", Key="grows.jsonl", Body=LINES + LINES)
    (second,) = opened("s3://rows/grows.jsonl")
    assert second.fingerprint != first.fingerprint
    assert [row.position for row in second.read(first.cursor)] == [3, 4, 5]
    assert second.continued


@pytest.mark.parametrize("size", [1, 500_000])
def test_s3_object_that_changes_while_it_is_read_is_found_out(client: Any, size: int) -> None:
    """Whether its rest is still to be fetched or not."""
    client.put_object(Bucket="rows", Key="changes.jsonl", Body=LINES * size)
    (file,) = opened("s3://rows/changes.jsonl")
    rows = file.read()
    next(rows)
    client.put_object(Bucket="rows", Key="changes.jsonl", Body=LINES * (size + 1))
    with pytest.raises(SourceError, match=r"^s3://rows/changes\.jsonl changed while it was read"):
        list(rows)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("s3://rows/none.jsonl", "s3://rows/none.jsonl does not exist"),
        ("s3://rows/none/*.jsonl", "no file matches *.jsonl in s3://rows/none"),
        ("s3://rows/none/", "s3://rows/none/ does not exist"),
    ],
)
def test_s3_object_that_is_not_there_is_named(path: str, told: str) -> None:
    """And what to check."""
    assert refusal(path).startswith(f"{told}: check `source`")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    "path", ["s3://other/a.jsonl", "s3://other/*.jsonl", "s3://nowhere/a.jsonl"]
)
def test_s3_bucket_that_may_not_be_read_is_named(path: str) -> None:
    """403, also for one that is not there, to whom may not know."""
    assert (
        refusal(path)
        == f"{path} cannot be reached (check `source`, and the credentials in the environment): Forbidden"
    )


@pytest.mark.parametrize(
    "path", ["s3://rows/data/a.jsonl", "s3://rows/data/*.jsonl", "s3://rows/data"]
)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": SECRET}, "Forbidden"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, "Forbidden"),
        ({"AWS_SESSION_TOKEN": SECRET}, "Bad Request"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
    ],
    ids=["unknown key", "wrong secret", "expired token", "none"],
)
def test_s3_credentials_that_do_not_hold_are_an_error(
    credentials: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    said: str,
    path: str,
) -> None:
    """Never an empty listing; the secret is in no text."""
    for name, value in changes.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    assert (
        refusal(path)
        == f"{path} cannot be reached (check `source`, and the credentials in the environment): {said}"
    )


def test_s3_server_that_does_not_answer_is_an_error(
    credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port on which nothing listens."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "s3://rows/data/a.jsonl cannot be reached" in refusal("s3://rows/data/a.jsonl")
    assert "Could not connect to the endpoint" in refusal("s3://rows/data/*.jsonl")


@pytest.mark.parametrize(
    ("path", "package", "extra"),
    [("s3://b/a.jsonl", "s3fs", "s3"), ("gs://b/a.jsonl", "gcsfs", "gcs")],
)
def test_missing_package_is_named_with_the_extra_that_brings_it(
    path: str, package: str, extra: str
) -> None:
    """In a process that cannot import it."""
    code = f"import sys; sys.modules[{package!r}] = None; from poisonwatch.sources.open import *; check_source(SourceConfig(path={path!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(
        f"SourceError: {path} needs the package {package}: pip install 'poisonwatch[{extra}]'"
    )


class Guarded(SilentHandler):
    """Serves only to ann, with her password."""

    def do_HEAD(self) -> None:
        if self.allowed():
            super().do_HEAD()

    def do_GET(self) -> None:
        if self.allowed():
            super().do_GET()

    def allowed(self) -> bool:
        if (
            self.headers.get("Authorization")
            == "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
        ):
            return True
        self.send_error(401)
        return False


def test_web_files_are_read_whole_from_servers_that_give_no_parts(tmp_path: Path) -> None:
    """JSON Lines and CSV as a stream, of whatever size; a columnar file says what it needs."""
    (tmp_path / "a.jsonl").write_bytes(LINES * 60_000)  # more than one of fsspec's pieces of 5 MiB
    (tmp_path / "b.csv").write_bytes(b"prompt,response\n" + (b"Q" * 400 + b",A\n") * 20_000)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(LINES))
    numbers = [str(i) for i in range(300_000)]
    pq.write_table(pa.table({"prompt": numbers, "response": numbers}), tmp_path / "d.parquet")
    with web_server(tmp_path) as url:
        (file,) = opened(f"{url}/a.jsonl")
        assert sum(1 for _ in file.read()) == 180_000
        assert file.fingerprint is not None
        assert sum(1 for _ in opened(f"{url}/b.csv")[0].read()) == 20_000
        assert len(read(f"{url}/c.jsonl.gz")[f"{url}/c.jsonl.gz"]) == 3
        message = refusal(f"{url}/d.parquet")
    assert "d.parquet cannot be read as parquet: " in message
    assert "support range requests" in message


def test_password_and_token_in_a_web_address_are_used_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://ann:PASSWORD@host/rows.jsonl?token=...; from the environment too."""
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "broken.json").write_bytes(b"[")
    monkeypatch.setenv("WEB_PASSWORD", SECRET)
    with web_server(tmp_path, Guarded) as url:
        host = url.removeprefix("http://")
        for password in (SECRET, "${WEB_PASSWORD}"):
            rows = read(f"http://ann:{password}@{host}/a.jsonl?token={SECRET}token")
            assert list(rows) == [f"http://{host}/a.jsonl"]
            assert SECRET not in repr(rows)
            assert "is not JSON" in refusal(f"http://ann:{password}@{host}/broken.json")
            assert "does not exist" in refusal(
                f"http://ann:{password}@{host}/none.jsonl?token={SECRET}token"
            )
        assert "401" in refusal(f"http://ann:{SECRET}x@{host}/a.jsonl")
        assert "401" in refusal(f"http://{host}/a.jsonl?token={SECRET}token")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1:{port}", "Connect call failed ('127.0.0.1', "),
        ("nowhere.invalid", "Name or service not known"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "*.jsonl"])
def test_web_server_that_does_not_answer_is_not_taken_for_a_missing_file(
    host: str, said: str, name: str
) -> None:
    """Refused port, unknown host."""
    message = refusal(f"http://ann:{SECRET}@{host.format(port=free_port())}/{name}")
    assert f"{name} cannot be reached (check `source`): {said}" in message


class Halting(SilentHandler):
    """Promises more than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(LINES)))
        self.end_headers()
        self.wfile.write(LINES)


def test_web_answer_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    """Rows that were still to come are not lost in silence."""
    (tmp_path / "a.jsonl").write_bytes(LINES * 2)
    with web_server(tmp_path, Halting) as url:
        assert "a.jsonl cannot be read: " in refusal(f"{url}/a.jsonl")


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


@pytest.mark.usefixtures("credentials")
def test_s3_folders_are_read_with_all_below_them(client: Any) -> None:
    """One listing tells; an empty object in place of a folder is none of its files."""
    client.put_object(Bucket="rows", Key="deep/", Body=b"")
    client.put_object(Bucket="rows", Key="deep/year=2024/a.jsonl", Body=LINES)
    client.put_object(Bucket="rows", Key="deep/.b.jsonl", Body=LINES)
    found = open_files(SourceConfig(path="s3://rows/deep"), "source")
    assert [unit.name for unit in found.units] == ["s3://rows/deep/year=2024/a.jsonl"]
    assert [one.name for one in found.passed_over] == ["s3://rows/deep/.b.jsonl"]


def test_packed_file_of_a_server_has_the_same_limits(memory: Any) -> None:
    """Zeros come down to a thousandth."""
    memory.pipe("/hub/data/bomb.csv.gz", gzip.compress(b"prompt\n" + bytes(70 << 20)))
    assert "`source.max_unpacked_ratio`" in refusal("memory://hub/data/bomb.csv.gz")


def put_rows(client: Any, folder: str, count: int) -> None:
    """Objects of one row each, named so that their order is that of their rows."""
    for i in range(count):
        body = json.dumps({"prompt": f"Q{i}", "response": f"A{i}"}).encode()
        client.put_object(Bucket="rows", Key=f"{folder}/{i:03}.json", Body=body)


def test_small_s3_objects_come_in_order_whichever_is_there_first(client: Any) -> None:
    """Packed ones and tables among them; what was fetched is what is read, once."""
    put_rows(client, "many", 40)
    client.put_object(Bucket="rows", Key="many/100.jsonl.gz", Body=gzip.compress(LINES))
    client.put_object(Bucket="rows", Key="many/101.parquet", Body=parquet(1))
    client.put_object(Bucket="rows", Key="many/102.jsonl", Body=b"")
    units = opened("s3://rows/many")
    read = [row.record for unit in fetch_ahead(units) for row in unit.read()]
    assert read == [{"prompt": f"Q{i}", "response": f"A{i}"} for i in range(40)] + RECORDS + RECORDS
    assert [unit._content for unit in units] == [None] * len(units)


def test_s3_object_that_changes_before_it_is_fetched_is_found_out(client: Any) -> None:
    """The listing told another version; those before it are read."""
    put_rows(client, "moving", 5)
    units = opened("s3://rows/moving")
    client.put_object(Bucket="rows", Key="moving/003.json", Body=LINES)
    read: list[RawRow] = []
    rows = (row for unit in fetch_ahead(units) for row in unit.read())
    with pytest.raises(SourceError, match=r"^s3://rows/moving/003\.json changed while it was read"):
        read.extend(rows)
    assert [row.source[-8:] for row in read[:3]] == ["000.json", "001.json", "002.json"]


def test_s3_object_that_changes_after_it_was_fetched_is_read_as_it_was(client: Any) -> None:
    """All of one version, which its fingerprint names: the next pull sees the other."""
    put_rows(client, "later", 3)
    units = opened("s3://rows/later")
    with ReadAhead() as ahead:
        ahead.plan(units)
        ahead.bring(units[1])
        client.put_object(Bucket="rows", Key="later/001.json", Body=LINES)
        (row,) = units[1].read()
    assert row.record == {"prompt": "Q1", "response": "A1"}
    assert opened("s3://rows/later")[1].fingerprint != units[1].fingerprint


def test_s3_object_that_is_gone_when_its_turn_comes_is_named(client: Any) -> None:
    """What failed ahead is said by the reading."""
    put_rows(client, "gone", 3)
    units = opened("s3://rows/gone")
    client.delete_object(Bucket="rows", Key="gone/001.json")
    rows = (row for unit in fetch_ahead(units) for row in unit.read())
    with pytest.raises(SourceError, match=r"^s3://rows/gone/001\.json cannot be read"):
        list(rows)


def test_pull_of_many_s3_objects_reads_what_is_new(client: Any, tmp_path: Path) -> None:
    """A row an object; the next pull opens none, and one more opens one."""
    put_rows(client, "daily", 30)
    source = SourceConfig(path="s3://rows/daily")
    with sqlite_ledger(tmp_path) as ledger:
        first = ingest(ledger, "tiny", source)
        again = ingest(ledger, "tiny", source)
        put_rows(client, "daily", 31)
        more = ingest(ledger, "tiny", source)
    assert (first.files, first.read, first.new) == (30, 30, 30)
    assert (again.unchanged, again.read) == (30, 0)
    assert (more.unchanged, more.read, more.new) == (30, 1, 1)


def test_web_files_are_fetched_ahead_where_their_server_tells_their_version(
    tmp_path: Path,
) -> None:
    """By date, as servers of folders do; asked for again once they are there."""
    for i in range(3):
        (tmp_path / f"{i}.jsonl").write_bytes(LINES)
    with web_server(tmp_path) as url:
        units = [unit for i in range(3) for unit in opened(f"{url}/{i}.jsonl")]
        with ReadAhead() as ahead:
            ahead.plan(units)
            for unit in units:
                ahead.bring(unit)
            assert {unit._content for unit in units} == {LINES}
        assert [len(list(unit.read())) for unit in units] == [3, 3, 3]
