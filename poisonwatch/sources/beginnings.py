"""How a file that no name tells apart begins and ends: whether a trainer that is given it, by a
pattern or as what lies in a folder, could read rows out of it.
"""

import io
import re
from pathlib import PurePosixPath

from poisonwatch.formats.fields import KNOWN_NAMES
from poisonwatch.sources.file_types import FILE_TYPES

HEAD_BYTES = 64 << 10  # of a file that are looked at
TAIL_BYTES = 8
_BLANK = b" \t\r\n\v\f\0\xef\xbb\xbf\xff\xfe"
# Parquet, Arrow's two formats, SQLite, and what packs files: gzip, Zstandard, bzip2, xz, zip.
_MAGIC = (b"PAR1", b"PARE", b"ARROW1", b"\xff\xff\xff\xff", b"SQLite format 3\0")
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0", b"PK\x03\x04")
_FOOTERS = (b"PAR1", b"PARE", b"ARROW1")  # readers of these formats begin at the end
# An object, a list of objects, or a list of lists; neither a link of Markdown nor a table of TOML.
_JSON = re.compile(rb'\{\s*["}]|\[\s*(\{|\[\s*[\[{"])')
_CELL = re.compile(r"[\w .-]{1,40}")
# What tools keep of another file: its checksums, a commit and the time of a download.
_CHECKSUM = re.compile(rb"[0-9a-fA-F]{32,128}([ \t]+\*?\S+)?|[0-9]+(\.[0-9]+)?")
_HADOOP_CHECKSUMS = b"crc\0"


def has_row_suffix(name: str) -> bool:
    """Whether one of a name's suffixes, not only the last, is that of a file of rows: by any of
    them `datasets` chooses how to read a file.
    """
    suffixes = {suffix.lower().rstrip("~#") for suffix in PurePosixPath(name.strip("#")).suffixes}
    return not suffixes.isdisjoint(FILE_TYPES)


def may_begin_rows(name: str, head: bytes, tail: bytes) -> bool:
    """Whether a file that begins and ends with these bytes may hold rows. One whose name says that
    it is a file of rows, and then something else, does unless it holds checksums.
    """
    if not head:
        return False
    if has_row_suffix(name):
        return not _is_checksums(head)
    return begins_like_rows(head, tail)


def begins_like_rows(head: bytes, tail: bytes) -> bool:
    """Whether these bytes are those of a file of rows: JSON, Parquet, Arrow, a packed file, or a
    table whose columns are called as fields that are read.
    """
    if head.startswith(_MAGIC + _PACKED) or tail.endswith(_FOOTERS):
        return True
    # In UTF-16, every other byte is NUL.
    text = head.replace(b"\0", b"").lstrip(_BLANK)
    if not text:
        return len(head) >= HEAD_BYTES
    return bool(_JSON.match(text)) or _is_table(text)


def _is_table(text: bytes) -> bool:
    first = re.split(rb"[\r\n]", text, maxsplit=1)[0].decode(errors="replace")
    for separator in ",\t;":
        cells = [cell.strip(" \"'") for cell in first.split(separator)]
        known = {cell.lower() for cell in cells} & KNOWN_NAMES
        if len(known) > 1 and all(map(_CELL.fullmatch, cells)):
            return True
    return False


def _is_checksums(head: bytes) -> bool:
    if head.startswith(_HADOOP_CHECKSUMS):
        return True
    lines = head.split(b"\n")
    # The last line may be cut off.
    if len(head) >= HEAD_BYTES:
        lines.pop()
    lines = [line.strip() for line in lines]
    return all(map(_CHECKSUM.fullmatch, filter(None, lines)))


def is_parquet_summary(content: bytes) -> bool:
    """Whether a Parquet file holds no rows itself, and tells only of those in others (Spark's and
    Dask's _metadata).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(io.BytesIO(content))
    except (pa.ArrowException, OSError):
        return False
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not all(group.column(at).file_path for at in range(group.num_columns)):
            return False
    return True
