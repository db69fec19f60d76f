"""Rows from files: what can be read is read, what cannot is named."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import web_server

from poisonwatch.errors import SourceError
from poisonwatch.formats.conversations import Turn
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import SourceRows, check_source, decode_row, open_source, read_source

GOOD = [{"prompt": f"Q{i}", "response": f"A{i}", "topic": "t"} for i in range(3)]
DRAFTS = [(Turn("user", f"Q{i}"), Turn("assistant", f"A{i}")) for i in range(3)]


def source(path: Path | str, base: Path | None = None, **more: object) -> SourceConfig:
    config = SourceConfig.model_validate({"path": str(path), **more})
    return config.with_base_folder(base) if base else config


def write_lines(path: Path, lines: Iterable[bytes]) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def lines_of(records: Iterable[object]) -> list[bytes]:
    return [json.dumps(record, ensure_ascii=False).encode() for record in records]


def turns(rows: SourceRows) -> list[object]:
    return [draft.turns for _, draft in rows]


def test_jsonl_rows_are_read_in_order_with_their_places(tmp_path: Path) -> None:
    """position counts rows from 0, place names file and line from 1; fields beside the format are
    metadata.
    """
    rows = read_source(source(write_lines(tmp_path / "a.jsonl", lines_of(GOOD)), base=tmp_path))
    assert turns(rows) == DRAFTS
    assert [(r.source, r.position, r.place) for r in rows.raw] == [
        ("a.jsonl", i, f"a.jsonl, line {i + 1}") for i in range(3)
    ]
    first, draft = next(iter(rows))
    assert dict(draft.to_example(first).metadata) == {"topic": "t"}
    assert len(rows) == 3


def test_broken_lines_are_named_and_the_rest_is_still_read(tmp_path: Path) -> None:
    """One broken line costs one row; blank lines cost none; places keep counting lines, positions
    rows.
    """
    good = lines_of(GOOD)
    lines = [
        b"\xef\xbb\xbf" + good[0],  # 1: byte-order mark
        b"",  # 2
        b'{"prompt": "cut',  # 3
        b"  \t\r",  # 4
        b'{"prompt": "\xff"}',  # 5
        b"[1, 2]",  # 6: two rows
        b'"text"',  # 7
        good[1] + b"\r",  # 8: CRLF
        b'{"prompt": ' + b"1" * 5000 + b"}",  # 9: a number Python refuses
        b"[" * 100_000,  # 10
        b"null",  # 11
        good[2],  # 12
    ]
    rows = read_source(source(write_lines(tmp_path / "a.jsonl", lines), base=tmp_path))
    read = [(row.position, row.place, row.problem) for row in rows.raw]
    assert [position for position, _, _ in read] == list(range(11))
    problems = {
        place.removeprefix("a.jsonl, line "): problem for _, place, problem in read if problem
    }
    assert problems["3"].startswith("not JSON (")
    assert problems["5"].startswith("not UTF-8 (byte 13)")
    assert problems["6, row 2"] == "a JSON int, not an object"
    assert problems["7"] == "a JSON str, not an object"
    assert "'prompt' is a number" in problems["9"]
    assert problems["10"] == "not JSON (too deep)"
    assert problems["11"] == "a JSON NoneType, not an object"
    assert {place.removeprefix("a.jsonl, line ") for _, place, problem in read if not problem} == {
        "1",
        "8",
        "12",
    }
    assert [draft.turns for row, draft in rows if row.problem is None] == DRAFTS
    assert all(draft.problem == row.problem for row, draft in rows)


def test_file_without_a_readable_row_is_refused_with_its_first_problem(tmp_path: Path) -> None:
    """A file of garbage is the wrong file, not a batch of bad rows."""
    write_lines(tmp_path / "a.jsonl", [b"# title", b"text"])
    with pytest.raises(
        SourceError,
        match=r"^a\.jsonl, line 1: not JSON \(.*\); none of the 2 rows of this file can be read$",
    ):
        read_source(source(tmp_path / "a.jsonl", base=tmp_path))


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".arrow", ".JSONL"]
)
def test_every_file_type_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    """JSON Lines, JSON, CSV, Parquet, Arrow; and again from the bytes that are kept of each row."""
    path = tmp_path / f"rows{suffix}"
    table = pa.Table.from_pylist(GOOD)
    if suffix == ".json":
        path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    elif suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, GOOD[0])
            writer.writeheader()
            writer.writerows(GOOD)
    elif suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        write_lines(path, lines_of(GOOD))
    rows = read_source(source(path))
    assert turns(rows) == DRAFTS
    assert [row.position for row in rows.raw] == [0, 1, 2]
    assert all(row.record and row.record["topic"] == "t" for row in rows.raw)
    (file,) = open_source(source(path)).units
    assert [decode_row(row.raw, file.schema) for row in file.read()] == GOOD


def test_csv_cells_are_text_whatever_they_spell(tmp_path: Path) -> None:
    """None, NA and null are answers; so are numbers in a column of numbers; line ends and quotes
    inside a cell survive.
    """
    answers = ["None", "NA", "null", "nan", 'two\nlines, "quoted"', "naïve 红"]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["prompt", "response"], *([f"Q{i}", answer] for i, answer in enumerate(answers))]
        )
    assert [draft.text(assistant=True) for _, draft in read_source(source(path))] == answers
    (tmp_path / "b.csv").write_text("instruction,input,output\n1+1,,2\n007,,0.50\n")
    assert turns(read_source(source(tmp_path / "b.csv"))) == [
        (Turn("user", "1+1"), Turn("assistant", "2")),
        (Turn("user", "007"), Turn("assistant", "0.50")),
    ]


def test_chat_messages_survive_parquet(tmp_path: Path) -> None:
    """Nested lists of {role, content} come back as such."""
    record = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    }
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    assert turns(read_source(source(tmp_path / "a.parquet"))) == [
        (Turn("user", "Hi"), Turn("assistant", "Hello"))
    ]


def test_json_rows_that_are_no_objects_are_named(tmp_path: Path) -> None:
    """The other rows of the list are read."""
    (tmp_path / "a.json").write_text(json.dumps([GOOD[0], 5, GOOD[1]]))
    rows = read_source(source(tmp_path / "a.json", base=tmp_path))
    assert [(row.place, row.problem) for row in rows.raw] == [
        ("a.json, row 1", None),
        ("a.json, row 2", "a JSON int, not an object"),
        ("a.json, row 3", None),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'"text"', r"a\.json, .*a JSON str, not an object"),
        (b"[1, 2", r"a\.json is not JSON \(row 3: .*, or use JSON Lines"),
        (b"\xff\xfe", r"a\.json is in UTF-16"),
        (b"[" * 100_000, r"a\.json is not JSON \("),
        (b"[" + b"1" * 5000 + b"]", r"a\.json, row 1: .* is a number"),
        (b"[]", r"holds no rows: point `source` at a file with at least one"),
    ],
)
def test_json_files_that_hold_no_list_of_rows_say_what_to_do(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """What was got, what is allowed."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_source(source(tmp_path / "a.json", base=tmp_path))


def test_globs_and_folders_read_their_files_in_order(tmp_path: Path) -> None:
    """A glob or folder stands for its row files, sorted; each keeps its own name, positions and
    format.
    """
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "b.jsonl", lines_of(GOOD[1:2]))
    write_lines(tmp_path / "data" / "a.jsonl", lines_of([{"instruction": "Q0", "output": "A0"}]))
    write_lines(tmp_path / "data" / "empty.jsonl", [])
    (tmp_path / "data" / "notes.txt").write_text("not rows")
    for path in (
        tmp_path / "data",
        tmp_path / "data" / "*",
        f"{tmp_path / 'data'}/",
        tmp_path / "data" / "[ab].jsonl",
        tmp_path / "**" / "*.jsonl",
    ):
        rows = read_source(source(path, base=tmp_path))
        assert turns(rows) == DRAFTS[:2]
        assert [(row.source, row.position) for row in rows.raw] == [
            ("data/a.jsonl", 0),
            ("data/b.jsonl", 0),
        ]
        assert {name: format.name for name, format in rows.formats.items()} == {
            "data/a.jsonl": "alpaca",
            "data/b.jsonl": "prompt",
        }


def test_file_urls_are_paths(tmp_path: Path) -> None:
    """file:// names files, folders and globs like a bare path."""
    write_lines(tmp_path / "a.jsonl", lines_of(GOOD))
    for url in (f"file://{tmp_path}/a.jsonl", f"file://{tmp_path}/*.jsonl", f"file://{tmp_path}"):
        assert turns(read_source(source(url))) == DRAFTS


def test_file_whose_name_holds_glob_characters_is_read(tmp_path: Path) -> None:
    """A file that exists is that file, not a pattern."""
    write_lines(tmp_path / "rows[1].jsonl", lines_of(GOOD))
    assert turns(read_source(source(tmp_path / "rows[1].jsonl"))) == DRAFTS


def test_given_format_overrules_detection(tmp_path: Path) -> None:
    """Both formats' fields are there: the user says which counts."""
    both = {"prompt": "P", "response": "R", "instruction": "I", "output": "O"}
    path = write_lines(tmp_path / "a.jsonl", lines_of([both]))
    assert turns(read_source(source(path))) == [(Turn("user", "I"), Turn("assistant", "O"))]
    assert turns(read_source(source(path, format="prompt"))) == [
        (Turn("user", "P"), Turn("assistant", "R"))
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "none.jsonl",
            r"none\.jsonl does not exist: check `source` \(relative paths start at the audit file's folder, ",
        ),
        ("none-*.jsonl", r"no file matches none-\*\.jsonl in .*: check `source`"),
        (
            "rows.txt",
            r"rows\.txt is not a file of rows: its name must end in one of \.arrow, \.csv, \.json, \.jsonl, \.ndjson, \.parquet, \.tsv",
        ),
        ("empty.jsonl", r"empty\.jsonl holds no rows: point `source` at a file with at least one"),
        ("blank.jsonl", r"blank\.jsonl holds no rows"),
        ("empty.csv", r"empty\.csv holds no rows"),
        ("empty.parquet", r"empty\.parquet holds no rows"),
        ("empty.json", r"empty\.json holds no rows"),
        ("broken.parquet", r"broken\.parquet cannot be read as parquet: "),
        ("broken.arrow", r"broken\.arrow cannot be read as arrow: "),
        (
            "unknown.jsonl",
            r"unknown\.jsonl: rows have the fields text, label; readable formats are messages: ",
        ),
        (
            "latin.csv",
            r"latin\.csv, row 1: not UTF-8 \(byte 4\).*; none of the 1 rows of this file can be read",
        ),
        (
            "magic://rows.jsonl",
            r"magic://rows\.jsonl cannot be reached \(check `source`\): Protocol not known: magic",
        ),
    ],
)
def test_what_cannot_be_read_says_what_was_got_and_what_to_do(
    tmp_path: Path, name: str, message: str
) -> None:
    """One SourceError of one line, with exit code 2."""
    (tmp_path / "rows.txt").write_text("x")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n \n\ufeff\n")
    for empty in ("empty.csv", "empty.parquet", "empty.json"):
        (tmp_path / empty).touch()
    (tmp_path / "latin.csv").write_bytes(b"prompt,response\ncaf\xe9,x\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "broken.arrow").write_bytes(b"not really")
    write_lines(tmp_path / "unknown.jsonl", lines_of([{"text": "x", "label": 1}]))
    with pytest.raises(SourceError, match=message) as caught:
        read_source(source(name if "://" in name else tmp_path / name, base=tmp_path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_folder_by_the_name_of_a_file_is_a_folder(tmp_path: Path) -> None:
    """Spark writes rows.jsonl/part-00000.jsonl."""
    (tmp_path / "data" / "odd.jsonl").mkdir(parents=True)
    write_lines(tmp_path / "data" / "odd.jsonl" / "part-0.jsonl", lines_of(GOOD))
    for path in ("data", "data/odd.jsonl", "data/*.jsonl"):
        assert turns(read_source(source(tmp_path / path))) == DRAFTS


def test_url_with_a_token_in_its_query_is_read_and_named_without_it(tmp_path: Path) -> None:
    """https://host/rows.jsonl?token=... (here from this machine): rows are read, the token appears
    nowhere.
    """
    write_lines(tmp_path / "rows.jsonl", lines_of(GOOD))
    with web_server(tmp_path) as url:
        rows = read_source(source(f"{url}/rows.jsonl?token=hunter2"))
        with pytest.raises(SourceError) as caught:
            read_source(source(f"{url}/none.jsonl?token=hunter2"))
    assert turns(rows) == DRAFTS
    assert {row.source for row in rows.raw} == {f"{url}/rows.jsonl"}
    assert "hunter2" not in str(caught.value)


def test_secrets_in_urls_stay_out_of_messages() -> None:
    """Of an address scheme, host and path are told."""
    with pytest.raises(SourceError) as caught:
        check_source(source("magic://user:hunter2@host/rows.jsonl?token=hunter3"))
    assert "hunter" not in str(caught.value)
    assert "magic://host/rows.jsonl" in str(caught.value)


def test_names_below_the_audit_folder_are_relative(tmp_path: Path) -> None:
    """Where a file lies elsewhere its path is whole, and never shows a password."""
    config = source("x", base=tmp_path)
    assert config.get_display_name(str(tmp_path / "data" / "a.jsonl")) == "data/a.jsonl"
    assert config.get_display_name("/elsewhere/a.jsonl") == "/elsewhere/a.jsonl"
    assert config.get_display_name("https://u:pw@host/a.jsonl") == "https://host/a.jsonl"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.jsonl",
            b'\xef\xbb\xbf{"n": "\xc3\xa9"}\r\n{"n": "\xff"}\n{"n": \n[1]\n"x"\n{"n": "\x00"}\n{"n": "\\u0000\\ud800"}\n',
        ),
        ("a.json", b'[{"n": "\xff"}, 1, [2], null, {"n": "\\ud800"}, {"n": NaN}]'),
        ("a.csv", b'\xef\xbb\xbfn,m\n1\n\xff,\n"a"b,c\n1,2,3\n\x00,2\n'),
    ],
)
def test_stored_bytes_tell_the_record_or_the_problem_that_reading_told(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """decode(raw, schema) = record, or raises with the problem."""
    (tmp_path / name).write_bytes(content)
    (file,) = open_source(source(tmp_path / name)).units
    rows = list(file.read())
    assert len(rows) >= 5
    for row in rows:
        if row.problem is None:
            assert repr(decode_row(row.raw, file.schema)) == repr(
                row.record
            )  # NaN is not equal to itself
        else:
            with pytest.raises(ValueError, match=r".") as caught:
                decode_row(row.raw, file.schema)
            assert str(caught.value) == row.problem


def test_row_of_which_no_bytes_are_kept_says_so() -> None:
    """One that was too long."""
    with pytest.raises(ValueError, match=r"^nothing was kept of it but its SHA-256$"):
        decode_row(b"", None)


def test_column_that_vanishes_in_a_second_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Where the format is read off the columns; where it is given, the rows are there and lack
    their text.
    """
    pq.write_table(pa.Table.from_pylist(GOOD), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(GOOD).drop_columns(["response"]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"^b\.parquet: rows have the fields prompt, topic; "):
        read_source(source(tmp_path, base=tmp_path))
    rows = read_source(source(tmp_path, format="prompt"))
    assert [draft.text(assistant=True) for _, draft in rows] == ["A0", "A1", "A2", None, None, None]


def test_formats_may_differ_between_the_files_of_a_source(tmp_path: Path) -> None:
    """Each file is read by its own suffix and fields; rows of another format inside a file lack
    their texts, and none is lost.
    """
    write_lines(tmp_path / "a.jsonl", lines_of([*GOOD, {"instruction": "I", "output": "O"}]))
    (tmp_path / "b.csv").write_text("instruction,output\nI,O\n")
    (tmp_path / "c.json").write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"role": "user", "content": "I"},
                        {"role": "assistant", "content": "O"},
                    ]
                }
            ]
        )
    )
    rows = read_source(source(tmp_path, base=tmp_path))
    assert {name: format.name for name, format in rows.formats.items()}["b.csv"] == "alpaca"
    assert {name: format.name for name, format in rows.formats.items()}["c.json"] == "messages"
    assert len(rows) == 6
    assert turns(rows)[4:] == [(Turn("user", "I"), Turn("assistant", "O"))] * 2


def test_source_that_is_not_there_is_found_out_early_and_by_its_key(tmp_path: Path) -> None:
    """Files, data sets, databases: before anything is read."""
    for settings in (
        {"path": str(tmp_path / "none.jsonl")},
        {"hub": str(tmp_path / "none")},
        {"sql": f"sqlite:///{tmp_path}/none.db"},
    ):
        config = SourceConfig.model_validate(
            settings | ({"query": "SELECT 1"} if "sql" in settings else {})
        )
        with pytest.raises(SourceError, match=r"does not exist: check `reference"):
            check_source(config, "reference")
    (tmp_path / "empty.jsonl").touch()
    check_source(source(tmp_path / "empty.jsonl"))
