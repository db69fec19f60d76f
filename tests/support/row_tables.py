"""The table of a file of rows."""

import json
from pathlib import Path
from typing import Any

from poisonwatch.integrations.great_expectations.cells import EXPECTATION_COLUMNS, BatchFacts
from poisonwatch.integrations.great_expectations.copies import find_copies
from poisonwatch.integrations.great_expectations.frame import RowTable, build_table
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.open import SourceRows, read_source
from poisonwatch.text.language import LanguageDetector
from poisonwatch.validation import Facts

ALL = frozenset(EXPECTATION_COLUMNS)


def build_file_table(
    folder: Path, records: list[Any], columns: frozenset[str] = ALL, **source: Any
) -> RowTable:
    (folder / "rows-7.jsonl").write_text(
        "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)
    )
    config = SourceConfig(path=str(folder / "rows-7.jsonl"), **source)
    return tabulate(read_source(config.with_base_folder(folder)), columns, lambda text: text[:2])


def tabulate(
    rows: SourceRows,
    columns: frozenset[str] = ALL,
    language: LanguageDetector = lambda text: text,
    start: int = 0,
) -> RowTable:
    """All rows in one table, numbered from `start`."""
    read = list(rows)
    first = find_copies(read).first.tolist()
    earlier: dict[int, str] = {}
    for i, other in enumerate(first):
        if i != other:
            earlier[start + i] = read[other][0].place
    return build_table(start, read, rows.formats, columns, BatchFacts(earlier, Facts(), language))
