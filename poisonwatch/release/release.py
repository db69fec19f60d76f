"""Release: the rows that audits cleared, as they came in, with a manifest that says who cleared
what.

    in = clean + quarantined + rejected     distinct rows, in the source now, that were audited
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, Select, Subquery, func, select, update

from poisonwatch import __version__
from poisonwatch.atomic import get_part_path, write_jsonl
from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import verify_chain
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, now
from poisonwatch.ledger.queries import select_last_audits
from poisonwatch.ledger.tables import (
    audits,
    files,
    flags,
    places,
    rejections,
    results,
    rows,
    shapes,
    versions,
)
from poisonwatch.release.manifest import hash_file
from poisonwatch.release.writers import CleanSplit, RowKind

CLEARED_STATUSES = ("clean", "released")
QUARANTINED_STATUSES = ("flagged", "poison")


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """Distinct rows; `pending` ones were pulled and not audited yet, and are in none of the
    others.
    """

    clean: int
    quarantined: int
    rejected: int
    pending: int

    @property
    def total(self) -> int:
        """Rows that were audited."""
        return self.clean + self.quarantined + self.rejected

    def record(self) -> dict[str, int]:
        """As it is in the manifest."""
        return {
            "in": self.total,
            "clean": self.clean,
            "quarantined": self.quarantined,
            "rejected": self.rejected,
            "pending": self.pending,
        }


def write_release(ledger: Ledger, name: str, folder: Path) -> ReleaseCounts:
    """Write the clean split, the manifest, and what is held back into a new folder; the clean rows
    count as released from then on.

        clean.jsonl, clean.parquet     rows byte by byte as they came; a second format or schema
                                       goes to clean-2, and so on
        manifest.json                  counts, SHA-256 of the files and of every row, the audit that
                                       cleared it
        quarantine.jsonl               flagged and poisonous rows, with what is said of them
        rejected.jsonl                 rows that failed validation, with the expectation

    Raises InputError where the folder is there, no row was audited yet, or the decisions were
    tampered with.
    """
    chain = verify_chain(ledger)
    with ledger.write() as connection:
        counts = _write_files(connection, name, folder, chain)
        clean = _select_current_rows(name).where(rows.c.status == "clean")
        numbers = [row.row for row in connection.execute(clean)]
        for some in batched(numbers, VALUES_PER_STATEMENT):
            released = update(rows).where(rows.c.row.in_(some)).values(status="released")
            connection.execute(released)
        # Before the transaction ends: a crash between the two is mended by releasing again.
        get_part_path(folder).rename(folder)
    return counts


def preview_release(ledger: Ledger, name: str, folder: Path) -> ReleaseCounts:
    """Write what `write_release` would, and change nothing in the ledger. Raises InputError as it
    does.
    """
    chain = verify_chain(ledger)
    with ledger.read() as connection:
        counts = _write_files(connection, name, folder, chain)
    get_part_path(folder).rename(folder)
    return counts


def count_release(ledger: Ledger, name: str) -> ReleaseCounts:
    """What a release would come to."""
    with ledger.read() as connection:
        return _count_rows(connection, name)


def _write_files(
    connection: Connection, name: str, folder: Path, chain: tuple[int, str]
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
    counts = _count_rows(connection, name)
    if not counts.total:
        raise InputError(
            f"the ledger holds no audited row of {name}: run `poisonwatch audit` first"
        )
    part.mkdir(parents=True)
    header = {
        "manifest": 1,
        "name": name,
        "created": now(),
        "version": __version__,
        "counts": counts.record(),
        # A chain that was cut off after them is found out by it.
        "decisions": {"number": chain[0], "hash": chain[1]},
    }
    _write_clean(connection, name, part, header)
    write_jsonl(part / "quarantine.jsonl", _read_quarantined(connection, name))
    write_jsonl(part / "rejected.jsonl", _read_rejected(connection, name))
    return counts


def _select_current_rows(name: str) -> Select[Any]:
    """Rows that are in an audit's source now, each at its first place, in the order of files and
    positions.
    """
    nth = func.row_number().over(
        partition_by=places.c.row, order_by=(files.c.name, places.c.position)
    )
    ranked = (
        select(places.c.row, files.c.name, places.c.position, nth.label("nth"))
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name, files.c.gone_at.is_(None))
        .subquery()
    )
    return (
        select(rows, ranked.c.name, ranked.c.position)
        .join(ranked, ranked.c.row == rows.c.row)
        .where(ranked.c.nth == 1)
        .order_by(ranked.c.name, ranked.c.position)
    )


def _select_by_status(name: str, statuses: Sequence[str]) -> Subquery:
    """The current rows of these statuses, in no order: what they are joined to is ordered."""
    return _select_current_rows(name).where(rows.c.status.in_(statuses)).order_by(None).subquery()


def _count_rows(connection: Connection, name: str) -> ReleaseCounts:
    current = _select_current_rows(name).order_by(None).subquery()
    query = select(current.c.status, func.count()).group_by(current.c.status)
    found: dict[str, int] = dict(connection.execute(query).tuples().all())
    return ReleaseCounts(
        clean=sum(found.get(status, 0) for status in CLEARED_STATUSES),
        quarantined=sum(found.get(status, 0) for status in QUARANTINED_STATUSES),
        rejected=found.get("rejected", 0),
        pending=found.get("pending", 0),
    )


def _write_clean(connection: Connection, name: str, folder: Path, header: dict[str, Any]) -> None:
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
        for row in connection.execute(_select_cleared(name)):
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


def _select_cleared(name: str) -> Executable:
    """The cleared rows in order, each with the id of the last audit that it passed."""
    last = select_last_audits(results)
    current = _select_by_status(name, CLEARED_STATUSES)
    query = (
        select(current, audits.c.audit_id)
        .outerjoin(last, last.c.row == current.c.row)
        .outerjoin(audits, audits.c.audit == last.c.audit)
        .order_by(current.c.name, current.c.position)
    )
    # Rows hold their bytes: never all of them at a time.
    return query.execution_options(yield_per=VALUES_PER_STATEMENT)


def _describe_audits(
    connection: Connection, audit_ids: Iterable[str | None]
) -> dict[str, dict[str, str]]:
    """What the results of these audits hold for."""
    query = select(audits.c.audit_id, audits.c.finished_at, audits.c.run_dir, versions).join(
        versions, versions.c.version == audits.c.version
    )
    described: dict[str, dict[str, str]] = {}
    for some in batched(audit_ids, VALUES_PER_STATEMENT):
        for audit in connection.execute(query.where(audits.c.audit_id.in_(some))):
            described[audit.audit_id] = {
                "model": audit.model,
                "sentinels": audit.sentinels,
                "finished_at": audit.finished_at,
                "run": Path(audit.run_dir).name,
            }
    return dict(sorted(described.items()))


def _read_quarantined(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    """Lines of quarantine.jsonl: the last flag of each row; its id alone where a person called a
    row poison that no audit flagged.
    """
    last = select_last_audits(flags)
    last_flag = (
        select(flags.c.row, flags.c.record)
        .join(last, (last.c.row == flags.c.row) & (last.c.audit == flags.c.audit))
        .subquery()
    )
    current = _select_by_status(name, QUARANTINED_STATUSES)
    query = (
        select(current, last_flag.c.record)
        .outerjoin(last_flag, last_flag.c.row == current.c.row)
        .order_by(current.c.name, current.c.position)
    )
    for row in connection.execute(query):
        record = {"example_id": bytes(row.id).hex()}
        if row.record:
            record = json.loads(row.record)
        place = {"source": row.name, "position": row.position}
        yield {**record, **place, "status": row.status, "decided": row.decided}


def _read_rejected(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    """Lines of rejected.jsonl, each with the last reason."""
    last = select_last_audits(rejections)
    why = (
        select(rejections)
        .join(last, (last.c.row == rejections.c.row) & (last.c.audit == rejections.c.audit))
        .subquery()
    )
    current = _select_by_status(name, ("rejected",))
    query = (
        select(current, why.c.expectation, why.c.reason)
        .join(why, why.c.row == current.c.row)
        .order_by(current.c.name, current.c.position)
    )
    for row in connection.execute(query):
        yield {
            "example_id": bytes(row.id).hex(),
            "source": row.name,
            "position": row.position,
            "expectation": row.expectation,
            "reason": row.reason,
        }
