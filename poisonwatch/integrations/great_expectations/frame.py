"""Rows as the table that expectations speak about."""

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass

import pandas as pd

from poisonwatch.examples import Example
from poisonwatch.integrations.great_expectations.cells import (
    NUMBERS,
    BatchFacts,
    Line,
    make_cell,
    replace_surrogates,
)
from poisonwatch.sources.open import SourceRows
from poisonwatch.text.language import LanguageDetector
from poisonwatch.validation import Facts

INDEX = "_row"


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows as a frame with a line for each: of every row whether there is a `problem`, `readable`
    with the columns asked for of the others.

    `_row` is a row's number in both. `examples` has an entry for every row, None where it is
    incomplete; `first` has the number of the first row with its content, its own where there is
    none before it; the bytes of `identical` rows stood earlier in the batch, too.
    """

    problems: pd.DataFrame
    readable: pd.DataFrame
    examples: list[Example | None]
    lines: Mapping[int, int]  # a row's line in `readable`
    first: Sequence[int]
    identical: int

    @property
    def copies(self) -> int:
        """How many rows have the content of an earlier one."""
        return sum(first != i for i, first in enumerate(self.first))

    def detail(self, row: int, column: str) -> str | None:
        """What a column says about a row."""
        if column in self.problems:
            found = self.problems[column].iat[row]
        else:
            found = self.readable[column].iat[self.lines[row]]
        # pandas gives an empty cell as NaN.
        if not isinstance(found, str):
            return None
        return found


def build_table(
    rows: SourceRows, facts: Facts, columns: Set[str], language: LanguageDetector | None
) -> RowTable:
    """Rows with the columns that are asked for, among `EXPECTATION_COLUMNS` and `record.NAME`;
    `language` is needed where it is one of them.
    """
    lines = _read_lines(rows)
    examples: list[Example | None] = [None] * len(rows)
    ids: set[str] = set()
    for line in lines:
        examples[line.number] = line.example
        if line.example is not None:
            ids.add(line.example.id)
    first, identical = _find_copies(rows, examples)
    earlier = {i: rows.raw[other] for i, other in enumerate(first) if other != i}
    # All ids at once: the ledger is asked once a batch.
    batch = BatchFacts(earlier, facts.select_known(ids), facts, language)
    return RowTable(
        problems=_build_problems(rows),
        readable=_build_readable(lines, columns, batch),
        examples=examples,
        lines={line.number: place for place, line in enumerate(lines)},
        first=first,
        identical=identical,
    )


def _find_copies(rows: SourceRows, examples: Sequence[Example | None]) -> tuple[list[int], int]:
    """By row the number of the first with its content, and how many repeat the bytes of an earlier
    row of that content.
    """
    first: list[int] = []
    of_content: dict[Hashable, int] = {}
    seen: set[Hashable] = set()
    identical = 0
    for i, (row, example) in enumerate(zip(rows.raw, examples, strict=True)):
        content: Hashable = (row.source, row.problem, row.raw)
        if example is not None:
            content = example.id
        first.append(of_content.setdefault(content, i))
        # Arrow's bytes do not hold the names of columns.
        written = (content, row.raw, tuple(row.record or ()))
        identical += written in seen
        seen.add(written)
    return first, identical


def _read_lines(rows: SourceRows) -> list[Line]:
    """The rows that can be read."""
    lines: list[Line] = []
    for number, (row, draft) in enumerate(rows):
        if draft.problem is None:
            format = rows.formats[row.source]
            lines.append(Line(number, row, draft, format=format, example=draft.to_example(row)))
    return lines


def _build_readable(lines: Sequence[Line], columns: Set[str], batch: BatchFacts) -> pd.DataFrame:
    frame = {INDEX: pd.Series([line.number for line in lines], dtype="int64")}
    for column in sorted(columns):
        cells = [make_cell(column, line, batch) for line in lines]
        # A type for each column, not what pandas would guess from the cells: of no rows, or of
        # empty cells alone, it would be another one.
        if column in NUMBERS:
            frame[column] = pd.Series(cells, dtype="int64")
        else:
            frame[column] = pd.Series(cells, dtype=object)
    return pd.DataFrame(frame)


def _build_problems(rows: SourceRows) -> pd.DataFrame:
    problems = [replace_surrogates(draft.problem) for draft in rows.drafts]
    numbers = range(len(rows))
    return pd.DataFrame({INDEX: numbers, "problem": pd.Series(problems, dtype=object)})
