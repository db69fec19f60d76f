"""Rows that are set apart as trusted: as they stood, no content on both sides, none lost."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.errors import InputError
from poisonwatch.flows.trusted_split import (
    TRUSTED_ROWS,
    Split,
    choose_trusted_count,
    relocate,
    split_source,
)
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import read_source


def make_rows(n: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Question {i}?", "response": f"Answer {i}."} for i in range(n)]


def write(path: Path, rows: list[dict[str, Any]]) -> SourceConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceConfig(path=str(path))


def split(source: SourceConfig, folder: Path, count: int = 3, seed: int = 0) -> Split:
    return split_source(source, count, seed, folder / "rows", folder / "trusted")


def read_ids(source: SourceConfig) -> list[str]:
    rows = read_source(source)
    found = [draft.to_example(row) for row, draft in rows]
    return sorted(row.id for row in found if row is not None)


def test_every_row_is_on_one_side_in_its_own_bytes(tmp_path: Path) -> None:
    """Copies of a trusted row go with it, whatever else they hold, and rows that cannot be read
    are counted.
    """
    rows = [*make_rows(20), *({**row, "score": 1} for row in make_rows(20))]
    source = write(tmp_path / "all.jsonl", [*rows, {"prompt": "Why?"}])
    with (tmp_path / "all.jsonl").open("a") as file:
        file.write("{no JSON\n")
    found = split(source, tmp_path)
    assert found == Split(audited=34, trusted=6, unread=2)
    audited = read_ids(relocate(source, str(tmp_path / "rows")))
    trusted = read_ids(relocate(source, str(tmp_path / "trusted")))
    assert not set(audited) & set(trusted)
    assert sorted([*audited, *trusted]) == read_ids(source)
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines()
    written = (tmp_path / "trusted" / "rows.jsonl").read_bytes().splitlines()
    assert set(written) < set(lines)


def test_the_draw_depends_on_contents_and_seed_alone(tmp_path: Path) -> None:
    """Not on the order of the rows."""
    drawn = []
    for number, (rows, seed) in enumerate(
        [(make_rows(30), 0), (make_rows(30)[::-1], 0), (make_rows(30), 1)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        split(write(folder / "all.jsonl", rows), folder, seed=seed)
        drawn.append(read_ids(SourceConfig(path=str(folder / "trusted"))))
    assert drawn[0] == drawn[1] != drawn[2]


def test_columns_stay_columns_and_settings_of_reading_go_along(tmp_path: Path) -> None:
    """Parquet stays Parquet, CSV becomes it, a packed file is unpacked; named fields are read by
    their names.
    """
    renamed = [{"q": row["prompt"], "a": row["response"]} for row in make_rows(12)]
    pq.write_table(pa.Table.from_pylist(renamed), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("q,a\n" + "".join(f"Why {i}?,So {i}.\n" for i in range(12)))
    packed = "".join(json.dumps(row) + "\n" for row in renamed).replace("Question", "Task")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(packed.encode()))
    for name, suffix in (("a.parquet", "parquet"), ("b.csv", "parquet"), ("c.jsonl.gz", "jsonl")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        fields = {"prompt": "q", "response": "a"}
        source = SourceConfig(path=str(tmp_path / name), fields=fields)
        assert split(source, folder) == Split(audited=9, trusted=3, unread=0)
        assert [path.name for path in (folder / "trusted").iterdir()] == [f"rows.{suffix}"]
        assert len(read_ids(relocate(source, str(folder / "trusted")))) == 3


def test_rows_that_something_beside_them_explains_are_refused(tmp_path: Path) -> None:
    """Elsewhere their fields would mean nothing, or something else."""
    data = tmp_path / "data"
    data.mkdir()
    write(data / "qa.jsonl", [{"q": f"Question {i}?", "a": f"Answer {i}."} for i in range(9)])
    columns = {"prompt": "q", "response": "a"}
    info = {"qa": {"file_name": "qa.jsonl", "columns": columns}}
    (data / "dataset_info.json").write_text(json.dumps(info))
    source = SourceConfig(path=str(data))
    assert len(read_ids(source)) == 9
    with pytest.raises(InputError, match="cannot be set apart"):
        split(source, tmp_path)


@pytest.mark.parametrize(
    ("contents", "count"), [(0, 0), (299, 0), (300, 100), (390, 130), (10_000, TRUSTED_ROWS)]
)
def test_a_third_of_a_batch_at_most_is_set_apart(contents: int, count: int) -> None:
    """And none, where that would not do to judge others by."""
    assert choose_trusted_count(contents) == count
