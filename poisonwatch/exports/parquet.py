"""Flagged rows as a Parquet file, for data frames: texts as they stand in the rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.exports.flagged import FACTS, get_fact
from poisonwatch.flags import read_flagged_example

_TEXTS = ("prompt", "response", "tools", "rejected_response")
_WHOLE = ("group", "position", "line")
_REAL = ("score", "coefficient", "p_value", "q_value")


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Flags as a Parquet file: a column each of `flagged.FACTS`, the texts, whether training lowers
    the answer, and lists of reasons and of what flagged the row.
    """
    schema = pa.schema([(name, _choose_type(name)) for name in _list_columns()])
    table = pa.Table.from_pylist([_make_line(row) for row in rows], schema=schema)
    pq.write_table(table, path)


def _list_columns() -> tuple[str, ...]:
    return (*FACTS, *_TEXTS, "lowered", "reasons", "by")


def _choose_type(name: str) -> pa.DataType:
    if name in _WHOLE:
        return pa.int64()
    if name in _REAL:
        return pa.float64()
    if name == "lowered":
        return pa.bool_()
    if name in ("reasons", "by"):
        return pa.list_(pa.string())
    return pa.string()


def _make_line(row: Mapping[str, Any]) -> dict[str, Any]:
    example = read_flagged_example(row)
    line = {name: get_fact(row, name) for name in FACTS}
    line |= {name: getattr(example, name) for name in (*_TEXTS, "lowered")}
    line |= {"reasons": list(row["reasons"]), "by": list(row.get("by", ()))}
    return {name: _to_utf8(value) for name, value in line.items()}


def _to_utf8(value: Any) -> Any:
    """A text that UTF-8 can hold: a lone surrogate, which JSON may bring, as \\udXXX."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_to_utf8(item) for item in value]
    return value
