"""JSON that is not a row a line: lists of rows, objects over many lines, and objects that hold a
list of rows. In memory a row at a time; each row's bytes are those of its record as compact JSON.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MAX_ROW_BYTES, MIB, limit_size
from poisonwatch.sources.json_row import SPACE, describe_json_error, make_compact_row
from poisonwatch.text.display import excerpt

BOM_CHARACTER = "\ufeff"
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
_USE_LINES = "use JSON Lines, where a broken row costs no other"

# Finds where a value ends, whatever its numbers are.
END_FINDER = json.JSONDecoder(parse_int=str, parse_float=str)


def read_json_values(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """The rows of a file of JSON lists, and of objects that may go over many lines, one after the
    other.

    Raises SourceError where nothing tells where a row ends: it is broken, or too long.
    """
    text = TextBuffer(file, name)
    text.skip(SPACE + BOM_CHARACTER)
    position = 0
    while not text.at_end:
        if text.accept("["):
            for row in _read_list(text, position):
                position += 1
                yield row
        elif text.accept("{", pass_over=False):
            yield text.take_row(position)
            position += 1
        else:
            raise _make_start_error(text, position)
        text.skip(SPACE + BOM_CHARACTER)


def _read_list(text: "TextBuffer", position: int) -> Iterator[RawRow]:
    """The rows of a list that was just opened, up to its end."""
    is_first = True
    while not text.accept("]"):
        if not is_first and not text.accept(","):
            raise text.make_error(position, "no comma before it")
        is_first = False
        text.skip(SPACE)
        yield text.take_row(position)
        position += 1


def _make_start_error(text: "TextBuffer", position: int) -> SourceError:
    """The error of a file in which something else begins than a list or an object."""
    start = text.buffer[text.at : text.at + 1]
    if position:
        said = f"more follows after row {position}, and begins with {start!a}"
    else:
        said = f"it begins with {start!a}"
    return SourceError(
        f"{text.name} is not JSON ({said}): it holds a list of rows, or {_USE_LINES}"
    )


def read_json_container(file: BinaryIO, name: str, key: str) -> Iterator[RawRow]:
    """The rows that stand as a list under `key` in the one object that a file holds.

    Raises SourceError where another key holds rows, too, and as `read_json_values` does.
    """
    text = TextBuffer(file, name)
    text.skip(SPACE + BOM_CHARACTER)
    text.accept("{")
    rows = 0
    while not text.accept("}"):
        found = text.take_value(rows)
        if not text.accept(":"):
            raise text.make_error(rows, "no colon after a key")
        if found == key and text.accept("["):
            for row in _read_list(text, rows):
                rows += 1
                yield row
        else:
            _refuse_second_list(name, key, found, text.take_value(rows))
        text.accept(",")
    text.skip(SPACE)
    if not text.at_end:
        raise SourceError(f"{name} is not JSON (more follows after its object): {_USE_LINES}")


def _refuse_second_list(name: str, key: str, other: Any, value: Any) -> None:
    """Raises SourceError where the value holds rows, too."""
    holds_rows = isinstance(value, list) and value and isinstance(value[0], dict)
    if other in ROW_LISTS and holds_rows:
        raise SourceError(
            f"{name} holds rows under {key!a} and under {excerpt(str(other), 40)!a}: give each "
            "a file of its own"
        )


def find_row_list(start: str) -> str | None:
    """The key under which an object holds a list of rows, told by how its text starts; None where
    the object is a row itself, or that cannot be told.
    """
    at = _pass_space(start, 1)
    while start.startswith('"', at):
        try:
            key, at = END_FINDER.raw_decode(start, at)
            at = _pass_space(start, at)
            if not start.startswith(":", at):
                return None
            at = _pass_space(start, at + 1)
            if key in ROW_LISTS and start.startswith("[", at):
                first = _pass_space(start, at + 1)
                return key if _is_row(start, first) else None
            _, at = END_FINDER.raw_decode(start, at)
        except (ValueError, RecursionError):
            return None
        at = _pass_space(start, at)
        if not start.startswith(",", at):
            return None
        at = _pass_space(start, at + 1)
    return None


def _is_row(text: str, at: int) -> bool:
    """Whether an object begins here that is no turn of a conversation."""
    if not text.startswith("{", at):
        return False
    try:
        first, _ = END_FINDER.raw_decode(text, at)
    except (ValueError, RecursionError):
        # It goes on beyond what is known.
        return True
    return not {"role", "from"} & first.keys()


def _pass_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in SPACE:
        at += 1
    return at


def read_list_text(text: bytes, name: str, position: int, place: str) -> list[RawRow] | None:
    """The rows of a text that is one JSON list; None where it is none. `place` is the list's."""
    try:
        decoded = text.decode()
        END_FINDER.decode(decoded)
    except (ValueError, RecursionError):
        return None
    rows: list[RawRow] = []
    at = _pass_space(decoded, 1)
    while not decoded.startswith("]", at):
        _, end = END_FINDER.raw_decode(decoded, at)
        number = len(rows)
        where = f"{place}, row {number + 1}"
        row = make_compact_row(name, position + number, where, decoded[at:end].encode())
        rows.append(limit_size(row))
        at = _pass_space(decoded, end)
        if decoded.startswith(",", at):
            at = _pass_space(decoded, at + 1)
    return rows


class TextBuffer:
    """A file's text, of which `buffer` from `at` on is in memory."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        # Bytes that are no UTF-8 become lone surrogates, so that they cost one row, not the file.
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.buffer = ""
        self.at = 0
        self.complete = False

    def read_more(self, size: int) -> None:
        """Forget what is behind, and read on."""
        piece = self.file.read(size)
        self.complete = not piece
        self.buffer = self.buffer[self.at :] + self.decoder.decode(piece, final=self.complete)
        self.at = 0

    def skip(self, characters: str) -> None:
        """Pass over these characters."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in characters:
                self.at += 1
            if self.at < len(self.buffer) or self.complete:
                return
            self.read_more(MIB)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left, after `skip`."""
        return self.complete and self.at == len(self.buffer)

    def accept(self, character: str, pass_over: bool = True) -> bool:
        """Whether this character stands next, white space aside; it is passed over if so."""
        self.skip(SPACE)
        found = self.buffer.startswith(character, self.at)
        if pass_over:
            self.at += found
        return found

    def take_row(self, position: int) -> RawRow:
        """The value that stands next, as a row."""
        _, start = self._decode_next(position)
        place = f"{self.name}, row {position + 1}"
        # Lone surrogates that JSON escapes are its own; those of the decoder stand for bytes.
        raw = self.buffer[start : self.at].encode(errors="surrogateescape")
        return limit_size(make_compact_row(self.name, position, place, raw))

    def take_value(self, position: int) -> Any:
        """The value that stands next, which is no row; its numbers are texts."""
        self.skip(SPACE)
        return self._decode_next(position)[0]

    def _decode_next(self, position: int) -> tuple[Any, int]:
        """The value that stands next, whole within MAX_ROW_BYTES characters, and where it begins in
        the buffer; `at` moves to its end.
        """
        while True:
            try:
                value, end = END_FINDER.raw_decode(self.buffer, self.at)
                # A number at the end of the buffer may go on.
                if end < len(self.buffer) or self.complete:
                    start, self.at = self.at, end
                    return value, start
            except RecursionError:
                raise self.make_error(position, "too deep") from None
            except ValueError as error:
                if self.complete or len(self.buffer) - self.at > MAX_ROW_BYTES:
                    raise self.make_error(position, describe_json_error(error)) from None
            # Twice as much each time, or a long row is decoded too often.
            self.read_more(max(MIB, len(self.buffer) - self.at))

    def make_error(self, position: int, said: str) -> SourceError:
        """The error of a row that cannot be passed over."""
        said = f"(row {position + 1}: {said})"
        if len(self.buffer) - self.at > MAX_ROW_BYTES:
            said += f", or longer than {MAX_ROW_BYTES // MIB} MiB"
        return SourceError(f"{self.name} is not JSON {said}: mend it, or {_USE_LINES}")
