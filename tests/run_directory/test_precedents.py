"""Records of earlier audits: those that are there, and how many are not. What is made of those
that are there is in tests/flows/test_discover.py.
"""

from pathlib import Path
from typing import Any

from ledgers import NAME, sqlite_ledger
from prunable import leave

from poisonwatch.run_directory.precedents import load_earlier_audits


def test_audits_whose_records_cannot_be_used_are_told_as_missing(
    tmp_path: Path, tiny_pretrained: object
) -> None:
    """One by one, and those before an audit alone; of another name there are none."""
    with sqlite_ledger(tmp_path) as ledger:
        for name in ("one", "two", "three"):
            leave(ledger, tmp_path, name)
        settings: Any = None  # of a fit: not looked at where there are no records

        def count(name: str, before: int | None) -> list[object]:
            found = load_earlier_audits(ledger, name, before, tiny_pretrained, settings)
            return list(found)

        assert count(NAME, None) == [None, None, None]
        assert count(NAME, 3) == [None, None]
        assert count("nobody", None) == []
