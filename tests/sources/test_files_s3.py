"""Files on S3: moto's server, with real permissions. What fails tells no secret."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from buckets import check_keys, open_bucket, s3_server
from ledgers import sqlite_ledger
from remote_files import LINES, RECORDS, SECRET, opened, parquet, read, refusal
from servers import free_port

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.ledger.intake import ingest
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import ReadAhead, fetch_ahead
from poisonwatch.sources.files import open_files

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


@pytest.mark.usefixtures("credentials")
def test_s3_folders_are_read_with_all_below_them(client: Any) -> None:
    """One listing tells; an empty object in place of a folder is none of its files."""
    client.put_object(Bucket="rows", Key="deep/", Body=b"")
    client.put_object(Bucket="rows", Key="deep/year=2024/a.jsonl", Body=LINES)
    client.put_object(Bucket="rows", Key="deep/.b.jsonl", Body=LINES)
    found = open_files(SourceConfig(path="s3://rows/deep"), "source")
    assert [unit.name for unit in found.units] == ["s3://rows/deep/year=2024/a.jsonl"]
    assert [one.name for one in found.passed_over] == ["s3://rows/deep/.b.jsonl"]


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
