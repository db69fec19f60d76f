"""JSON that is not a row a line: lists of rows, and objects over many lines. In memory a row at a
time; each row's bytes are those of its record as compact JSON.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MAX_ROW_BYTES, MIB, limit_size, make_long_row
from poisonwatch.sources.json_row import SPACE, describe_json_error, make_compact_row

BOM_CHARACTER = "\ufeff"
USE_LINES = "use JSON Lines, where a broken row costs no other"

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
            for row in read_rows(text, position):
                position += 1
                yield row
        elif text.accept("{", pass_over=False):
            yield text.take_row(position)
            position += 1
        else:
            raise _make_start_error(text, position)
        text.skip(SPACE + BOM_CHARACTER)


def read_rows(text: "TextBuffer", position: int) -> Iterator[RawRow]:
    """The rows of a list that was just opened, up to its end. One that is broken, or too long,
    costs no other where its brackets tell its end.
    """
    is_first = True
    while not text.accept("]"):
        if not is_first and not text.accept(","):
            raise text.make_error(position, "no comma before it")
        is_first = False
        text.skip(SPACE)
        yield text.take_element(position)
        position += 1


def _make_start_error(text: "TextBuffer", position: int) -> SourceError:
    """The error of a file in which something else begins than a list or an object."""
    start = text.buffer[text.at : text.at + 1]
    if position:
        said = f"more follows after row {position}, and begins with {start!a}"
    else:
        said = f"it begins with {start!a}"
    return SourceError(f"{text.name} is not JSON ({said}): it holds a list of rows, or {USE_LINES}")


def pass_space(text: str, at: int) -> int:
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
    at = pass_space(decoded, 1)
    while not decoded.startswith("]", at):
        _, end = END_FINDER.raw_decode(decoded, at)
        number = len(rows)
        where = f"{place}, row {number + 1}"
        row = make_compact_row(name, position + number, where, decoded[at:end].encode())
        rows.append(limit_size(row))
        at = pass_space(decoded, end)
        if decoded.startswith(",", at):
            at = pass_space(decoded, at + 1)
    return rows


# Outside texts what changes the depth; within one its end, which no backslash escapes.
_SIGN = re.compile(r'["{}\[\]]')
_TEXT_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class _Kept:
    """The bytes of a row that cannot be read; of a long one, its beginning and its digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.pieces: list[bytes] = []

    def add(self, text: str) -> None:
        piece = text.encode(errors="surrogateescape")
        self.digest.update(piece)
        if self.size <= MAX_ROW_BYTES:
            self.pieces.append(piece)
        self.size += len(piece)

    def make_row(self, name: str, position: int) -> RawRow:
        place, raw = f"{name}, row {position + 1}", b"".join(self.pieces)
        if self.size > MAX_ROW_BYTES:
            return make_long_row(name, position, place, raw, self.digest.hexdigest())
        return make_compact_row(name, position, place, raw)


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

    def take_element(self, position: int) -> RawRow:
        """The element of a list that stands next, as a row, or what is wrong with it."""
        try:
            return self.take_row(position)
        except SourceError:
            if not self.buffer.startswith(("{", "["), self.at):
                raise
            found = self._pass_over_brackets(position)
            is_followed = self.accept(",", pass_over=False) or self.accept("]", pass_over=False)
            if found is None or not is_followed:
                raise
            return found

    def _pass_over_brackets(self, position: int) -> RawRow | None:
        """What stands from a bracket that opens to the one that closes it, which is no JSON, or too
        long; None where none closes it.
        """
        kept = _Kept()
        depth, in_text = 0, False
        while True:
            found = self._find_sign(in_text)
            if found is None and self.complete:
                return None
            if found is None:
                kept.add(self._take_to(self._find_whole_escapes(in_text)))
                self.read_more(MIB)
                continue
            kept.add(self._take_to(found))
            sign = self.buffer[found - 1]
            if sign == '"':
                in_text = not in_text
            elif sign in "[{":
                depth += 1
            else:
                depth -= 1
            if depth == 0 and not in_text:
                return kept.make_row(self.name, position)

    def _find_sign(self, in_text: bool) -> int | None:
        """The end of the next bracket or quote, or of the quote that ends a text."""
        if in_text:
            found = _TEXT_END.match(self.buffer, self.at)
        else:
            found = _SIGN.search(self.buffer, self.at)
        if found is None:
            return None
        return found.end()

    def _find_whole_escapes(self, in_text: bool) -> int:
        """Where the buffer ends, in a text without backslashes of which the rest may be missing."""
        end = len(self.buffer)
        if not in_text:
            return end
        while end > self.at and self.buffer[end - 1] == "\\":
            end -= 1
        return end

    def _take_to(self, end: int) -> str:
        start, self.at = self.at, end
        return self.buffer[start:end]

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
        return SourceError(f"{self.name} is not JSON {said}: mend it, or {USE_LINES}")
