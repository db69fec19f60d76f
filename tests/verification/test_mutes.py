"""Mutes that are none are found, also where whoever wrote them computed all hashes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import pulled, settings
from muting import audit_two_groups, days, muted
from tampering import verify

from poisonwatch.attestation.statement import hash_text
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import MUTE, UNMUTE, digest_muted
from poisonwatch.ledger.records import append_record
from poisonwatch.ledger.reminders import REMINDER_RECORD

SAID = {
    "name": "tiny",
    "on": "panel:shop",
    "rows": [],
    "panels": ["shop"],
    "severity": "high",
    "until": days(3).isoformat(timespec="seconds"),
    "why": "mine",
    "owner": "eve",
    "author": "eve",
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, settings("json://one"))
        yield opened


def forge(ledger: Ledger, kind: str, item: str, digest: str, said: dict[str, Any]) -> list[str]:
    """Append a record, and what verification says of it."""
    with ledger.write() as connection:
        append_record(connection, kind, item, {"x": digest}, said, signer=None)
    return [difference.words for difference in verify(ledger).differences]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"until": days(500).isoformat(timespec="seconds")}, "end"),
        ({"why": ""}, "reason"),
        ({"on": "panel:tea"}, "reason"),
        ({"rows": 7}, "the mutes"),
        ({"until": "never"}, "the mutes"),
    ],
)
def test_a_mute_that_nobody_could_make_is_found(
    ledger: Ledger, change: dict[str, Any], found: str
) -> None:
    """Too long, without a reason, of another name, or none at all."""
    said = SAID | change
    words = forge(ledger, MUTE, "panel:shop", digest_muted(said), said)
    assert any(found in line for line in words), words


def test_a_mute_covers_what_its_record_is_on(ledger: Ledger) -> None:
    """And the one that could be made is none of these."""
    assert forge(ledger, MUTE, "panel:shop", digest_muted(SAID), SAID) == []
    words = forge(ledger, MUTE, "panel:shop", hash_text("another"), SAID)
    assert any("what it covers" in line for line in words), words


def test_an_end_of_no_mute_is_found(ledger: Ledger) -> None:
    """Of a number that is none, or of another mute than it is on."""
    number = muted(ledger, "panel:shop").number
    said = {"mute": number, "on": "panel:shop", "why": "", "author": "eve"}
    words = forge(ledger, UNMUTE, str(number), hash_text("another"), said)
    assert any("subject" in line for line in words), words
    words = forge(ledger, UNMUTE, "1", hash_text("1"), said | {"mute": 1})
    assert any("the mute that it ends" in line for line in words), words


def test_a_record_of_a_reminder_that_is_not_there_is_found(ledger: Ledger) -> None:
    """By its key."""
    words = forge(ledger, REMINDER_RECORD, "a" * 16, hash_text("x"), {"name": "tiny", "rows": 1})
    assert any("a" * 16 in line for line in words), words
