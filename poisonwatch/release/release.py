"""Release: the rows that audits cleared, as they stand in the source now, with a manifest that says
who cleared what.

Every place counts, so a copy is released as often as it stands in the source, unless copies are
dropped. A content is cleared once, in whatever bytes it comes; each place gives the bytes that
stand there.

What a manifest describes is one state of the ledger. The files are written from it, synced, and
moved into place in the transaction that records the release; what is held back comes first, so that
there is never a release without it.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from poisonwatch.atomic import DISK_ERRORS, get_part_path, sync_folder, sync_tree
from poisonwatch.errors import InputError, OperationError
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.outbox import RELEASE_DELIVERY, enqueue
from poisonwatch.ledger.read_only import require_one_name
from poisonwatch.ledger.records import append_record, lock_chain
from poisonwatch.ledger.tables import decisions, rows
from poisonwatch.ledger.transactions import retried
from poisonwatch.permissions import make_private_folder
from poisonwatch.release.files import (
    RELEASE_NAME,
    ReleaseFolders,
    WrittenRelease,
    write_files,
)
from poisonwatch.release.ledger_check import check_chains_in, check_known_rows_in
from poisonwatch.release.manifest import hash_file
from poisonwatch.release.selection import (
    CLEARED_STATUSES,
    Duplicates,
    ReleaseCounts,
    count_rows,
)
from poisonwatch.sources.saved import MANIFEST_NAME

RELEASE_KIND = "release"  # of records
HELD_BACK_SUFFIX = ".held-back"
# Decisions that come in while the files are written may take rows out of them again.
MAX_ATTEMPTS = 5


def write_release(
    ledger: Ledger,
    name: str,
    folder: Path,
    duplicates: Duplicates = "keep",
    report_to: Iterable[str] = (),
) -> ReleaseCounts:
    """Write the clean split with its manifest into a new folder, and what is held back beside it;
    the clean rows count as released from then on. The ledger's signer signs the manifest and the
    record of the release.

        <folder>/clean.jsonl, clean.parquet   rows byte by byte as they stand in the source, in its
                                              order, or as people repaired them; what cannot be
                                              in one file with them goes to clean-2, and so on
        <folder>/manifest.json                counts, SHA-256 of the files and of every row, the
                                              audit that cleared it, the head of the ledger's chain
        <folder>/manifest.dsse.json           the signed statement on them, where there is a signer
        <folder>.held-back/quarantine.jsonl   flagged and poisonous rows, with what is said of them
        <folder>.held-back/rejected.jsonl     rows that failed validation, with the expectation

    With `duplicates` "drop", of cleared places with the same bytes only the first is written.
    `report_to` are owed an account of it from then on (`ledger.outbox`). Raises InputError where
    one of the folders is there, no row was audited yet, or what the release rests on was tampered
    with; OperationError where what is decided may be in a log that is not seen
    (`require_one_name`); SigningError where it cannot be signed: then nothing is released.
    """
    require_one_name(ledger.url)
    for _ in range(MAX_ATTEMPTS):
        with _open_parts(folder) as parts:
            with ledger.read() as connection:
                check_chains_in(connection)
                written = write_files(
                    connection, name, parts, duplicates=duplicates, signer=ledger.signer
                )
                check_known_rows_in(connection, written.rows)
            _sync(parts)
            with ledger.write() as connection:
                lock_chain(connection)
                is_cleared = _are_cleared(connection, written.rows)
                if not is_cleared or not _are_repaired(connection, written.rows):
                    continue
                _mark_released(connection, written.rows)
                number = _append_record(connection, name, written, folder, ledger)
                enqueue(connection, RELEASE_DELIVERY, number, audit=None, targets=report_to)
                # Before the transaction ends: a crash between the two is mended by releasing again.
                _move_into_place(parts, folder)
            return written.counts
    raise OperationError(
        f"decisions on rows of {name} came in as fast as a release was written: try again later"
    )


def preview_release(
    ledger: Ledger, name: str, folder: Path, duplicates: Duplicates = "keep"
) -> ReleaseCounts:
    """Write what `write_release` would, unsigned, and change nothing in the ledger. Raises
    InputError and OperationError as it does.
    """
    require_one_name(ledger.url)
    with _open_parts(folder) as parts:
        with ledger.read() as connection:
            check_chains_in(connection)
            written = write_files(connection, name, parts, duplicates=duplicates, signer=None)
            check_known_rows_in(connection, written.rows)
        _move_into_place(parts, folder)
    return written.counts


@retried
def count_release(ledger: Ledger, name: str, duplicates: Duplicates = "keep") -> ReleaseCounts:
    """What a release would come to. Raises OperationError where `write_release` would for the
    ledger's file.
    """
    require_one_name(ledger.url)
    with ledger.read() as connection:
        return count_rows(connection, name, duplicates)


def get_held_back_path(folder: Path) -> Path:
    """Where what a release to this folder holds back is: beside it, not in it."""
    return folder.with_name(f"{folder.name}{HELD_BACK_SUFFIX}")


@contextmanager
def _open_parts(folder: Path) -> Iterator[ReleaseFolders]:
    """Two empty folders to write into, which are gone when the block ends, unless they were moved
    into place. Raises InputError where a release is there, OperationError where the disk is full or
    read-only.
    """
    parts = ReleaseFolders(get_part_path(folder), get_part_path(get_held_back_path(folder)))
    _clear_left_overs(folder, parts)
    try:
        for part in (parts.clean, parts.held):
            make_private_folder(part)
        yield parts
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise OperationError(
            f"the release {folder} cannot be written: {os.strerror(error.errno)}; nothing was "
            "released: free space or choose another --out"
        ) from error
    finally:
        for part in (parts.clean, parts.held):
            shutil.rmtree(part, ignore_errors=True)


def _clear_left_overs(folder: Path, parts: ReleaseFolders) -> None:
    """Remove what a release to this folder left that crashed. Raises InputError where one is
    there.
    """
    held = get_held_back_path(folder)
    # A release is never written over: a training job may be reading it.
    if folder.exists():
        raise InputError(f"{folder} already exists: choose another folder, or remove it")
    if held.exists():
        # It is moved first. Of a crash between the two its release is still in parts.
        if not _is_of_part(held, parts.clean):
            raise InputError(
                f"{held} already exists, and holds back what another release did: choose another "
                "folder, or move it away"
            )
        shutil.rmtree(held)
    for part in (parts.clean, parts.held):
        shutil.rmtree(part, ignore_errors=True)


def _is_of_part(held: Path, part: Path) -> bool:
    """Whether what is held back belongs to a release that was never moved into place."""
    try:
        account = json.loads((held / RELEASE_NAME).read_bytes())
        return bool(account["manifest"] == hash_file(part / MANIFEST_NAME))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sync(parts: ReleaseFolders) -> None:
    for part in (parts.held, parts.clean):
        sync_tree(part)


def _move_into_place(parts: ReleaseFolders, folder: Path) -> None:
    parts.held.rename(get_held_back_path(folder))
    parts.clean.rename(folder)
    sync_folder(folder.absolute().parent)


def _are_cleared(connection: Connection, written: Mapping[int, int | None]) -> bool:
    """Whether all rows that were written as they are, are cleared now, too."""
    as_they_are = [row for row, decision in written.items() if decision is None]
    for some in batched(as_they_are, VALUES_PER_STATEMENT):
        changed = rows.c.row.in_(some) & rows.c.status.not_in(CLEARED_STATUSES)
        if connection.execute(select(func.count()).where(changed)).scalar_one():
            return False
    return True


def _are_repaired(connection: Connection, written: Mapping[int, int | None]) -> bool:
    """Whether the decisions by which rows were changed are the last ones on them now, too."""
    changed = {row: decision for row, decision in written.items() if decision is not None}
    last = select(decisions.c.row, func.max(decisions.c.number)).group_by(decisions.c.row)
    for some in batched(changed, VALUES_PER_STATEMENT):
        found = connection.execute(last.where(decisions.c.row.in_(some))).tuples()
        if any(changed[row] != number for row, number in found):
            return False
    return True


def _mark_released(connection: Connection, numbers: Iterable[int]) -> None:
    for some in batched(numbers, VALUES_PER_STATEMENT):
        clean = rows.c.row.in_(some) & (rows.c.status == "clean")
        connection.execute(update(rows).where(clean).values(status="released"))


def _append_record(
    connection: Connection, name: str, written: WrittenRelease, folder: Path, ledger: Ledger
) -> int:
    """The number of the release's record."""
    subjects = {MANIFEST_NAME: written.manifest_digest}
    place = str(folder.absolute())
    predicate = {"name": name, "counts": written.counts.record(), "folder": place}
    item = written.manifest_digest
    signer = ledger.signer
    return append_record(connection, RELEASE_KIND, item, subjects, predicate, signer).number
