"""Files on servers, as a source reads them: rows to put there, and what reading tells."""

import io
import json
import traceback

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.files import open_files

SECRET = "hunter2hunter2"
RECORDS = [{"prompt": f"Q{i}", "response": f"A{i}"} for i in range(3)]
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)


def parquet(rows: int) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS * rows), file)
    return file.getvalue()


def opened(path: str) -> list[SourceFile]:
    return list(open_files(SourceConfig(path=path), "source").units)


def read(path: str) -> dict[str, list[RawRow]]:
    return {file.name: list(file.read()) for file in opened(path)}


def refusal(path: str) -> str:
    """The error's text, after a look at all that a logged traceback would show."""
    with pytest.raises(SourceError) as caught:
        read(path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)
