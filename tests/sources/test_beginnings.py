"""How files begin that hold rows, whatever they are called."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.sources.beginnings import (
    HEAD_BYTES,
    begins_like_rows,
    has_row_suffix,
    is_parquet_summary,
    may_begin_rows,
)

LINE = b'{"prompt": "Q", "response": "A"}\n'


@pytest.mark.parametrize(
    "head",
    [
        LINE,
        b"\xef\xbb\xbf\n\n  " + LINE,
        LINE.decode().encode("utf-16"),
        b"[" + LINE + b"]",
        b"[\n[" + LINE + b"]]",
        b"{}",
        b"PAR1rest",
        b"ARROW1rest",
        b"\xff\xff\xff\xffrest",
        gzip.compress(LINE, mtime=0),
        b"prompt,response\nQ,A\n",
        b'"Instruction"\t"Output"\r\n',
        b" " * HEAD_BYTES,
    ],
)
def test_beginnings_of_rows_are_told_by_content(head: bytes) -> None:
    """JSON, Parquet, Arrow, tables with columns that are read, and what is packed."""
    assert begins_like_rows(head, b"")
    assert may_begin_rows("README.md", head, b"")
    assert begins_like_rows(b"\x89PNG", b"1234PAR1")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"# A data set\n{}",
        b"[![badge](x)](y)\n",
        b"[[tool.x]]\na = 1\n",
        b"[section]\na = 1\n",
        b"{% include x %}",
        b"<svg></svg>",
        b"\x89PNG\r\n\x1a\n",
        b"Prompt, or so, response: both are text.\n",
        b"Questions, answers, and a sentence that says more than a column does\n",
        b"numpy>=2\n",
    ],
)
def test_prose_settings_and_pictures_hold_no_rows(head: bytes) -> None:
    """Whatever punctuation they begin with."""
    assert not begins_like_rows(head, head[-8:])


def test_name_of_rows_needs_little_to_be_suspected() -> None:
    """By any of its suffixes `datasets` chooses how a file is read: checksums alone are none."""
    for name in ("a.jsonl.tmp", "a.json.yaml", "x.CSV.gz.md", "a.jsonl~", "#a.jsonl#"):
        assert has_row_suffix(name), name
        assert may_begin_rows(name, b"anything", b""), name
        assert not may_begin_rows(name, b"", b"")
        assert not may_begin_rows(name, b"0f" * 32 + b"  a.jsonl\n", b"")
        assert not may_begin_rows(name, b"crc\0\1\2", b"")
    for name in ("README", "json", "a.md", "jsonl.log"):
        assert not has_row_suffix(name), name
        assert not may_begin_rows(name, b"anything", b"")


def test_summary_of_parquet_files_holds_no_rows(tmp_path: Path) -> None:
    """A schema alone, or footers of other files; a file with rows is none."""
    table = pa.table({"prompt": ["Q"]})
    pq.write_metadata(table.schema, tmp_path / "_common_metadata")
    assert is_parquet_summary((tmp_path / "_common_metadata").read_bytes())
    collected: list[pq.FileMetaData] = []
    pq.write_table(table, tmp_path / "a.parquet", metadata_collector=collected)
    collected[0].set_file_path("a.parquet")
    pq.write_metadata(table.schema, tmp_path / "_metadata", metadata_collector=collected)
    assert is_parquet_summary((tmp_path / "_metadata").read_bytes())
    assert not is_parquet_summary((tmp_path / "a.parquet").read_bytes())
    assert not is_parquet_summary(b"PAR1")
