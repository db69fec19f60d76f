"""Names that say that a file holds no rows, or is not to be read."""

import pytest

from poisonwatch.sources.side_files import describe_hidden, explain_name, is_hidden


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "train-00000-of-00001.parquet", "A.CSV.GZ", "a.tsv", "README.jsonl", "a.part.json"],
)
def test_files_of_rows_are_not_passed_over(name: str) -> None:
    """Whatever they are called before their suffix."""
    assert explain_name(name) is None


@pytest.mark.parametrize(
    ("name", "reason", "may_hold_rows"),
    [
        (".a.jsonl", "its name begins with .", True),
        ("_a.parquet", "its name begins with _", True),
        ("_a.zip", "its name begins with _", True),
        (".env", "its name begins with .", False),
        ("~$a.csv", "a temporary file", True),
        ("#a.jsonl#", "a temporary file", False),
        ("a.jsonl~", "a temporary file", False),
        ("a.jsonl.tmp", "a temporary file", False),
        ("a.jsonl.part", "a temporary file", False),
        ("a.parquet.crdownload", "a temporary file", False),
        (".a.jsonl.swp", "a temporary file", False),
        ("README.md", "a side file", False),
        ("README", "a side file", False),
        ("LICENSE.txt", "a side file", False),
        (".gitattributes", "a side file", False),
        (".DS_Store", "a side file", False),
        ("_SUCCESS", "a side file", False),
        (".part-0.parquet.crc", "a side file", False),
        ("card.yaml", "a side file", False),
        ("plot.PNG", "a side file", False),
        ("readme.zip", ".zip is not read", True),
        ("a.txt", ".txt is not read", True),
        ("a.tar", ".tar is not read", True),
        ("a.jsonl.lz4", ".lz4 is not read", True),
        ("part-00000", "its name ends in none of .arrow", True),
    ],
)
def test_other_names_say_why_and_whether_a_trainer_could_read_rows(
    name: str, reason: str, may_hold_rows: bool
) -> None:
    """A trainer goes by suffixes, and may read what is hidden."""
    found = explain_name(name)
    assert found is not None
    assert found[0].startswith(reason)
    assert found[1] is may_hold_rows


def test_hidden_names_can_be_asked_for() -> None:
    """By a pattern that is hidden itself."""
    assert is_hidden("_a.jsonl")
    assert not is_hidden("_a.jsonl", ["_*.jsonl"])
    assert is_hidden(".a.jsonl", ["_*.jsonl"])
    assert explain_name("_a.jsonl", ["_*.jsonl"]) is None
    assert describe_hidden("_a") == "its name begins with _"
