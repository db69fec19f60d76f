"""Why a row is not cleared.

    unknown, pending, rejected,        what the ledger says of the content (unknown: nothing)
    flagged, poison
    repaired                           a person flipped or edited it: what it became is cleared
    another version                    audited, but not under the required model and sentinels
    another tokenizer or template      under these, but from other tokens: read by another
                                       tokenizer, chat template, or setting of it
    other settings                     read alike, but judged by other settings of detection,
                                       screens or attribution, by another Poisonwatch, or not so
                                       strictly as the gate was told to ask for
    unreadable                         no prompt and response can be read, or a trainer could read
                                       others: nothing tells which content it is
    changed                            not the bytes that stand in the source for this content; of a
                                       file, not the file that was released
    one person's word                  a person cleared it, where two must agree
    unsigned                           what clears it is not signed by a key that counts
    repeated                           these bytes are there more often than in the source
    not read                           a file, or a folder, that a trainer may take for rows
    not in the manifest,               a row, or a file, that only one of the two has
    not in its file

A row without a reason is cleared.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poisonwatch.ledger.row_states import REPAIRED
from poisonwatch.release.answer import UNSIGNED, RequiredVersions
from poisonwatch.release.manifest import AuditedVersions, ManifestEntry
from poisonwatch.release.selection import CLEARED_STATUSES

if TYPE_CHECKING:
    from poisonwatch.release.known_rows import KnownRow

REASON_UNKNOWN = "unknown"
REASON_PENDING = "pending"
REASON_FLAGGED = "flagged"
REASON_REPAIRED = REPAIRED
REASON_VERSION = "another version"
REASON_READING = "another tokenizer or template"
REASON_SETTINGS = "other settings"
REASON_UNREADABLE = "unreadable"
REASON_CHANGED = "changed"
REASON_LONE = "one person's word"
REASON_UNSIGNED = UNSIGNED
REASON_REPEATED = "repeated"
REASON_NOT_READ = "not read"
REASON_ADDED = "not in the manifest"
REASON_LOST = "not in its file"


@dataclass(frozen=True, slots=True)
class ManifestAudits:
    """A manifest's audits, by their ids: those that `met` the required version, those that differ
    from it in how rows were read, and those that differ in their settings alone.
    """

    met: Set[str]
    read_otherwise: Set[str] = frozenset()
    set_otherwise: Set[str] = frozenset()


def sort_audits(
    audits: Mapping[str, AuditedVersions], required: RequiredVersions
) -> ManifestAudits:
    """What the audits that a manifest names, by their ids, are to the required version."""
    met, read_otherwise, set_otherwise = set(), set(), set()
    for audit_id, cover in audits.items():
        if not required.asks(cover.model, cover.sentinels):
            continue
        if not required.reads_alike(cover.reading):
            read_otherwise.add(audit_id)
        elif not required.is_set_alike(cover.settings):
            set_otherwise.add(audit_id)
        else:
            met.add(audit_id)
    return ManifestAudits(met, read_otherwise, set_otherwise)


def explain_entry(entry: ManifestEntry, audits: ManifestAudits) -> str | None:
    """Why a row is not cleared by what its manifest says of its audits."""
    # What a person decided is above what audits say.
    if entry.is_cleared_by_person:
        return None
    if entry.decided is not None:
        return entry.decided
    if entry.audit_id in audits.met:
        return None
    if entry.audit_id in audits.read_otherwise:
        return REASON_READING
    if entry.audit_id in audits.set_otherwise:
        return REASON_SETTINGS
    return REASON_VERSION if entry.audit_id else REASON_PENDING


def explain_entry_now(
    entry: ManifestEntry, audits: ManifestAudits, known: "KnownRow | None"
) -> str | None:
    """The same by what the ledger says now (as in `explain_row`): a row may have been flagged, or
    decided on, since the release.
    """
    reason = explain_row(known)
    if known is None or reason:
        return reason
    if known.find_digest(bytes.fromhex(entry.sha256)) is None:
        return REASON_CHANGED
    if known.is_cleared_by_person:
        return None
    return explain_entry(entry, audits)


def explain_row(row: "KnownRow | None") -> str | None:
    """Why a row is not cleared by what the ledger says: its `status`, what was `decided`, and
    whether an audit of the required versions `flagged` it. The names of statuses are reasons.
    """
    if row is None:
        return REASON_UNKNOWN
    if row.is_cleared_by_person:
        return None
    if row.status == REPAIRED:
        return REASON_REPAIRED
    state: str = row.decided or row.status
    if state not in CLEARED_STATUSES:
        return state
    if row.flagged is None:
        if row.set_otherwise:
            return REASON_SETTINGS
        return REASON_READING if row.read_otherwise else REASON_VERSION
    # Clean now by the word of another version, whose audit came later.
    return REASON_FLAGGED if row.flagged else None
