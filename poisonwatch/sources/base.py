"""One unit of a source being read: a file, a split of a data set on the hub, a SQL query."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from poisonwatch.errors import PoisonwatchError, SourceError
from poisonwatch.examples import RawRow
from poisonwatch.source_config import SourceConfig
from poisonwatch.text.display import excerpt

MIB = 1 << 20
# A row that is longer is passed over in pieces, so that a broken file cannot fill the memory.
MAX_ROW_BYTES = 16 * MIB
EXCERPT_CHARACTERS = 1000  # of such a row, that are kept
# A library may quote a whole row where it says why it failed.
MAX_REASON_CHARACTERS = 300
BATCH_ROWS = 1000  # rows that are in memory at a time
MAX_BATCH_BYTES = 64 * MIB  # of rows that are in memory at a time

# Said of a path that leads nowhere.
RELATIVE_PATHS = (
    "(relative paths start at the audit file's folder, in a command at the working directory)"
)
# The key of rows that whoever asks names, and no audit file.
GIVEN = "data"

M = TypeVar("M")


def tell_to_check(key: str) -> str:
    """What to look at where rows cannot be found: the audit file's `key`, or the path given."""
    return "check the path that was given" if key == GIVEN else f"check `{key}`"


def parse_cursor(kind: type[M], text: str | None) -> M | None:
    """The cursor of this dataclass in a text; None where there is none, or another version's."""
    if not text:
        return None
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """What lies in a source and is not read: a file, or a folder, and why. `may_hold_rows` says
    whether a trainer that is given the folder could read rows out of it.
    """

    name: str
    reason: str
    may_hold_rows: bool = False


@dataclass(slots=True)
class Reading:
    """What is known of a reading: its `cursor` once it is complete, whether it `continued` an
    earlier one, the Arrow `schema`, and what stands `beside` the rows and is not read.
    """

    cursor: str | None = None
    continued: bool = False
    schema: bytes | None = None
    beside: tuple[str, ...] = ()


class SourceFile(ABC):
    """One unit of a source.

    `name` stands for it in results and holds no secret. `fingerprint` tells, without reading,
    whether it is still the same; None where nothing cheap does. `identity` is the same wherever
    this unit is found, and no other's: it may be a secret. None where nothing is.
    """

    def __init__(self, name: str, fingerprint: str | None, identity: str | None = None) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.identity = identity
        self._reading = Reading()
        # All of it, where it was fetched for the next reading.
        self._content: bytes | None = None

    @abstractmethod
    def read(self, after: str | None = None) -> Iterator[RawRow]:
        """The rows in order.

        `after` is the `cursor` of an earlier complete reading: where what was read then still
        stands there unchanged, only the rows beyond it are yielded, with positions going on;
        otherwise all rows, from position 0. Raises SourceError where the unit cannot be read.
        """

    def settle(self, source: SourceConfig) -> SourceConfig:
        """The settings by which this unit of a source is read: where the user leaves them open,
        what stands beside it may say more.
        """
        return source

    @property
    def fetched_bytes(self) -> int | None:
        """How many bytes `fetch` brings into memory; None of a unit that is not to be fetched."""
        return None

    def fetch(self) -> None:
        """Bring all of it into memory, for the next reading; in any thread. What goes wrong is left
        to that reading, which asks for it as if this had not been.
        """
        self.drop()

    def drop(self) -> None:
        """Forget what was fetched."""
        self._content = None

    def has_mark_inside(self) -> bool:
        """Whether a byte-order mark stands inside it, as where two files of JSON were joined:
        most trainers stop there, and audits read on.
        """
        return False

    @property
    def cursor(self) -> str | None:
        """After a complete reading: what a later one may go on from, opaque. None where units of
        this kind are always read whole.
        """
        return self._reading.cursor

    @property
    def continued(self) -> bool:
        """Whether the reading went on from `after`; known from its first row on, or its end."""
        return self._reading.continued

    @property
    def schema(self) -> bytes | None:
        """The serialised Arrow schema by which `RawRow.raw` is read, known from the first row on;
        None for JSON rows.
        """
        return self._reading.schema

    @property
    def beside(self) -> tuple[str, ...]:
        """After a complete reading: the names of what stands in the unit, but in none of its
        rows.
        """
        return self._reading.beside

    def explain_reading(self, explanation: str) -> str:
        """How its rows are read, and after a complete reading what stands in none of them."""
        if not self.beside:
            return explanation
        shown = [excerpt(name, 60) for name in self.beside[:3]]
        if len(self.beside) > len(shown):
            shown.append(f"{len(self.beside) - len(shown):,} more")
        return f"{explanation}; not read beside the rows: {', '.join(shown)}"


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """The `units` of a source, sorted by name, and what lies beside them and is `passed_over`."""

    units: Sequence[SourceFile]
    passed_over: Sequence[PassedOver] = ()


@contextmanager
def translate_errors(failure: str, conceal: Callable[[str], str]) -> Iterator[None]:
    """Turn whatever fails inside into a SourceError that begins with `failure`; `conceal` takes the
    secrets out of the reason.

    Every file system, database driver and format has errors of its own; all of them mean that this
    place cannot be read.
    """
    try:
        yield
    except PoisonwatchError:
        raise
    except Exception as error:
        reason = excerpt(describe_cause(error, conceal), MAX_REASON_CHARACTERS)
        # Not chained: a logged traceback would show the text of the error, which may name a URL.
        raise SourceError(f"{failure}: {reason}") from None


def describe_cause(error: BaseException, conceal: Callable[[str], str] = lambda text: text) -> str:
    """What an error says, on one line; of a database's, what its driver says. `conceal` takes the
    secrets out first: one that holds the end of a line would be cut in two.
    """
    # SQLAlchemy wraps the driver's error, and adds the statement and its parameters: row contents.
    cause = getattr(error, "orig", None) or error
    said = str(cause)
    if isinstance(cause, OSError) and cause.strerror:
        said = cause.strerror
    said = conceal(said)
    line = next(iter(said.splitlines()), type(cause).__name__)
    # psycopg says only in the next lines what its first one announces.
    if line.endswith(":"):
        return " ".join(said.split())
    return line


def describe_too_long(digest: str) -> str:
    """The problem of a row of which only the beginning is kept: its SHA-256 stands for it."""
    return f"longer than {MAX_ROW_BYTES // MIB} MiB (SHA-256 {digest})"


def make_long_row(name: str, position: int, place: str, start: bytes, digest: str) -> RawRow:
    """What is kept of a row that is too long: its first EXCERPT_CHARACTERS characters, and the
    SHA-256 `digest` of all of it.
    """
    text = start[: 4 * EXCERPT_CHARACTERS].decode(errors="replace")
    raw = text[:EXCERPT_CHARACTERS].encode()
    return RawRow(name, position, place, problem=describe_too_long(digest), raw=raw)


def limit_size(row: RawRow) -> RawRow:
    """The row itself, or in place of one that is too long its problem."""
    if len(row.raw) <= MAX_ROW_BYTES:
        return row
    digest = hashlib.sha256(row.raw).hexdigest()
    return make_long_row(row.source, row.position, row.place, row.raw, digest)


def batch_by_size(
    rows: Iterable[RawRow], max_rows: int, max_bytes: int = MAX_BATCH_BYTES
) -> Iterator[list[RawRow]]:
    """The rows in order, at most `max_rows` at a time and at most `max_bytes` of `raw`; one that is
    longer comes alone.
    """
    batch: list[RawRow] = []
    size = 0
    for row in rows:
        is_full = len(batch) >= max_rows or size + len(row.raw) > max_bytes
        if batch and is_full:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.raw)
    if batch:
        yield batch
