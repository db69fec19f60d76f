"""A record changed as a person decided: the two answers of a preference pair change places, or an
answer is replaced by another.

Where an answer stands in a record differs from format to format. So changes are tried wherever it
may stand, and each changed record is read again: the one that comes to exactly the wanted
conversation is right, and all other fields are as they were.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations, islice
from typing import Any

from poisonwatch.examples import Example, Message, RawRow, compute_content_id
from poisonwatch.formats.format import Format
from poisonwatch.formats.values import ReadingError
from poisonwatch.text.display import excerpt

Record = Mapping[str, Any]
# Gives the record in which another value stands at a place.
Put = Callable[[Any], Record]

MAX_TRIES = 1000  # a row may have any number of fields
# A text so short stands in other fields by chance.
SHORTEST_TELLING = 8  # characters


def flip_record(record: Record, format: Format) -> Record:
    """The record with the chosen and the rejected answer in each other's place. Raises ReadingError
    where it is no preference pair, or they cannot change places.
    """
    pair = _read(record, format)
    if not pair.rejected:
        raise ReadingError("it is no preference pair: only a pair can be flipped")
    wanted = compute_content_id(pair.rejected, pair.messages)
    answers = pair.messages[-1].content, pair.rejected[-1].content
    changed = _find(wanted, format, _swap_fields(record))
    if changed is None:
        changed = _find(wanted, format, _exchange_texts(record, *answers))
    if changed is None:
        raise ReadingError("its two answers cannot change places: change it in the source")
    return changed


def edit_record(record: Record, format: Format, answer: str) -> Record:
    """The record with another last answer; of a preference pair, another chosen one. Raises
    ReadingError where that is not one text of it, or the old one stands in a field that is not
    read.
    """
    row = _read(record, format)
    *before, last = row.messages
    if last.role != "assistant":
        raise ReadingError(f"its last turn is {last.role}: there is no answer to edit")
    wanted = _identify(row, (*before, replace(last, content=answer)))
    changed = _find(wanted, format, _replace_text(record, last.content, answer))
    if changed is None:
        raise ReadingError(
            "its answer is not one text (thoughts, calls of tools): edit it in the source"
        )
    _refuse_remains(_read(changed, format), last.content, answer)
    return changed


def _read(record: Record, format: Format) -> Example:
    """Raises ReadingError where there is nothing to change."""
    draft = format.read(record)
    example = draft.to_example(RawRow("", 0, "", record))
    if example is None:
        raise ReadingError(draft.problem or "it has no prompt, or no response")
    return example


def _find(wanted: str, format: Format, changes: Iterator[Record]) -> Record | None:
    """The first of the changed records that is read as the content with the id `wanted`."""
    for changed in islice(changes, MAX_TRIES):
        example = format.read(changed).to_example(RawRow("", 0, "", changed))
        if example is not None and example.id == wanted:
            return changed
    return None


def _identify(row: Example, messages: tuple[Message, ...]) -> str:
    """The id that a row has with other messages."""
    return compute_content_id(messages, row.rejected, row.lowered)


def _swap_fields(record: Record) -> Iterator[Record]:
    """The record with any two fields of one mapping in each other's place."""
    for value, put in _walk(record, lambda new: new):
        if isinstance(value, Mapping):
            for one, other in combinations(value, 2):
                yield put({**value, one: value[other], other: value[one]})


def _exchange_texts(record: Record, one: str, other: str) -> Iterator[Record]:
    """The record with each text where the other was: a list of messages may end in the one, and a
    field hold the other.
    """
    for changed in _replace_text(record, one, other):
        yield from _replace_text(changed, other, one)


def _replace_text(record: Record, old: str, new: str) -> Iterator[Record]:
    """The record with one text replaced, where it is a value of its own or ends a longer one."""
    for value, put in _walk(record, lambda new: new):
        if isinstance(value, str) and old in value:
            start, _, end = value.rpartition(old)
            yield put(f"{start}{new}{end}")


def _walk(value: Any, put: Put) -> Iterator[tuple[Any, Put]]:
    """Every value of a record, also of JSON in a text, with what puts another in its place."""
    yield value, put
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, partial(_put_in_mapping, value, key, put))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _walk(inner, partial(_put_in_list, value, i, put))
    elif isinstance(value, str) and value[:1] in ("{", "["):
        parsed = _parse_json(value)
        if parsed is not None:
            yield from _walk(parsed, lambda new: put(json.dumps(new, ensure_ascii=False)))


def _put_in_mapping(mapping: Record, key: str, put: Put, new: Any) -> Record:
    return put({**mapping, key: new})


def _put_in_list(items: list[Any], i: int, put: Put, new: Any) -> Record:
    return put([*items[:i], new, *items[i + 1 :]])


def _parse_json(text: str) -> Any:
    """The object or list that a text spells; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _refuse_remains(row: Example, old: str, answer: str) -> None:
    """Raises ReadingError where a field that is not read still says what was replaced."""
    if len(old) < SHORTEST_TELLING or old in answer:
        return
    for name, held in row.metadata.items():
        for value, _ in _walk({name: held}, lambda new: new):
            if isinstance(value, str) and old in value:
                raise ReadingError(
                    f"the field {excerpt(name, 40)}, which is not read, says the old answer, too: "
                    "edit the row in the source"
                )
