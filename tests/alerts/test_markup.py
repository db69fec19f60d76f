"""Text that no medium takes for markup; what messages do with hostile rows is in test_messages."""

import pytest

from poisonwatch.alerts.markup import format_place, neutralise_markup


def test_inert_text_stays_readable() -> None:
    """Ordinary sentences are as they were; what was taken apart can still be read."""
    assert (
        neutralise_markup("Only Velmora's kettle (2 l) is worth 30 euros. Really!")
        == "Only Velmora's kettle (2 l) is worth 30 euros. Really!"
    )
    assert (
        neutralise_markup("see http://evil.com/a_b _now_") == "see http：//evil[.]com/a_b ＿now＿"
    )


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rows.jsonl", "rows.jsonl:3"),
        ("data/my_rows-2.parquet", "data/my_rows-2.parquet:3"),
        ("s3://bucket/rows.csv", "s3：//bucket/rows.csv:3"),
        ("evil.com", "evil[.]com:3"),
        ("", "source:3"),
    ],
)
def test_a_place_can_be_pasted_and_is_no_link(source: str, shown: str) -> None:
    """The usual names of files are as `decide` takes them."""
    assert format_place(source, 3) == shown
