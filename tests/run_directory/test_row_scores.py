"""What an audit scored, row by row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.run_directory.row_scores import (
    list_row_scores,
    read_row_scores,
    summarise_sources,
)


def write(folder: Path) -> None:
    """Four rows of two files, on two panels with a sentinel each."""
    lines = []
    scores = {"a": (1.0, 5.0), "b": (3.0, 2.0), "c": (9.0, -1.0), "d": (float("nan"),) * 2}
    for position, (id, of_row) in enumerate(scores.items()):
        for panel, score in zip(("shop", "insult"), of_row, strict=True):
            line = {"example_id": id, "source": "two" if id == "c" else "one"}
            line |= {"position": position, "panel": panel, "sentinel_id": f"{panel}-1"}
            lines.append(line | {"score": score, "p_value": 0.5, "q_value": 1.0})
    table = pa.Table.from_pylist(lines)
    for name in ("example_id", "source", "panel", "sentinel_id"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].dictionary_encode())
    pq.write_table(table, folder / "scores.parquet")


def test_each_row_stands_once_by_its_highest_score(tmp_path: Path) -> None:
    """Page by page, of all files or of one; without rows that have no score."""
    write(tmp_path)
    found, total = list_row_scores(tmp_path)
    assert [(row.example_id, row.panel, row.score) for row in found] == [
        ("c", "shop", 9.0),
        ("a", "insult", 5.0),
        ("b", "shop", 3.0),
    ]
    assert total == 3
    assert [row.example_id for row in list_row_scores(tmp_path, page=2, size=2)[0]] == ["b"]
    assert [row.example_id for row in list_row_scores(tmp_path, "one")[0]] == ["a", "b"]
    assert list_row_scores(None) == ([], 0)


def test_each_file_has_its_counts(tmp_path: Path) -> None:
    """The strongest first."""
    write(tmp_path)
    found = summarise_sources(tmp_path, {"a"})
    assert [(one.source, one.rows, one.flagged, one.median_score) for one in found] == [
        ("two", 1, 0, 9.0),
        ("one", 2, 1, 4.0),
    ]


def test_a_row_has_a_score_a_panel(tmp_path: Path) -> None:
    """The strongest first; none of a row that is not there."""
    write(tmp_path)
    assert [row.panel for row in read_row_scores(tmp_path, "a")] == ["insult", "shop"]
    assert read_row_scores(tmp_path, "x") == read_row_scores(None, "a") == []
