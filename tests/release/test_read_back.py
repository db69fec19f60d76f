"""Whatever a release writes loads again with datasets, pandas and pyarrow, in order, and equals what
was read from the source, which is what was audited.
"""

import csv
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as arrow_json
import pyarrow.parquet as pq
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ledgers import NAME, cover, sqlite_ledger

from poisonwatch.ledger.intake import ingest
from poisonwatch.release.release import write_release
from poisonwatch.release.row_types import MixedTypesError, infer_type
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.arrow_types import is_json
from poisonwatch.sources.open import open_source

Record = dict[str, Any]
Records = Sequence[Record]
# Shrinking takes minutes: a ledger and three readers an example.
phases = [Phase.explicit, Phase.generate]
few = settings(max_examples=5, derandomize=True, phases=phases)

SCRIPTS = "aé红你한あקשعربไทย្ខမြन😀👨‍👩‍👧\u200d\u200b\u00ad\u2028\x85\t\"\\/'{}[]:,"
letters = st.one_of(st.sampled_from(SCRIPTS), st.characters(exclude_categories=["Cs"]))
words = st.text(letters, max_size=12)
names = st.text(st.sampled_from("abcé红. _-"), min_size=1, max_size=4)
# pandas and pyarrow read a column of numbers as 64-bit fractions where one is: larger ones would be
# rounded. datasets writes JSON with 10 digits.
numbers = st.integers(-(2**53), 2**53) | st.integers(-4000, 4000).map(lambda n: n / 4)
plain = st.one_of(st.none(), st.booleans(), numbers, words)


def begins_with_something(items: list[Any]) -> bool:
    """pyarrow 25 misreads a list of JSON that begins with null where it has seen no other item."""
    return not items or items[0] is not None


values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).filter(begins_with_something),
        st.dictionaries(names, inner, max_size=3),
    ),
    max_leaves=6,
)


@st.composite
def rows_of(draw: st.DrawFn, fields: st.SearchStrategy[Record]) -> list[Record]:
    """Rows of prompt and response, each another content, with other fields beside them."""
    records = []
    for number, others in enumerate(draw(st.lists(fields, min_size=1, max_size=5))):
        prompt = f"q{number} {draw(words)}"
        records.append({"prompt": prompt, "response": f"a {draw(words)}", **others})
    return records


def as_plain(value: Any) -> Any:
    """A value without what readers tell apart in their own ways: missing fields and null ones,
    empty objects and missing ones, their own types of lists and nothings.
    """
    if isinstance(value, np.ndarray | list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, dict):
        kept = {key: as_plain(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner is not None} or None
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, float | np.floating) and math.isnan(value):
        return None
    if isinstance(value, np.generic):
        return value.item()
    return value


def load_with_datasets(path: Path, folder: Path) -> list[Any]:
    cache = str(folder / "cache")
    if path.suffix == ".jsonl":
        found = datasets.Dataset.from_json(str(path), cache_dir=cache)
    else:
        found = datasets.Dataset.from_parquet(str(path), cache_dir=cache)
    return list(found)


def load_with_pandas(path: Path) -> list[Any]:
    if path.suffix == ".jsonl":
        found = pd.read_json(path, lines=True, dtype=False, precise_float=True)
        return list(found.to_dict("records"))
    return list(pd.read_parquet(path).to_dict("records"))


def load_with_pyarrow(path: Path) -> list[Any] | None:
    """None where the rows are mixed in themselves: pyarrow reads no such row."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    try:
        for line in path.read_bytes().splitlines():
            infer_type(json.loads(line))
    except MixedTypesError:
        return None
    return list(arrow_json.read_json(path).to_pylist())


def decode_columns(path: Path, found: list[Any]) -> list[Any]:
    """What datasets decodes, of what others give as the text that it is stored as."""
    if path.suffix == ".jsonl":
        return found
    for field in pq.read_schema(path):
        for row in found:
            row[field.name] = decode(row[field.name], field.type)
    return found


def decode(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, str) and is_json(kind):
        return json.loads(value)
    if pa.types.is_list(kind) and isinstance(value, list | np.ndarray):
        return [decode(item, kind.value_type) for item in value]
    return value


def check_read_back(write: Callable[[Path], None], rows: int, alone: bool = True) -> None:
    """Write a source into a folder; pull, audit and release it; load the release."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        write(folder / "data")
        source = SourceConfig(path=str(folder / "data")).with_base_folder(folder)
        with sqlite_ledger(folder) as ledger:
            with ledger.lock("tiny"):
                ingest(ledger, NAME, source)
            cover(ledger, folder / "run")
            counts = write_release(ledger, NAME, folder / "out")
        assert counts.clean == rows
        compare(folder, source, alone)


def compare(folder: Path, source: SourceConfig, alone: bool) -> None:
    read: dict[tuple[str, int], Any] = {}
    for unit in open_source(source, "source").units:
        for row in unit.read():
            read[row.source, row.position] = row.record
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert len(manifest["files"]) == 1 or not alone
    for entry in manifest["files"]:
        path = folder / "out" / entry["name"]
        mine = [row for row in manifest["rows"] if row["file"] == entry["name"]]
        audited = [as_plain(read[row["source"], row["position"]]) for row in mine]
        assert as_plain(load_with_datasets(path, folder)) == audited
        assert as_plain(decode_columns(path, load_with_pandas(path))) == audited
        found = load_with_pyarrow(path)
        assert found is None or as_plain(decode_columns(path, found)) == audited


def write_json(path: Path, records: Records, ascii: bool) -> None:
    texts = [json.dumps(record, ensure_ascii=ascii) for record in records]
    if path.suffix == ".jsonl":
        start = "\ufeff" if ascii else ""
        path.write_text(start + "\n".join(texts), encoding="utf-8", newline="")
    else:
        indent = 1 if ascii else None
        text = json.dumps({"data": records} if ascii else records, indent=indent)
        path.write_text(text, encoding="utf-8")


@few
@given(rows_of(st.dictionaries(names, values, max_size=3)), st.booleans())
def test_json_lines_of_any_fields(records: list[Record], ascii: bool) -> None:
    """Fields of any types, nested, of any script, escaped or not."""
    path = "a.jsonl"
    check_read_back(lambda folder: write_json(folder / path, records, ascii), len(records), False)


@few
@given(rows_of(st.fixed_dictionaries({"n": numbers, "m": st.lists(words)})), st.booleans())
def test_json_lists(records: list[Record], in_object: bool) -> None:
    """A list, or one in an object; fields of the same types are in one file."""
    path = "a.json"
    check_read_back(lambda folder: write_json(folder / path, records, in_object), len(records))


@few
@given(rows_of(st.fixed_dictionaries({"x": words, "y, z": words})))
def test_csv(records: list[Record]) -> None:
    """Every cell is text."""

    def write(folder: Path) -> None:
        with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)

    check_read_back(write, len(records))


times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)).map(
    lambda t: t.replace(tzinfo=UTC)
)
COLUMNS = {
    "prompt": (pa.string(), words),
    "response": (pa.large_string(), words),
    "n": (pa.int64(), st.none() | st.integers(-(2**53), 2**53)),
    "x": (pa.float32(), st.none() | st.floats(width=32, allow_nan=False)),
    "when": (pa.timestamp("us", "UTC"), st.none() | times),
    "price": (pa.decimal128(9, 2), st.decimals(0, 999, places=2).map(Decimal)),
    "bytes": (pa.binary(), st.none() | st.binary(max_size=5)),
    "lists": (pa.list_(pa.list_(pa.string())), st.none() | st.lists(st.lists(words))),
    "kind": (pa.dictionary(pa.int32(), pa.string()), st.none() | words),
    "s": (pa.struct([("a", pa.bool_()), ("b", pa.list_(pa.int8()))]), st.none()),
    "none": (pa.null(), st.none()),
}


@few
@given(rows_of(st.fixed_dictionaries({name: kind[1] for name, kind in COLUMNS.items()})))
def test_parquet_of_many_types(records: list[Record]) -> None:
    """Numbers, times, bytes, lists, dictionaries, nulls: the types that they came with."""
    for number, record in enumerate(records):
        record["prompt"] = f"{number}"
    schema = pa.schema([(name, kind[0]) for name, kind in COLUMNS.items()])
    table = pa.Table.from_pylist(records, schema)
    check_read_back(lambda folder: pq.write_table(table, folder / "a.parquet"), len(records))


@few
@given(rows_of(st.fixed_dictionaries({"m": values, "l": st.lists(values, max_size=3)})))
def test_parquet_with_json_columns(records: list[Record]) -> None:
    """Columns whose values are of several types, as datasets writes them."""
    found = datasets.Dataset.from_list([*records], on_mixed_types="use_json")
    check_read_back(lambda folder: found.to_parquet(folder / "a.parquet"), len(records))


def test_sources_of_all_formats_at_once() -> None:
    """Each file of the release holds rows that can be read together, in the order of the source."""
    records = [{"prompt": f"q{i}", "response": "a", "n": i} for i in range(4)]

    def write(folder: Path) -> None:
        write_json(folder / "a.jsonl", records, ascii=True)
        write_json(folder / "b.json", [{**row, "prompt": f"b{row['n']}"} for row in records], False)
        texts = [{**row, "prompt": f"c{row['n']}", "n": "x"} for row in records]
        write_json(folder / "c.jsonl", texts, ascii=False)
        pq.write_table(
            pa.Table.from_pylist([{"prompt": "d", "response": "x"}]), folder / "d.parquet"
        )
        (folder / "e.tsv").write_text("prompt\tresponse\ne\tNaN\n")

    check_read_back(write, 14, alone=False)
