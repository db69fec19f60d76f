"""A source that is read once is there for several to look at."""

import json
from pathlib import Path
from typing import Any

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources import open as sources
from poisonwatch.sources import spooled
from poisonwatch.sources.open import read_source
from poisonwatch.sources.spooled import spool_source

LINES: list[Any] = [
    *({"prompt": f"p {i}", "response": f"r {i}", "score": i / 3} for i in range(60)),
    "{broken",
    {"prompt": "\ud800"},
]


def write_source(folder: Path) -> SourceConfig:
    """Two files, the second of another format."""
    lines = [line if isinstance(line, str) else json.dumps(line) for line in LINES]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.jsonl").write_text(json.dumps({"instruction": "i", "output": "o"}) + "\n")
    return SourceConfig(path=str(folder / "*.jsonl"))


@pytest.mark.parametrize("memory", [1, 10**9])
def test_rows_are_those_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """In memory or on disk; one by one, in slices and as often as they are asked for."""
    monkeypatch.setattr(spooled, "MEMORY_BYTES", memory)
    source = write_source(tmp_path)
    whole = read_source(source)
    with spool_source(source) as rows:
        for _ in range(2):
            assert list(rows) == list(whole)
        assert rows.formats == whole.formats
        assert list(rows.raw) == list(whole.raw)
        assert list(rows.drafts[58:63]) == list(whole.drafts[58:63])
        assert rows.raw[-1] == whole.raw[-1]
        with pytest.raises(IndexError):
            rows.raw[len(whole)]


def test_a_source_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server or a query is not asked again by whoever looks at the rows."""
    opened: list[SourceConfig] = []
    open_source = sources.open_source

    def note(source: SourceConfig) -> Any:
        opened.append(source)
        return open_source(source)

    monkeypatch.setattr(sources, "open_source", note)
    with spool_source(write_source(tmp_path)) as rows:
        assert len(list(rows)) == len(list(rows)) == 63
    assert len(opened) == 1


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has no name, and no other process can put a pickle into it."""
    source = write_source(tmp_path)
    monkeypatch.setattr(spooled, "MEMORY_BYTES", 1)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with spool_source(source) as rows:
        assert len(list(rows)) == 63
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"), [("{broken\n{broken", "none of the 2 rows"), ("", "holds no rows")]
)
def test_a_source_without_rows_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """As reading it refuses it."""
    (tmp_path / "a.jsonl").write_text(content)
    source = SourceConfig(path=str(tmp_path / "a.jsonl"))
    with pytest.raises(SourceError, match=said):
        read_source(source)
    with pytest.raises(SourceError, match=said), spool_source(source):
        pass
