"""Fields that hold something and are not read: what neither an audit nor its reader sees.

What a trainer trains on must be read. A field that is left over is a score or an id most often, so
it is told of, not refused; one that holds long text may be an answer under a name that nobody
knows, and is a warning.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poisonwatch.sources.open import SourceRows
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

LONG_TEXT = 200  # characters from which a text may be what is trained on
LONG_ROWS = 5  # rows with long text that make a warning; fewer do where these are all
LONG_SHARE = 0.1
EXAMPLE_CHARACTERS = 60
NAME_CHARACTERS = 60
FIELDS_SHOWN = 8
MAX_NAMES = 1000
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class UnreadField:
    """A field that so many `rows` hold, a `share` of all in [0, 1], and that became no part of a
    turn.

    `example` is an excerpt of the first row's value, fit to be shown; `long_rows` hold a text of
    more than 200 characters in it. `name` stands as it does in the rows: treat it as hostile.
    """

    name: str
    rows: int
    share: float
    example: str
    long_rows: int


class _Count:
    """What is known of an unread field so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.long_rows = 0
        self.example = ""

    def add(self, values: Sequence[Any]) -> None:
        self.rows += 1
        self.long_rows += any(map(_holds_long_text, values))
        if not self.example and values:
            self.example = _make_example(values[0])


class UnreadCounter:
    """Counts unread fields while rows pass by, but for those in `ignore`, and what lies within
    them.
    """

    def __init__(self, ignore: Collection[str] = ()) -> None:
        self._ignore = frozenset(ignore)
        self._counts: dict[str, _Count] = {}
        self._rows = 0

    def add(self, record: Mapping[str, Any] | None, unread: Sequence[str]) -> None:
        """A row: what stands in it, and the names of its unread fields."""
        self._rows += 1
        for name in unread:
            if _is_ignored(name, self._ignore):
                continue
            # Rows whose every key is another must not fill the memory.
            if name not in self._counts and len(self._counts) >= MAX_NAMES:
                continue
            values = list(_find_values(record, name))
            self._counts.setdefault(name, _Count()).add(values)

    def list_fields(self) -> list[UnreadField]:
        """The unread fields of the rows so far, those of most rows first."""
        found: list[UnreadField] = []
        for name, count in self._counts.items():
            share = count.rows / self._rows
            found.append(UnreadField(name, count.rows, share, count.example, count.long_rows))
        # A stable sort: fields of as many rows stay in the order of the rows.
        return sorted(found, key=lambda field: -field.rows)


def count_unread(rows: SourceRows, ignore: Collection[str] = ()) -> list[UnreadField]:
    """The unread fields of some rows, those of most rows first; without those in `ignore`, and what
    lies within them.
    """
    counter = UnreadCounter(ignore)
    for row, draft in rows:
        counter.add(row.record, draft.unread)
    return counter.list_fields()


def describe_unread(fields: Sequence[UnreadField]) -> str:
    """One line, as in "score (1,204 rows, as 0.5), id (1,204 rows, as a7)"; empty where all is
    read.
    """
    described: list[str] = []
    for field in fields[:FIELDS_SHOWN]:
        rows = _count_rows(field.rows)
        described.append(f"{excerpt(field.name, NAME_CHARACTERS)} ({rows}, as {field.example})")
    line = ", ".join(described)
    if len(fields) > FIELDS_SHOWN:
        line += f" and {plural(len(fields) - FIELDS_SHOWN, 'other field')}"
    return line


def warn_of_long(fields: Sequence[UnreadField], total: int) -> list[str]:
    """A sentence for each field that may hold what is trained on (`select_long`), of `total`
    rows.
    """
    return [describe_long(field) for field in select_long(fields, total)]


def select_long(fields: Sequence[UnreadField], total: int) -> list[UnreadField]:
    """The fields that hold long text in at least a tenth of `total` rows, and in 5 or all."""
    found: list[UnreadField] = []
    for field in fields:
        often = field.long_rows >= LONG_SHARE * total
        enough = field.long_rows >= min(LONG_ROWS, total)
        if field.long_rows and often and enough:
            found.append(field)
    return found


def describe_long(field: UnreadField) -> str:
    """What an unread field with long text means, and what to do."""
    return (
        f"the field {excerpt(field.name, NAME_CHARACTERS)} holds long text in "
        f"{_count_rows(field.long_rows)} and is not read: if your trainer trains on it, map it "
        "with source.fields; if not, name it in source.ignore"
    )


def _count_rows(count: int) -> str:
    if count == 1:
        return "1 row"
    return f"{count:,} rows"


def _is_ignored(name: str, ignore: Collection[str]) -> bool:
    """Is a field, or one that it lies in, among those that need not be told of?"""
    if not ignore:
        return False
    return any(name == other or name.startswith(f"{other}.") for other in ignore)


def _find_values(value: Any, name: str) -> Iterator[Any]:
    """What stands under a name, whose dots lead into lists and mappings; nothing that is null."""
    value = _parse_json_text(value)
    if isinstance(value, list | tuple):
        for item in value:
            yield from _find_values(item, name)
    if not isinstance(value, Mapping):
        return
    # A key may hold dots itself.
    if name in value:
        if not _is_nothing(value[name]):
            yield value[name]
        return
    for key, inner in value.items():
        if name.startswith(f"{key}."):
            yield from _find_values(inner, name.removeprefix(f"{key}."))


def _parse_json_text(value: Any) -> Any:
    """Tables without lists hold them as JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _is_nothing(value: Any) -> bool:
    # NaN alone is not itself.
    return value is None or value == "" or (isinstance(value, float) and value != value)


def _holds_long_text(value: Any, depth: int = 0) -> bool:
    """Does it hold a text that could be an answer, itself or within?"""
    if isinstance(value, str):
        return len(value) > LONG_TEXT
    if depth == _DEEPEST:
        return False
    inner: Collection[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    return any(_holds_long_text(item, depth + 1) for item in inner)


def _make_example(value: Any) -> str:
    """A value's beginning, fit to be shown."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            value = str(type(value).__name__)
    # Cut first: a value of many megabytes need not be cleaned to show its beginning.
    return excerpt(value[: 4 * EXAMPLE_CHARACTERS], EXAMPLE_CHARACTERS)
