"""What the first rows of a file tell: which formats they have, and what their fields are called."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.formats.answers import get_thought
from poisonwatch.formats.fields import LISTS, MESSAGE_FIELDS, SHAREGPT_FIELDS, Fields, Names
from poisonwatch.formats.messages import (
    CONTENT_KEYS,
    MASKED_KEYS,
    ROLE_KEYS,
    TRAINED_KEYS,
    spell_keys,
)
from poisonwatch.formats.shapes import SHAPES, Shape
from poisonwatch.formats.values import (
    get_truth,
    is_missing,
    is_nothing,
    list_messages,
    peek_json_text,
)

# Fields of a text that some files hold as JSON.
_SIDES = ("prompt", "response", "completion", "chosen", "rejected", "instruction", "output")
# What a turn is marked with, by this name among the fields.
MARK = "mark"


@lru_cache(256)
def _list_fitting(mapped: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name, shape in SHAPES.items() if mapped <= set(shape.names))


def list_candidates(mapped: Mapping[str, str]) -> tuple[str, ...]:
    """Formats that can be told by their fields, and have those that are mapped. Preference rows
    often hold messages, too: they go first.

    Raises SourceError where no format has the mapped fields.
    """
    found = _list_fitting(frozenset(mapped))
    if not found:
        allowed = [f"{name} has {', '.join(shape.names)}" for name, shape in SHAPES.items()]
        raise make_fields_error(mapped, "; ".join(allowed))
    # A text could be anything: only a template, or the user, makes rows texts.
    told = [name for name in found if name != "text"]
    return tuple(sorted(told, key=lambda name: name != "preference"))


def make_fields_error(fields: Mapping[str, str], allowed: str) -> SourceError:
    """The error of fields that are mapped and not there."""
    return SourceError(f"source.fields names {', '.join(sorted(fields))}, but {allowed}")


def find_format(fields: Fields, names: Sequence[str]) -> str | None:
    """The first of some formats that a record fits: by the formats' own names of fields, or else by
    any.
    """
    for own_names in (True, False):
        for name in names:
            # What is rejected is called by many names, and by no other format.
            if SHAPES[name].fits(fields, own_names and name != "preference"):
                return name
    return None


def count_formats(
    records: Sequence[Mapping[str, Any]], candidates: Sequence[str], names: Names
) -> Counter[str]:
    """How many records have each format."""
    counts: Counter[str] = Counter()
    for record in records:
        name = find_format(Fields(record, names), candidates)
        if name is not None:
            counts[name] += 1
    return counts


def find_names(
    records: Sequence[Mapping[str, Any]], formats: Sequence[str], names: Names
) -> dict[str, str]:
    """What fields are called in most of these records, which have these formats; of messages, role
    and content, and what marks them.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        fields = Fields(record, names)
        name = find_format(fields, formats)
        if name is None:
            continue
        for field, path in _list_found(fields, SHAPES[name]):
            counts[field][path] += 1
        for field, key in _list_message_keys(fields, SHAPES[name]):
            counts[field][key] += 1
    found = {field: paths.most_common(1)[0][0] for field, paths in counts.items()}
    # A single row must not say that its answer is lowered.
    if 2 * counts["label"].total() < len(records):
        found.pop("label", None)
    return found


def _list_found(fields: Fields, shape: Shape) -> Iterator[tuple[str, str]]:
    """The fields that a record has, and where; of those that are optional, the ones that hold
    something.
    """
    for name in shape.names:
        path = fields.find(name)
        if path is None or name in (*MESSAGE_FIELDS, *SHAREGPT_FIELDS):
            continue
        if name in shape.optional and is_nothing(fields.get(path)):
            continue
        if name == "label" and get_truth(fields.get(path)) is None:
            continue
        if name == "reasoning" and get_thought(fields) is None:
            continue
        # The two are each other's aliases.
        if name == "response" and path != name and not is_missing(fields.peek_own("completion")):
            continue
        yield name, path


def _list_message_keys(fields: Fields, shape: Shape) -> Iterator[tuple[str, str]]:
    """What the messages of a record call role and content, and what marks them."""
    role, content = shape.message_fields
    wanted = {role: ROLE_KEYS, content: CONTENT_KEYS, MARK: (*TRAINED_KEYS, *MASKED_KEYS)}
    for name in (*LISTS, *_SIDES):
        if name not in shape.names:
            continue
        for message in _list_messages(fields.peek(name)):
            for field, keys in wanted.items():
                key = next((key for key in keys if not is_nothing(message.get(key))), None)
                if key is not None:
                    yield field, key


def _list_messages(value: Any) -> list[Mapping[str, Any]]:
    """The messages of a list; none where it holds anything else."""
    listed = list_messages(peek_json_text(value))
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, list | tuple):
        return []
    found = []
    for item in listed:
        message = peek_json_text(item)
        if not isinstance(message, Mapping):
            continue
        message, _ = spell_keys(message)
        if any(key in message for key in ROLE_KEYS):
            found.append(message)
    return found


def find_json_fields(records: Sequence[Mapping[str, Any]], names: Names) -> tuple[str, ...]:
    """The sides that most of these records hold as messages in a JSON text, as tables do."""
    found = []
    for side in _SIDES:
        filled, parsed = 0, 0
        for record in records:
            value = Fields(record, names).peek(side)
            if is_nothing(value):
                continue
            filled += 1
            parsed += isinstance(value, str) and bool(_is_json_side(value))
        if 2 * parsed > filled:
            found.append(side)
    return tuple(found)


def _is_json_side(text: str) -> bool:
    value = peek_json_text(text)
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        return True
    return bool(_list_messages(value))
