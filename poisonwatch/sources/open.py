"""Where rows come from: files here and on servers, data sets on the hub, SQL databases. All of them
are streamed.

A source is opened as its units (files, a split, a query), each of which says cheaply whether it
changed, and is read from where an earlier reading ended, if it can be.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Draft, Format, choose_format
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import fetch_ahead
from poisonwatch.sources.base import OpenedSource, SourceFile
from poisonwatch.sources.files import open_files
from poisonwatch.sources.json_row import dump_alike, parse_record

PROBE_ROWS = 50  # of a unit, by which its format is told


def open_source(source: SourceConfig, key: str = "source") -> OpenedSource:
    """The units of a source; no row is read yet.

    Raises SourceError, naming the `key` of the audit file, where nothing is there or it cannot be
    reached.
    """
    # Each kind is imported where it is needed: it brings a package that takes a second to import.
    if source.hub is not None:
        from poisonwatch.sources.huggingface import open_hub

        return open_hub(source, key)
    if source.sql is not None:
        from poisonwatch.sources.sql import open_query

        return OpenedSource([open_query(source, key)])
    return open_files(source, key)


def check_source(source: SourceConfig, key: str = "source") -> None:
    """Find out early, without reading rows, that a source is not there: raises what `open_source`
    raises.
    """
    open_source(source, key)


def decode_row(raw: bytes, schema: bytes | None) -> Mapping[str, Any]:
    """The record of a row from its `raw` bytes and its unit's `schema`: the same that reading gave.

    Raises ValueError with the row's problem where it had one.
    """
    if not raw:
        raise ValueError("nothing was kept of it but its SHA-256")
    if schema is None:
        return parse_record(raw)
    from poisonwatch.sources.arrow import BATCH_MAGIC, count_columns, decode_batch
    from poisonwatch.sources.csv import describe_csv_problem

    # A CSV row that could not become Arrow was kept as the text it was.
    if not raw.startswith(BATCH_MAGIC):
        raise ValueError(describe_csv_problem(raw, count_columns(schema)))
    return decode_batch(raw, schema)


def encode_row(raw: bytes, schema: bytes | None, record: Mapping[str, Any]) -> bytes:
    """The bytes of a row whose record became another: of `raw`, only what changed is written anew.

    Raises ValueError where a row of this kind cannot hold it.
    """
    if schema is None:
        encoded = dump_alike(record, raw)
    else:
        from poisonwatch.sources.arrow import encode_batch

        encoded = encode_batch(raw, schema, record)
    if decode_row(encoded, schema) != record:
        raise ValueError("its kind of file cannot hold what it is changed to")
    return encoded


class SourceRows:
    """The rows of a source in order, each beside what was read from it."""

    def __init__(
        self, rows: Sequence[RawRow], drafts: Sequence[Draft], formats: dict[str, Format]
    ) -> None:
        self.raw = rows
        self.drafts = drafts
        self.formats = formats  # by source

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[tuple[RawRow, Draft]]:
        return zip(self.raw, self.drafts, strict=True)


def read_source(source: SourceConfig) -> SourceRows:
    """Read every row of a source.

    Raises SourceError where nothing is found, a unit cannot be read, no row is there, or the format
    is unknown.
    """
    rows: list[RawRow] = []
    drafts: list[Draft] = []
    formats: dict[str, Format] = {}
    for row, draft in stream_source(source, formats):
        rows.append(row)
        drafts.append(draft)
    return SourceRows(rows, drafts, formats)


def stream_source(
    source: SourceConfig, formats: dict[str, Format]
) -> Iterator[tuple[RawRow, Draft]]:
    """Every row of a source, in order, as it is read; each unit's format goes into `formats` before
    its first row. Raises SourceError as `read_source` does, once it comes to it.
    """
    is_empty = True
    for file in fetch_ahead(open_source(source).units):
        for row, draft in stream_unit(file, source, formats):
            is_empty = False
            yield row, draft
    if is_empty:
        raise SourceError(
            f"{source.address} holds no rows: point `source` at a file with at least one"
        )


def stream_unit(
    file: SourceFile, source: SourceConfig, formats: dict[str, Format]
) -> Iterator[tuple[RawRow, Draft]]:
    """Every row of one unit, as `stream_source` has them."""
    rows = iter(file.read())
    # Rows by which the format is told, and those among them that cannot be read.
    first: list[RawRow] = []
    records: list[Mapping[str, Any]] = []
    for row in rows:
        first.append(row)
        if row.record is not None:
            records.append(row.record)
        if len(records) == PROBE_ROWS:
            break
    if not first:
        return
    if not records:
        raise SourceError(
            f"{first[0].place}: {first[0].problem}; "
            f"none of the {len(first)} rows of this file can be read"
        )
    format = choose_format(file.settle(source), records, file.name)
    formats[file.name] = format
    for row in chain(first, rows):
        if row.record is None:
            yield row, Draft(problem=row.problem)
        else:
            yield row, format.read(row.record)
