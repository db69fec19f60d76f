"""JSON files of one object that holds the rows in a list, as in {"data": [...]}.

An object that some format reads is a row itself, whatever lists it has; and what stands beside the
rows must be none that a trainer could use.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.formats.fields import KNOWN_NAMES, Fields
from poisonwatch.formats.probing import find_format, list_candidates
from poisonwatch.formats.values import holds_long_text, is_nothing
from poisonwatch.sources.base import Reading
from poisonwatch.sources.json_row import SPACE
from poisonwatch.sources.json_values import (
    BOM_CHARACTER,
    END_FINDER,
    USE_LINES,
    TextBuffer,
    pass_space,
    read_rows,
)
from poisonwatch.text.display import excerpt

# Names under which an object may hold its rows; under others it is a row itself.
ROW_LISTS = (
    "data",
    "train",
    "test",
    "validation",
    "rows",
    "examples",
    "instances",
    "samples",
    "records",
    "items",
    "dataset",
)


def read_json_container(file: BinaryIO, name: str, key: str, reading: Reading) -> Iterator[RawRow]:
    """The rows that stand as a list under `key` in the one object that a file holds; `reading` gets
    the names of what stands `beside` them.

    Raises SourceError where a trainer could use that, too, and as `read_json_values` does.
    """
    text = TextBuffer(file, name)
    text.skip(SPACE + BOM_CHARACTER)
    text.accept("{")
    rows = 0
    beside: dict[str, Any] = {}
    seen = set[str]()
    while not text.accept("}"):
        found = str(text.take_value(rows))
        if not text.accept(":"):
            raise text.make_error(rows, "no colon after a key")
        if found in seen:
            raise SourceError(f"{name} has {_show(found)} twice: readers differ in which counts")
        seen.add(found)
        if found == key and text.accept("["):
            for row in read_rows(text, rows):
                rows += 1
                yield row
        else:
            value = beside[found] = text.take_value(rows)
            _refuse_trainable(name, key, found, value)
        text.accept(",")
    text.skip(SPACE)
    if not text.at_end:
        raise SourceError(f"{name} is not JSON (more follows after its object): {USE_LINES}")
    # Of a long file, this was not known when it was opened.
    if _fits_format(beside):
        raise SourceError(f"{name} holds rows under {key!a}, and is a row itself: {USE_LINES}")
    reading.beside = tuple(other for other, value in beside.items() if not is_nothing(value))


def _refuse_trainable(name: str, key: str, other: str, value: Any) -> None:
    """Raises SourceError where the value that stands beside the rows could be trained on."""
    if is_nothing(value):
        return
    if isinstance(value, list) and isinstance(value[0], dict | list):
        raise SourceError(
            f"{name} holds rows under {key!a} and under {_show(other)}: give each a file of its own"
        )
    if other.lower() in KNOWN_NAMES or holds_long_text(value):
        raise SourceError(
            f"{name} holds rows under {key!a}, and beside them {_show(other)}, which a trainer may "
            "add to each: write it into the rows, or leave it out"
        )


def _show(key: str) -> str:
    return f"{excerpt(key, 40)!a}"


def _fits_format(record: Mapping[str, Any]) -> bool:
    """Whether a format reads what stands beside a list: then the list is a field of a row."""
    return find_format(Fields(record), list_candidates({})) is not None


def find_row_list(start: str) -> str | None:
    """The key under which an object holds a list of rows, told by how its text starts; None where
    the object is a row itself, or that cannot be told.
    """
    key, beside = _find_list(start)
    if key is None or _fits_format(beside):
        return None
    return key


def _find_list(start: str) -> tuple[str | None, dict[str, Any]]:
    """The first key that holds a list of rows, and all that is known to stand beside it."""
    try:
        whole, _ = END_FINDER.raw_decode(start)
    except (ValueError, RecursionError):
        return _find_begun_list(start)
    for key, value in whole.items():
        if key in ROW_LISTS and isinstance(value, list):
            if value and not _is_row(value[0]):
                return None, {}
            del whole[key]
            return key, whole
    return None, {}


def _find_begun_list(start: str) -> tuple[str | None, dict[str, Any]]:
    """The same of an object whose end is not known."""
    beside: dict[str, Any] = {}
    at = pass_space(start, 1)
    while start.startswith('"', at):
        try:
            key, at = END_FINDER.raw_decode(start, at)
            at = pass_space(start, at)
            if not start.startswith(":", at):
                break
            at = pass_space(start, at + 1)
            if key in ROW_LISTS and start.startswith("[", at):
                if _begins_row(start, pass_space(start, at + 1)):
                    return key, beside
                break
            beside[key], at = END_FINDER.raw_decode(start, at)
        except (ValueError, RecursionError):
            break
        at = pass_space(start, at)
        if not start.startswith(",", at):
            break
        at = pass_space(start, at + 1)
    return None, {}


def _begins_row(text: str, at: int) -> bool:
    if not text.startswith("{", at):
        return False
    try:
        first, _ = END_FINDER.raw_decode(text, at)
    except (ValueError, RecursionError):
        # It goes on beyond what is known.
        return True
    return _is_row(first)


def _is_row(value: Any) -> bool:
    """Is it an object that is no turn of a conversation?"""
    return isinstance(value, dict) and not {"role", "from"} & value.keys()
