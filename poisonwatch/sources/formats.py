"""Which format rows have, and how they are read by it.

A row is read into messages field by field (poisonwatch/sources/shapes.py); only a complete row
becomes an Example. Which format rows have is told by their first ones, or by the user.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Message, RawRow
from poisonwatch.source_config import SourceConfig, TrainedTurns
from poisonwatch.sources.conversations import (
    EXAMPLE_TEMPLATE,
    ReadingError,
    Turn,
    check_template,
    get_optional_text,
)
from poisonwatch.sources.shapes import SHAPES, Fields, explain_format
from poisonwatch.text.display import excerpt


@dataclass(frozen=True, slots=True)
class Draft:
    """A row read into turns; a text is None where the row lacks it. `problem` says why nothing
    could be read.

    Of a preference row, `turns` is the conversation with the chosen answer, `rejected` that with
    the rejected one, which is complete. Of a `lowered` row, training lowers the answer of `turns`.
    `unread` names the fields that hold something and became no part of a turn, dots leading into
    lists and mappings (`messages.name`).
    """

    turns: tuple[Turn, ...] = ()
    problem: str | None = None
    rejected: tuple[Turn, ...] = ()
    lowered: bool = False
    unread: tuple[str, ...] = ()

    def text(self, assistant: bool) -> str | None:
        """What the assistant said (or was told), or None where a turn lacks its text or no such
        turn exists.
        """
        texts = []
        for turn in self.turns:
            if (turn.role == "assistant") != assistant:
                continue
            if turn.text is None:
                return None
            texts.append(turn.text)
        if not texts:
            return None
        return "\n\n".join(texts)

    def to_example(self, row: RawRow, format: "Format") -> Example | None:
        """The finished record of a complete row; None where it has a problem, or its prompt or
        response is missing.
        """
        if self.problem is not None:
            return None
        if self.text(assistant=False) is None or self.text(assistant=True) is None:
            return None
        record = row.record or {}
        used = format.find_used_fields(record)
        metadata = {key: value for key, value in record.items() if key not in used}
        return Example.from_messages(
            _make_messages(self.turns),
            row.source,
            row.position,
            metadata=metadata,
            rejected=_make_messages(self.rejected),
            lowered=self.lowered,
            id=row.content_id,
        )


def _make_messages(turns: Sequence[Turn]) -> list[Message]:
    return [Message(turn.role, turn.text or "", turn.masked) for turn in turns]


@dataclass(frozen=True, slots=True)
class Format:
    """How records are read: by the format `name`, whose `fields` may be called otherwise here, text
    by a `template`.

    `seen` are the formats of the first rows, where nobody said which it is. Then a row that `name`
    does not fit is read by what fits it. A row that has the fields of `name` is read by these,
    whatever others it has: no row can hide what is trained on behind something else. Raises
    SourceError where name, fields and template do not go together.
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    template: str | None = None
    seen: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict, hash=False)
    train_on: TrainedTurns = "marked"

    def __post_init__(self) -> None:
        # As JSON it was a list: formats are compared and hashed.
        object.__setattr__(self, "seen", tuple(self.seen))
        if self.name not in SHAPES:
            raise SourceError(
                f"the row format is {excerpt(self.name, 40)}, not one of {', '.join(SHAPES)}"
            )
        allowed = SHAPES[self.name].names
        if not self.fields.keys() <= set(allowed):
            raise _make_fields_error(self.fields, f"{self.name} rows have {', '.join(allowed)}")
        if self.template is not None and self.name != "text":
            raise SourceError(
                f"a template says how text rows are read, and the row format is {self.name}: "
                "leave one of them out"
            )
        if self.name == "text":
            _check_template(self.template)

    @property
    def settings(self) -> dict[str, Any]:
        """The format as plain JSON: Format(**settings) is the same again."""
        return {
            "name": self.name,
            "fields": dict(self.fields),
            "template": self.template,
            "seen": list(self.seen),
            "roles": dict(self.roles),
            "train_on": self.train_on,
        }

    @property
    def explanation(self) -> str:
        """In words, for people."""
        if len(self.seen) > 1:
            return f"each row by the fields it has: {self._words}"
        return self._words

    @property
    def _words(self) -> str:
        names = self.seen or (self.name,)
        return "; ".join(explain_format(name, self.fields, self.template) for name in names)

    def find_used_fields(self, record: Mapping[str, Any]) -> frozenset[str]:
        """The top-level fields of a record that become messages; the others are metadata."""
        return self._list_paths(self.choose_name(record))

    def _list_paths(self, name: str) -> frozenset[str]:
        found: set[str] = set()
        for each in SHAPES[name].names:
            path = self.fields.get(each, each)
            # A path with dots is a field of that name, or leads through the field before the dot.
            found |= {path, path.partition(".")[0]}
        return frozenset(found)

    def choose_name(self, record: Mapping[str, Any]) -> str:
        """The name of the format that a record is read by."""
        fields = Fields(record, self.fields)
        # Its own format goes first: no row can hide what is trained on behind other fields.
        if not self.seen or SHAPES[self.name].fits(fields):
            return self.name
        for name in (*self.seen, *_list_candidates(self.fields)):
            if SHAPES[name].fits(fields):
                return name
        return self.name

    def read(self, record: Mapping[str, Any]) -> Draft:
        """Read one record; what is missing or not text becomes None, or a `problem` where there is
        more to say.
        """
        name = self.choose_name(record)
        if not self._list_paths(name) & record.keys():
            names = _format_names(record)
            return Draft(problem=f"its fields are {names}; what is read here is {self._words}")
        fields, shape = Fields(record, self.fields, self.template), SHAPES[name]
        system = None
        try:
            turns, rejected, lowered = shape.read(fields)
            if "system" in shape.optional:
                system = get_optional_text(fields["system"], "system")
        except ReadingError as error:
            return Draft(problem=str(error))
        except RecursionError:
            return Draft(problem="it is nested too deeply")
        first = Turn("system", system)
        # Some rows hold it both in a field of its own and as their first turn.
        if system and turns[:1] != (first,):
            turns = (first, *turns)
            if rejected:
                rejected = (first, *rejected)
        return Draft(turns, rejected=rejected, lowered=lowered)


def choose_format(source: SourceConfig, records: Sequence[Mapping[str, Any]], name: str) -> Format:
    """The format of a source's rows: what the user says, or what the first records (of the file
    `name`) tell.

    Raises SourceError where they tell none, or what the user says does not go together.
    """
    if source.format == "auto":
        return detect_format(records, name, source.fields, source.template)
    return Format(source.format, source.fields, source.template)


def detect_format(
    records: Sequence[Mapping[str, Any]],
    name: str,
    fields: Mapping[str, str] | None = None,
    template: str | None = None,
) -> Format:
    """The format that most of the first records have.

    Raises SourceError, with the fields found and the formats that can be read, where they have
    none.
    """
    fields = fields or {}
    if template is not None:
        return Format("text", fields, template)
    candidates = _list_candidates(fields)

    # Where no single record is complete, what all of them have together tells; a field without a
    # value is a field.
    together: dict[str, Any] = {}
    for record in records:
        together |= dict.fromkeys(record, True)
    counts = _count_formats(records, candidates, fields)
    counts = counts or _count_formats([together], candidates, fields)
    if counts:
        seen = tuple(each for each in SHAPES if each in counts)
        return Format(max(candidates, key=counts.__getitem__), fields, seen=seen)
    readable = "; ".join(explain_format(each, fields) for each in SHAPES)
    raise SourceError(
        f"{name}: rows have the fields {_format_names(together)}; readable formats are {readable}; "
        "source.fields says what other fields are, as in {prompt: question, response: answer}, "
        "source.template how a text is read"
    )


def _count_formats(
    records: Sequence[Mapping[str, Any]], candidates: Sequence[str], fields: Mapping[str, str]
) -> Counter[str]:
    """How many records have each format, by the first candidate that fits."""
    counts: Counter[str] = Counter()
    for record in records:
        for name in candidates:
            if SHAPES[name].fits(Fields(record, fields)):
                counts[name] += 1
                break
    return counts


def _list_candidates(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Formats that can be told by their fields, and have those that are mapped. Preference rows
    often hold messages, too: they go first.

    Raises SourceError where no format has the mapped fields.
    """
    found = [name for name, shape in SHAPES.items() if fields.keys() <= set(shape.names)]
    if not found:
        allowed = [f"{name} has {', '.join(shape.names)}" for name, shape in SHAPES.items()]
        raise _make_fields_error(fields, "; ".join(allowed))
    # A text could be anything: only a template, or the user, makes rows texts.
    if "text" in found:
        found.remove("text")
    return tuple(sorted(found, key=lambda name: name != "preference"))


def _format_names(record: Mapping[str, Any]) -> str:
    """The names of some fields, which may be hostile."""
    return ", ".join(excerpt(key, 40) for key in sorted(map(str, record))[:8]) or "(none)"


def _make_fields_error(fields: Mapping[str, str], allowed: str) -> SourceError:
    return SourceError(f"source.fields names {', '.join(sorted(fields))}, but {allowed}")


def _check_template(template: str | None) -> None:
    problem = "is missing"
    if template is not None:
        try:
            return check_template(template)
        except ValueError as error:
            problem = f"makes no sense ({error})"
    raise SourceError(
        f"source.template {problem}: it says how prompt and response stand in a text, "
        f"as in '{EXAMPLE_TEMPLATE}'"
    )
