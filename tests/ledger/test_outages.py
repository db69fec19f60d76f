"""Targets that are out of reach are known by name and target, and forgotten once they are not."""

from dataclasses import replace
from pathlib import Path

from clusters import pulled

from poisonwatch.ledger.outages import (
    Outage,
    clear_outage,
    forget_outages,
    list_outages,
    note_outage,
)

DOWN = Outage("json-1", "2026-07-01T10:00:00+00:00", 1, "2026-07-01T10:01:00+00:00", "answered 503")


def test_an_outage_is_noted_once_and_cleared(tmp_path: Path) -> None:
    """The last one counts; another audit's target of the same address is another."""
    later = replace(DOWN, failures=2)
    with pulled(tmp_path) as ledger, ledger.write() as connection:
        note_outage(connection, "tiny", DOWN)
        note_outage(connection, "other", DOWN)
        note_outage(connection, "tiny", later)
        assert list_outages(connection, "tiny") == {"json-1": later}
        forget_outages(connection, "tiny", ["json-1"])
        assert list_outages(connection, "tiny") == {"json-1": later}
        forget_outages(connection, "tiny", [])
        assert list_outages(connection, "tiny") == {}
        note_outage(connection, "tiny", DOWN)
        clear_outage(connection, "tiny", "json-1")
        assert list_outages(connection, "tiny") == {}
        assert list_outages(connection, "other") == {"json-1": DOWN}
