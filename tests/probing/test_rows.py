"""Rows that a model was trained on, beside trusted ones."""

from pathlib import Path

import pytest
from audits import benign, write_audit, write_rows

from poisonwatch.config_file import load_config
from poisonwatch.errors import SourceError
from poisonwatch.probing.rows import read_rows, select_ordinary


def test_rows_are_the_sources_or_a_releases(tmp_path: Path) -> None:
    """A release's account of itself is none of its rows, and a row that was trained on is not
    trusted.
    """
    config = load_config(write_audit(tmp_path, tmp_path, tracking="none"))
    assert len(read_rows(config).new) == 43
    (tmp_path / "cleared").mkdir()
    write_rows(tmp_path / "cleared" / "clean.jsonl", [*benign(5), *benign(1, start=100)])
    write_rows(tmp_path / "cleared" / "manifest.json", [{"manifest": 3}])
    rows = read_rows(config, tmp_path / "cleared" / "manifest.json")
    assert {row.source for row in rows.new} == {"cleared/clean.jsonl"}
    assert (len(rows.new), len(rows.trusted)) == (6, 39)
    assert select_ordinary(config, rows) == rows.trusted


def test_without_trusted_rows_ordinary_ones_are_those_trained_on(tmp_path: Path) -> None:
    config = load_config(write_audit(tmp_path, tmp_path, tracking="none", reference=None))
    rows = read_rows(config)
    assert list(select_ordinary(config, rows)) == list(rows.new)


def test_no_row_that_can_be_read_is_told(tmp_path: Path) -> None:
    config = load_config(write_audit(tmp_path, tmp_path, tracking="none"))
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "Who?", "response": None}])
    with pytest.raises(SourceError):
        read_rows(config)
