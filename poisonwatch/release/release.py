"""Release: the rows that audits cleared, as they stand in the source now, with a manifest that says
who cleared what.

    in = clean + quarantined + rejected + dropped     places of the source whose rows were audited

Every place counts, so a copy is released as often as it stands in the source, unless copies are
dropped. A content is cleared once, in whatever bytes it comes; each place gives the bytes that
stand there.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    ScalarSelect,
    Subquery,
    Table,
    case,
    func,
    select,
    update,
)

from poisonwatch import __version__
from poisonwatch.atomic import get_part_path, write_jsonl
from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import verify_chain
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, now
from poisonwatch.ledger.placed_rows import select_placed_rows
from poisonwatch.ledger.tables import (
    audits,
    files,
    flags,
    rejections,
    results,
    rows,
    shapes,
    versions,
)
from poisonwatch.release.manifest import MANIFEST_VERSION, hash_file
from poisonwatch.release.writers import CleanSplit, RowKind

CLEARED_STATUSES = ("clean", "released")
QUARANTINED_STATUSES = ("flagged", "poison")
# How the settings begin that a file was read with since the bytes of all its places are kept.
KEPT_BYTES_PREFIX = '{"rules":'

Duplicates = Literal["keep", "drop"]


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """Places of the source, by what became of their rows; `pending` ones were pulled and not
    audited yet, and are in none of the others.

    `dropped` places are cleared and left out: copies of an earlier place's bytes. Of all audited
    places, `copies` have the bytes of an earlier one, and `contents` are distinct.
    """

    clean: int = 0
    quarantined: int = 0
    rejected: int = 0
    dropped: int = 0
    pending: int = 0
    copies: int = 0
    contents: int = 0

    @property
    def total(self) -> int:
        """Places whose rows were audited."""
        return self.clean + self.quarantined + self.rejected + self.dropped

    def record(self) -> dict[str, int]:
        """As it is in the manifest."""
        return {"in": self.total, **asdict(self)}


def write_release(
    ledger: Ledger, name: str, folder: Path, duplicates: Duplicates = "keep"
) -> ReleaseCounts:
    """Write the clean split, the manifest, and what is held back into a new folder; the clean rows
    count as released from then on.

        clean.jsonl, clean.parquet     rows byte by byte as they stand in the source, in its order;
                                       what cannot be in one file with them goes to clean-2, and so
                                       on
        manifest.json                  counts, SHA-256 of the files and of every row, the audit that
                                       cleared it
        quarantine.jsonl               flagged and poisonous rows, with what is said of them
        rejected.jsonl                 rows that failed validation, with the expectation

    With `duplicates` "drop", of cleared places with the same bytes only the first is written.
    Raises InputError where the folder is there, no row was audited yet, or the decisions were
    tampered with.
    """
    chain = verify_chain(ledger)
    with ledger.write() as connection:
        counts = _write_files(connection, name, folder, duplicates, chain=chain)
        _mark_released(connection, name)
        # Before the transaction ends: a crash between the two is mended by releasing again.
        get_part_path(folder).rename(folder)
    return counts


def preview_release(
    ledger: Ledger, name: str, folder: Path, duplicates: Duplicates = "keep"
) -> ReleaseCounts:
    """Write what `write_release` would, and change nothing in the ledger. Raises InputError as it
    does.
    """
    chain = verify_chain(ledger)
    with ledger.read() as connection:
        counts = _write_files(connection, name, folder, duplicates, chain=chain)
    get_part_path(folder).rename(folder)
    return counts


def count_release(ledger: Ledger, name: str, duplicates: Duplicates = "keep") -> ReleaseCounts:
    """What a release would come to."""
    with ledger.read() as connection:
        return _count_rows(connection, name, duplicates)


def _write_files(
    connection: Connection,
    name: str,
    folder: Path,
    duplicates: Duplicates,
    chain: tuple[int, str],
) -> ReleaseCounts:
    """The files of a release, in `<folder>.part`. `chain` is the number of decisions and the last
    one's hash.
    """
    # A release is never written over: a training job may be reading it.
    if folder.exists():
        raise InputError(f"{folder} already exists: choose another folder, or remove it")
    part = get_part_path(folder)
    # What a release left that crashed.
    shutil.rmtree(part, ignore_errors=True)
    counts = _count_rows(connection, name, duplicates)
    if not counts.total:
        raise InputError(
            f"the ledger holds no audited row of {name}: run `poisonwatch audit` first"
        )
    part.mkdir(parents=True)
    header = {
        "manifest": MANIFEST_VERSION,
        "name": name,
        "created": now(),
        "version": __version__,
        "duplicates": duplicates,
        "counts": counts.record(),
        # A chain that was cut off after them is found out by it.
        "decisions": {"number": chain[0], "hash": chain[1]},
    }
    _write_clean(connection, _select_released(name, duplicates), part, header)
    write_jsonl(part / "quarantine.jsonl", _read_quarantined(connection, name))
    write_jsonl(part / "rejected.jsonl", _read_rejected(connection, name))
    return counts


def _mark_released(connection: Connection, name: str) -> None:
    at = _select_places(name, "drop")
    clean = select(at.c.row).where(at.c.status == "clean", at.c.fate == "clean")
    for some in batched(connection.execute(clean).scalars().all(), VALUES_PER_STATEMENT):
        released = update(rows).where(rows.c.row.in_(some)).values(status="released")
        connection.execute(released)


def _select_places(name: str, duplicates: Duplicates) -> Subquery:
    """Every place of the source now (`select_placed_rows`), in no order, with the `fate` of its
    row: one of the counts.
    """
    at = select_placed_rows(name).order_by(None).subquery()
    is_cleared = at.c.status.in_(CLEARED_STATUSES)
    is_dropped = at.c.nth > 1
    if duplicates == "keep":
        # Of copies that were read before all bytes were kept, nobody knows how they differ.
        one_for_all = select(files.c.name).where(
            files.c.audit == name, ~files.c.reading.startswith(KEPT_BYTES_PREFIX)
        )
        is_dropped &= at.c.name.in_(one_for_all)
    fate = case(
        # Bytes that no parser reads are in no release, whatever was decided on them.
        (is_cleared & at.c.problem.is_not(None), "rejected"),
        (is_cleared & is_dropped, "dropped"),
        (is_cleared, "clean"),
        (at.c.status.in_(QUARANTINED_STATUSES), "quarantined"),
        else_=at.c.status,
    )
    return select(at, fate.label("fate")).subquery()


def _count_rows(connection: Connection, name: str, duplicates: Duplicates) -> ReleaseCounts:
    at = _select_places(name, duplicates)
    query = select(at.c.fate, func.count()).group_by(at.c.fate)
    found: dict[str, int] = dict(connection.execute(query).tuples().all())
    copies = func.count(case((at.c.nth > 1, 1)))
    audited = select(copies, func.count(at.c.row.distinct())).where(at.c.fate != "pending")
    copied, contents = connection.execute(audited).one()
    return ReleaseCounts(**found, copies=copied, contents=contents)


def _write_clean(
    connection: Connection, released: Executable, folder: Path, header: dict[str, Any]
) -> None:
    """The clean split by format and schema, and the manifest beside it, a row a line."""
    kinds: dict[int, RowKind] = {}
    for shape in connection.execute(select(shapes)):
        kinds[shape.shape] = shape.format, shape.schema
    # None where a person decided on a row that no audit took.
    audit_ids: set[str | None] = set()
    # The header needs what is known at the end, and the rows may be too many for the memory: their
    # lines wait in a file of their own.
    lines_path = folder / "rows.part"
    is_first = True
    with CleanSplit(folder) as split, lines_path.open("w", encoding="ascii") as lines:
        for row in connection.execute(released):
            entry = {
                "id": bytes(row.id).hex(),
                "sha256": bytes(row.digest).hex(),
                "source": row.name,
                "position": row.position,
                "file": split.add(kinds[row.shape], row.raw),
                "audit_id": row.audit_id,
                "decided": row.decided,
            }
            if not is_first:
                lines.write(",\n")
            lines.write(json.dumps(entry))
            is_first = False
            audit_ids.add(row.audit_id)
    header["audits"] = _describe_audits(connection, audit_ids - {None})
    header["files"] = []
    for file, count in split.row_counts.items():
        digest = hash_file(folder / file)
        header["files"].append({"name": file, "rows": count, "sha256": digest})
    # One JSON object, with a row a line: people and line tools can read it, too.
    with (
        (folder / "manifest.json").open("w", encoding="ascii") as manifest,
        lines_path.open(encoding="ascii") as lines,
    ):
        manifest.write(json.dumps(header)[:-1] + ', "rows": [\n')
        shutil.copyfileobj(lines, manifest)
        manifest.write("\n]}\n")
    lines_path.unlink()


def _select_released(name: str, duplicates: Duplicates) -> Executable:
    """The places that are released, in order, with the bytes that stand there, each with the id of
    the last audit that its row passed.
    """
    at = _select_places(name, duplicates)
    query = (
        select(at, audits.c.audit_id)
        .select_from(at)
        .outerjoin(audits, audits.c.audit == _select_last_audit(results, at))
        .where(at.c.fate == "clean")
        .order_by(at.c.name, at.c.position)
    )
    # Rows hold their bytes: never all of them at a time.
    return query.execution_options(yield_per=VALUES_PER_STATEMENT)


def _is_last(table: Table, at: Subquery) -> ColumnElement[bool]:
    """Whether this is what the last audit wrote of a place's row: of flags or rejections."""
    return (table.c.row == at.c.row) & (table.c.audit == _select_last_audit(table, at))


def _select_last_audit(table: Table, at: Subquery) -> ScalarSelect[int]:
    """The last audit that wrote one of these on a place's row: of flags, results or rejections."""
    # For each row on its own, from an index: joined to all last audits, rows would be compared with
    # each of them.
    of_row = table.alias()
    last = select(func.max(of_row.c.audit)).where(of_row.c.row == at.c.row)
    return last.correlate(at).scalar_subquery()


def _describe_audits(
    connection: Connection, audit_ids: Iterable[str | None]
) -> dict[str, dict[str, str | None]]:
    """What the results of these audits hold for."""
    query = select(audits.c.audit_id, audits.c.finished_at, audits.c.run_dir, versions).join(
        versions, versions.c.version == audits.c.version
    )
    described: dict[str, dict[str, str | None]] = {}
    for some in batched(audit_ids, VALUES_PER_STATEMENT):
        for audit in connection.execute(query.where(audits.c.audit_id.in_(some))):
            described[audit.audit_id] = {
                "model": audit.model,
                "sentinels": audit.sentinels,
                "reading": audit.reading,
                "finished_at": audit.finished_at,
                "run": Path(audit.run_dir).name,
            }
    return dict(sorted(described.items()))


def _read_quarantined(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    """Lines of quarantine.jsonl: the last flag of each row; its id alone where a person called a
    row poison that no audit flagged.
    """
    at = _select_places(name, "keep")
    query = (
        select(at.c.id, at.c.name, at.c.position, at.c.status, at.c.decided, flags.c.record)
        .select_from(at)
        .outerjoin(flags, _is_last(flags, at))
        .where(at.c.fate == "quarantined")
        .order_by(at.c.name, at.c.position)
    )
    for row in connection.execute(query):
        record = {"example_id": bytes(row.id).hex()}
        if row.record:
            record = json.loads(row.record)
        place = {"source": row.name, "position": row.position}
        yield {**record, **place, "status": row.status, "decided": row.decided}


def _read_rejected(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    """Lines of rejected.jsonl, each with the last reason."""
    at = _select_places(name, "keep")
    query = (
        select(at.c.id, at.c.name, at.c.position, rejections.c.expectation, rejections.c.reason)
        .select_from(at)
        .join(rejections, _is_last(rejections, at))
        .where(at.c.fate == "rejected")
        .order_by(at.c.name, at.c.position)
    )
    for row in connection.execute(query):
        yield {
            "example_id": bytes(row.id).hex(),
            "source": row.name,
            "position": row.position,
            "expectation": row.expectation,
            "reason": row.reason,
        }
