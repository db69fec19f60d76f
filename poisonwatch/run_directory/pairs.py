"""Tables with a line for every pair of a row and a sentinel: n rows x S sentinels.

    example_id, source, position, sentinel_id, panel      which pair it is
    coefficient, score, ...                               what is known of it

They are Parquet files whose row groups hold some rows each, with every text stored once. They are
written and read a row group at a time: a million rows have thirty million lines and more.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poisonwatch.arrays import Array, Integers
from poisonwatch.examples import Example
from poisonwatch.sentinels.sentinel import Sentinel

# Rows of a row group. Their ids fit a Parquet dictionary (1 MiB): each is stored once.
ROWS_IN_GROUP = 8192

_TEXT = pa.dictionary(pa.int32(), pa.string())
PLACE_TYPES = {
    "example_id": _TEXT,
    "source": _TEXT,
    "position": pa.int64(),
    "sentinel_id": _TEXT,
    "panel": _TEXT,
}
TEXTS = [name for name, kind in PLACE_TYPES.items() if kind == _TEXT]
# Every pair has its own: a dictionary of them would only take time.
NEVER_TWICE = {"coefficient", "recovered", "rescored"}


def write_pairs(
    path: Path,
    rows: Sequence[Example],
    sentinels: Sequence[Sentinel],
    *,
    places: Sequence[str],
    values: Mapping[str, tuple[Array, Sequence[int] | None]],
) -> None:
    """One line for each pair of one of n rows and one of S sentinels, the sentinels of a row in
    turn.

    `places` name the columns that say which pair it is; `values` are arrays (n, X), with the column
    of X for each sentinel where X is not S. Every row is looked at once.
    """
    types = {name: PLACE_TYPES[name] for name in places} | dict.fromkeys(values, pa.float64())
    schema = pa.schema(types)
    # Without Arrow's own schema readers find plain strings, however these are written.
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[name for name in types if name not in NEVER_TWICE],
        store_schema=False,
    ) as file:
        start = 0
        for some in _split_rows(rows):
            of_pairs = _build_pairs(some, sentinels)
            columns: dict[str, Any] = {name: of_pairs[name] for name in places}
            for name, (array, of_sentinel) in values.items():
                part = array[start : start + len(some)]
                if of_sentinel is not None:
                    part = part[:, of_sentinel]
                columns[name] = part.astype(np.float64, copy=False).ravel()
            file.write_table(pa.table(columns, schema=schema))
            start += len(some)


def _split_rows(rows: Sequence[Example]) -> Iterator[list[Example]]:
    left = iter(rows)
    while some := list(islice(left, ROWS_IN_GROUP)):
        yield some


def _build_pairs(examples: Sequence[Example], sentinels: Sequence[Sentinel]) -> dict[str, Any]:
    """What is known of each pair of an example and a sentinel, the sentinels of an example in
    turn: the order of an array (n, S), row by row.
    """
    m, S = len(examples), len(sentinels)
    by_row, in_turn = np.repeat(np.arange(m), S), np.tile(np.arange(S), m)
    return {
        "example_id": _pick_texts([example.id for example in examples], by_row),
        "source": _pick_texts([example.source for example in examples], by_row),
        "position": np.array([example.position for example in examples], np.int64)[by_row],
        "sentinel_id": _pick_texts([sentinel.id for sentinel in sentinels], in_turn),
        "panel": _pick_texts([sentinel.panel for sentinel in sentinels], in_turn),
    }


def _pick_texts(texts: Sequence[str], places: Integers) -> pa.DictionaryArray:
    """texts[places], each different text stored once."""
    stored = pa.array(texts, pa.string()).dictionary_encode()
    picked = stored.indices.to_numpy()[places]
    return pa.DictionaryArray.from_arrays(pa.array(picked, pa.int32()), stored.dictionary)


def read_lines(
    path: Path, column: str, wanted: Collection[str], columns: Sequence[str]
) -> pa.Table:
    """The lines whose example_id (or another `column` of texts) is one of those `wanted`, in the
    order of the file, with these `columns`.

    Raises what pyarrow does where the file is missing, damaged, or lacks a column.
    """
    values = pa.array(sorted(wanted), pa.string())
    with _open_pairs(path) as file:
        found = [_select_fields(file.schema_arrow, columns).empty_table()]
        for group in range(file.num_row_groups):
            key = file.read_row_group(group, [column])[column].combine_chunks()
            # Each text is compared once, however many lines it has.
            known = pc.is_in(key.dictionary, values).to_numpy(zero_copy_only=False)
            if known.any():
                lines = pa.array(known[key.indices.to_numpy()])
                found.append(_decode(file.read_row_group(group, columns).filter(lines)))
    return pa.concat_tables(found).select(columns)


def read_places(path: Path) -> pa.Table:
    """example_id, source and position of every row of a file, one line a row."""
    with _open_pairs(path) as file:
        columns = [name for name in ("example_id", "source", "position") if name in _names(file)]
        found = [_select_fields(file.schema_arrow, columns).empty_table()]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, [*columns, "sentinel_id"])
            turn = table["sentinel_id"].combine_chunks().indices.to_numpy()
            # Every row has a line for the sentinel that a group begins with.
            found.append(_decode(table.filter(pa.array(turn == turn[:1])).select(columns)))
    return pa.concat_tables(found)


def _open_pairs(path: Path) -> pq.ParquetFile:
    metadata = pq.read_metadata(path)
    names = metadata.schema.to_arrow_schema().names
    texts = [name for name in TEXTS if name in names]
    return pq.ParquetFile(path, metadata=metadata, read_dictionary=texts)


def _names(file: pq.ParquetFile) -> list[str]:
    return list(file.schema_arrow.names)


def _select_fields(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """The schema of these columns, texts as plain strings."""
    fields = []
    for name in columns:
        kind = schema.field(name).type
        fields.append((name, pa.string() if pa.types.is_dictionary(kind) else kind))
    return pa.schema(fields)


def _decode(table: pa.Table) -> pa.Table:
    """The table with texts as plain strings."""
    return table.cast(_select_fields(table.schema, table.column_names))
