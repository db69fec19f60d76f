"""The files of a release, from one state of the ledger: what goes into the folder that is trained
on, and what is held back outside of it.

    <folder>/            clean.jsonl, clean.parquet, ...; manifest.json; manifest.dsse.json where
                         there is a signer
    <folder>.held-back/  quarantine.jsonl, rejected.jsonl; release.json, which names the manifest
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, Row, select

from poisonwatch import __version__
from poisonwatch.atomic import write_jsonl
from poisonwatch.attestation.signer import Signer
from poisonwatch.errors import InputError
from poisonwatch.ledger.audit_records import read_decisions_head
from poisonwatch.ledger.ledger import now
from poisonwatch.ledger.records import read_head
from poisonwatch.ledger.repairs import Repair, RowShape, repair_bytes
from poisonwatch.ledger.shapes import parse_format
from poisonwatch.ledger.tables import shapes
from poisonwatch.release.manifest import MANIFEST_VERSION, hash_file
from poisonwatch.release.selection import (
    Duplicates,
    ReleaseCounts,
    count_rows,
    describe_audits,
    read_quarantined,
    read_rejected,
    select_released,
)
from poisonwatch.release.statement import build_manifest_statement
from poisonwatch.release.writers import RowFiles, RowKind
from poisonwatch.sources.saved import MANIFEST_NAME, SIGNED_NAME
from poisonwatch.text.display import excerpt

QUARANTINE_NAME, REJECTED_NAME = "quarantine.jsonl", "rejected.jsonl"
MAX_PLACE_CHARS = 200
RELEASE_NAME = "release.json"  # beside what is held back: which release holds it back


@dataclass(frozen=True, slots=True)
class ReleaseFolders:
    """Where a release is written: the `clean` rows, to be trained on, and what is `held` back."""

    clean: Path
    held: Path


@dataclass(frozen=True, slots=True)
class WrittenRelease:
    """What was written: the counts, the manifest's SHA-256, and the rows of the ledger that are in
    it, by their numbers; of repaired ones the number of the decision, else None.
    """

    counts: ReleaseCounts
    manifest_digest: str
    rows: Mapping[int, int | None]


def write_files(
    connection: Connection,
    name: str,
    folders: ReleaseFolders,
    duplicates: Duplicates,
    signer: Signer | None,
) -> WrittenRelease:
    """Write the files of a release into two empty folders. Raises InputError where no row was
    audited yet, or the ledger's bytes of a row were changed, and SigningError.
    """
    counts = count_rows(connection, name, duplicates)
    if not counts.total:
        raise InputError(
            f"the ledger holds no audited row of {name}: run `poisonwatch audit` first"
        )
    header = {
        "manifest": MANIFEST_VERSION,
        "name": name,
        "created": now(),
        "version": __version__,
        "duplicates": duplicates,
        "counts": counts.record(),
        # Chains that were cut off after them are found out by these.
        "chain": read_head(connection)._asdict(),
        "decisions": read_decisions_head(connection)._asdict(),
    }
    released = select_released(name, duplicates)
    row_numbers = _write_clean(connection, released, folders.clean, header)
    digest = hash_file(folders.clean / MANIFEST_NAME)
    if signer is not None:
        statement = build_manifest_statement(digest, header)
        signed = signer.sign(statement.encode("ascii"))
        (folders.clean / SIGNED_NAME).write_text(signed + "\n", encoding="ascii")
    write_jsonl(folders.held / QUARANTINE_NAME, read_quarantined(connection, name))
    write_jsonl(folders.held / REJECTED_NAME, read_rejected(connection, name))
    account = {"manifest": digest, "name": name, "created": header["created"]}
    (folders.held / RELEASE_NAME).write_text(json.dumps(account) + "\n", encoding="ascii")
    return WrittenRelease(counts, digest, row_numbers)


def _write_clean(
    connection: Connection, released: Executable, folder: Path, header: dict[str, Any]
) -> dict[int, int | None]:
    """The clean split by format and schema, and the manifest beside it, a row a line; returns the
    numbers of the rows, with those of the decisions that repair them. The `header` gets what is
    known at the end.
    """
    kinds: dict[int, RowKind] = {}
    for shape in connection.execute(select(shapes)):
        kinds[shape.shape] = shape.format, shape.schema
    # None where a person decided on a row that no audit took.
    audit_ids: set[str | None] = set()
    repairs: dict[int, int | None] = {}
    # The header needs what is known at the end, and the rows may be too many for the memory: their
    # lines wait in a file of their own.
    lines_path = folder / "rows.part"
    is_first = True
    with RowFiles(folder) as split, lines_path.open("w", encoding="ascii") as lines:
        for row in connection.execute(released):
            _check_bytes(row.raw, row.digest, f"{row.name}:{row.position}")
            raw, facts = row.raw, _describe_content(row)
            if row.number is not None:
                raw = _repair_row(row, kinds[row.shape])
                facts = _describe_repair(row, raw)
            entry = {
                **facts,
                "source": row.name,
                "position": row.position,
                "file": split.add(kinds[row.shape], raw),
                "audit_id": row.audit_id,
                "decided": row.decided,
            }
            if not is_first:
                lines.write(",\n")
            lines.write(json.dumps(entry))
            is_first = False
            audit_ids.add(row.audit_id)
            repairs[row.row] = row.number
    header["audits"] = describe_audits(connection, audit_ids - {None})
    header["files"] = _list_files(folder, split.row_counts)
    # One JSON object, with a row a line: people and line tools can read it, too.
    with (
        (folder / MANIFEST_NAME).open("w", encoding="ascii") as manifest,
        lines_path.open(encoding="ascii") as lines,
    ):
        manifest.write(json.dumps(header)[:-1] + ', "rows": [\n')
        shutil.copyfileobj(lines, manifest)
        manifest.write("\n]}\n")
    lines_path.unlink()
    return repairs


def _describe_content(row: Row[Any]) -> dict[str, Any]:
    """Which content and bytes a line of the manifest is on."""
    return {"id": bytes(row.id).hex(), "sha256": bytes(row.digest).hex()}


def _describe_repair(row: Row[Any], raw: bytes) -> dict[str, Any]:
    """The same of a repaired row, and what it was before, by whose decision."""
    return {
        "id": bytes(row.repaired_id).hex(),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "original": _describe_content(row),
        "decision": row.number,
        "author": row.author,
    }


def _repair_row(row: Row[Any], kind: RowKind) -> bytes:
    """The bytes that a released place has instead of its own. Raises InputError where they are not
    those of the content that was decided on.
    """
    shape = RowShape(parse_format(kind[0]), kind[1])
    place = excerpt(f"{row.name}:{row.position + 1}", MAX_PLACE_CHARS)
    try:
        changed = repair_bytes(row.raw, shape, Repair(row.verdict, row.answer))
    except InputError as error:
        raise InputError(f"{place}: {error}; decide on it anew") from None
    if changed.example.id != bytes(row.repaired_id).hex():
        raise InputError(
            f"{place} becomes another row than decision {row.number} says: decide on it anew"
        )
    return changed.raw


def _check_bytes(raw: bytes, digest: bytes, place: str) -> None:
    """Raises InputError where bytes are not those that were pulled."""
    if hashlib.sha256(raw).digest() != bytes(digest):
        raise InputError(
            f"the bytes of {excerpt(place, MAX_PLACE_CHARS)} in the ledger were changed after they "
            "were pulled: restore the ledger from a backup"
        )


def _list_files(folder: Path, row_counts: Mapping[str, int]) -> list[dict[str, Any]]:
    files = []
    for name, count in row_counts.items():
        files.append({"name": name, "rows": count, "sha256": hash_file(folder / name)})
    return files
