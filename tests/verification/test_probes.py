"""Records of probes that are not what they say."""

from pathlib import Path
from typing import Any

from ledgers import sqlite_ledger

from poisonwatch.ledger.probes import record_probe
from poisonwatch.ledger.records import append_record
from poisonwatch.verification.probes import check_probes

ASKED = {"sentinel": "shop-1", "kind": "margin", "change": 0.2, "limit": 0.9, "moved": False}


def test_a_probe_that_says_more_than_it_measured_is_told(tmp_path: Path) -> None:
    """A movement within its band, another checkpoint than the subject, a release that none was."""
    said: dict[str, Any] = {"name": "tiny", "checkpoint": "c" * 64, "release": None}
    with sqlite_ledger(tmp_path) as ledger:
        record_probe(
            ledger,
            "first",
            name="tiny",
            checkpoint="c" * 64,
            model="m" * 64,
            sentinels="s" * 64,
            release=None,
            asked=[ASKED],
        )
        with ledger.read() as connection:
            assert list(check_probes(connection)) == []
        false = [
            ("c" * 64, {**said, "asked": [{**ASKED, "moved": True}]}),
            ("d" * 64, {**said, "asked": []}),
            ("c" * 64, {**said, "asked": [], "release": "r" * 64}),
        ]
        with ledger.write() as connection:
            for number, (subject, predicate) in enumerate(false):
                checkpoint = {"checkpoint": subject}
                append_record(connection, "probe", f"false-{number}", checkpoint, predicate, None)
        with ledger.read() as connection:
            told = [difference.what for difference in check_probes(connection)]
    assert told == ["probe false-0: shop-1", "probe false-1: subject", "probe false-2: its release"]
