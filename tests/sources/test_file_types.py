"""How a file is read, told by its name."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonwatch.sources.file_types import detect_file_type, escape_name, list_file_types


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.jsonl", (".jsonl", None)),
        ("a.b.NDJSON.GZ", (".ndjson", "gzip")),
        ("a.json.zst", (".json", "zstd")),
        ("a.csv.bz2", (".csv", "bz2")),
        ("a.tsv.xz", (".tsv", "xz")),
        ("a.jsonl.xz", (".jsonl", "xz")),
        ("a.parquet", (".parquet", None)),
        ("a.parquet.gz", ("", None)),
        ("a.gz", ("", None)),
        ("jsonl", ("", None)),
        (".jsonl", ("", None)),
        ("a.txt", ("", None)),
    ],
)
def test_suffix_tells_how_a_file_is_read(path: str, kind: tuple[str, str | None]) -> None:
    """Texts may be compressed as a whole; columnar files are compressed inside. Case does not
    matter.
    """
    assert detect_file_type(path) == kind


def test_on_the_web_a_query_tells_nothing() -> None:
    """A token may end in anything."""
    assert detect_file_type("https://host/a.jsonl?token=x.csv", web=True) == (".jsonl", None)
    assert detect_file_type("https://host/a?token=x.csv", web=True) == ("", None)


def test_suffixes_are_listed_for_messages() -> None:
    """Sorted."""
    names = list_file_types().split(", ")
    assert names == sorted(names)
    assert {".jsonl", ".parquet", ".tsv"} <= set(names)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"na\xc3\xafve 1.jsonl", "naïve 1.jsonl"),
        (b"caf\xe9.jsonl", "caf\\xe9.jsonl"),
        (b"caf\\xe9.jsonl", "caf\\\\xe9.jsonl"),
        (b"a\nb\x1b[0m", "a\\u000ab\\u001b[0m"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        ("\U000e0041".encode(), "\\U000e0041"),
    ],
)
def test_names_are_shown_as_text_that_hides_nothing(name: bytes, shown: str) -> None:
    """Bytes that are no UTF-8, line ends, controls of terminals and of directions."""
    assert escape_name(os.fsdecode(name)) == shown


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=12), st.binary(max_size=12))
def test_shown_names_are_printable_and_differ_where_names_do(first: bytes, second: bytes) -> None:
    """escape(a) = escape(b) only if a = b; what is stored is UTF-8."""
    shown = [escape_name(os.fsdecode(name)) for name in (first, second)]
    assert (shown[0] == shown[1]) == (first == second)
    for text in shown:
        assert text.encode().decode() == text
        assert "\n" not in text
