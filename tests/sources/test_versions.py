"""A version of a file is fetched whole, or nothing is."""

from pathlib import Path

import fsspec
import pytest
from servers import web_server

from poisonwatch.sources.versions import can_fetch, compute_file_fingerprint, fetch_version


def test_a_web_file_is_fetched_as_the_version_that_was_listed(tmp_path: Path) -> None:
    """Another date is another version: nothing is had of it."""
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    with web_server(tmp_path) as url:
        fs, path = fsspec.url_to_fs(f"{url}/a.jsonl")
        info = fs.info(path)
        assert fetch_version(fs, path, info) == b"one\n"
        assert fetch_version(fs, path, {**info, "Last-Modified": "yesterday", "mtime": 1}) is None
        with pytest.raises(FileNotFoundError):
            fetch_version(fs, f"{url}/none", info)


def test_only_servers_that_several_may_ask_at_once_are_asked_ahead() -> None:
    """Neither this machine, nor what keeps one connection."""
    assert can_fetch(fsspec.filesystem("http"))
    assert not can_fetch(fsspec.filesystem("file"))
    assert not can_fetch(fsspec.filesystem("memory"))


def test_a_local_file_has_another_fingerprint_once_it_is_written(tmp_path: Path) -> None:
    """By size and time; servers are asked for the surest that they tell."""
    path = tmp_path / "a"
    path.write_text("1")
    fs = fsspec.filesystem("file")
    before = compute_file_fingerprint(fs, str(path), {})
    path.write_text("12")
    assert compute_file_fingerprint(fs, str(path), {}) != before
    web = fsspec.filesystem("http")
    assert compute_file_fingerprint(web, "x", {"size": 3, "ETag": '"e"', "mtime": 1}) == "3-e"
    assert compute_file_fingerprint(web, "x", {"size": 3}) is None
