"""The trusted rows that an audit compares with: a sample, drawn by ids."""

import json
from pathlib import Path

import pytest

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import resolve_config
from poisonwatch.examples import Example, Message
from poisonwatch.stride.sampling import draw_order
from poisonwatch.tasks.data import pull_reference


def example(i: int) -> Example:
    return Example.from_messages([Message("user", f"p {i}"), Message("assistant", f"r {i}")])


def write_config(folder: Path, most: int) -> AuditConfig:
    """Rows 0 to 29, the first of them twice."""
    rows = [{"prompt": f"p {i}", "response": f"r {i}"} for i in (*range(30), 0)]
    (folder / "trusted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"source": "r.jsonl", "sentinels": "s.yaml", "reference": "trusted.jsonl"}
    return resolve_config({**settings, "reference_rows": most, "seed": 5}, folder)


@pytest.mark.parametrize("most", [0, 4, 100])
def test_the_sample_is_the_first_rows_of_the_drawn_order(tmp_path: Path, most: int) -> None:
    """Of the source's rows and those called benign, without new ones: order(ids)[:most], in the
    order of the source, then of the benign.
    """
    new, benign = [example(3), example(40)], [example(40), example(50), example(7), example(51)]
    found = pull_reference.fn(write_config(tmp_path, most), new, benign)
    ids = [example(i).id for i in (*range(30), 50, 51) if i != 3]
    drawn = sorted(draw_order(ids, 5)[:most].tolist())
    assert [row.id for row in found.examples] == [ids[i] for i in drawn]
    assert found.copies == 1


def test_a_row_that_people_called_benign_is_theirs(tmp_path: Path) -> None:
    """Of one content, the row that they looked at."""
    seen = Example.from_messages(example(7).messages, source="rows.jsonl", position=70)
    found = pull_reference.fn(write_config(tmp_path, 100), [example(3)], [seen])
    assert [(row.source, row.position) for row in found.examples if row.id == seen.id] == [
        ("rows.jsonl", 70)
    ]


def test_with_nothing_new_nothing_is_read(tmp_path: Path) -> None:
    """The source need not even be there."""
    config = write_config(tmp_path, 4)
    (tmp_path / "trusted.jsonl").unlink()
    assert pull_reference.fn(config, [], [example(1)]).rows == 0
