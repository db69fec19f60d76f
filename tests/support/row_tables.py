"""The table of a file of rows."""

import json
from pathlib import Path
from typing import Any

from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS
from poisonwatch.integrations.great_expectations.frame import RowTable, build_table
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import read_source
from poisonwatch.validation import Facts

ALL = frozenset(EXPECTATION_COLUMNS)


def build_file_table(
    folder: Path, records: list[Any], columns: frozenset[str] = ALL, **source: Any
) -> RowTable:
    (folder / "rows-7.jsonl").write_text(
        "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)
    )
    config = SourceConfig(path=str(folder / "rows-7.jsonl"), **source)
    rows = read_source(config.with_base_folder(folder))
    return build_table(rows, Facts(), columns, lambda text: text[:2])
