"""Which format rows have, and how they are read by it.

A row is read into messages field by field (poisonwatch/formats/shapes.py); only a complete row
becomes an Example. Which format rows have is told by their first ones, or by the user.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Message, RawRow
from poisonwatch.formats.answers import choose_trained, read_label, unmask_answer
from poisonwatch.formats.conversations import MessageReader, Turn
from poisonwatch.formats.fields import Fields, Names
from poisonwatch.formats.paths import split_path
from poisonwatch.formats.probing import (
    MARK,
    count_formats,
    find_format,
    find_json_fields,
    find_names,
    list_candidates,
    make_fields_error,
)
from poisonwatch.formats.shapes import SHAPES, explain_format
from poisonwatch.formats.templates import EXAMPLE_TEMPLATE, check_template
from poisonwatch.formats.values import ReadingError
from poisonwatch.source_config import SourceConfig, TrainedTurns
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural


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

    def to_example(self, row: RawRow) -> Example | None:
        """The finished record of a complete row; None where it has a problem, or its prompt or
        response is missing.
        """
        if self.problem is not None:
            return None
        if self.text(assistant=False) is None or self.text(assistant=True) is None:
            return None
        record = row.record or {}
        metadata = {}
        for path in self.unread:
            key, *rest = split_path(path)
            if not rest and key in record:
                metadata[key] = record[key]
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
    by a `template`, `roles` by their own names, and which turns are trained (`train_on`).

    The first rows tell the rest. `seen` are their formats, where nobody said which it is: then a
    row that `name` does not fit is read by what fits it. `met` is what fields are called in them
    (None where no rows were looked at), `as_json` names fields whose texts are JSON. A row that has
    the fields of `name` is read by these, whatever others it has: no row can hide what is trained
    on behind something else. Raises SourceError where name, fields and template do not go together.
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    template: str | None = None
    seen: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict, hash=False)
    train_on: TrainedTurns = "marked"
    met: Mapping[str, str] | None = field(default=None, hash=False)
    as_json: tuple[str, ...] = ()
    _names: Names = field(init=False, repr=False, compare=False)
    _order: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # As JSON they were lists: formats are compared and hashed.
        object.__setattr__(self, "seen", tuple(self.seen))
        object.__setattr__(self, "as_json", tuple(self.as_json))
        if self.name not in SHAPES:
            raise SourceError(
                f"the row format is {excerpt(self.name, 40)}, not one of {', '.join(SHAPES)}"
            )
        allowed = SHAPES[self.name].names
        if not self.fields.keys() <= set(allowed):
            raise make_fields_error(self.fields, f"{self.name} rows have {', '.join(allowed)}")
        if self.template is not None and self.name != "text":
            raise SourceError(
                f"a template says how text rows are read, and the row format is {self.name}: "
                "leave one of them out"
            )
        if self.name == "text":
            _check_template(self.template)
        order: tuple[str, ...] = (self.name,)
        if self.seen:
            # Its own format goes first: no row can hide what is trained on behind other fields.
            order = tuple(dict.fromkeys((*order, *self.seen, *list_candidates(self.fields))))
        object.__setattr__(self, "_names", Names(self.fields, self.met))
        object.__setattr__(self, "_order", order)

    @property
    def settings(self) -> dict[str, Any]:
        """The format as plain JSON: Format(**settings) is the same again."""
        met = self.met
        if met is not None:
            met = dict(met)
        return {
            "name": self.name,
            "fields": dict(self.fields),
            "template": self.template,
            "seen": list(self.seen),
            "roles": dict(self.roles),
            "train_on": self.train_on,
            "met": met,
            "as_json": list(self.as_json),
        }

    @property
    def explanation(self) -> str:
        """In words, for people."""
        words = self._words
        if len(self.seen) > 1:
            words = f"each row by the fields it has: {words}"
        if beside := explain_facets({**(self.met or {}), **self.fields}):
            words += f"; with {beside}"
        if self.train_on != "marked":
            words += f"; trained on {self.train_on} turns"
        return words

    @property
    def _words(self) -> str:
        names = self.seen or (self.name,)
        called = {**(self.met or {}), **self.fields}
        return "; ".join(explain_format(name, called, self.template) for name in names)

    def choose_name(self, record: Mapping[str, Any]) -> str:
        """The name of the format that a record is read by."""
        return self._choose_name(Fields(record, self._names))

    def _choose_name(self, fields: Fields) -> str:
        if not self.seen:
            return self.name
        return find_format(fields, self._order) or self.name

    def read(self, record: Mapping[str, Any]) -> Draft:
        """Read one record; what is missing or not text becomes None, or a `problem` where there is
        more to say.
        """
        reader = MessageReader(self.roles)
        fields = Fields(record, self._names, reader, self.template, self.as_json)
        name = self._choose_name(fields)
        shape = SHAPES[name]
        role, content = shape.message_fields
        reader.role_keys = self._names.list_paths(role)
        reader.content_keys = self._names.list_paths(content)
        if not any(fields.has_key(each) for group in shape.required for each in group):
            return Draft(
                problem=f"its fields are {list_names(record)}; what is read here is "
                f"{self._words}; {_FIELDS_HINT}"
            )
        try:
            turns, rejected = shape.read(fields)
            label = self._read_label(fields, name)
            if label is not None:
                turns = unmask_answer(turns)
            if not rejected:
                turns = choose_trained(turns, self.train_on)
        except ReadingError as error:
            return Draft(problem=str(error))
        except RecursionError:
            return Draft(problem="it is nested too deeply")
        unread = fields.list_unread((*turns, *rejected))
        return Draft(turns, rejected=rejected, lowered=label is False, unread=unread)

    def _read_label(self, fields: Fields, name: str) -> bool | None:
        """Does training raise the answer, or lower it? Where the first rows have no labels, a later
        one says nothing.
        """
        if "label" not in SHAPES[name].optional:
            return None
        if self.met is not None and "label" not in self.met and "label" not in self.fields:
            return None
        return read_label(fields)

    def describe_missing(self, record: Mapping[str, Any], draft: Draft) -> str | None:
        """What an incomplete row lacks, in words: fields of its format, or the text of a turn."""
        fields = Fields(record, self._names)
        name = self._choose_name(fields)
        missing = []
        for alternatives in SHAPES[name].list_missing(fields):
            missing.append(" or ".join(self.fields.get(each, each) for each in alternatives))
        if missing:
            return (
                f"{name} rows need {' and '.join(missing)}; this one has {list_names(record)}; "
                f"{_FIELDS_HINT}"
            )
        for place, turn in enumerate(draft.turns, start=1):
            if turn.text is None:
                return f"turn {place} of {len(draft.turns)} ({turn.role}) has no text"
        return None


_SHOWN_NAMES = 8
_FIELDS_HINT = (
    "source.fields says what other fields are, as in {prompt: question, response: answer}"
)
_FACETS = {
    "system": "{} as system",
    "tools": "{} as tools",
    "history": "{} as earlier turns",
    "context": "{}",
    "reasoning": "{} as thoughts",
    "label": "{} (false: training lowers the answer)",
    MARK: "turns not trained where {} says so",
}


def explain_facets(met: Mapping[str, str]) -> str:
    """What stands beside the conversation, and what it is taken for."""
    found = []
    for name, words in _FACETS.items():
        # A prompt may be called context.
        if name in met and met[name] != met.get("prompt"):
            found.append(words.format(met[name]).replace(f"{name} as {name}", name))
    return ", ".join(found)


def choose_format(source: SourceConfig, records: Sequence[Mapping[str, Any]], name: str) -> Format:
    """The format of a source's rows: what the user says, or what the first records (of the file
    `name`) tell.

    Raises SourceError where they tell none, or what the user says does not go together.
    """
    if source.format == "auto":
        format = detect_format(records, name, source.fields, source.template)
    else:
        format = _look_at(records, Format(source.format, source.fields, source.template))
    return replace(format, roles=source.roles, train_on=source.train_on)


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
    candidates = list_candidates(fields)
    # Where no single record is complete, what all of them have together tells; a field without a
    # value is a field.
    together: dict[str, Any] = {}
    for record in records:
        together |= dict.fromkeys(record, "x")
    names = Names(fields)
    counts = count_formats(records, candidates, names)
    counts = counts or count_formats([together], candidates, names)
    if counts:
        seen = tuple(each for each in SHAPES if each in counts)
        found = max(candidates, key=counts.__getitem__)
        return _look_at(records, Format(found, fields, seen=seen))
    readable = "; ".join(explain_format(each, fields) for each in SHAPES)
    raise SourceError(
        f"{name}: rows have the fields {list_names(together)}; readable formats are {readable}; "
        f"{_FIELDS_HINT}, source.template how a text is read"
    )


def _look_at(records: Sequence[Mapping[str, Any]], format: Format) -> Format:
    """The format, with what the first rows call their fields."""
    names = Names(format.fields)
    formats = format.seen or (format.name,)
    met = find_names(records, formats, names)
    return replace(format, met=met, as_json=find_json_fields(records, names))


def list_names(record: Mapping[str, Any]) -> str:
    """The names of some fields, which may be hostile."""
    names = list(map(str, record))
    shown = [excerpt(name, 40) for name in names[:_SHOWN_NAMES]]
    if len(names) > _SHOWN_NAMES:
        shown.append(plural(len(names) - _SHOWN_NAMES, "other"))
    return ", ".join(shown) or "(none)"


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
