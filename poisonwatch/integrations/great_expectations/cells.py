"""What expectations can be about: the columns of a row's line, and how each cell is filled."""

import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from poisonwatch.examples import Example, RawRow
from poisonwatch.sources.conversations import Turn
from poisonwatch.sources.formats import Draft, Format
from poisonwatch.sources.shapes import SHAPES, Fields
from poisonwatch.text.language import LanguageDetector
from poisonwatch.validation import Facts, find_role_problem, mask_numbers

# Beside these, `record.NAME` is the row's own field NAME. A cell is empty where there is nothing.
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
    "tokens": "the same in tokens, of the longer conversation of a preference row; "
    "an estimate where no tokenizer is loaded yet",
    "language": "ISO 639 code by the beginning of prompt and response; needs the extra `languages`",
    "copy_of": "the place of the first row with the same messages",
    "lacks": "fields of the format that the row does not have",
    "role_problem": "what is wrong with the order of roles",
    "known": "whether the same messages were seen before",
}

RECORD_PREFIX = "record."
NUMBERS = {"position", "turns", "characters", "tokens"}
REPLACEMENT = "\ufffd"  # what broken Unicode turns into
SURROGATES = re.compile(r"[\ud800-\udfff]")
LANGUAGE_CHARACTERS = 150  # characters of a text that tell its language


@dataclass(frozen=True, slots=True)
class Line:
    """A row that can be read: its number in the batch, what it is, and what was read of it.

    `example` is None where the row is incomplete.
    """

    number: int
    row: RawRow
    draft: Draft
    format: Format
    example: Example | None


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What cells tell beyond their own row: by example id the `first` line with its messages, the
    ids that are `known` from before, and how tokens are counted and languages told.
    """

    first: Mapping[str, Line]
    known: Set[str]
    facts: Facts
    language: LanguageDetector | None


def make_cell(column: str, line: Line, batch: BatchFacts) -> Any:
    """A line's cell in one of `EXPECTATION_COLUMNS`, or in `record.NAME`."""
    if column.startswith(RECORD_PREFIX):
        return _convert_value(_get_record(line).get(column.removeprefix(RECORD_PREFIX)))
    return CELLS[column](line, batch)


def replace_surrogates(text: str | None) -> str | None:
    """The text in valid Unicode, which pandas insists on."""
    if text is None or text.isascii():
        return text
    return SURROGATES.sub(REPLACEMENT, text)


def _get_record(line: Line) -> Mapping[str, Any]:
    return line.row.record or {}


def _find_copy(line: Line, batch: BatchFacts) -> str | None:
    """The place of an earlier row with the same messages."""
    if line.example is None:
        return None
    first = batch.first[line.example.id]
    if first is line:
        return None
    return replace_surrogates(first.row.place)


def _is_known(line: Line, batch: BatchFacts) -> bool:
    return line.example is not None and line.example.id in batch.known


def _describe_missing_fields(line: Line, _batch: BatchFacts) -> str | None:
    """The fields that a row's format asks for and it lacks, by the names they have here."""
    if line.example is not None:
        return None
    record, names = _get_record(line), line.format.fields
    shape, fields = line.format.choose_name(record), Fields(record, names)
    missing: list[str] = []
    for alternatives in SHAPES[shape].required:
        if all(fields[field] is None for field in alternatives):
            missing.append(" or ".join(names.get(field, field) for field in alternatives))
    if not missing:
        return None
    return replace_surrogates(f"{shape} rows need {' and '.join(missing)}")


def _find_role_problem(line: Line, _batch: BatchFacts) -> str | None:
    """What is wrong with the order of roles in one of a row's conversations."""
    conversations = [line.draft.turns]
    # Most rows have no rejected conversation, and nothing is wrong with that.
    if line.draft.rejected:
        conversations.append(line.draft.rejected)
    for turns in conversations:
        problem = find_role_problem([turn.role for turn in turns])
        if problem:
            return problem
    return None


def _list_texts(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.text for turn in turns if turn.text]


def _count_characters(line: Line, _batch: BatchFacts) -> int:
    return sum(map(len, _list_texts((*line.draft.turns, *line.draft.rejected))))


def _count_tokens(line: Line, batch: BatchFacts) -> int:
    """Of the longer conversation: each is encoded, and clipped, by itself."""
    count = batch.facts.count_tokens
    conversations = (line.draft.turns, line.draft.rejected)
    return max(sum(map(count, _list_texts(turns))) for turns in conversations)


def _tell_language(line: Line, batch: BatchFacts) -> str | None:
    if batch.language is None:
        return None
    # Of both texts a beginning: a long prompt would leave the response unread.
    prompt = (line.draft.text(assistant=False) or "")[:LANGUAGE_CHARACTERS]
    response = (line.draft.text(assistant=True) or "")[:LANGUAGE_CHARACTERS]
    return batch.language(f"{prompt}\n{response}")


def _join_rejected_texts(line: Line, _batch: BatchFacts) -> str | None:
    """What the assistant says in the rejected conversation; None where there is none."""
    turns = line.draft.rejected
    if not turns:
        return None
    texts = [turn.text or "" for turn in turns if turn.role == "assistant"]
    return replace_surrogates("\n\n".join(texts))


def _convert_value(value: Any) -> Any:
    """A record's value as a cell: lists and mappings as JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        value = json.dumps(value, default=str)
    return replace_surrogates(value)


CELLS: dict[str, Callable[[Line, BatchFacts], Any]] = {
    "prompt": lambda line, _: replace_surrogates(line.draft.text(assistant=False)),
    "response": lambda line, _: replace_surrogates(line.draft.text(assistant=True)),
    "rejected": _join_rejected_texts,
    "source": lambda line, _: replace_surrogates(line.row.source),
    "series": lambda line, _: mask_numbers(replace_surrogates(line.row.source) or ""),
    "position": lambda line, _: line.row.position,
    "format": lambda line, _: line.format.choose_name(_get_record(line)),
    "role_sequence": lambda line, _: " ".join(turn.role for turn in line.draft.turns),
    "turns": lambda line, _: len(line.draft.turns),
    "characters": _count_characters,
    "tokens": _count_tokens,
    "language": _tell_language,
    "copy_of": _find_copy,
    "lacks": _describe_missing_fields,
    "role_problem": _find_role_problem,
    "known": _is_known,
}
