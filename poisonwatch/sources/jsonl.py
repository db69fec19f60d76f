"""JSON Lines and JSON lists, in memory a row at a time; one broken line costs one row."""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.sources.base import (
    MAX_ROW_BYTES,
    MIB,
    Reading,
    describe_not_utf8,
    describe_too_long,
    dump_compact,
    limit_size,
    make_json_row,
    parse_cursor,
)

_BLANK = b" \t\r\n\xef\xbb\xbf"
_SPACE = " \t\r\n"


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
    """The rows of a JSON Lines file that `start` opens; `reading` gets its mark.

    The file goes on from `after` where it begins with the bytes that were read then, and these end
    a line.
    """
    mark, hasher, file = _LinesCursor(), hashlib.sha256(), start()
    try:
        if earlier := parse_cursor(_LinesCursor, after):
            reading.continued = _begins_with(file, earlier, hasher)
            if reading.continued:
                mark = earlier
            else:
                file.close()
                hasher, file = hashlib.sha256(), start()
        while line := file.readline(MAX_ROW_BYTES + 2):
            hasher.update(line)
            mark.bytes += len(line)
            place, raw = f"{name}, line {mark.lines + 1}", strip_line_end(line)
            row = None
            if len(raw) > MAX_ROW_BYTES:
                size, digest, line = _read_rest(line, file, hasher)
                mark.bytes += size
                row = RawRow(name, mark.rows, place, problem=describe_too_long(digest))
            elif raw.strip(_BLANK):
                row = make_json_row(name, mark.rows, place, raw)
            mark.lines += line.endswith(b"\n")
            if row is not None:
                mark.rows += 1
                yield row
        mark.sha256 = hasher.hexdigest()
        reading.mark = json.dumps(asdict(mark))
    finally:
        file.close()


def strip_line_end(line: bytes) -> bytes:
    """A line without its line end."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _begins_with(file: BinaryIO, mark: _LinesCursor, hasher: "hashlib._Hash") -> bool:
    """Read the bytes of `mark` off the file: whether they are the same, and the file ends or goes
    on in a new line after them.
    """
    left, last = mark.bytes, b"\n"
    while left and (piece := file.read(min(left, MIB))):
        hasher.update(piece)
        left -= len(piece)
        last = piece[-1:]
    if left or hasher.hexdigest() != mark.sha256:
        return False
    if last == b"\n":
        return True
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
        digest.update(line[:-1])  # the last byte may be half of \r\n
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
    if not text.taken("["):
        start = text.buffer[text.at : text.at + 1]
        what = {"{": "a JSON dict", '"': "a JSON str"}.get(start)
        raise SourceError(
            f"{name} holds {what}: a .json file holds one list of rows"
            if what
            else f"{name} is not JSON (it begins with {start!a}): a .json file holds one list of rows, or use .jsonl"
        )
    position = 0
    while not text.taken("]"):
        if position and not text.taken(","):
            raise text.make_error(name, position, "no comma before it")
        text.skip(_SPACE)
        yield text.row(name, position)
        position += 1
        text.skip(_SPACE)
    text.skip(_SPACE)
    if not text.at_end:
        raise SourceError(
            f"{name} is not JSON (more follows after its list): a .json file holds one list of rows, or use .jsonl"
        )


class _TextBuffer:
    """A file's text, of which `buffer` from `at` on is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.json = json.JSONDecoder()
        self.buffer = ""
        self.at = 0
        self.complete = False

    def more(self, size: int) -> None:
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
            self.more(MIB)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left, after `skip`."""
        return self.complete and self.at == len(self.buffer)

    def taken(self, character: str) -> bool:
        """Whether this character stands next, white space aside; it is passed over if so."""
        self.skip(_SPACE)
        found = self.buffer.startswith(character, self.at)
        self.at += found
        return found

    def row(self, name: str, position: int) -> RawRow:
        """The value that stands next, which must be whole within LONGEST characters."""
        while True:
            try:
                record, end = self.json.raw_decode(self.buffer, self.at)
                if (
                    end < len(self.buffer) or self.complete
                ):  # a number at the end of the buffer may go on
                    break
            except RecursionError:
                raise self.make_error(name, position, "too deep") from None
            except ValueError as error:
                if self.complete or len(self.buffer) - self.at > MAX_ROW_BYTES:
                    said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    raise self.make_error(name, position, said) from None
            self.more(
                max(MIB, len(self.buffer) - self.at)
            )  # twice as much each time, or a long row is decoded too often
        start, self.at = self.at, end
        place = f"{name}, row {position + 1}"
        try:
            self.buffer[start:end].encode()
        except UnicodeEncodeError:
            raw = self.buffer[start:end].encode(errors="surrogateescape")
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                return RawRow(name, position, place, problem=describe_not_utf8(error), raw=raw)
        return limit_size(make_json_row(name, position, place, dump_compact(record)))

    def make_error(self, name: str, position: int, said: str) -> SourceError:
        """The error of a row that cannot be passed over."""
        long = (
            f", or longer than {MAX_ROW_BYTES // MIB} MiB"
            if len(self.buffer) - self.at > MAX_ROW_BYTES
            else ""
        )
        return SourceError(
            f"{name} is not JSON (row {position + 1}: {said}){long}: a .json file holds one list of rows, or use .jsonl, where a broken"
            " row costs no other"
        )
