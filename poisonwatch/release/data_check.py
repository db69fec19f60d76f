"""The gate on rows themselves: files, folders, globs and URLs that a trainer is given.

Every row is asked for by its content, its bytes, and how often these come; every file below a
folder is read, or told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Format, choose_format
from poisonwatch.ledger.intake import FORMAT_SAMPLE_ROWS, ROWS_PER_CHUNK
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, batched
from poisonwatch.ledger.row_bytes import BytesKey, identify_bytes
from poisonwatch.release.answer import GateAnswer, UnclearedRow
from poisonwatch.release.known_rows import KnownRow, KnownRows
from poisonwatch.release.reasons import (
    REASON_CHANGED,
    REASON_NOT_READ,
    REASON_REPEATED,
    REASON_UNREADABLE,
    REASON_UNSIGNED,
    explain_row,
)
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import fetch_ahead
from poisonwatch.sources.base import GIVEN, SourceFile
from poisonwatch.sources.open import open_source
from poisonwatch.text.display import excerpt

MAX_PROBLEM_CHARS = 200
MARK_INSIDE = "a byte-order mark (U+FEFF) begins a line inside it: save it as UTF-8 without one"


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A row of the data: its content's id and its bytes, or the `problem` that hides its
    content.
    """

    source: str
    position: int
    id: str | None
    key: BytesKey
    problem: str | None = None


def check_data(known: KnownRows, source: SourceConfig, seen: set[str] | None = None) -> GateAnswer:
    """Ask a ledger for every row of a source, whose files are named from the current folder. Those
    that were `seen`, by `SourceFile.identity`, are not read again, and those of this source are
    added. Raises SourceError where one cannot be read.
    """
    if seen is None:
        seen = set()
    opened = open_source(source, GIVEN)
    missing: list[UnclearedRow] = []
    for passed in opened.passed_over:
        if passed.may_hold_rows:
            # Whoever loads the folder may read what is passed over here.
            why = excerpt(passed.reason, MAX_PROBLEM_CHARS)
            missing.append(UnclearedRow(passed.name, None, None, REASON_NOT_READ, why))
    number, files, decided = 0, 0, 0
    unseen = [file for file in opened.units if _add_to_seen(file, seen)]
    for file in fetch_ahead(unseen):
        files += 1
        if file.has_mark_inside():
            missing.append(UnclearedRow(file.name, None, None, REASON_UNREADABLE, MARK_INSIDE))
        # A question to the ledger for some rows at a time: a file may be longer than the memory.
        for held in batched(_read_held_rows(file, source), VALUES_PER_STATEMENT):
            number += len(held)
            for row, content, reason in _explain(known, held):
                if reason:
                    missing.append(
                        UnclearedRow(row.source, row.position, row.id, reason, row.problem)
                    )
                elif content and content.is_cleared_by_person:
                    decided += 1
    return GateAnswer(
        rows=number,
        files=files,
        required=known.required,
        by_decision=decided,
        missing=tuple(missing),
        compared=True,
        passed_over=sum(not passed.may_hold_rows for passed in opened.passed_over),
    )


def _explain(
    known: KnownRows, held: Sequence[HeldRow]
) -> Iterator[tuple[HeldRow, KnownRow | None, str | None]]:
    """Each row with its content, if it is known, and why it is not cleared."""
    ids = [row.id for row in held if row.id]
    contents = known.load(ids, [row.key[0] for row in held])
    for row in held:
        content = contents.get(row.id or "")
        yield row, content, _explain_one(known, row, content)


def _explain_one(known: KnownRows, row: HeldRow, content: KnownRow | None) -> str | None:
    if row.id is None:
        return REASON_UNREADABLE
    reason = explain_row(content)
    if content is None or reason:
        return reason
    found = content.find_bytes(row.key)
    if found is None:
        return REASON_CHANGED
    if known.is_surplus(content, found):
        return REASON_REPEATED
    return None if known.is_vouched_for(content) else REASON_UNSIGNED


def _add_to_seen(file: SourceFile, seen: set[str]) -> bool:
    """Whether a file is new among those that were `seen`; it is one of them from now on."""
    # What could be two is read, however often it comes.
    if file.identity is None:
        return True
    is_new = file.identity not in seen
    seen.add(file.identity)
    return is_new


def _read_held_rows(file: SourceFile, source: SourceConfig) -> Iterator[HeldRow]:
    """The rows of a file, by the format that the first ones have, as in an audit."""
    format: Format | None = None
    for chunk in batched(file.read(), ROWS_PER_CHUNK):
        readable = [row.record for row in chunk if row.record is not None]
        if format is None and readable:
            settled = file.settle(source)
            format = choose_format(settled, readable[:FORMAT_SAMPLE_ROWS], file.name)
        for row in chunk:
            yield _hold_row(row, format, file.schema)


def _hold_row(row: RawRow, format: Format | None, schema: bytes | None) -> HeldRow:
    id, problem = None, row.problem
    if format is not None and row.record is not None:
        draft = format.read(row.record)
        example = draft.to_example(row)
        if example is None:
            problem = draft.problem or "it has no prompt, or no response"
        else:
            id = example.id
    if problem is not None:
        problem = excerpt(problem, MAX_PROBLEM_CHARS)
    return HeldRow(row.source, row.position, id, identify_bytes(row.raw, schema), problem)
