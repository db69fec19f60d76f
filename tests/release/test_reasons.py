"""Why a row is not cleared, by manifest and ledger."""

from typing import Any

import pytest

from poisonwatch.release.known_rows import KnownBytes, KnownRow
from poisonwatch.release.manifest import ManifestEntry
from poisonwatch.release.reasons import (
    ManifestAudits,
    explain_entry,
    explain_entry_now,
    explain_row,
)

DIGEST = "ab" * 32
AUDITS = ManifestAudits(met={"one"}, read_otherwise={"three"}, set_otherwise={"four"})


def entry(audit_id: str | None = "one", decided: str | None = None) -> ManifestEntry:
    return ManifestEntry(
        id="0" * 64,
        sha256=DIGEST,
        source="a.jsonl",
        position=0,
        file="clean.jsonl",
        audit_id=audit_id,
        decided=decided,
    )


def known(
    status: str = "clean",
    flagged: int | None = 0,
    decided: str | None = None,
    read_otherwise: bool = False,
    set_otherwise: bool = False,
) -> KnownRow:
    """A row as the gate asks the ledger for it."""
    content = KnownRow(1, status, decided, flagged, read_otherwise, set_otherwise)
    content.add(KnownBytes(1, None, bytes.fromhex(DIGEST), None, stands=True))
    return content


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "unknown"),
        (known(), None),
        (known("released"), None),
        (known("flagged", 1), "flagged"),
        (known("clean", 1), "flagged"),
        (known(flagged=None), "another version"),
        (known(flagged=None, read_otherwise=True), "another tokenizer or template"),
        (known(flagged=None, set_otherwise=True), "other settings"),
        (known(flagged=0, read_otherwise=True, set_otherwise=True), None),
        (known("pending", None), "pending"),
        (known("flagged", 1, "benign"), None),
        (known("clean", 0, "poison"), "poison"),
    ],
)
def test_a_row_is_cleared_by_an_audit_or_a_person(row: Any, reason: str | None) -> None:
    """What a person decided is above what audits say."""
    assert explain_row(row) == reason


@pytest.mark.parametrize(
    ("audit_id", "decided", "reason"),
    [
        ("one", None, None),
        ("two", None, "another version"),
        ("three", None, "another tokenizer or template"),
        ("four", None, "other settings"),
        (None, None, "pending"),
        (None, "benign", None),
        ("one", "poison", "poison"),
    ],
)
def test_a_manifest_alone_says_by_which_audit(
    audit_id: str | None, decided: str | None, reason: str | None
) -> None:
    """Only audits of the required versions count."""
    assert explain_entry(entry(audit_id, decided), AUDITS) == reason


def test_what_the_ledger_says_now_counts_beside_the_manifest() -> None:
    """A flag since the release, an audit of another version, and bytes that are other ones, or
    stand nowhere any more, are reasons.
    """
    assert explain_entry_now(entry(), AUDITS, known()) is None
    assert explain_entry_now(entry(), AUDITS, known("flagged", 1)) == "flagged"
    assert explain_entry_now(entry("two"), AUDITS, known()) == "another version"
    assert explain_entry_now(entry("two"), AUDITS, known(decided="benign")) is None
    for kept in (("cd" * 32, True), (DIGEST, False)):
        other = known()
        other.versions.clear()
        other.add(KnownBytes(1, None, bytes.fromhex(kept[0]), None, stands=kept[1]))
        assert explain_entry_now(entry(), AUDITS, other) == "changed"
