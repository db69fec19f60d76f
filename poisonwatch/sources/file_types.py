"""Names of files: how they tell that a file is read, and how they are shown."""

import unicodedata
from pathlib import Path

LINES_TYPES = (".jsonl", ".ndjson")
JSON_TYPES = (".json", *LINES_TYPES)
# Read here and there, and never compressed as a whole.
SEEKABLE_TYPES = (".arrow", ".parquet")
FILE_TYPES = (".arrow", ".csv", *JSON_TYPES, ".parquet", ".tsv")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}


def detect_file_type(path: str, web: bool = False) -> tuple[str, str | None]:
    """The suffix that tells how a file is read, and its compression. ("", None) where it is no file
    of rows.
    """
    # On the web a ? begins the query, in which a token may end in anything.
    if web:
        path = path.partition("?")[0]
    *_, inner, last = ["", "", *(suffix.lower() for suffix in Path(path).suffixes)]
    if last in FILE_TYPES:
        return last, None
    if last in COMPRESSIONS and inner in FILE_TYPES and inner not in SEEKABLE_TYPES:
        return inner, COMPRESSIONS[last]
    return "", None


def list_file_types() -> str:
    """The suffixes that are read, for messages."""
    return ", ".join(sorted(FILE_TYPES))


def escape_name(name: str) -> str:
    r"""A file's name as text that can be shown and stored: bytes that are no UTF-8 as \xff, control
    and invisible characters as \u000a, a backslash as two; so no two names become one.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(map(_escape_character, name))


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    code = ord(character)
    # As Python reads a byte that is no UTF-8 (PEP 383).
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character)[0] != "C":
        return character
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}"
