"""How a file is read, told by its name."""

from pathlib import Path

JSON_TYPES = (".json", ".jsonl", ".ndjson")
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
