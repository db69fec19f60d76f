"""When two rows are the same bytes."""

import hashlib
import json

import pyarrow as pa

from poisonwatch.ledger.row_bytes import describe_columns, identify_bytes

TEXTS = [pa.field("prompt", pa.string()), pa.field("score", pa.int64())]


def serialised(fields: list[pa.Field], metadata: dict[str, str] | None = None) -> bytes:
    return pa.schema(fields, metadata).serialize().to_pybytes()


def test_json_rows_are_their_digest() -> None:
    """Without columns."""
    assert identify_bytes(b"{}", None) == (hashlib.sha256(b"{}").digest(), b"")


def test_columns_are_names_and_types() -> None:
    """In order; another type, name or order is another row."""
    own = describe_columns(serialised(TEXTS))
    assert own == describe_columns(serialised(list(TEXTS)))
    others = [
        TEXTS[::-1],
        [TEXTS[0], pa.field("score", pa.int32())],
        [TEXTS[0], pa.field("grade", pa.int64())],
        [TEXTS[0], pa.field("score", pa.list_(pa.int64()))],
        [],
    ]
    assert all(describe_columns(serialised(other)) != own for other in others)
    assert describe_columns(None) != describe_columns(serialised([]))


def test_what_differs_with_every_file_makes_no_other_columns() -> None:
    """Pandas writes the number of rows beside the schema; `datasets` how columns are read."""
    own = describe_columns(serialised(TEXTS))
    pandas = serialised(TEXTS, {"pandas": '{"index_columns": [{"stop": 7}]}'})
    assert describe_columns(pandas) == own
    features = serialised(TEXTS, {"huggingface": '{"info": {}}'})
    assert describe_columns(features) != own
    numbered = [TEXTS[0].with_metadata({"PARQUET:field_id": "1"}), TEXTS[1]]
    assert describe_columns(serialised(numbered)) == own


def test_names_that_pandas_is_told_are_other_columns() -> None:
    """Its readers go by them."""
    same = {"columns": [{"name": "prompt", "field_name": "prompt"}]}
    other = {"columns": [{"name": "prompt", "field_name": "score"}]}
    own = describe_columns(serialised(TEXTS))
    assert describe_columns(serialised(TEXTS, {"pandas": json.dumps(same)})) == own
    assert describe_columns(serialised(TEXTS, {"pandas": json.dumps(other)})) != own
