"""How a file is read, told by its name."""

import pytest

from poisonwatch.sources.file_types import detect_file_type, list_file_types


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
