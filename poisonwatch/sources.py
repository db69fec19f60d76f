"""Where rows come from: files named by path, glob or URL, as JSON Lines, JSON, CSV, Parquet or Arrow.

JSON Lines are parsed line by line here, so that one broken line costs one row; the columnar formats go through `datasets`.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import split_protocol

from poisonwatch.config import SourceConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import FORMATS, Draft, RawRow, detect_format, read_record
from poisonwatch.redaction import redact_url

COLUMNAR = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
LINES = {".jsonl", ".ndjson"}
PROBED_ROWS = 50


class Rows:
    """The rows of a source in order, each beside what was read from it."""

    def __init__(self, rows: list[RawRow], drafts: list[Draft], formats: dict[str, str]) -> None:
        self.raw = rows
        self.drafts = drafts
        self.formats = formats  # by source

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[tuple[RawRow, Draft]]:
        return zip(self.raw, self.drafts, strict=True)

    def used_fields(self, source: str) -> frozenset[str]:
        """The fields of a source's records that became messages; the others are metadata."""
        return FORMATS[self.formats[source]][0]


def pull(source: SourceConfig) -> Rows:
    """Read every row of a source.

    Raises SourceError where nothing is found, a file cannot be opened, no row is there, or the format is unknown.
    """
    rows: list[RawRow] = []
    drafts: list[Draft] = []
    formats: dict[str, str] = {}
    for path in expand(source.path):
        found = list(read_file(path, source.name_of(path)))
        readable = [row.record for row in found if row.record is not None]
        if not readable and found:
            raise SourceError(f"{found[0].place}: {found[0].problem}; none of the {len(found)} rows of this file can be read")
        if not found:
            continue
        name = found[0].source
        formats[name] = source.format if source.format != "auto" else detect_format(readable[:PROBED_ROWS], name)
        rows += found
        drafts += [Draft(problem=r.problem) if r.record is None else read_record(r.record, formats[name]) for r in found]
    if not rows:
        raise SourceError(f"{redact_url(source.path)} holds no rows: point `source` at a file with at least one")
    return Rows(rows, drafts, formats)


def expand(path: str, key: str = "source") -> list[str]:
    """The files that a path, glob or URL stands for, sorted. Raises SourceError, naming the configuration's `key`, where there are none."""
    protocol, _ = split_protocol(path)
    local = protocol in (None, "file")
    try:
        fs, root = fsspec.url_to_fs(path)
        if local and fs.isdir(root):
            matches = sorted(fs.ls(root, detail=False))
        elif fs.exists(root):
            matches = [root]  # whatever its name holds: a URL's query, too, has the ? of a pattern
        else:
            matches = sorted(fs.glob(root)) if any(c in root for c in "*?[") else []
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{redact_url(path)} cannot be reached: {redact_url(str(error))}") from error
    files = [m for m in matches if _suffix(m) in {*LINES, *COLUMNAR, ".json"}]
    if not matches:
        raise SourceError(f"{redact_url(path)} does not exist: check `{key}` (relative paths start at the audit file's folder)")
    if not files:
        allowed = ", ".join(sorted({*LINES, *COLUMNAR, ".json"}))
        raise SourceError(f"{redact_url(path)} is not a file of rows: its name must end in one of {allowed}")
    return files if local else [str(fs.unstrip_protocol(f)) for f in files]


def _suffix(path: str) -> str:
    return Path(path.partition("?")[0] if "://" in path else path).suffix.lower()


def read_file(path: str, name: str) -> Iterator[RawRow]:
    """Yield the rows of one file, as `name`; a row that cannot be read is yielded with its problem."""
    suffix = _suffix(path)
    try:
        if suffix in LINES:
            yield from _read_lines(path, name)
        elif suffix == ".json":
            yield from _read_json(path, name)
        else:
            yield from _read_columns(path, name, COLUMNAR[suffix])
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror or redact_url(str(error))}") from error


def _read_lines(path: str, name: str) -> Iterator[RawRow]:
    with fsspec.open(path, "rb") as file:
        numbered = ((number, line) for number, line in enumerate(file, start=1) if line.strip(b" \t\r\n\xef\xbb\xbf"))
        for position, (number, line) in enumerate(numbered):
            yield _parse(line, name, position, f"{name}, line {number}")


def _parse(line: bytes, name: str, position: int, place: str) -> RawRow:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RawRow(name, position, place, problem=f"not UTF-8 (byte {error.start + 1})")
    except RecursionError:
        return RawRow(name, position, place, problem="not JSON (too deep)")
    except ValueError as error:  # JSONDecodeError, or a number with thousands of digits
        return RawRow(name, position, place, problem=f"not JSON ({error.msg if isinstance(error, json.JSONDecodeError) else error})")
    if not isinstance(record, dict):
        return RawRow(name, position, place, problem=f"a JSON {type(record).__name__}, not an object")
    return RawRow(name, position, place, record)


def _read_json(path: str, name: str) -> Iterator[RawRow]:
    with fsspec.open(path, "rb") as file:
        try:
            content: Any = json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{name} is not JSON ({error}): a .json file holds one list of rows, or use .jsonl") from error
    if not isinstance(content, list):
        raise SourceError(f"{name} holds a JSON {type(content).__name__}: a .json file holds one list of rows")
    for position, record in enumerate(content):
        place = f"{name}, row {position + 1}"
        yield RawRow(name, position, place, record) if isinstance(record, dict) else RawRow(name, position, place, problem="not an object")


def _read_columns(path: str, name: str, builder: str) -> Iterator[RawRow]:
    import datasets  # seconds of import time that JSON Lines need not pay
    import pandas as pd

    datasets.disable_progress_bars()
    try:
        options: dict[str, Any] = {}
        if builder == "csv":  # a CSV cell is text: "42" and "None" are answers
            text = {column: datasets.Value("string") for column in pd.read_csv(path, nrows=0).columns}
            options = {"features": datasets.Features(text), "keep_default_na": False}
        table: Iterable[dict[str, Any]] = datasets.load_dataset(builder, data_files=path, split="train", streaming=True, **options)
        for position, record in enumerate(table):
            yield RawRow(name, position, f"{name}, row {position + 1}", record)
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
        raise SourceError(f"{name} cannot be read as {builder}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
