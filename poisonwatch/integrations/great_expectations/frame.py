"""Rows as the table that expectations speak about."""

import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import pandas as pd

from poisonwatch.examples import Example, RawRow
from poisonwatch.sources.conversations import Turn
from poisonwatch.sources.formats import SHAPES, Draft, Fields, Format
from poisonwatch.sources.open import SourceRows
from poisonwatch.text.language import LanguageDetector
from poisonwatch.validation import Facts, find_role_problem, mask_numbers

EXPECTATION_COLUMNS = {
    "prompt": "everything said to the assistant, turns joined by blank lines",
    "response": "everything the assistant says",
    "rejected": "of a preference row, everything the assistant says in the rejected conversation",
    "source": "the file, table or data set",
    "series": "the source, its numbers replaced by #",
    "position": "the zero-based row in its source",
    "format": "the name of the row format",
    "role_sequence": "the roles in order, as in 'system user assistant'",
    "turns": "how many turns",
    "characters": "length of all texts together",
    "tokens": "the same in tokens, of the longer conversation of a preference row; an estimate where no tokenizer is loaded yet",
    "language": "ISO 639 code by the beginning of prompt and response; needs the extra `languages`",
    "copy_of": "the place of the first row with the same messages",
    "lacks": "fields of the format that the row does not have",
    "role_problem": "what is wrong with the order of roles",
    "known": "whether the same messages were seen before",
}
"""What expectations can be about; beside these, `record.NAME` is the row's own field NAME. A cell is empty where there is nothing."""

INDEX = "_row"
RECORD_PREFIX = "record."
NUMBERS = {"position", "turns", "characters", "tokens"}
REPLACEMENT = "\ufffd"  # what broken Unicode turns into
SURROGATES = re.compile(r"[\ud800-\udfff]")
LANGUAGE_CHARACTERS = 150  # characters of a text that tell its language


Cell = Callable[[RawRow, Draft, Format], Any]
CELLS: dict[str, Cell] = {
    "prompt": lambda _row, draft, _format: _replace_surrogates(draft.text(assistant=False)),
    "response": lambda _row, draft, _format: _replace_surrogates(draft.text(assistant=True)),
    "rejected": lambda _row, draft, _format: _replace_surrogates(
        _join_assistant_texts(draft.rejected)
    ),
    "source": lambda row, _draft, _format: _replace_surrogates(row.source),
    "series": lambda row, _draft, _format: mask_numbers(_replace_surrogates(row.source) or ""),
    "position": lambda row, _draft, _format: row.position,
    "format": lambda row, _draft, format: format.choose_name(row.record or {}),
    "role_sequence": lambda _row, draft, _format: " ".join(role for role, _ in draft.turns),
    "turns": lambda _row, draft, _format: len(draft.turns),
    "characters": lambda _row, draft, _format: sum(
        len(text) for _, text in (*draft.turns, *draft.rejected) if text
    ),
    "role_problem": lambda _row, draft, _format: _find_role_problem(draft),
}
"""The cells that a row, what was read of it, and its format tell by themselves."""


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows as a frame with a line for each: of every row whether there is a `problem`, `readable`
    with the columns asked for of the others.

    `_row` is a row's number in both. `examples` has an entry for every row, None where it is
    incomplete.
    """

    problems: pd.DataFrame
    readable: pd.DataFrame
    examples: list[Example | None]
    lines: Mapping[int, int]  # a row's line in `readable`

    def detail(self, row: int, column: str) -> str | None:
        """What a column says about a row."""
        found = (
            self.problems[column].iat[row]
            if column in self.problems
            else self.readable[column].iat[self.lines[row]]
        )
        return found if isinstance(found, str) else None


def build_table(
    rows: SourceRows, facts: Facts, columns: Set[str], language: LanguageDetector | None
) -> RowTable:
    """Rows with the columns that are asked for, among `COLUMNS` and `record.NAME`; `language` is
    needed where it is one of them.
    """
    readable = [
        (i, row, draft, rows.formats[row.source])
        for i, (row, draft) in enumerate(rows)
        if draft.problem is None
    ]
    examples: list[Example | None] = [None] * len(rows)
    for i, row, draft, format in readable:
        examples[i] = draft.example(row, format)
    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        if example is not None:
            first.setdefault(example.id, i)
    known = facts.select_known(first.keys())

    def cell(column: str, i: int, row: RawRow, draft: Draft, format: Format) -> Any:
        example = examples[i]
        if column == "copy_of":
            return (
                None
                if example is None or first[example.id] == i
                else _replace_surrogates(rows.raw[first[example.id]].place)
            )
        if column == "lacks":
            return (
                None
                if example is not None
                else _replace_surrogates(_describe_missing_fields(row.record or {}, format))
            )
        if column == "known":
            return example is not None and example.id in known
        if column == "tokens":
            return max(
                sum(facts.count_tokens(text) for _, text in turns if text)
                for turns in (draft.turns, draft.rejected)
            )
        if column == "language":
            beginnings = [
                (draft.text(assistant) or "")[:LANGUAGE_CHARACTERS] for assistant in (False, True)
            ]
            return language("\n".join(beginnings)) if language else None
        if column.startswith(RECORD_PREFIX):
            return _convert_value((row.record or {}).get(column.removeprefix(RECORD_PREFIX)))
        return CELLS[column](row, draft, format)

    frame = {INDEX: pd.Series([i for i, *_ in readable], dtype="int64")}
    for column in sorted(columns):
        frame[column] = pd.Series(
            [cell(column, *line) for line in readable],
            dtype="int64" if column in NUMBERS else object,
        )
    problems = {
        INDEX: range(len(rows)),
        "problem": pd.Series(
            [_replace_surrogates(draft.problem) for draft in rows.drafts], dtype=object
        ),
    }
    return RowTable(
        pd.DataFrame(problems),
        pd.DataFrame(frame),
        examples,
        {i: line for line, (i, *_) in enumerate(readable)},
    )


def _replace_surrogates(text: str | None) -> str | None:
    """The text in valid Unicode."""
    return text if text is None or text.isascii() else SURROGATES.sub(REPLACEMENT, text)


def _convert_value(value: Any) -> Any:
    """A record's value as a cell: lists and mappings as JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return _replace_surrogates(value if isinstance(value, str) else json.dumps(value, default=str))


def _join_assistant_texts(turns: tuple[Turn, ...]) -> str | None:
    """What the assistant says; None where there are no turns."""
    return "\n\n".join(text or "" for role, text in turns if role == "assistant") if turns else None


def _describe_missing_fields(record: Mapping[str, Any], format: Format) -> str | None:
    """The fields that a record's format asks for and it lacks, by the names they have here."""
    name, fields = format.choose_name(record), Fields(record, format.fields)
    missing = [
        " or ".join(format.fields.get(of, of) for of in alternatives)
        for alternatives in SHAPES[name].required
        if all(fields[of] is None for of in alternatives)
    ]
    return f"{name} rows need {' and '.join(missing)}" if missing else None


def _find_role_problem(draft: Draft) -> str | None:
    """What is wrong with the order of roles in one of a row's conversations."""
    problems = (
        find_role_problem([role for role, _ in turns])
        for turns in (draft.turns, draft.rejected)
        if turns or turns is draft.turns
    )
    return next(filter(None, problems), None)
