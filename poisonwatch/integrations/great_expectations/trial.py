"""A batch on trial: its rows go by in pieces, and what expectations find is added up.

A piece is a frame of some thousand rows, so that memory does not grow with the batch. Expectations
on single rows are asked of each piece. Those on the whole batch, or on what rows have in common,
are asked at the end: of all rows, and of the columns alone that they are about.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from poisonwatch.config import ValidationConfig
from poisonwatch.examples import Example, RawRow
from poisonwatch.formats.format import Draft
from poisonwatch.integrations.great_expectations.cells import BatchFacts
from poisonwatch.integrations.great_expectations.copies import Copies
from poisonwatch.integrations.great_expectations.evaluate import Outcome, evaluate
from poisonwatch.integrations.great_expectations.expectation import AuditExpectation
from poisonwatch.integrations.great_expectations.frame import INDEX, RowTable, build_table
from poisonwatch.integrations.great_expectations.suite import READABLE
from poisonwatch.sources.open import SourceRows
from poisonwatch.sources.unread import UnreadCounter, UnreadField
from poisonwatch.text.language import make_language_detector
from poisonwatch.validation import Check, Facts

PIECE_ROWS = 10_000
PIECE_BYTES = 32 * 2**20  # of rows: their cells are several times that


class Trial:
    """The expectations of a suite on the rows of a batch, whose `copies` are known."""

    def __init__(
        self,
        rows: SourceRows,
        suite: Sequence[AuditExpectation],
        validation: ValidationConfig,
        facts: Facts,
        copies: Copies,
    ) -> None:
        self._rows, self._suite, self._copies = rows, [READABLE, *suite], copies
        self._outcomes = [Outcome() for _ in self._suite]
        # By row the place in the suite of the first expectation that it fails, and what is to be
        # said of it.
        self._failed: dict[int, tuple[int, str | None]] = {}
        self._unread = UnreadCounter(facts.ignore)
        # By their places in the suite. The first is asked of other rows: of all.
        self._in_pieces = [i for i, e in enumerate(self._suite) if i > 0 and e.in_pieces]
        self._whole = [i for i, e in enumerate(self._suite) if not e.in_pieces]
        columns: set[str] = set()
        for expected in suite:
            columns.update(expected.columns)
            if expected.detail is not None:
                columns.add(expected.detail)
        self._columns = columns
        kept: set[str] = {INDEX}
        for i in self._whole:
            kept.update(self._suite[i].columns)
        self._kept_columns = sorted(kept)
        self._kept: list[pd.DataFrame] = []
        # The detector is an extra that need not be installed, and takes a moment to load.
        language = None
        if "language" in columns:
            language = make_language_detector(validation.languages)
        self._batch = BatchFacts({}, facts, language)

    def examine(self) -> Iterator[tuple[int, Example]]:
        """Put all rows on trial; of each content that is an example the first row's number and the
        example, as they go by.

        Raises ConfigError where an expectation of the user's cannot be evaluated.
        """
        first = self._copies.first
        copied = set(first[first != np.arange(len(first))].tolist())
        places: dict[int, str] = {}  # of rows that have copies
        start = 0
        for piece in _split(self._rows):
            earlier: dict[int, str] = {}
            for i, (row, draft) in enumerate(piece, start):
                self._unread.add(row.record, draft.unread)
                if i in copied:
                    places[i] = row.place
                elif first[i] != i:
                    earlier[i] = places[int(first[i])]
            batch = replace(self._batch, first=earlier)
            table = build_table(start, piece, self._rows.formats, self._columns, batch)
            self._ask_piece(table)
            for i, example in enumerate(table.examples, start):
                if example is not None and first[i] == i:
                    yield i, example
            start += len(piece)
        self._ask_whole()

    def make_checks(self) -> list[Check]:
        """What came of each expectation, once all rows were examined."""
        checks: list[Check] = []
        for expected, outcome in zip(self._suite, self._outcomes, strict=True):
            checks.append(outcome.make_check(expected))
        return checks

    def list_unread(self) -> list[UnreadField]:
        """The fields that are not read."""
        return self._unread.list_fields()

    def choose_refused(self) -> dict[int, int]:
        """By the first row of each content that is refused, the row whose failure is told: the
        first that fails.

        Copies differ in fields that are not read. Where the user's expectations are about these,
        one that fails refuses the content: it would be released at every place.
        """
        refused: dict[int, int] = {}
        for i in sorted(self._failed):
            refused.setdefault(int(self._copies.first[i]), i)
        return refused

    def find_failure(self, row: int) -> tuple[AuditExpectation, str | None]:
        """The first expectation that a row fails, and what is to be said of it."""
        place, detail = self._failed[row]
        return self._suite[place], detail

    def _ask_piece(self, table: RowTable) -> None:
        for i, outcome in enumerate(evaluate([READABLE], table.problems)):
            self._note(i, outcome, table)
        asked = [self._suite[i] for i in self._in_pieces]
        for i, outcome in zip(self._in_pieces, evaluate(asked, table.readable), strict=True):
            self._note(i, outcome, table)
        if self._whole:
            # Copied, for a part of a frame may hold on to all of it.
            self._kept.append(table.readable[self._kept_columns].copy())

    def _ask_whole(self) -> None:
        if not self._whole:
            return
        frame = pd.concat(self._kept, ignore_index=True)
        asked = [self._suite[i] for i in self._whole]
        for i, outcome in zip(self._whole, evaluate(asked, frame), strict=True):
            self._note(i, outcome, None)

    def _note(self, i: int, outcome: Outcome, table: RowTable | None) -> None:
        """Add what came of the i-th expectation on the rows of a table; None: on all, at once."""
        expected = self._suite[i]
        # Being a copy is no failure of the content, whoever asks.
        if expected.severity == "reject" and "copy_of" not in expected.columns:
            for row in outcome.rows:
                # What is asked of the whole batch comes late, and may stand before.
                if row in self._failed and self._failed[row][0] <= i:
                    continue
                detail = None
                if expected.detail is not None and table is not None:
                    detail = table.detail(row, expected.detail)
                self._failed[row] = i, detail
        if expected.in_pieces:
            outcome.rows = []
            self._outcomes[i].add(outcome)
        else:
            self._outcomes[i] = outcome


def _split(rows: SourceRows) -> Iterator[list[tuple[RawRow, Draft]]]:
    """The rows in pieces; of no rows an empty one, for even of none something is asked."""
    piece: list[tuple[RawRow, Draft]] = []
    size = 0
    is_split = False
    for row, draft in rows:
        if len(piece) == PIECE_ROWS or size > PIECE_BYTES:
            yield piece
            piece, size, is_split = [], 0, True
        piece.append((row, draft))
        size += len(row.raw)
    if piece or not is_split:
        yield piece
