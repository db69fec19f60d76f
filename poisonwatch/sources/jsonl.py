"""JSON Lines, in memory a row at a time; one broken line costs one row. A line may be a list of
rows.
"""

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
    make_long_row,
    parse_cursor,
)
from poisonwatch.sources.json_row import make_json_row
from poisonwatch.sources.json_values import read_list_text

# Each takes as long as a short row, and packed a million are nothing.
MAX_BLANK_LINES = 1_000_000
_BLANK = b" \t\r\n\xef\xbb\xbf"


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
    a line. Raises SourceError where more than MAX_BLANK_LINES lines hold no row.
    """
    blank = 0
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
            if len(raw) > MAX_ROW_BYTES:
                size, digest, line = _read_rest(line, file, hasher)
                cursor.bytes += size
                rows = [make_long_row(name, cursor.rows, place, raw, digest)]
            else:
                rows = _read_line(raw, name, cursor.rows, place)
            # The last line may have no end yet: whoever writes it may go on.
            cursor.lines += line.endswith(b"\n")
            if not rows:
                blank += 1
                refuse_blank_lines(blank, name)
            for row in rows:
                cursor.rows += 1
                yield row
        cursor.sha256 = hasher.hexdigest()
        reading.cursor = json.dumps(asdict(cursor))
    finally:
        file.close()


def _read_line(raw: bytes, name: str, position: int, place: str) -> list[RawRow]:
    """The row of a line, those of one that is a list, or none of one that is blank."""
    if not raw.startswith(b"{"):
        text = raw.strip(_BLANK)
        if not text:
            return []
        if text.startswith(b"["):
            rows = read_list_text(text, name, position, place)
            if rows is not None:
                return rows
    return [make_json_row(name, position, place, raw)]


def refuse_blank_lines(count: int, name: str) -> None:
    """Raises SourceError where so many lines of a file are blank, as only a broken one has."""
    if count > MAX_BLANK_LINES:
        raise SourceError(f"{name} has more than {MAX_BLANK_LINES:,} blank lines: leave them out")


def strip_line_end(line: bytes) -> bytes:
    """A line without its line end, which may have more than one carriage return."""
    return line.removesuffix(b"\n").rstrip(b"\r")


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
    digest.update(line.removesuffix(b"\n").removesuffix(b"\r"))
    return size, digest.hexdigest(), line
