"""Files of web servers. What fails tells no secret."""

import base64
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remote_files import LINES, SECRET, opened, read, refusal
from servers import SilentHandler, free_port, web_server

from poisonwatch.sources.ahead import ReadAhead


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
