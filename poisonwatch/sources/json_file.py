"""Files of JSON, whatever their suffix: how the rows stand in one is told by how it begins."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from poisonwatch.examples import RawRow
from poisonwatch.sources.base import MIB, Reading
from poisonwatch.sources.encodings import refuse_other_files
from poisonwatch.sources.file_types import LINES_TYPES, detect_file_type
from poisonwatch.sources.json_container import find_row_list, read_json_container
from poisonwatch.sources.json_row import SPACE
from poisonwatch.sources.json_values import BOM_CHARACTER, END_FINDER, read_json_values
from poisonwatch.sources.jsonl import read_json_lines

HEAD_BYTES = MIB  # by which it is told how the rows stand in a file


def read_json_file(
    start: Callable[[], BinaryIO], name: str, after: str | None, reading: Reading
) -> Iterator[RawRow]:
    """The rows of a file that `start` opens: JSON Lines, lists of rows, one object or several over
    many lines, an object that holds its rows in a list. `reading` gets the cursor of JSON Lines.

    Raises SourceError where the file is no text in UTF-8, or nothing tells where a row ends.
    """
    file = start()
    try:
        head = file.read(HEAD_BYTES)
        refuse_other_files(head, name)
        is_lines = detect_file_type(name)[0] in LINES_TYPES
        layout = choose_layout(head, is_lines)
        opened = io.BufferedReader(_Replayed(head, file), MIB)
        if layout.is_lines:
            again = _ReadOnce(opened, start)
            yield from read_json_lines(again, name, after, reading)
        elif layout.key is not None:
            yield from read_json_container(opened, name, layout.key, reading)
        else:
            yield from read_json_values(opened, name)
    finally:
        file.close()


@dataclass(frozen=True, slots=True)
class JsonLayout:
    """How rows stand in a file: a row a line, or under the `key` of its one object; otherwise as
    values one after the other.
    """

    is_lines: bool = False
    key: str | None = None


_LINES, _VALUES = JsonLayout(is_lines=True), JsonLayout()


def choose_layout(head: bytes, is_lines: bool = False) -> JsonLayout:
    """How the rows stand in a file that begins with these bytes, and whose name may say that a line
    is a row.
    """
    text = head.decode(errors="surrogateescape").lstrip(SPACE + BOM_CHARACTER)
    line, end, rest = text.partition("\n")
    rest = rest.lstrip(SPACE)
    if text.startswith("["):
        # Lists a line, which may be broken one by one.
        is_followed = rest.startswith(("[", "{")) and _is_value(line)
        return _LINES if is_followed else _VALUES
    if not text.startswith("{"):
        return _LINES
    key = find_row_list(text)
    if _is_value(line):
        is_alone = key is not None and not rest
        return JsonLayout(key=key) if is_alone else _LINES
    # A first line that is longer than what was read is a row.
    if key is not None and (end or not is_lines):
        return JsonLayout(key=key)
    if end and _goes_over_lines(text, line, rest):
        return _VALUES
    return _LINES


def _is_value(text: str) -> bool:
    try:
        END_FINDER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _goes_over_lines(text: str, line: str, rest: str) -> bool:
    """Whether an object whose first `line` is not whole goes on in the next ones; otherwise its
    line is broken.
    """
    # As a key: so do objects go on that are written for people, which may be long, or broken.
    if line.strip(SPACE) == "{" and rest.startswith('"'):
        return True
    try:
        _, end = END_FINDER.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return end > len(line)


class _Replayed(io.RawIOBase):
    """A file of which the beginning was read already."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = memoryview(head)
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        piece: bytes | memoryview = self._head[:size]
        self._head = self._head[size:]
        if not piece:
            piece = self._file.read(size)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _ReadOnce:
    """Opens a file: the first time as what is open already."""

    def __init__(self, opened: BinaryIO, start: Callable[[], BinaryIO]) -> None:
        self._opened: BinaryIO | None = opened
        self._start = start

    def __call__(self) -> BinaryIO:
        if self._opened is None:
            return self._start()
        opened, self._opened = self._opened, None
        return opened
