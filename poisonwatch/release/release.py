"""Release: the rows that audits cleared, as they came in, with a manifest that says who cleared
what.

in = clean + quarantined + rejected        distinct rows that stand in the source now and were audited
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, Select, func, select, update

from poisonwatch import __version__
from poisonwatch.atomic import get_part_path
from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import verify_chain
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched, now
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

CLEARED_STATUSES = ("clean", "released")
QUARANTINED_STATUSES = ("flagged", "poison")
ROW_GROUP_ROWS = 1000  # of a Parquet file


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """Distinct rows; `pending` ones were pulled and not audited yet, and are in none of the others."""

    clean: int
    quarantined: int
    rejected: int
    pending: int

    @property
    def total(self) -> int:
        return self.clean + self.quarantined + self.rejected

    def record(self) -> dict[str, int]:
        """As it stands in the manifest."""
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

        clean.jsonl, clean.parquet     rows byte by byte as they came; a second format or schema goes to clean-2, and so on
        manifest.json                  counts, SHA-256 of the files and of every row, the audit that cleared it
        quarantine.jsonl               flagged and poisonous rows, with what is said of them
        rejected.jsonl                 rows that failed validation, with the expectation

    Raises InputError where the folder is there, no row was audited yet, or the decisions were
    tampered with.
    """
    chain = verify_chain(ledger)
    with ledger.write() as connection:
        counts = _write_files(connection, name, folder, chain)
        numbers = [
            row.row
            for row in connection.execute(
                _select_current_rows(name).where(rows.c.status == "clean")
            )
        ]
        for some in batched(numbers, VALUES_PER_STATEMENT):
            connection.execute(update(rows).where(rows.c.row.in_(some)).values(status="released"))
        get_part_path(folder).rename(
            folder
        )  # before the transaction ends: a crash between the two is mended by releasing again
    return counts


def preview_release(ledger: Ledger, name: str, folder: Path) -> ReleaseCounts:
    """Write what `release` would, and change nothing in the ledger. Raises InputError as it does."""
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
    if folder.exists():
        raise InputError(f"{folder} already exists: choose another folder, or remove it")
    part = get_part_path(folder)
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
        "decisions": {"number": chain[0], "hash": chain[1]},
    }
    _write_clean(connection, name, part, header)
    _write_lines(part / "quarantine.jsonl", _read_quarantined(connection, name))
    _write_lines(part / "rejected.jsonl", _read_rejected(connection, name))
    return counts


def _select_current_rows(name: str) -> Select[Any]:
    """Rows that stand in an audit's source now, each at its first place, in the order of files and
    positions.
    """
    first = (
        select(
            places.c.row,
            files.c.name,
            places.c.position,
            func.row_number()
            .over(partition_by=places.c.row, order_by=(files.c.name, places.c.position))
            .label("nth"),
        )
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name, files.c.gone_at.is_(None))
        .subquery()
    )
    return (
        select(rows, first.c.name, first.c.position)
        .join(first, first.c.row == rows.c.row)
        .where(first.c.nth == 1)
        .order_by(first.c.name, first.c.position)
    )


def _count_rows(connection: Connection, name: str) -> ReleaseCounts:
    standing = _select_current_rows(name).order_by(None).subquery()
    found: dict[str, int] = dict(
        connection.execute(select(standing.c.status, func.count()).group_by(standing.c.status))
        .tuples()
        .all()
    )

    def among(statuses: tuple[str, ...]) -> int:
        return sum(found.get(status, 0) for status in statuses)

    return ReleaseCounts(
        among(CLEARED_STATUSES),
        among(QUARANTINED_STATUSES),
        among(("rejected",)),
        among(("pending",)),
    )


class _RowWriter(Protocol):
    def add(self, raw: bytes) -> None: ...
    def close(self) -> None: ...


class _LinesWriter:
    """JSON Lines, a row's bytes as they came."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def add(self, raw: bytes) -> None:
        self.file.write(raw + b"\n")

    def close(self) -> None:
        self.file.close()


class _ParquetRowWriter:
    """Rows of one Arrow schema, each stored as a record batch of one row."""

    def __init__(self, path: Path, schema: bytes) -> None:
        self.schema = pa.ipc.read_schema(pa.py_buffer(schema))
        self.writer = pq.ParquetWriter(path, self.schema, compression="zstd")
        self.batches: list[pa.RecordBatch] = []

    def add(self, raw: bytes) -> None:
        self.batches.append(pa.ipc.read_record_batch(pa.py_buffer(raw), self.schema))
        if len(self.batches) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.batches:
            self.writer.write_table(
                pa.Table.from_batches(self.batches, self.schema).combine_chunks()
            )
            self.batches = []

    def close(self) -> None:
        self._flush()
        self.writer.close()


def _write_clean(connection: Connection, name: str, folder: Path, header: dict[str, Any]) -> None:
    """The clean split by format and schema, and the manifest beside it, a row a line."""
    kinds = {
        shape.shape: (shape.format, shape.schema) for shape in connection.execute(select(shapes))
    }
    writers: dict[tuple[str, bytes | None], _RowWriter] = {}
    split: dict[tuple[str, bytes | None], str] = {}
    written: dict[str, int] = {}
    covered: set[str | None] = (
        set()
    )  # audit ids; None where a person decided on a row that no audit took
    last = (
        select(results.c.row, func.max(results.c.audit).label("audit"))
        .group_by(results.c.row)
        .subquery()
    )
    standing = (
        _select_current_rows(name)
        .where(rows.c.status.in_(CLEARED_STATUSES))
        .order_by(None)
        .subquery()
    )
    cleared = (
        select(standing, audits.c.audit_id)
        .outerjoin(last, last.c.row == standing.c.row)
        .outerjoin(audits, audits.c.audit == last.c.audit)
        .order_by(standing.c.name, standing.c.position)
    )
    lines_path = folder / "rows.part"
    with ExitStack() as closing, lines_path.open("w", encoding="ascii") as lines:
        for row in connection.execute(cleared.execution_options(yield_per=VALUES_PER_STATEMENT)):
            kind = kinds[row.shape]
            if kind not in writers:
                suffix = "jsonl" if kind[1] is None else "parquet"
                nth = 1 + sum(path.endswith(suffix) for path in split.values())
                split[kind] = f"clean{f'-{nth}' if nth > 1 else ''}.{suffix}"
                path = folder / split[kind]
                writers[kind] = (
                    _LinesWriter(path) if kind[1] is None else _ParquetRowWriter(path, kind[1])
                )
                closing.callback(writers[kind].close)
            writers[kind].add(row.raw)
            entry = {
                "id": bytes(row.id).hex(),
                "sha256": bytes(row.digest).hex(),
                "source": row.name,
                "position": row.position,
                "file": split[kind],
                "audit_id": row.audit_id,
                "decided": row.decided,
            }
            lines.write(("" if not written else ",\n") + json.dumps(entry))
            written[split[kind]] = written.get(split[kind], 0) + 1
            covered.add(row.audit_id)
    header["audits"] = _describe_audits(connection, covered)
    header["files"] = [
        {"name": path, "rows": count, "sha256": hash_file(folder / path)}
        for path, count in written.items()
    ]
    with (
        (folder / "manifest.json").open("w", encoding="ascii") as manifest,
        lines_path.open(encoding="ascii") as lines,
    ):
        manifest.write(json.dumps(header)[:-1] + ', "rows": [\n')
        shutil.copyfileobj(lines, manifest)
        manifest.write("\n]}\n")
    lines_path.unlink()


def _describe_audits(connection: Connection, covered: set[str | None]) -> dict[str, dict[str, str]]:
    """What these audits' verdicts hold for."""
    query = select(audits.c.audit_id, audits.c.finished_at, audits.c.run_dir, versions).join(
        versions, versions.c.version == audits.c.version
    )
    found = {
        a.audit_id: {
            "model": a.model,
            "sentinels": a.sentinels,
            "finished_at": a.finished_at,
            "run": Path(a.run_dir).name,
        }
        for a in connection.execute(query)
    }
    return {
        audit_id: found[audit_id]
        for audit_id in sorted(covered - {None}, key=str)
        if audit_id is not None
    }


def _read_quarantined(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    last = (
        select(flags.c.row, func.max(flags.c.audit).label("audit")).group_by(flags.c.row).subquery()
    )
    record = (
        select(flags.c.row, flags.c.record)
        .join(last, (last.c.row == flags.c.row) & (last.c.audit == flags.c.audit))
        .subquery()
    )
    standing = (
        _select_current_rows(name)
        .where(rows.c.status.in_(QUARANTINED_STATUSES))
        .order_by(None)
        .subquery()
    )
    query = (
        select(standing, record.c.record)
        .outerjoin(record, record.c.row == standing.c.row)
        .order_by(standing.c.name, standing.c.position)
    )
    for row in connection.execute(query):
        said = json.loads(row.record) if row.record else {"example_id": bytes(row.id).hex()}
        yield {
            **said,
            "source": row.name,
            "position": row.position,
            "status": row.status,
            "decided": row.decided,
        }


def _read_rejected(connection: Connection, name: str) -> Iterator[dict[str, Any]]:
    last = (
        select(rejections.c.row, func.max(rejections.c.audit).label("audit"))
        .group_by(rejections.c.row)
        .subquery()
    )
    why = (
        select(rejections)
        .join(last, (last.c.row == rejections.c.row) & (last.c.audit == rejections.c.audit))
        .subquery()
    )
    standing = (
        _select_current_rows(name).where(rows.c.status == "rejected").order_by(None).subquery()
    )
    query = (
        select(standing, why.c.expectation, why.c.reason)
        .join(why, why.c.row == standing.c.row)
        .order_by(standing.c.name, standing.c.position)
    )
    for row in connection.execute(query):
        yield {
            "example_id": bytes(row.id).hex(),
            "source": row.name,
            "position": row.position,
            "expectation": row.expectation,
            "reason": row.reason,
        }


def _write_lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="ascii") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
