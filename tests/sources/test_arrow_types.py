"""Types of Arrow columns: as rows are stored, read and released."""

import pyarrow as pa
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.arrow_types import (
    get_storage_schema,
    list_records,
    make_decoder,
    refuse_unwritable_columns,
    simplify_schema,
    unpack_batch,
)

JSON = pa.json_()
TEXTS = ["x", None, "y", "x"]
PACKED = {
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 2, 3, 4], pa.array(TEXTS)),
    "view": pa.array(TEXTS, pa.string_view()),
    "list view": pa.array([["x"], None, ["y", "z"], []], pa.list_view(pa.string())),
    "struct": pa.array(
        [{"a": text} for text in TEXTS],
        pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))]),
    ),
    "map": pa.array([[("k", text)] for text in TEXTS], pa.map_(pa.string(), pa.string_view())),
    "uuid": pa.array([b"1" * 16, None] * 2, pa.binary(16)).cast(pa.uuid()),
    "json": pa.array(['"x"', None, "1", "[]"], JSON),
    "list of json": pa.array([['"x"'], None, ["1", None], []], pa.list_(pa.string())).cast(
        pa.list_(JSON)
    ),
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_unpacked_rows_hold_what_they_held(kind: str, start: int) -> None:
    """Of a slice, too; every value stands in its row."""
    batch = pa.RecordBatch.from_arrays([PACKED[kind]], ["a"]).slice(start)
    storage = get_storage_schema(simplify_schema(batch.schema))
    unpacked = unpack_batch(batch, storage)
    assert unpacked.schema == storage
    if kind != "uuid":
        assert unpacked.to_pylist() == batch.to_pylist()


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.dictionary(pa.int8(), pa.string_view()), pa.large_string()),
        (pa.run_end_encoded(pa.int32(), pa.int64()), pa.int64()),
        (pa.list_view(pa.binary_view()), pa.list_(pa.large_binary())),
        (pa.list_(pa.list_(JSON)), pa.list_(pa.list_(JSON))),
        (
            pa.struct([("a", pa.uuid()), ("b", JSON)]),
            pa.struct([("a", pa.binary(16)), ("b", JSON)]),
        ),
        (pa.json_(pa.string_view()), pa.json_(pa.large_string())),
        (pa.list_(pa.string_view(), 2), pa.list_(pa.large_string(), 2)),
        (pa.decimal128(5, 2), pa.decimal128(5, 2)),
    ],
)
def test_types_are_made_plain(kind: pa.DataType, plain: pa.DataType) -> None:
    """But Arrow's JSON, at any depth; what is plain stays. Twice is once."""
    schema = simplify_schema(pa.schema([("a", kind)], {"k": "v"}))
    assert schema == pa.schema([("a", plain)])
    assert schema.metadata == {b"k": b"v"}
    assert simplify_schema(schema) == schema


def test_json_is_decoded_wherever_it_stands() -> None:
    """In lists, structs and maps; other columns stay as they are."""
    schema = pa.schema(
        [
            ("a", JSON),
            ("b", pa.list_(pa.struct([("c", JSON), ("d", pa.string())]))),
            ("m", pa.map_(pa.string(), JSON)),
            ("s", pa.string()),
        ]
    )
    decode = make_decoder(schema)
    assert decode is not None
    record = {
        "a": '{"x": [1, "\\u4f60", NaN]}',
        "b": [{"c": "1.5", "d": "1.5"}, None],
        "m": {"k": "true", "n": None},
        "s": '"s"',
    }
    assert decode(record) == {
        "a": {"x": [1, "你", None]},
        "b": [{"c": 1.5, "d": "1.5"}, None],
        "m": {"k": True, "n": None},
        "s": '"s"',
    }
    assert make_decoder(pa.schema([("s", pa.list_(pa.string()))])) is None


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', '"\\ud800"', "1e999", "[" * 100_000])
def test_json_that_spells_no_value_names_its_column(text: str) -> None:
    """By the rules of JSON rows."""
    decode = make_decoder(pa.schema([("a", JSON)]))
    assert decode is not None
    with pytest.raises(ValueError, match=r"^the column 'a' holds JSON: "):
        decode({"a": text})


def test_maps_are_mappings() -> None:
    """Where no key stands twice."""
    maps = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))
    batch = pa.RecordBatch.from_arrays([maps], ["a"])
    assert list_records(batch) == [{"a": {"k": 1}}, {"a": None}]
    twice = pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(KeyError):
        list_records(pa.RecordBatch.from_arrays([twice], ["a"]))


@pytest.mark.parametrize("kind", [pa.month_day_nano_interval(), pa.struct([])])
def test_types_that_parquet_lacks_are_refused(kind: pa.DataType) -> None:
    """By column and type; the others pass."""
    with pytest.raises(SourceError, match=r"^f: the column 'b' is of the type"):
        refuse_unwritable_columns(pa.schema([("a", JSON), ("b", kind)]), "f")
    refuse_unwritable_columns(pa.schema([("a", pa.list_(JSON)), ("n", pa.null())]), "f")
