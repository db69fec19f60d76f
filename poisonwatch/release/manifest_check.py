"""The gate on a release: its manifest against the files beside it, and its rows against what a
ledger says of them now.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import select

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.records import ChainHead, holds_head
from poisonwatch.ledger.tables import decisions
from poisonwatch.ledger.transactions import retried
from poisonwatch.release.answer import GateAnswer, RequiredVersions, UnclearedRow
from poisonwatch.release.known_rows import KnownRow, KnownRows
from poisonwatch.release.manifest import (
    Manifest,
    ManifestComparison,
    ManifestEntry,
    SchemaLookup,
    compare_manifest,
    load_manifest,
)
from poisonwatch.release.reasons import (
    REASON_ADDED,
    REASON_CHANGED,
    REASON_LOST,
    REASON_REPEATED,
    REASON_UNSIGNED,
    ManifestAudits,
    explain_entry,
    explain_entry_now,
    sort_audits,
)
from poisonwatch.release.statement import read_seal
from poisonwatch.sources.saved import SIGNED_NAME
from poisonwatch.text.display import excerpt

MAX_PATH_CHARS = 200


def check_manifest(
    path: Path,
    required: RequiredVersions,
    known: KnownRows | None = None,
    keys: Mapping[str, PublicKey] | None = None,
) -> GateAnswer:
    """Compare a manifest with the files beside it, and its rows with what a ledger says of them
    now.

    Without a ledger the answer is worth what the manifest is: with `keys`, one of them must have
    signed it. Raises InputError where it is none, or the ledger is not the one that it was written
    from.
    """
    manifest, digest = load_manifest(path)
    schema_of: SchemaLookup | None = None
    if known is not None:
        check_heads(known.ledger, path, manifest)
        schema_of, required = partial(_find_schema, known), known.required
    compared = compare_manifest(path.parent, manifest, schema_of)
    missing = _list_differences(compared)
    if known is not None and known.trust is not None:
        keys = known.trust.keys
    seal = read_seal(path.parent, manifest, digest, keys or {})
    if seal.exists and not seal.fits:
        signed = str(path.with_name(SIGNED_NAME))
        missing.append(UnclearedRow(signed, None, None, reason=REASON_CHANGED))
    # A ledger's own records say more, and say it now.
    if keys and known is None and not seal.signers:
        missing.append(UnclearedRow(str(path), None, None, reason=REASON_UNSIGNED))
    audits = sort_audits(manifest.audits, required)
    decided = 0
    columns_of: dict[str, set[bytes]] = {}  # by file
    for entries in batched(compared.present, VALUES_PER_STATEMENT):
        contents = _load_contents(known, entries)
        for entry in entries:
            content = contents.get(entry.id)
            columns_of.setdefault(entry.file, set()).update(_find_columns(entry, content))
            reason = _explain(entry, content, known, audits, is_sealed=bool(seal.signers))
            if reason:
                missing.append(_place_entry(entry, reason))
            elif (content or entry).is_cleared_by_person:
                decided += 1
    # By other columns than a row was kept by, its bytes say something else; a release never puts
    # two into one file.
    for name, columns in columns_of.items():
        if len(columns) > 1:
            missing.append(UnclearedRow(name, None, None, reason=REASON_CHANGED))
    return GateAnswer(
        rows=len(compared.present) + len(compared.lost) + len(compared.added),
        files=len(manifest.files),
        required=required,
        by_decision=decided,
        missing=tuple(missing),
        compared=known is not None,
        is_signed=seal.exists,
    )


@retried
def check_heads(ledger: Ledger, path: Path, manifest: Manifest) -> None:
    """Raises InputError where a ledger does not go through the heads that a manifest carries: it
    was cut off, or is another one.
    """
    with ledger.read() as connection:
        chain, decided = manifest.chain, manifest.decisions
        is_whole = chain is None or holds_head(connection, ChainHead(chain.number, chain.hash))
        if is_whole and decided is not None and decided.number:
            query = select(decisions.c.hash).where(decisions.c.number == decided.number)
            is_whole = connection.execute(query).scalar_one_or_none() == decided.hash
    if not is_whole:
        raise InputError(
            "the ledger was cut off or replaced: it does not hold what "
            f"{excerpt(str(path), MAX_PATH_CHARS)} was written from; restore the ledger from a "
            "backup"
        )


def _explain(
    entry: ManifestEntry,
    content: KnownRow | None,
    known: KnownRows | None,
    audits: ManifestAudits,
    is_sealed: bool,
) -> str | None:
    """Why a row of a manifest is not cleared, by the ledger if there is one; the manifest is signed
    by keys that count where it `is_sealed`.
    """
    if known is None:
        return explain_entry(entry, audits)
    reason = explain_entry_now(entry, audits, content)
    if content is None or reason:
        return reason
    found = content.find_digest(bytes.fromhex(entry.sha256))
    if found and known.is_surplus(content, found):
        return REASON_REPEATED
    # No record says which bytes a content without a place has, nor by which columns bytes are read;
    # and nobody computes a content's id from the bytes of a release.
    is_on_record = found is not None and found.is_placed and found.schema is None
    if known.trust is not None and not is_sealed and not is_on_record:
        return REASON_UNSIGNED
    return None if known.is_vouched_for(content) else REASON_UNSIGNED


def _find_columns(entry: ManifestEntry, content: KnownRow | None) -> set[bytes]:
    """The columns by which a row's bytes are read; none where the ledger does not know them."""
    if content is None:
        return set()
    found = content.find_digest(bytes.fromhex(entry.sha256))
    if found is None:
        return set()
    _, columns = found.key
    return {columns}


def _find_schema(known: KnownRows, entry: ManifestEntry) -> bytes | None:
    return known.find_schema(entry.id, bytes.fromhex(entry.sha256))


def _load_contents(
    known: KnownRows | None, entries: Sequence[ManifestEntry]
) -> dict[str, KnownRow]:
    if known is None:
        return {}
    ids = [entry.id for entry in entries]
    return known.load(ids, [bytes.fromhex(entry.sha256) for entry in entries])


def _list_differences(compared: ManifestComparison) -> list[UnclearedRow]:
    """What files and manifest do not agree on."""
    places: list[UnclearedRow] = []
    for name in compared.changed:
        places.append(UnclearedRow(name, None, None, reason=REASON_CHANGED))
    for name in compared.unlisted:
        places.append(UnclearedRow(name, None, None, reason=REASON_ADDED))
    for name, position in compared.added:
        places.append(UnclearedRow(name, position, None, reason=REASON_ADDED))
    for entry in compared.lost:
        places.append(_place_entry(entry, REASON_LOST))
    return places


def _place_entry(entry: ManifestEntry, reason: str) -> UnclearedRow:
    return UnclearedRow(entry.source, entry.position, entry.id, reason=reason)
