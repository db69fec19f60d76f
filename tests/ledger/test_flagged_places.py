"""Where rows stand, by their ids."""

from pathlib import Path

from exported import ASKED, audited_rows
from ledgers import NAME

from poisonwatch.exports.flagged import collect_flagged
from poisonwatch.ledger.flagged_places import find_places
from poisonwatch.ledger.intake import ingest


def test_every_place_of_a_content_is_found_while_it_is_there(tmp_path: Path) -> None:
    """Copies, too; a file that is gone has none, and another audit's files are not looked at."""
    with audited_rows(tmp_path) as audited:
        ledger = audited.ledger
        (asked,) = (row for row in collect_flagged(ledger, NAME) if ASKED in str(row))
        id = asked["example_id"]
        there = [("data/a b.jsonl", 5), ("data/a b.jsonl", 6), ("data/c.jsonl", 1)]
        assert find_places(ledger, NAME, [id, "0" * 64]) == {id: there}
        assert find_places(ledger, "other", [id]) == {}
        (tmp_path / "data" / "a b.jsonl").unlink()
        with ledger.lock(NAME):
            ingest(ledger, NAME, audited.settings.source)
        assert find_places(ledger, NAME, [id]) == {id: there[2:]}
