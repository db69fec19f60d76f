"""A data set of the hub, read from a folder here, and from a stand-in that speaks as much of the
hub's API as that takes.
"""

import http.server
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import datasets
import pytest
from patience import PATIENCE_S
from servers import free_port, web_server

from poisonwatch.config_file import resolve_config
from poisonwatch.errors import SourceError
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.huggingface import open_hub, open_split
from poisonwatch.sources.open import decode_row, read_source

RECORDS = [{"prompt": f"Q{i}", "response": f"A{i}"} for i in range(1500)]
COMMIT = "a" * 40
SECRET = "hunter2hunter2"


def write(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two shards of training rows, and a test split."""
    place = tmp_path / "data"
    place.mkdir()
    write(place / "train-0.jsonl", RECORDS[:1400])
    write(place / "train-1.jsonl", RECORDS[1400:])
    write(place / "test.jsonl", RECORDS[:1])
    return place


def source(folder: Path, **more: Any) -> SourceConfig:
    return SourceConfig(hub=str(folder), **more).with_base_folder(folder.parent)


def refusal(config: SourceConfig) -> str:
    with pytest.raises(SourceError) as caught:
        read_source(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_split_is_streamed_in_the_order_of_its_shards(folder: Path) -> None:
    """Each row can be read again from its bytes."""
    split = open_split(source(folder), "source")
    rows = list(split.read())
    assert [row.record for row in rows] == RECORDS
    assert [decode_row(row.raw, split.schema) for row in rows] == RECORDS
    assert (rows[-1].source, rows[-1].position, rows[-1].place) == (
        "data/train",
        1499,
        "data/train, row 1500",
    )
    assert split.cursor is None
    assert not split.continued


def test_other_splits_have_other_names(folder: Path) -> None:
    """A split is a unit of its own."""
    rows = read_source(source(folder, split="test"))
    assert [row.record for row in rows.raw] == RECORDS[:1]
    assert rows.formats.keys() == {"data/test"}


def test_folder_that_changes_has_another_fingerprint(folder: Path) -> None:
    """Any of its files; also while it is read."""
    split = open_split(source(folder), "source")
    assert open_split(source(folder), "source").fingerprint == split.fingerprint
    (folder / ".git").mkdir()
    write(folder / ".git" / "index", RECORDS[:1])
    assert open_split(source(folder), "source").fingerprint == split.fingerprint
    rows = split.read()
    next(rows)
    write(folder / "train-1.jsonl", RECORDS[:3])
    assert open_split(source(folder), "source").fingerprint != split.fingerprint
    with pytest.raises(SourceError, match=r"^data/train changed while it was read"):
        list(rows)


def test_files_that_no_split_takes_are_told(folder: Path) -> None:
    """Hidden ones, side files, and rows of a kind that `datasets` does not choose; files of another
    split were not asked for, and one that it reads whatever its name is read.
    """
    (folder / "README.md").write_text("# Rows")
    (folder / "sub").mkdir()
    write(folder / "sub" / "train-2.jsonl", RECORDS[:2])
    write(folder / ".hidden.jsonl", RECORDS[:1])
    write(folder / "_train-3.jsonl", RECORDS[:3])
    (folder / "train.csv").write_text("prompt,response\nQ,A\n")
    found = open_hub(source(folder), "source")
    assert [unit.name for unit in found.units] == ["data/train"]
    assert {one.name: one.may_hold_rows for one in found.passed_over} == {
        "data/.hidden.jsonl": True,
        "data/README.md": False,
        "data/train.csv": True,
    }
    assert len(list(found.units[0].read())) == 1500 + 2 + 3


def test_link_that_leads_out_of_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """Unless it is wanted; the folder itself may be a link."""
    write(tmp_path / "secret.jsonl", RECORDS[:1])
    (folder / "train-2.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(SourceError, match=r"^data/train-2\.jsonl .*`source\.follow_links: true`"):
        open_hub(source(folder), "source")
    (split,) = open_hub(source(folder, follow_links=True), "source").units
    assert len(list(split.read())) == 1501
    (folder / "train-2.jsonl").unlink()
    (tmp_path / "link").symlink_to(folder)
    found = open_hub(source(tmp_path / "link"), "source")
    assert not found.passed_over
    assert len(list(found.units[0].read())) == 1500


@pytest.mark.parametrize(("split", "count"), [(None, 5), ("train", 3), ("test", 2)])
def test_folder_that_datasets_saved_is_read_as_one(
    tmp_path: Path, split: str | None, count: int
) -> None:
    """All its splits, unless one is chosen."""
    parts = datasets.Dataset.from_list(RECORDS[:5]).train_test_split(2, shuffle=False)
    parts.save_to_disk(tmp_path / "ds")
    found = open_hub(source(tmp_path / "ds", split=split), "source")
    assert sum(len(list(unit.read())) for unit in found.units) == count
    assert all(unit.name.startswith("ds/") for unit in found.units)
    assert len(read_source(source(tmp_path / "ds", split=split))) == count
    with pytest.raises(SourceError, match=r"ds has no split dev: .* train, test"):
        open_hub(source(tmp_path / "ds", split="dev"), "source")
    (unit,) = open_hub(source(tmp_path / "ds" / "train"), "source").units
    assert [row.record for row in unit.read()] == RECORDS[:3]


def test_relative_folder_starts_at_the_audit_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every path does; a name that is no folder there is one on the hub."""
    config = resolve_config({"source": {"hub": "data"}, "sentinels": ["s.yaml"]}, folder.parent)
    assert open_split(config.source, "source").name == "data/train"
    config = resolve_config({"source": {"hub": "org/name"}, "sentinels": ["s.yaml"]}, folder.parent)
    assert config.source.hub == "org/name"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"split": "nosplit"},
            "data/nosplit cannot be read: Bad split: nosplit. Available splits: ['train', 'test']",
        ),
        (
            {"subset": "other"},
            "data/other/train cannot be read: BuilderConfig 'other' not found. Available: ['default']",
        ),
    ],
)
def test_what_the_data_set_lacks_is_named(folder: Path, more: dict[str, str], said: str) -> None:
    """And what it has."""
    assert refusal(source(folder, **more)) == said


def test_broken_shard_is_refused(folder: Path) -> None:
    """A hub data set is read whole or not at all."""
    (folder / "train-1.jsonl").write_text('{"prompt": "x", broken\n')
    assert refusal(source(folder)).startswith("data/train cannot be read: JSON parse error")


def test_shard_without_a_column_gives_rows_that_lack_it(folder: Path) -> None:
    """They are still rows: validation says what is missing."""
    write(folder / "train-1.jsonl", [{"prompt": "x"}])
    rows = read_source(source(folder))
    assert rows.raw[-1].record == {"prompt": "x", "response": None}
    assert rows.drafts[-1].text(assistant=True) is None


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And is not looked for on the hub."""
    with pytest.raises(SourceError, match=r"none does not exist: check `reference`"):
        open_split(source(tmp_path / "none"), "reference")


class Hub(http.server.SimpleHTTPRequestHandler):
    """The data set org/name at one commit, for whom has no token or the right one."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        files = sorted(Path(self.directory).iterdir())
        if path in (
            "/api/datasets/org/name",
            *(f"/api/datasets/org/name/revision/{r}" for r in ("main", "v1", COMMIT)),
        ):
            self.answer(
                200,
                json.dumps(
                    {
                        "id": "org/name",
                        "sha": COMMIT,
                        "siblings": [{"rfilename": f.name} for f in files],
                    }
                ).encode(),
            )
        elif path in ("/api/datasets/org/name/tree/main", f"/api/datasets/org/name/tree/{COMMIT}"):
            entries = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "b" * 40}
                for f in files
            ]
            self.answer(200, json.dumps(entries).encode())
        elif (Path(self.directory) / name).is_file():
            content = (Path(self.directory) / name).read_bytes()
            start, _, end = (
                self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            )
            self.answer(
                206 if "Range" in self.headers else 200,
                content[int(start) : int(end or len(content)) + 1],
            )
        else:
            kinds = {
                "/gated": "GatedRepo",
                "/none": "RepoNotFound",
                "/revision/": "RevisionNotFound",
            }
            code = next((kind for part, kind in kinds.items() if part in path), "EntryNotFound")
            self.answer(403 if code == "GatedRepo" else 404, b"{}", code)

    def answer(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response(status)
        headers = {
            "ETag": f'"{"b" * 40}"',
            "X-Repo-Commit": COMMIT,
            "X-Error-Code": error,
            "Content-Length": str(len(body)),
        }
        for header, value in headers.items():
            if value:
                self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


READ = """
import json, sys
from poisonwatch.source_config import SourceConfig
from poisonwatch.errors import SourceError
from poisonwatch.sources.open import open_source
found = []
for asked in json.loads(sys.argv[1]):
    try:
        units = open_source(SourceConfig(**asked)).units
        found += [[unit.name, unit.fingerprint, [row.record for row in unit.read()][:2]] for unit in units]
    except SourceError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def asked(
    endpoint: str, cache: Path, *sources: dict[str, str], **environment: str
) -> tuple[list[Any], str]:
    """What a process with this hub gets for each source, and what it says on the side."""
    variables = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": SECRET,
        **environment,
    }
    command = [sys.executable, "-c", READ, json.dumps(sources)]
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stdout + done.stderr


def test_data_set_of_the_hub_is_read_at_the_commit_that_its_revision_names(
    folder: Path, tmp_path: Path
) -> None:
    """The stand-in answers for files of this commit alone, so nothing else was asked for; what is
    not there is told apart.
    """
    with web_server(folder, Hub) as url:
        found, said = asked(
            url,
            tmp_path / "cache",
            {"hub": "org/name"},
            {"hub": "org/name", "revision": "v1", "split": "test"},
            {"hub": "org/name", "revision": "v9"},
            {"hub": "org/none"},
            {"hub": "org/gated"},
            {"path": f"hf://datasets/org/name@{COMMIT}/te*.jsonl"},
        )
    assert found == [
        ["hf://datasets/org/name/train", COMMIT, RECORDS[:2]],
        ["hf://datasets/org/name/test", COMMIT, RECORDS[:1]],
        "hf://datasets/org/name has no revision v9: check `source`",
        "hf://datasets/org/none does not exist, or is private and HF_TOKEN holds no token for it: check `source`",
        "hf://datasets/org/gated is gated: ask for access on its page, and set HF_TOKEN to your token (`source`)",
        [
            f"hf://datasets/org/name@{COMMIT}/test.jsonl",
            f"{(folder / 'test.jsonl').stat().st_size}-{'b' * 40}",
            RECORDS[:1],
        ],
    ]
    assert SECRET not in said


def test_hub_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    """Refused port; offline by choice."""
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        (message,), said = asked(
            f"http://127.0.0.1:{free_port()}", tmp_path, {"hub": "org/name"}, **environment
        )
        assert message.startswith("hf://datasets/org/name cannot be reached (check `source`): ")
        assert SECRET not in said
