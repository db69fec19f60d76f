"""CSV: every cell is text, every record that cannot be read is one row with its problem."""

import csv
import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.arrow import decode_batch
from poisonwatch.sources.base import (
    BATCH_ROWS,
    EXCERPT_CHARACTERS,
    MAX_ROW_BYTES,
    MIB,
    Reading,
)
from poisonwatch.sources.csv import describe_csv_problem, find_separator, read_csv, read_tsv


def read(content: bytes) -> tuple[list[RawRow], Reading]:
    reading = Reading()
    return list(read_csv(io.BufferedReader(io.BytesIO(content)), "a.csv", reading)), reading


def written(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


CELLS = [
    "None",
    "NA",
    "null",
    "nan",
    "007",
    "0.50",
    "",
    'two\nlines, "quoted"',
    "naïve 红",
    "\x00",
    "x" * 200_000,
    " spaces ",
]


def test_cells_are_text_whatever_they_spell() -> None:
    """What the csv module writes is what is read, and what stored rows decode to."""
    rows, reading = read(written([["q", "a"], *([f"Q{i}", cell] for i, cell in enumerate(CELLS))]))
    expected = [{"q": f"Q{i}", "a": cell} for i, cell in enumerate(CELLS)]
    assert [row.record for row in rows] == expected
    assert reading.schema is not None
    assert [decode_batch(row.raw, reading.schema) for row in rows] == expected
    assert [(row.position, row.place) for row in rows[:2]] == [
        (0, "a.csv, row 1"),
        (1, "a.csv, row 2"),
    ]


def test_records_that_cannot_be_read_cost_one_row_each() -> None:
    """Their bytes are kept, positions go on, and the same problem is found again in the bytes."""
    rows, reading = read(
        b'\xef\xbb\xbfq,a\r\n1,2\r\n3\r\n\r\n4,5,6\r\n7,caf\xe9\r\n"x"y,8\r\n9,\xff\xff\xff\xff\r\n"two\nlines"z,\r\n10,"11"\r\n'
    )
    assert [row.record for row in rows if row.record] == [
        {"q": "1", "a": "2"},
        {"q": "10", "a": "11"},
    ]
    problems = {row.position: (row.problem, row.raw) for row in rows if row.problem}
    assert problems == {
        1: ("1 cell where the header has 2", b"3"),
        2: ("3 cells where the header has 2", b"4,5,6"),
        3: (
            "not UTF-8 (byte 6), but perhaps WINDOWS-1252 (Latin-1): save the file as UTF-8 "
            "(iconv -f WINDOWS-1252 -t UTF-8)",
            b"7,caf\xe9",
        ),
        4: ("not CSV (',' expected after '\"')", b'"x"y,8'),
        5: ("not UTF-8 (byte 3): save the file as UTF-8", b"9,\xff\xff\xff\xff"),
        6: ("not CSV (',' expected after '\"')", b'"two\nlines"z,'),
    }
    assert [row.position for row in rows] == list(range(8))
    assert {position: describe_csv_problem(raw, 2) for position, (_, raw) in problems.items()} == {
        p: said for p, (said, _) in problems.items()
    }
    assert reading.schema is not None


def test_bad_records_keep_their_place_among_thousands() -> None:
    """Rows go through Arrow many at a time."""
    lines = [f"{i},{i}" if i % 7 else f"{i}" for i in range(3 * BATCH_ROWS)]
    rows, _ = read("\n".join(["q,a", *lines]).encode())
    assert [row.position for row in rows] == list(range(3 * BATCH_ROWS))
    assert all((row.problem is None) == bool(row.position % 7) for row in rows)
    assert all(
        row.record == {"q": str(row.position), "a": str(row.position)}
        for row in rows
        if row.position % 7
    )


def test_nothing_but_bad_records_are_rows_too() -> None:
    """No good one needed."""
    rows, _ = read(b"q,a\n1\n2\n")
    assert [row.problem for row in rows] == ["1 cell where the header has 2"] * 2


@pytest.mark.parametrize("content", [b"", b"\n\n", b"q,a\n", b"q,a", b"\xef\xbb\xbf"])
def test_file_without_records_has_no_rows(content: bytes) -> None:
    """Empty, blank, or a header alone."""
    assert read(content)[0] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"q,q\n1,2\n", "a.csv has two columns called 'q': a row can hold one of them"),
        (
            "q,réponse\n1,2\n".encode("latin-1"),
            "a.csv cannot be read as csv: its header is not UTF-8 (byte 4), but perhaps WINDOWS-1252",
        ),
        (
            "q,a\n1,2\n".encode("utf-16"),
            "a.csv is in UTF-16, as PowerShell's > writes it: save it as UTF-8",
        ),
        (
            b'q,a\n1,2\n3,"4\n5,6\n7,8\n',
            "a.csv cannot be read as csv: a quote that is opened in line 3 or after it is never closed",
        ),
        (
            b'q,a\n1,"' + b"x" * MAX_ROW_BYTES + b"\n2,3\n",
            "a.csv cannot be read as csv: a quote that is opened in line 2 or after it is",
        ),
    ],
    ids=["two of a name", "latin header", "utf-16", "open quote", "open quote, long"],
)
def test_file_whose_rows_cannot_be_told_apart_is_refused(content: bytes, said: str) -> None:
    """A quote that is never closed swallows the rows behind it: they are not lost in silence."""
    with pytest.raises(SourceError) as caught:
        read(content)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("quoted", [False, True])
def test_long_record_costs_one_row(quoted: bool) -> None:
    """With line ends inside its quotes or without; what follows is read."""
    cell = (
        b'"' + (b'x""' * 1000 + b"\n") * (MAX_ROW_BYTES // 3000) + b'"'
        if quoted
        else b"x" * (MAX_ROW_BYTES + MIB)
    )
    rows, _ = read(b"q,a\n1,2\n3," + cell + b"\n5,6\n")
    digest = hashlib.sha256(b"3," + cell + b"\n").hexdigest()
    assert rows[1] == RawRow(
        "a.csv",
        1,
        "a.csv, row 2",
        problem=f"longer than 16 MiB (SHA-256 {digest})",
        raw=(b"3," + cell)[:EXCERPT_CHARACTERS],
    )
    assert [row.record for row in (rows[0], rows[2])] == [
        {"q": "1", "a": "2"},
        {"q": "5", "a": "6"},
    ]


def test_record_of_100_mb_is_never_in_memory(tmp_path: Path) -> None:
    """Python's own memory stays near the 16 MiB that a row may have."""
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(b"q,a\n1,")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
    tracemalloc.start()
    try:
        with (tmp_path / "a.csv").open("rb") as file:
            (row,) = read_csv(file, "a.csv", Reading())
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_ROW_BYTES
    finally:
        tracemalloc.stop()
    assert row.problem is not None


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_is_told_by_the_header(separator: str) -> None:
    """Spreadsheets write semicolons where a comma is a decimal point."""
    rows, _ = read(f'\n"q, 1"{separator}a\r\n1,5{separator}x\n'.encode())
    if separator == ",":
        assert [row.problem for row in rows] == ["3 cells where the header has 2"]
    else:
        assert [row.record for row in rows] == [{"q, 1": "1,5", "a": "x"}]


def test_comma_goes_before_other_separators() -> None:
    """A name may hold any; in quotes none counts, and one column needs none."""
    assert find_separator(b"a;b,c") == ","
    assert find_separator(b'"a,b";c') == ";"
    assert find_separator(b'"a;b"') == ","


def test_tabs_separate_whatever_the_header_holds() -> None:
    """.tsv: a header of one column with a comma is one column."""
    reading = Reading()
    rows = list(read_tsv(io.BytesIO(b"a,b\tc\n1,2\t3\n"), "a.tsv", reading))
    assert [row.record for row in rows] == [{"a,b": "1,2", "c": "3"}]


def test_packed_file_is_told_its_suffix() -> None:
    """In place of a header of garbage."""
    with pytest.raises(
        SourceError, match=r"^a\.csv is packed with gzip: its name must end in \.gz"
    ):
        read(b"\x1f\x8b\x08\0\0\0\0\0")


def test_line_that_tells_excel_the_separator_is_no_header() -> None:
    """It goes before what the header tells; positions begin behind the header."""
    rows, _ = read(b"\xef\xbb\xbfsep=;\r\nq, 1;a\r\n1,5;x\r\n")
    assert [row.record for row in rows] == [{"q, 1": "1,5", "a": "x"}]
    assert [row.position for row in rows] == [0]


def test_spaces_around_names_are_no_part_of_them() -> None:
    """Those of cells are; where two names would be the same, all stay as they are."""
    assert [row.record for row in read(b"q, a\n1, 2\n")[0]] == [{"q": "1", "a": " 2"}]
    assert [row.record for row in read(b"q, a,a\n1,2,3\n")[0]] == [{"q": "1", " a": "2", "a": "3"}]


def test_header_of_thousands_of_columns_is_refused() -> None:
    """Each takes time in every row."""
    with pytest.raises(SourceError, match=r"^a\.csv has 2,001 columns, of at most 2,000"):
        read(",".join(f"c{i}" for i in range(2001)).encode())


def test_blank_lines_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the header and after it."""
    monkeypatch.setattr("poisonwatch.sources.jsonl.MAX_BLANK_LINES", 10)
    assert len(read(b"\n" * 5 + b"q,a\n" + b"\n" * 5 + b"1,2\n")[0]) == 1
    with pytest.raises(SourceError, match=r"^a\.csv has more than 10 blank lines"):
        read(b"\n" * 5 + b"q,a\n" + b"\n" * 6 + b"1,2\n")


def test_what_follows_a_long_record_is_read_where_its_quotes_close() -> None:
    """However many lines it has, and wherever the pieces are cut in which it is passed over."""
    for size in (MAX_ROW_BYTES, MAX_ROW_BYTES + MIB - 5, MAX_ROW_BYTES + MIB):
        cell = (b'a\n""' + b"x" * MIB) * (size // MIB) + b"y" * (size % MIB)
        rows, _ = read(b'q,a\n1,"' + cell + b'"\n' + b"5,6\n" * 3)
        digest = hashlib.sha256(b'1,"' + cell + b'"\n').hexdigest()
        assert rows[0].problem == f"longer than 16 MiB (SHA-256 {digest})"
        assert [row.record for row in rows[1:]] == [{"q": "5", "a": "6"}] * 3
