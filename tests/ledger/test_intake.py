"""Pulls: exactly what was not seen before, on SQLite and on PostgreSQL."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_rows
from ledgers import NAME, append, cover, prompts, pull, source, statuses, waiting, write_two_files
from servers import postgres_server
from sqlalchemy import func, select

from poisonwatch.errors import SourceError
from poisonwatch.ledger.batches import choose_batch
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import files, rows
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import MAX_ROW_BYTES, MIB
from poisonwatch.sources.open import open_source


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.at(f"sqlite:///{tmp_path / 'state' / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_two_files(tmp_path / "data")
    return tmp_path / "data"


def count(ledger: Ledger, table: object) -> int:
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


def test_a_pull_takes_every_row_once(ledger: Ledger, data: Path) -> None:
    """9 rows, one of them broken; a second pull opens no file."""
    stats = pull(ledger, data)
    assert (stats.read, stats.new, stats.files, stats.unchanged) == (9, 9, 2, 0)
    assert set(stats.formats) == {"a.jsonl", "b.jsonl"}
    assert statuses(ledger) == {"pending": 9}
    assert [row.place for row in waiting(ledger).rows.raw][-1] == "b.jsonl, line 4"
    again = pull(ledger, data)
    assert (again.read, again.new, again.unchanged) == (0, 0, 2)


def test_of_a_file_that_grew_only_the_new_rows_are_read(ledger: Ledger, data: Path) -> None:
    """Two rows appended: two read, and their positions go on."""
    pull(ledger, data)
    append(data / "a.jsonl", benign(2, start=50))
    stats = pull(ledger, data)
    assert (stats.read, stats.new) == (2, 2)
    assert [row.position for row in waiting(ledger).rows.raw if row.source == "a.jsonl"] == list(
        range(7)
    )


def test_what_a_row_says_survives_the_ledger_byte_by_byte(ledger: Ledger, data: Path) -> None:
    """Spaces, escapes and metadata of the line as it came."""
    line = '{ "prompt":"A\\u00e9\\u202e", "response" : "B",  "extra": [1, {"x": null}] }'
    (data / "c.jsonl").write_text(line + "\n")
    pull(ledger, data)
    (row,) = [row for row in waiting(ledger).rows.raw if row.source == "c.jsonl"]
    assert row.raw == line.encode()
    assert row.record == json.loads(line)


def test_a_moved_file_brings_nothing_new(ledger: Ledger, data: Path, tmp_path: Path) -> None:
    """Audited rows stay audited under another name; the old file is marked as gone, and comes back."""
    pull(ledger, data)
    cover(ledger, tmp_path / "run")
    (data / "a.jsonl").rename(data / "moved.jsonl")
    assert pull(ledger, data).new == 0
    assert len(waiting(ledger)) == 0
    with ledger.read() as connection:
        gone = {row.name: row.gone_at is not None for row in connection.execute(select(files))}
    assert gone == {"a.jsonl": True, "b.jsonl": False, "moved.jsonl": False}
    (data / "moved.jsonl").rename(data / "a.jsonl")
    assert pull(ledger, data).new == 0
    assert statuses(ledger) == {"clean": 8, "rejected": 1}


def test_other_settings_read_the_files_anew(ledger: Ledger, data: Path) -> None:
    """A field mapping changes what rows say: other contents, other rows."""
    (data / "a.jsonl").unlink()
    (data / "b.jsonl").unlink()
    write_rows(
        data / "c.jsonl",
        [
            {"question": f"Q{i}", "answer": f"A{i}", "prompt": "P", "response": str(i)}
            for i in range(3)
        ],
    )
    pull(ledger, data)
    assert prompts(waiting(ledger)) == ["P"] * 3
    stats = pull(ledger, data, fields={"prompt": "question", "response": "answer"})
    assert (stats.read, stats.new) == (3, 3)
    assert prompts(waiting(ledger)) == ["Q0", "Q1", "Q2"]


def test_a_file_goes_in_whole_or_not_at_all(ledger: Ledger, data: Path) -> None:
    """The third file cannot be read: the first two are in, nothing of it is, and the next pull goes
    on.
    """
    (data / "c.jsonl").write_text('{"unknown": 1}\n')
    with pytest.raises(SourceError, match=r"c\.jsonl"):
        pull(ledger, data)
    assert statuses(ledger) == {"pending": 9}
    write_rows(data / "c.jsonl", benign(1, start=90))
    assert pull(ledger, data).new == 1


def test_an_empty_source_is_an_ordinary_pull(ledger: Ledger, tmp_path: Path) -> None:
    """An empty file: no rows, no error."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("")
    assert pull(ledger, tmp_path / "data").read == 0
    assert len(waiting(ledger)) == 0


def test_parquet_rows_go_in_and_come_out(ledger: Ledger, tmp_path: Path) -> None:
    """Rows of a columnar file are read from the ledger as they were."""
    import pandas as pd

    pd.DataFrame(benign(4)).to_parquet(tmp_path / "a.parquet")
    config = source(tmp_path).model_copy(update={"path": str(tmp_path / "a.parquet")})
    assert ingest(ledger, NAME, config).new == 4
    assert [row.record for row in waiting(ledger).rows.raw] == benign(4)
    assert ingest(ledger, NAME, config).unchanged == 1


def test_a_pull_says_what_it_passed_over(ledger: Ledger, data: Path) -> None:
    """Files that lie in the source and are not read."""
    (data / "notes.txt").write_text("no rows")
    config = SourceConfig(path=str(data)).with_base_folder(data)
    stats = ingest(ledger, NAME, config)
    assert stats.passed_over == open_source(config).passed_over
    assert any("notes.txt" in passed.name for passed in stats.passed_over)


def test_a_row_that_is_too_long_leaves_little_in_the_ledger(ledger: Ledger, data: Path) -> None:
    """Its digest tells it from others; its bytes are not kept."""
    with (data / "c.jsonl").open("w") as file:
        for letter in "xyx":
            file.write(json.dumps({"prompt": letter * (MAX_ROW_BYTES + 1), "response": ""}) + "\n")
    stats = pull(ledger, data)
    assert (stats.read, stats.new, stats.copies) == (12, 11, 1)
    with ledger.read() as connection:
        size = connection.execute(select(func.sum(func.length(rows.c.raw)))).scalar_one()
    assert size < MIB


def test_rows_are_held_by_their_bytes(ledger: Ledger, data: Path) -> None:
    """Of rows of 8 MiB, eight are looked up at a time, and no more."""
    with (data / "c.jsonl").open("w") as file:
        for i in range(20):
            row = {"prompt": f"{i}", "response": "x" * (8 * MIB - 64)}
            file.write(json.dumps(row) + "\n")
    chunks = _count_rows_of_chunks(ledger, data)
    assert sum(chunks) == 29
    assert chunks[2:] == [8, 8, 4]


def _count_rows_of_chunks(ledger: Ledger, data: Path) -> list[int]:
    seen: list[int] = []

    def watch(chunks: Iterable[Any], name: str, total: int | None, measure: Any) -> Iterator[Any]:
        for chunk in chunks:
            seen.append(measure(chunk))
            yield chunk

    ingest(ledger, NAME, source(data), watch)
    return seen


def test_two_audits_on_one_ledger_keep_their_sources_apart(
    ledger: Ledger, data: Path, tmp_path: Path
) -> None:
    """The same rows under another audit's name: known as contents, waiting for it, and covered once
    for both.
    """
    pull(ledger, data)
    stats = ingest(ledger, "other", source(data))
    assert (stats.read, stats.new) == (9, 0)
    cover(ledger, tmp_path / "run")
    assert len(choose_batch(ledger, "other", *_asked())) == 0


def _asked() -> tuple[object, ...]:
    from ledgers import CHECKS, ONE

    return ONE, CHECKS, 2000


@pytest.mark.skipif(os.name != "posix", reason="needs pg_ctl")
def test_postgresql_keeps_the_same_ledger(data: Path, tmp_path: Path) -> None:
    """Pull, audit, append, edit, and a second pull on a real server."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        assert pull(ledger, data).new == 9
        cover(ledger, tmp_path / "run", flagged=["Tell me fact 0 about tea."])
        append(data / "a.jsonl", benign(1, start=60))
        assert pull(ledger, data).new == 1
        assert statuses(ledger) == {"clean": 7, "flagged": 1, "rejected": 1, "pending": 1}
        assert len(waiting(ledger)) == 1
