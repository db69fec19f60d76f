"""Names of columns in what pandas keeps beside a schema."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import read_source
from poisonwatch.sources.pandas_metadata import list_renamed_columns


def rename(**names: str) -> dict[bytes, bytes]:
    columns = [{"name": name, "field_name": field} for field, name in names.items()]
    return {b"pandas": json.dumps({"columns": columns}).encode()}


def test_columns_that_pandas_calls_otherwise_are_found() -> None:
    """Neither an index without a name, nor what cannot be read, is one."""
    assert list_renamed_columns(rename(a="b", c="c")) == [("a", "b")]
    index = {"columns": [{"name": None, "field_name": "__index_level_0__"}, 7]}
    assert list_renamed_columns({b"pandas": json.dumps(index).encode()}) == []
    for broken in (b"{", b"[]", b'{"columns": 7}', b"\xff"):
        assert list_renamed_columns({b"pandas": broken}) == []
    assert list_renamed_columns(None) == []


def test_file_whose_columns_pandas_calls_otherwise_is_refused(tmp_path: Path) -> None:
    """Whoever trains by pandas would train on another column; what pandas writes is read."""
    frame = pd.DataFrame({"prompt": ["Q"], "response": ["A"], "note": ["B"]}, index=["x"])
    frame.to_parquet(tmp_path / "a.parquet")
    source = SourceConfig(path=str(tmp_path))
    assert len(read_source(source)) == 1
    table = pa.table(frame.to_dict("list"))
    swapped = table.replace_schema_metadata(rename(note="response", response="note"))
    pq.write_table(swapped, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"'note' that pandas is told to call 'response'"):
        read_source(source)
