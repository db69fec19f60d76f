"""Rows as the table that expectations speak about."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import pandas as pd

from poisonwatch.examples import Example, RawRow
from poisonwatch.formats.format import Draft, Format
from poisonwatch.integrations.great_expectations.cells import (
    NUMBERS,
    BatchFacts,
    Line,
    make_cell,
    replace_surrogates,
)

INDEX = "_row"


@dataclass(frozen=True, slots=True)
class RowTable:
    """Successive rows of a batch, from number `start`, as a frame with a line for each: of every
    row whether there is a `problem`, `readable` with the columns asked for of the others.

    `_row` is a row's number in both. `examples` has an entry for every row, None where it is
    incomplete.
    """

    start: int
    problems: pd.DataFrame
    readable: pd.DataFrame
    examples: Sequence[Example | None]
    lines: Mapping[int, int]  # a row's line in `readable`

    def detail(self, row: int, column: str) -> str | None:
        """What a column says about a row."""
        if column in self.problems:
            found = self.problems[column].iat[row - self.start]
        else:
            found = self.readable[column].iat[self.lines[row]]
        # pandas gives an empty cell as NaN.
        if not isinstance(found, str):
            return None
        return found


def build_table(
    start: int,
    rows: Sequence[tuple[RawRow, Draft]],
    formats: Mapping[str, Format],
    columns: Set[str],
    batch: BatchFacts,
) -> RowTable:
    """Successive rows, from number `start`, with the columns that are asked for, among
    `EXPECTATION_COLUMNS` and `record.NAME`; the `formats` are those of their sources. What is
    known of their ids is asked here, once.
    """
    lines: list[Line] = []
    examples: list[Example | None] = []
    for number, (row, draft) in enumerate(rows, start):
        example = None
        if draft.problem is None:
            example = draft.to_example(row)
            format = formats[row.source]
            lines.append(Line(number, row, draft, format=format, example=example))
        examples.append(example)
    ids = {example.id for example in examples if example is not None}
    batch = replace(batch, known=batch.facts.select_known(ids))
    problems = [replace_surrogates(draft.problem) for _, draft in rows]
    numbers = range(start, start + len(rows))
    return RowTable(
        start=start,
        problems=pd.DataFrame({INDEX: numbers, "problem": pd.Series(problems, dtype=object)}),
        readable=_build_readable(lines, columns, batch),
        examples=examples,
        lines={line.number: place for place, line in enumerate(lines)},
    )


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
