"""JSON Lines and JSON lists, in memory a row at a time; one broken line costs one row."""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import (
    MAX_ROW_BYTES,
    MIB,
    Reading,
    describe_json_error,
    describe_not_utf8,
    describe_too_long,
    dump_compact,
    limit_size,
    make_json_row,
    parse_cursor,
)

_BLANK = b" \t\r\n\xef\xbb\xbf"
_SPACE = " \t\r\n"
_ONE_LIST = "a .json file holds one list of rows"


@dataclass(slots=True)
class _LinesCursor:
    """What was read of a file of lines: so many bytes with this SHA-256, holding so many rows and
    line ends.
    """

    bytes: int = 0
    sha256: str = ""
    rows: int = 0
    lines: int = 0


def read_json_lines(
    start: Callable[[], BinaryIO], name: str, after: str | None, reading: Reading
) -> Iterator[RawRow]:
    """The rows of a JSON Lines file that `start` opens; `reading` gets its cursor.

    The file goes on from `after` where it begins with the bytes that were read then, and these end
    a line.
    """
    cursor, hasher, file = _LinesCursor(), hashlib.sha256(), start()
    try:
        if earlier := parse_cursor(_LinesCursor, after):
            reading.continued = _begins_with(file, earlier, hasher)
            if reading.continued:
                cursor = earlier
            else:
                # A stream of a web server cannot go back: the file is opened anew.
                file.close()
                hasher, file = hashlib.sha256(), start()
        # Two bytes more, so that a row of just this length has room for its \r\n.
        while line := file.readline(MAX_ROW_BYTES + 2):
            hasher.update(line)
            cursor.bytes += len(line)
            place, raw = f"{name}, line {cursor.lines + 1}", strip_line_end(line)
            row = None
            if len(raw) > MAX_ROW_BYTES:
                size, digest, line = _read_rest(line, file, hasher)
                cursor.bytes += size
                row = RawRow(name, cursor.rows, place, problem=describe_too_long(digest))
            elif raw.strip(_BLANK):
                row = make_json_row(name, cursor.rows, place, raw)
            # The last line may have no end yet: whoever writes it may go on.
            cursor.lines += line.endswith(b"\n")
            if row is not None:
                cursor.rows += 1
                yield row
        cursor.sha256 = hasher.hexdigest()
        reading.cursor = json.dumps(asdict(cursor))
    finally:
        file.close()


def strip_line_end(line: bytes) -> bytes:
    """A line without its line end."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _begins_with(file: BinaryIO, cursor: _LinesCursor, hasher: "hashlib._Hash") -> bool:
    """Read the bytes of `cursor` off the file: whether they are the same, and the file ends or goes
    on in a new line after them.
    """
    left, last = cursor.bytes, b"\n"
    while left and (piece := file.read(min(left, MIB))):
        hasher.update(piece)
        left -= len(piece)
        last = piece[-1:]
    if left or hasher.hexdigest() != cursor.sha256:
        return False
    if last == b"\n":
        return True
    # The last line had no end then: it must not have grown since.
    following = file.peek(2)[:2]  # type: ignore[attr-defined]
    return following[:1] in (b"", b"\n") or following == b"\r\n"


def _read_rest(line: bytes, file: BinaryIO, hasher: "hashlib._Hash") -> tuple[int, str, bytes]:
    """Read the rest of a long line in pieces: how many bytes that was, the whole line's SHA-256
    without its end, and its last bytes.
    """
    digest, size = hashlib.sha256(), 0
    while not line.endswith(b"\n") and (more := file.readline(MIB)):
        hasher.update(more)
        size += len(more)
        # All but the last byte, which may be half of \r\n.
        digest.update(line[:-1])
        line = line[-1:] + more
    digest.update(strip_line_end(line))
    return size, digest.hexdigest(), line


def read_json_list(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """The rows of a JSON file that holds one list; each as compact JSON, one that is not UTF-8 as
    it stands.

    Raises SourceError where the file is no such list, or a row of it is broken or too long: nothing
    tells where such a row ends.
    """
    text = _TextBuffer(file)
    text.skip(_SPACE + "\ufeff")
    if text.at_end:
        return
    if not text.accept("["):
        raise _make_no_list_error(name, text.buffer[text.at : text.at + 1])
    position = 0
    while not text.accept("]"):
        if position and not text.accept(","):
            raise text.make_error(name, position, "no comma before it")
        text.skip(_SPACE)
        yield text.row(name, position)
        position += 1
        text.skip(_SPACE)
    text.skip(_SPACE)
    if not text.at_end:
        raise SourceError(
            f"{name} is not JSON (more follows after its list): {_ONE_LIST}, or use .jsonl"
        )


def _make_no_list_error(name: str, start: str) -> SourceError:
    """The error of a file that begins with this character."""
    what = {"{": "a JSON dict", '"': "a JSON str"}.get(start)
    if what:
        return SourceError(f"{name} holds {what}: {_ONE_LIST}")
    return SourceError(f"{name} is not JSON (it begins with {start!a}): {_ONE_LIST}, or use .jsonl")


class _TextBuffer:
    """A file's text, of which `buffer` from `at` on is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        # Bytes that are no UTF-8 become lone surrogates, so that they cost one row, not the file.
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.json = json.JSONDecoder()
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

    def accept(self, character: str) -> bool:
        """Whether this character stands next, white space aside; it is passed over if so."""
        self.skip(_SPACE)
        found = self.buffer.startswith(character, self.at)
        self.at += found
        return found

    def row(self, name: str, position: int) -> RawRow:
        """The value that stands next, as a row."""
        record, start = self._decode_next(name, position)
        place = f"{name}, row {position + 1}"
        text = self.buffer[start : self.at]
        try:
            text.encode()
        except UnicodeEncodeError:
            # Lone surrogates that JSON escapes are its own; those of the decoder stand for bytes.
            raw = text.encode(errors="surrogateescape")
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                return RawRow(name, position, place, problem=describe_not_utf8(error), raw=raw)
        return limit_size(make_json_row(name, position, place, dump_compact(record)))

    def _decode_next(self, name: str, position: int) -> tuple[Any, int]:
        """The value that stands next, whole within MAX_ROW_BYTES characters, and where it begins in
        the buffer; `at` moves to its end.
        """
        while True:
            try:
                record, end = self.json.raw_decode(self.buffer, self.at)
                # A number at the end of the buffer may go on.
                if end < len(self.buffer) or self.complete:
                    start, self.at = self.at, end
                    return record, start
            except RecursionError:
                raise self.make_error(name, position, "too deep") from None
            except ValueError as error:
                if self.complete or len(self.buffer) - self.at > MAX_ROW_BYTES:
                    raise self.make_error(name, position, describe_json_error(error)) from None
            # Twice as much each time, or a long row is decoded too often.
            self.read_more(max(MIB, len(self.buffer) - self.at))

    def make_error(self, name: str, position: int, said: str) -> SourceError:
        """The error of a row that cannot be passed over."""
        said = f"(row {position + 1}: {said})"
        if len(self.buffer) - self.at > MAX_ROW_BYTES:
            said += f", or longer than {MAX_ROW_BYTES // MIB} MiB"
        return SourceError(
            f"{name} is not JSON {said}: {_ONE_LIST}, or use .jsonl, "
            "where a broken row costs no other"
        )
