"""When two rows are the same bytes: equal SHA-256 of `raw`, and, of columnar rows, which are kept
without their schema, equal columns.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from poisonwatch.sources.pandas_metadata import list_renamed_columns

# SHA-256 of the bytes, and the columns that they are read by (`describe_columns`)
BytesKey = tuple[bytes, bytes]

# Of what is written beside a schema, this says how columns are read, and pandas' names do. The
# rest, such as pandas' number of rows, is another with every file.
_READING_METADATA = b"huggingface"


def identify_bytes(raw: bytes, schema: bytes | None) -> BytesKey:
    """What is equal for two rows of the same bytes. `schema` is the serialised Arrow schema by
    which `raw` is read, None for JSON.
    """
    return hashlib.sha256(raw).digest(), describe_columns(schema)


# Rows are compared one by one, and thousands of them have one schema.
@lru_cache(maxsize=64)
def describe_columns(schema: bytes | None) -> bytes:
    """Names and types of a schema's columns, to be compared with those of others; empty for
    JSON.
    """
    if schema is None:
        return b""
    import pyarrow as pa

    parsed = pa.ipc.read_schema(pa.py_buffer(schema))
    columns = "\n".join(str(column) for column in parsed)
    # What a list's values are called is no part of a row, and another in Arrow than in Parquet.
    columns = columns.replace("list<element: ", "list<item: ")
    return b"\0".join((columns.encode(), describe_metadata(parsed.metadata)))


def describe_metadata(metadata: Mapping[bytes, bytes] | None) -> bytes:
    """What is written beside a schema that says how its columns are read, to be compared."""
    described = (metadata or {}).get(_READING_METADATA, b"")
    renamed = list_renamed_columns(metadata)
    if renamed:
        described += repr(renamed).encode(errors="backslashreplace")
    return described
