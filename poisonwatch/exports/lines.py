"""On which lines rows stand, as editors and code hosts count them."""

import re
from collections.abc import Collection, Mapping

from poisonwatch.errors import SourceError
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.file_types import LINES_TYPES, detect_file_type

_LINE = re.compile(r", line (\d+)")


def has_lines(file: str) -> bool:
    """Whether each row of a file stands on a line of it: JSON Lines that are not compressed."""
    kind, compression = detect_file_type(file)
    return kind in LINES_TYPES and compression is None


def find_lines(
    source: SourceConfig, wanted: Mapping[str, Collection[int]]
) -> dict[tuple[str, int], int]:
    """The lines, from 1, of rows by their file and zero-based position: blank lines count, too.

    Of local files with lines alone, as they are now; what cannot be read is left out, since its
    rows are told of all the same.
    """
    files = {file: set(positions) for file, positions in wanted.items() if has_lines(file)}
    if source.path is None or "://" in source.path or not files:
        return {}
    lines: dict[tuple[str, int], int] = {}
    try:
        _read_lines(source, files, lines)
    except SourceError:
        return lines
    return lines


def _read_lines(
    source: SourceConfig, files: Mapping[str, set[int]], lines: dict[tuple[str, int], int]
) -> None:
    from poisonwatch.sources.open import open_source

    for unit in open_source(source).units:
        left = set(files.get(unit.name, ()))
        if not left:
            continue
        for row in unit.read():
            if row.position in left:
                # The name may say anything: what comes after it is ours.
                found = _LINE.match(row.place.removeprefix(unit.name))
                if found:
                    lines[unit.name, row.position] = int(found[1])
                left.discard(row.position)
            if not left:
                break
