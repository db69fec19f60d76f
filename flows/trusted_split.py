"""Trusted rows for who has none: some rows of the batch, drawn at random, are set apart from those
that are audited. Nobody has reviewed them, and whoever takes them is told what that is worth.

Every row goes into one of two folders as it stands in its source, and no content into both.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from poisonwatch.detection.trusted import LEAST_TRUSTED
from poisonwatch.errors import InputError, SourceError
from poisonwatch.examples import Example, RawRow
from poisonwatch.progress import Progress, silent
from poisonwatch.release.writers import RowFiles
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import fetch_ahead
from poisonwatch.sources.open import open_source, stream_unit
from poisonwatch.stride.sampling import draw_first

# Half as many again as are needed: validation rejects some, and people take out what they doubt.
TRUSTED_ROWS = LEAST_TRUSTED * 3 // 2
# Of the batch, at most one row in so many: what is set apart is not audited.
LEAST_BATCH_PER_TRUSTED = 3

WORTH = (
    "nobody has reviewed these rows: where the batch is poisoned, about the same share of them is, "
    "and what such rows do then passes as normal. Read them, and take out what you doubt; they are "
    "not audited"
)

# The settings of a source that say how its rows are read, wherever they stand.
READING = {"format", "fields", "template", "roles", "train_on", "ignore"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How many rows were written to be `audited` and as `trusted`, copies included, and how many
    are `unread`, and in neither.
    """

    audited: int
    trusted: int
    unread: int


def choose_trusted_count(contents: int) -> int:
    """How many of so many different rows are set apart where nobody says: none where that would
    take too large a part of the batch to judge others by.
    """
    most = contents // LEAST_BATCH_PER_TRUSTED
    return min(TRUSTED_ROWS, most) if most >= LEAST_TRUSTED else 0


def describe_small_batch(contents: int) -> str:
    """Why rows so few are not split, and what that means."""
    least = LEAST_TRUSTED * LEAST_BATCH_PER_TRUSTED
    return (
        f"none: {contents:,} different rows are too few to set {LEAST_TRUSTED} of them apart "
        f"({least} are needed). Rows are judged against the bulk of all, and flags are a ranking"
    )


def relocate(source: SourceConfig, path: str) -> SourceConfig:
    """Rows of the same kind in another place."""
    reading = source.model_dump(include=READING, exclude_defaults=True)
    return SourceConfig(path=path, **reading)


def split_source(
    source: SourceConfig,
    count: int,
    seed: int,
    audited: Path,
    trusted: Path,
    progress: Progress = silent,
) -> Split:
    """Write `count` different rows of a source, and all copies of theirs, into the new folder
    `trusted`, and all others that can be read into the new folder `audited`.

    Raises InputError where what was written would be read otherwise than the source.
    """
    contents = {row.example.id for row in _stream(source, progress) if row.example is not None}
    drawn = draw_first(contents, seed, count)
    written = {audited: _Tally(), trusted: _Tally()}
    unread = 0
    with ExitStack() as stack:
        files = {}
        for folder in written:
            folder.mkdir()
            files[folder] = stack.enter_context(RowFiles(folder, stem="rows"))
        for row in _stream(source, progress):
            if row.example is None:
                unread += 1
                continue
            folder = trusted if row.example.id in drawn else audited
            files[folder].add(("", row.schema), row.raw.raw)
            written[folder].add(row.example)
    for folder, tally in written.items():
        _require_alike(source, folder, tally)
    return Split(audited=written[audited].rows, trusted=written[trusted].rows, unread=unread)


@dataclass(slots=True)
class _Tally:
    """How many rows there are, and the sum of their ids, whatever their order."""

    rows: int = 0
    ids: int = 0

    def add(self, example: Example) -> None:
        self.rows += 1
        self.ids += int(example.id, 16)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row, the `schema` that its bytes are read by, and what it says; None: it cannot be read."""

    raw: RawRow
    schema: bytes | None
    example: Example | None


def _stream(source: SourceConfig, progress: Progress = silent) -> Iterator[_Row]:
    def stream() -> Iterator[_Row]:
        for file in fetch_ahead(open_source(source).units):
            for row, draft in stream_unit(file, source, {}):
                yield _Row(row, file.schema, draft.to_example(row))

    return progress(stream(), "split", None)


def _require_alike(source: SourceConfig, folder: Path, written: _Tally) -> None:
    """Raises InputError where rows that were written are not what they were in their source: what
    stood beside them there can say how they are read, and does not stand beside them here.
    """
    found = _Tally()
    try:
        for row in _stream(relocate(source, str(folder))):
            if row.example is not None:
                found.add(row.example)
    except SourceError:
        found = _Tally()
    if found != written:
        raise InputError(
            f"rows of {source.address} cannot be set apart: elsewhere they would be read "
            "otherwise. Say how they are read (--format, --fields, ...), or give rows that you "
            "trust (--reference), or set none apart (--trusted 0)"
        )
