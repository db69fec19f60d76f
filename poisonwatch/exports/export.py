"""The flagged rows of a ledger, written as another tool reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from poisonwatch.atomic import replace_file
from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError
from poisonwatch.exports.annotation import make_argilla_records, make_label_studio_tasks
from poisonwatch.exports.flagged import collect_ids
from poisonwatch.exports.lines import find_lines
from poisonwatch.exports.sarif import Places, make_sarif
from poisonwatch.exports.spreadsheet import format_csv
from poisonwatch.ledger.flagged_places import find_places
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.permissions import make_private_file

ExportFormat = Literal["sarif", "csv", "parquet", "argilla", "label-studio"]
TextFormat = Literal["sarif", "csv", "argilla", "label-studio"]
Rows = Sequence[Mapping[str, Any]]


def format_rows(rows: Rows, format: TextFormat, name: str, places: Places) -> str:
    """Flagged rows of audits of a name (`flagged.collect_flagged`) as text; all but CSV is ASCII,
    in which hostile text stays inert. `places` are what SARIF tells of.
    """
    if format == "csv":
        return format_csv(rows)
    if format == "sarif":
        return _to_json(make_sarif(rows, name, places))
    if format == "argilla":
        return _to_json(make_argilla_records(rows))
    return _to_json(make_label_studio_tasks(rows))


def _to_json(document: Any) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def locate_rows(
    ledger: Ledger, rows: Rows, config: AuditConfig, folder: Path, root: Path | None = None
) -> Places:
    """Where flagged rows stand now. `folder` is the audit file's; names of files in what is written
    start at `root`, by default there. Raises InputError where the root does not hold the folder.
    """
    folder = folder.resolve()
    root = folder if root is None else root.resolve()
    if not folder.is_relative_to(root):
        raise InputError(
            f"--root {root} does not hold the audit file's folder {folder}: name one above it"
        )
    of = find_places(ledger, config.name, collect_ids(rows))
    wanted: dict[str, set[int]] = {}
    for found in of.values():
        for file, position in found:
            wanted.setdefault(file, set()).add(position)
    return Places(
        of=of,
        folder=None if config.source.path is None else folder,
        root=root,
        lines=find_lines(config.source, wanted),
    )


def write_rows(rows: Rows, format: ExportFormat, name: str, places: Places, path: Path) -> None:
    """Write flagged rows to a file, whole or not at all, for its owner alone: as `format_rows`, or
    as Parquet.
    """
    with replace_file(path) as part:
        make_private_file(part)
        if format == "parquet":
            # pyarrow takes a while to import
            from poisonwatch.exports.parquet import write_parquet

            write_parquet(rows, part)
        else:
            text = format_rows(rows, format, name, places)
            # line ends as they are: CSV has its own
            part.write_text(text, encoding="utf-8", newline="")
