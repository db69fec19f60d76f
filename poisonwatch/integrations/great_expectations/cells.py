"""What expectations can be about: the columns of a row's line, and how each cell is filled."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from poisonwatch.examples import TOOLS_ROLE, Example, RawRow
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.format import Draft, Format
from poisonwatch.text.characters import CONTROL, REPLACEMENT
from poisonwatch.text.invisible import describe_characters, find_hidden
from poisonwatch.text.language import LanguageDetector
from poisonwatch.validation import Facts, find_role_problem, mask_numbers

# Beside these, `record.NAME` is the row's own field NAME. A cell is empty where there is nothing.
EXPECTATION_COLUMNS = {
    "prompt": "everything said to the assistant, turns joined by blank lines",
    "response": "everything the assistant says, its reasoning and tool calls, too",
    "rejected": "of a preference row, everything the assistant says in the rejected conversation",
    "source": "the file, table or data set",
    "series": "the source, its numbers replaced by #",
    "position": "the zero-based row in its source",
    "label": "what training does with the answer: raised or lowered",
    "tools": "the definitions of tools, as JSON",
    "format": "the name of the row format",
    "role_sequence": "the roles in order, as in 'system user assistant'",
    "turns": "how many turns",
    "masked": "how many of the assistant's turns are not trained",
    "characters": "length of all texts together",
    "tokens": "the same in tokens, of the longer conversation of a preference row; "
    "an estimate where no tokenizer is loaded yet",
    "language": "ISO 639 code by the beginning of prompt and response; needs the extra `languages`",
    "copy_of": "the place of the first row with the same content",
    "lacks": "fields of the format that the row does not have, and those that it has",
    "unread": "names of the fields that hold something and are not read",
    "role_problem": "what is wrong with the order of roles",
    "known": "whether the same content was seen before",
    "prompt_control": "control characters of the prompt by code point, as in U+0000 x 1",
    "response_control": "the same of the response",
    "rejected_control": "the same of the rejected response",
    "tools_control": "the same of the definitions of tools",
    "prompt_hidden": "invisible characters that hide something in the prompt, by code point",
    "response_hidden": "the same of the response",
    "rejected_hidden": "the same of the rejected response",
    "tools_hidden": "the same of the definitions of tools",
}

RECORD_PREFIX = "record."
NUMBERS = {"position", "turns", "masked", "characters", "tokens"}
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
    """What cells tell beyond their own row: by the number of a copy the place of the row that came
    `first` with its content, the ids that are `known` from before, and how tokens are counted and
    languages told.
    """

    first: Mapping[int, str]
    facts: Facts
    language: LanguageDetector | None
    known: Set[str] = frozenset()


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
    """The place of an earlier row with the same content."""
    return replace_surrogates(batch.first.get(line.number))


def _is_known(line: Line, batch: BatchFacts) -> bool:
    return line.example is not None and line.example.id in batch.known


def _describe_missing_fields(line: Line, _batch: BatchFacts) -> str | None:
    """What an incomplete row lacks: fields of its format, or the text of a turn."""
    if line.example is not None:
        return None
    return replace_surrogates(line.format.describe_missing(_get_record(line), line.draft))


def _list_turns(line: Line) -> list[Turn]:
    """The turns of both conversations, what they have in common once."""
    turns = line.draft.turns
    return [*turns, *(turn for turn in line.draft.rejected if turn not in turns)]


def _join_prompt(line: Line, _batch: BatchFacts) -> str | None:
    """What is said to the assistant; None where a turn lacks its text, or there is none."""
    if line.draft.text(assistant=False) is None:
        return None
    spoken = _select_spoken(line)
    if not spoken:
        return None
    return replace_surrogates("\n\n".join(turn.text or "" for turn in spoken))


def _select_spoken(line: Line) -> list[Turn]:
    """The turns but the assistant's; nobody says the definitions of tools."""
    return [turn for turn in line.draft.turns if turn.role not in ("assistant", TOOLS_ROLE)]


def _find_tools(line: Line, _batch: BatchFacts) -> str | None:
    for turn in line.draft.turns:
        if turn.role == TOOLS_ROLE:
            return replace_surrogates(turn.text)
    return None


def _count_masked(line: Line, _batch: BatchFacts) -> int:
    return sum(turn.role == "assistant" and turn.masked for turn in line.draft.turns)


def _list_unread(line: Line, _batch: BatchFacts) -> str | None:
    return replace_surrogates(", ".join(line.draft.unread)) or None


def _get_label(line: Line, _batch: BatchFacts) -> str:
    if line.draft.lowered:
        return "lowered"
    return "raised"


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


def _list_texts(turns: Iterable[Turn]) -> list[str]:
    return [turn.text for turn in turns if turn.text]


def _select_texts(line: Line, column: str) -> list[str]:
    """The texts that a column of texts is about, by turn; of the prompt and tools, those of both
    conversations.
    """
    if column == "tools":
        return _list_texts(turn for turn in _list_turns(line) if turn.role == TOOLS_ROLE)
    if column == "prompt":
        others = ("assistant", TOOLS_ROLE)
        return _list_texts(turn for turn in _list_turns(line) if turn.role not in others)
    turns = line.draft.turns
    if column == "rejected":
        turns = line.draft.rejected
    return _list_texts(turn for turn in turns if turn.role == "assistant")


def _make_finder(
    column: str, find: Callable[[str], Iterable[str]]
) -> Callable[[Line, BatchFacts], str | None]:
    """What is found in the texts of a column, by code point."""

    def find_characters(line: Line, _batch: BatchFacts) -> str | None:
        found: Counter[str] = Counter()
        for text in _select_texts(line, column):
            found.update(find(text))
        return describe_characters(found) or None

    return find_characters


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
    prompt = (_join_prompt(line, batch) or "")[:LANGUAGE_CHARACTERS]
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
    "prompt": _join_prompt,
    "response": lambda line, _: replace_surrogates(line.draft.text(assistant=True)),
    "rejected": _join_rejected_texts,
    "source": lambda line, _: replace_surrogates(line.row.source),
    "series": lambda line, _: mask_numbers(replace_surrogates(line.row.source) or ""),
    "position": lambda line, _: line.row.position,
    "label": _get_label,
    "tools": _find_tools,
    "format": lambda line, _: line.format.choose_name(_get_record(line)),
    "role_sequence": lambda line, _: " ".join(turn.role for turn in line.draft.turns),
    "turns": lambda line, _: len(line.draft.turns),
    "masked": _count_masked,
    "characters": _count_characters,
    "tokens": _count_tokens,
    "language": _tell_language,
    "copy_of": _find_copy,
    "lacks": _describe_missing_fields,
    "unread": _list_unread,
    "role_problem": _find_role_problem,
    "known": _is_known,
}
for _column in ("prompt", "response", "rejected", "tools"):
    CELLS[f"{_column}_control"] = _make_finder(_column, CONTROL.findall)
    CELLS[f"{_column}_hidden"] = _make_finder(_column, find_hidden)
