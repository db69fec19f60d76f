"""What an audit left in its run directory, read back for people who look at it.

A run directory does not change once it is complete, so what was read is kept. It may be gone, or on
another machine: then what it held is empty here, and people can decide all the same. That holds for
one of which nothing may be shown (None), too: a file that is not what the audit wrote is an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poisonwatch.arrays import Array
from poisonwatch.atomic import read_jsonl
from poisonwatch.examples import Example, Message
from poisonwatch.flags import read_flagged_example
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.pairs import read_lines
from poisonwatch.sentinels.sentinel import Sentinel

T = TypeVar("T")

CACHED_READS = 64  # files, or rows of one
CACHED_COLUMNS = 8  # sentinels of a file
# What reading a file may raise that is not as it was written.
DAMAGE_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    # of JSON whose brackets go too deep
    RecursionError,
    pa.ArrowException,
)
# What every line of evidence.jsonl has; an older Poisonwatch may have written fewer.
EVIDENCE_FIELDS = {
    "example_ids",
    "nearest",
    "panel",
    "prompt_ngrams",
    "answer_ngrams",
    "confirmation",
    "unconfirmed",
}


@dataclass(frozen=True, slots=True)
class SentinelCoefficients:
    """Coefficients on one sentinel, in spreads: a row's `own`, those of all new rows (n,), and of
    the trusted rows (n_ref,).
    """

    own: float
    new: Array
    trusted: Array


def read_evidence(run_dir: Path | None) -> tuple[Mapping[str, Any], ...]:
    """The lines of evidence.jsonl: groups of flagged rows, in their order."""
    return read_cached(_parse_evidence, (), run_dir, "evidence.jsonl")


def read_nearest(run_dir: Path | None) -> Mapping[str, Example]:
    """The trusted rows that the evidence names, by example id."""
    return read_cached(_parse_nearest, {}, run_dir, "nearest.jsonl")


def read_asked_sentinels(run_dir: Path | None) -> Mapping[str, Sentinel]:
    """The sentinels as the audit asked them, copies among them, by id."""
    return read_cached(_parse_sentinels, {}, run_dir, "sentinels.jsonl")


def find_nearest(
    run_dir: Path | None, group: Mapping[str, Any] | None, example_id: str
) -> list[tuple[Example, float]]:
    """The trusted rows most like a flagged row of a group, with their similarity in [-1, 1]."""
    if group is None or example_id not in group["example_ids"]:
        return []
    known = read_nearest(run_dir)
    found = []
    for near in group["nearest"][group["example_ids"].index(example_id)]:
        # Where nearest.jsonl is gone, the row is shown without them.
        if near["example_id"] in known:
            found.append((known[near["example_id"]], near["likeness"]))
    return found


def is_group_complete(run_dir: Path | None, group: Mapping[str, Any]) -> bool:
    """Whether what goes with a group is there: sentinels, its nearest trusted rows, the scores."""
    named: set[str] = set()
    for of_row in group["nearest"]:
        named.update(near["example_id"] for near in of_row)
    if not read_asked_sentinels(run_dir) or not named <= read_nearest(run_dir).keys():
        return False
    # The schema alone: whether the file is there and whole costs no reading of a million scores.
    return read_cached(_read_schema, None, run_dir, "scores.parquet") is not None


def read_coefficients(
    run_dir: Path | None, sentinel_id: str, example_id: str
) -> SentinelCoefficients | None:
    """The coefficients on a sentinel, seen from one row; None where the audit left none of them."""
    unknown: dict[str, float] = {}
    of_row = read_cached(_read_row, unknown, run_dir, "scores.parquet", example_id)
    if sentinel_id not in of_row:
        return None
    # An audit without trusted rows is whole without them: the new rows are still shown.
    nothing = np.zeros(0)
    return SentinelCoefficients(
        own=of_row[sentinel_id],
        new=read_cached(
            _read_column, nothing, run_dir, "scores.parquet", sentinel_id, keep=_keep_few
        ),
        trusted=read_cached(
            _read_column, nothing, run_dir, "trusted.parquet", sentinel_id, keep=_keep_few
        ),
    )


def read_trusted_scores(run_dir: Path | None, sentinel_id: str) -> Array:
    """The scores (n_ref,) of the trusted rows on the panel of a sentinel, in robust standard
    deviations; none where the audit left none.
    """
    nothing = np.zeros(0)
    return read_cached(
        _read_column, nothing, run_dir, "trusted.parquet", sentinel_id, "score", keep=_keep_few
    )


def _parse(parse: Callable[..., Any], _: int, path: Path, *args: str) -> Any:
    # The time of the last change is an argument for the cache alone: another one is a new read.
    return parse(path, *args)


_keep_many = lru_cache(CACHED_READS)(_parse)
# A number for every row takes 8 MB of a million rows.
_keep_few = lru_cache(CACHED_COLUMNS)(_parse)


def read_cached(
    parse: Callable[..., T],
    nothing: T,
    run_dir: Path | None,
    name: str,
    *args: str,
    keep: Callable[..., Any] = _keep_many,
) -> T:
    """What is read from a file of a run directory, and kept as long as the file stays as it is;
    `nothing` where there is none, or it is damaged and of an earlier version. Raises RunError where
    it is not what the audit wrote.
    """
    if run_dir is None:
        return nothing
    path = run_dir / name
    require_unchanged(run_dir, name)
    try:
        found: T = keep(parse, path.stat().st_mtime_ns, path, *args)
    except DAMAGE_ERRORS:
        return nothing
    return found


def _parse_evidence(path: Path) -> tuple[Mapping[str, Any], ...]:
    groups = tuple(read_jsonl(path))
    for group in groups:
        # Readers index one list by places in the other, and take every field as there.
        if len(group["nearest"]) != len(group["example_ids"]):
            raise ValueError(path)
        if not group.keys() >= EVIDENCE_FIELDS:
            raise ValueError(path)
    return groups


def _parse_nearest(path: Path) -> Mapping[str, Example]:
    return {record["example_id"]: read_flagged_example(record) for record in read_jsonl(path)}


def _parse_sentinels(path: Path) -> Mapping[str, Sentinel]:
    return {record["id"]: _build_sentinel(record) for record in read_jsonl(path)}


def _build_sentinel(record: Mapping[str, Any]) -> Sentinel:
    # JSON knows no tuples, and a sentinel must be hashable.
    messages = tuple(Message(**message) for message in record["messages"])
    return Sentinel(**{**record, "messages": messages, "tags": tuple(record["tags"])})


def _read_row(path: Path, example_id: str) -> dict[str, float]:
    """A row's coefficients by sentinel; nothing where the file has no such row."""
    lines = read_lines(path, "example_id", [example_id], ["sentinel_id", "coefficient"])
    of_row: dict[str, float] = {}
    for sentinel_id, coefficient in zip(
        lines["sentinel_id"].to_pylist(), lines["coefficient"].to_pylist(), strict=True
    ):
        # Of equal rows the first counts.
        of_row.setdefault(sentinel_id, coefficient)
    return of_row


def _read_column(path: Path, sentinel_id: str, column: str = "coefficient") -> Array:
    """The values (n,) of a column in a sentinel's lines."""
    lines = read_lines(path, "sentinel_id", [sentinel_id], [column])
    values: Array = lines[column].to_numpy()
    return values


def _read_schema(path: Path) -> pa.Schema | None:
    return pq.read_schema(path)
