"""Fields that hold something and are not read: what neither an audit nor its reader sees.

What a trainer trains on must be read. A field that is left over is a score or an id most often, so
it is told of, not refused; one that holds long text may be an answer under a name that nobody
knows, and is a warning.
"""

import heapq
import json
import zlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poisonwatch.formats.paths import show_path, split_path
from poisonwatch.formats.values import holds_long_text, peek_json_text
from poisonwatch.sources.open import SourceRows
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

LONG_ROWS = 5  # rows with long text that make a warning; fewer do where these are all
LONG_SHARE = 0.1
EXAMPLE_CHARACTERS = 60
NAME_CHARACTERS = 60
FIELDS_SHOWN = 8
MAX_NAMES = 1000  # that are counted each by itself
OTHER_NAMES = f"(fields beyond {MAX_NAMES:,} names)"
_SKETCH_CELLS = 1 << 18
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


class _Found:
    """What one row holds under a name."""

    def __init__(self) -> None:
        self.example = ""
        self.is_long = False

    def add(self, value: Any) -> None:
        """One more value that stands there."""
        if _is_nothing(value):
            return
        self.example = self.example or _make_example(value)
        self.is_long = self.is_long or holds_long_text(value)


class _Count:
    """What is known of an unread field so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.long_rows = 0
        self.example = ""

    def add(self, found: _Found) -> None:
        self.rows += 1
        self.long_rows += found.is_long
        self.example = self.example or found.example


class UnreadCounter:
    """Counts unread fields while rows pass by, but for those in `ignore`, and what lies within
    them. Of more than MAX_NAMES names, it keeps those of most rows, and counts the rest as one.
    """

    def __init__(self, ignore: Collection[str] = ()) -> None:
        self._ignore = frozenset(ignore)
        self._counts: dict[str, _Count] = {}
        self._rows = 0
        # Of names that are not kept: all of them together, and about how many rows have each.
        self._others = _Count()
        self._sketch: array[int] = array("L")
        self._rarest: list[tuple[int, str]] = []

    def add(self, record: Mapping[str, Any] | None, unread: Sequence[str]) -> None:
        """A row: what stands in it, and the paths of its unread fields."""
        self._rows += 1
        if not unread:
            return
        others = _Found()
        is_other = False
        for name, found in _find_values(record, unread).items():
            if _is_ignored(name, self._ignore):
                continue
            if self._is_kept(name):
                self._counts[name].add(found)
                continue
            is_other = True
            others.is_long = others.is_long or found.is_long
            others.example = others.example or f"{show_path(name)}: {found.example}"
        if is_other:
            self._others.add(others)

    def _is_kept(self, name: str) -> bool:
        """Is a name counted by itself, now at least? The counts of its earlier rows are estimates
        where it had to make its way past names of fewer rows.
        """
        if name in self._counts:
            return True
        if len(self._counts) < MAX_NAMES:
            self._keep(name, 0)
            return True
        if not self._sketch:
            self._sketch = array("L", bytes(array("L").itemsize * _SKETCH_CELLS))
        # Names that share a cell are taken for more common than they are, which does no harm.
        cell = zlib.crc32(name.encode(errors="surrogatepass")) % _SKETCH_CELLS
        rows = self._sketch[cell]
        if rows <= self._find_rarest():
            self._sketch[cell] = rows + 1
            return False
        _, rarest = heapq.heappop(self._rarest)
        given_up = self._counts.pop(rarest)
        self._others.rows = max(self._others.rows, given_up.rows)
        self._others.long_rows = max(self._others.long_rows, given_up.long_rows)
        self._keep(name, rows)
        return True

    def _keep(self, name: str, rows: int) -> None:
        count = self._counts[name] = _Count()
        count.rows = rows
        heapq.heappush(self._rarest, (rows, name))

    def _find_rarest(self) -> int:
        """In how many rows that name stands which is first in `_rarest` then: the rarest one."""
        while True:
            rows, name = self._rarest[0]
            if self._counts[name].rows == rows:
                return rows
            # It was met again since.
            heapq.heapreplace(self._rarest, (self._counts[name].rows, name))

    def list_fields(self) -> list[UnreadField]:
        """The unread fields of the rows so far, those of most rows first; last, where names were
        too many, all others as one.
        """
        found: list[UnreadField] = []
        for path, count in self._counts.items():
            found.append(self._describe(show_path(path), count))
        # A stable sort: fields of as many rows stay in the order of the rows.
        found.sort(key=lambda field: -field.rows)
        if self._others.rows:
            found.append(self._describe(OTHER_NAMES, self._others))
        return found

    def _describe(self, name: str, count: _Count) -> UnreadField:
        return UnreadField(
            name, count.rows, count.rows / self._rows, count.example, count.long_rows
        )


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


def _is_ignored(path: str, ignore: Collection[str]) -> bool:
    """Is a field, or one that it lies in, among those that need not be told of? A key that has dots
    itself is named as it is.
    """
    if not ignore:
        return False
    if show_path(path) in ignore:
        return True
    return any(path.startswith(f"{other}.") for other in ignore)


def _find_values(record: Any, paths: Sequence[str]) -> dict[str, _Found]:
    """What stands at each of these paths, which lead into lists, mappings and JSON text. All are
    looked for together: a row may have as many names as values.
    """
    found: dict[str, _Found] = {}
    root = _Branch()
    for path in paths:
        branch = root
        for key in split_path(path):
            branch = branch.inner.setdefault(key, _Branch())
        branch.found = found.setdefault(path, _Found())
    _gather(record, root)
    return found


class _Branch:
    """The paths that go on from a key."""

    def __init__(self) -> None:
        self.inner: dict[str, _Branch] = {}
        self.found: _Found | None = None


def _gather(value: Any, branch: _Branch, depth: int = 0) -> None:
    """Note what stands at the paths of a branch, which begin at this value."""
    value = peek_json_text(value)
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        for item in value:
            _gather(item, branch, depth + 1)
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        following = branch.inner.get(str(key))
        if following is None:
            continue
        if following.found is not None:
            following.found.add(inner)
        if following.inner:
            _gather(inner, following)


def _is_nothing(value: Any) -> bool:
    # NaN alone is not itself.
    return value is None or value == "" or (isinstance(value, float) and value != value)


def _make_example(value: Any) -> str:
    """A value's beginning, fit to be shown."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            value = str(type(value).__name__)
    # Cut first: a value of many megabytes need not be cleaned to show its beginning.
    return excerpt(value[: 4 * EXAMPLE_CHARACTERS], EXAMPLE_CHARACTERS)
