"""Row formats: how a record's fields become messages.

A row is read into messages field by field. What is missing stays missing (None), so that validation
can say so; only a complete row becomes an Example. Which format rows have is told by their first
ones, or by the user.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poisonwatch.config import SourceConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import Example, Message, RawRow
from poisonwatch.sources.conversations import (
    EXAMPLE_TEMPLATE,
    SHAREGPT_KEYS,
    ReadingError,
    Turn,
    check_template,
    describe_kind,
    get_optional_text,
    get_text,
    is_transcript,
    read_template_text,
    read_transcript,
    read_turns,
)
from poisonwatch.text.display import excerpt


@dataclass(frozen=True, slots=True)
class Draft:
    """A row read into (role, text) turns; a text is None where the row lacks it. `problem` says why
    nothing could be read.

    Of a preference row, `turns` is the conversation with the chosen answer, `rejected` that with
    the rejected one, which is complete.
    """

    turns: tuple[Turn, ...] = ()
    problem: str | None = None
    rejected: tuple[Turn, ...] = ()

    def text(self, assistant: bool) -> str | None:
        """What the assistant said (or was told), or None where a turn lacks its text or no such
        turn exists.
        """
        texts = [text for role, text in self.turns if (role == "assistant") == assistant]
        if not texts or any(text is None for text in texts):
            return None
        return "\n\n".join(text for text in texts if text is not None)

    def example(self, row: RawRow, format: "Format") -> Example | None:
        """The finished record of a complete row; None where it has a problem, or its prompt or
        response is missing.
        """
        if (
            self.problem is not None
            or self.text(assistant=False) is None
            or self.text(assistant=True) is None
        ):
            return None
        chosen, rejected = (
            [Message(role, text or "") for role, text in of] for of in (self.turns, self.rejected)
        )
        record = row.record or {}
        used = format.find_used_fields(record)
        metadata = {key: value for key, value in record.items() if key not in used}
        return Example.from_messages(chosen, row.source, row.position, metadata, rejected)


@dataclass(frozen=True, slots=True)
class Fields:
    """A record by the names of a format's fields: `names` says what some of them are called in it,
    dots reaching into mappings.
    """

    record: Mapping[str, Any]
    names: Mapping[str, str]
    template: str | None = None

    def __getitem__(self, name: str) -> Any:
        """What the record holds there; None where it holds nothing."""
        path = self.names.get(name, name)
        if path in self.record:
            return self.record[path]
        found: Any = self.record
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True, slots=True)
class Shape:
    """What a format asks of a record: `required` fields, each with its alternatives, and `optional`
    ones; `words` explain it.
    """

    words: str
    read: Callable[[Fields], Draft]
    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ("system",)

    @property
    def names(self) -> tuple[str, ...]:
        """Every field."""
        return (*(name for names in self.required for name in names), *self.optional)

    def fits(self, fields: Fields) -> bool:
        """Does a record have all that is required?"""
        return all(any(fields[name] is not None for name in names) for names in self.required)


def _read_alpaca(fields: Fields) -> Draft:
    instruction, extra = (
        get_text(fields["instruction"]),
        get_optional_text(fields["input"], "input"),
    )
    prompt = f"{instruction}\n{extra}" if instruction and extra else instruction
    return Draft((("user", prompt), ("assistant", get_text(fields["output"]))))


def _read_prompt(fields: Fields) -> Draft:
    names = ("response", "completion")
    given = [fields[name] for name in names if name in fields.names] or [
        fields[name] for name in names
    ]
    answers = [answer for answer in given if answer is not None]
    if answers[1:] and answers[0] != answers[1]:  # a row must not show one and train the other
        raise ReadingError(
            "its response and its completion differ; source.fields says which counts, as in {response: completion}"
        )
    return Draft(
        (
            ("user", get_text(fields["prompt"])),
            ("assistant", get_text(answers[0] if answers else None)),
        )
    )


def _read_template_text(fields: Fields) -> Draft:
    text = fields["text"]
    if not isinstance(text, str):
        raise ReadingError(f"text is {describe_kind(text)}, not text")
    return Draft(read_template_text(text, fields.template or ""))


def _read_preference(fields: Fields) -> Draft:
    chosen, rejected = (
        _read_conversation(fields["prompt"], fields[side], side) for side in ("chosen", "rejected")
    )
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns or turns[-1][0] != "assistant":
            raise ReadingError(f"{side} does not end with an answer")
    if any(text is None for _, text in chosen):
        return Draft(chosen)  # validation names what is missing
    if any(text is None for _, text in rejected):
        raise ReadingError("a text of rejected is missing or not text")
    if chosen == rejected:
        raise ReadingError("chosen and rejected are the same")
    return Draft(chosen, rejected=rejected)


def _read_conversation(prompt: Any, answer: Any, side: str) -> tuple[Turn, ...]:
    """The conversation that ends with one `side`'s answer; what it begins with stands in the
    answer's own field, or in the prompt's.
    """
    if isinstance(answer, list | tuple | Mapping):
        turns = read_turns([answer] if isinstance(answer, Mapping) else answer, side)
        return (
            turns if turns and turns[0][0] != "assistant" else (*_read_prompt_turns(prompt), *turns)
        )
    if is_transcript(answer) and (not prompt or is_transcript(prompt)):
        return read_transcript(answer)
    return (*_read_prompt_turns(prompt), ("assistant", get_text(answer)))


def _read_prompt_turns(prompt: Any) -> tuple[Turn, ...]:
    """The turns before the answer. A transcript may open it."""
    if isinstance(prompt, list | tuple):
        return read_turns(prompt, "prompt")
    turns = read_transcript(prompt) if is_transcript(prompt) else (("user", get_text(prompt)),)
    return turns[:-1] if turns[-1] == ("assistant", "") else turns


SHAPES = {
    "messages": Shape(
        "{messages}, a list of {{role, content}}",
        lambda of: Draft(read_turns(of["messages"], "messages")),
        (("messages",),),
    ),
    "sharegpt": Shape(
        "{conversations}, a list of {{from, value}}",
        lambda of: Draft(read_turns(of["conversations"], "conversations", SHAREGPT_KEYS)),
        (("conversations",),),
    ),
    "alpaca": Shape(
        "{instruction}, {input} (optional), {output}",
        _read_alpaca,
        (("instruction",), ("output",)),
        ("input", "system"),
    ),
    "prompt": Shape(
        "{prompt} and {response} (or {completion})",
        _read_prompt,
        (("prompt",), ("response", "completion")),
    ),
    "preference": Shape(
        "{chosen} and {rejected}, as answers to {prompt} or as lists of {{role, content}}",
        _read_preference,
        (("chosen",), ("rejected",)),
        ("prompt", "system"),
    ),
    "text": Shape("{text}, by {template}", _read_template_text, (("text",),), ()),
}
"""The formats by name. `system` is a first turn that stands in a field of its own."""


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

    def __post_init__(self) -> None:
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
                f"a template says how text rows are read, and the row format is {self.name}: leave one of them out"
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
        }

    @property
    def explanation(self) -> str:
        """In words, for people."""
        return (
            f"each row by the fields it has: {self._words}" if len(self.seen) > 1 else self._words
        )

    @property
    def _words(self) -> str:
        return "; ".join(
            _explain_format(name, self.fields, self.template) for name in self.seen or (self.name,)
        )

    @property
    def used_fields(self) -> frozenset[str]:
        """The top-level fields that become messages in rows like the first ones; the others are
        metadata.
        """
        return frozenset().union(*(self._list_paths(name) for name in self.seen or (self.name,)))

    def find_used_fields(self, record: Mapping[str, Any]) -> frozenset[str]:
        """The same of one record, by the format it is read by."""
        return self._list_paths(self.choose_name(record))

    def _list_paths(self, name: str) -> frozenset[str]:
        paths = [self.fields.get(of, of) for of in SHAPES[name].names]
        return frozenset(paths) | {path.partition(".")[0] for path in paths}

    def choose_name(self, record: Mapping[str, Any]) -> str:
        """The name of the format that a record is read by."""
        fields = Fields(record, self.fields)
        if not self.seen or SHAPES[self.name].fits(fields):
            return self.name
        return next(
            (
                name
                for name in (*self.seen, *_list_candidates(self.fields))
                if SHAPES[name].fits(fields)
            ),
            self.name,
        )

    def read(self, record: Mapping[str, Any]) -> Draft:
        """Read one record; what is missing or not text becomes None, or a `problem` where there is
        more to say.
        """
        name = self.choose_name(record)
        if not self._list_paths(name) & record.keys():
            return Draft(
                problem=f"its fields are {_format_names(record)}; what is read here is {self._words}"
            )
        fields, shape = Fields(record, self.fields, self.template), SHAPES[name]
        try:
            draft = shape.read(fields)
            system = (
                get_optional_text(fields["system"], "system")
                if "system" in shape.optional
                else None
            )
        except ReadingError as error:
            return Draft(problem=str(error))
        except RecursionError:
            return Draft(problem="it is nested too deeply")
        first = ("system", system)
        if not system or draft.turns[:1] == (first,):
            return draft
        return replace(
            draft,
            turns=(first, *draft.turns),
            rejected=(first, *draft.rejected) if draft.rejected else (),
        )


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

    def told(record: Mapping[str, Any]) -> str | None:
        return next((of for of in candidates if SHAPES[of].fits(Fields(record, fields))), None)

    # Where no single record is complete, what all of them have together tells; a field without a
    # value is a field.
    together = {key: True for record in records for key in record}
    counts = Counter(filter(None, map(told, records))) or Counter(filter(None, [told(together)]))
    if counts:
        seen = tuple(of for of in SHAPES if of in counts)
        return Format(max(candidates, key=counts.__getitem__), fields, None, seen)
    readable = "; ".join(_explain_format(of, fields) for of in SHAPES)
    raise SourceError(
        f"{name}: rows have the fields {_format_names(together)}; readable formats are {readable}; "
        "source.fields says what other fields are, as in {prompt: question, response: answer}, source.template how a text is read"
    )


def _list_candidates(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Formats that can be told by their fields, and have those that are mapped. Preference rows
    often hold messages, too: they go first.

    Raises SourceError where no format has the mapped fields.
    """
    found = [name for name, shape in SHAPES.items() if fields.keys() <= set(shape.names)]
    if not found:
        raise _make_fields_error(
            fields,
            "; ".join(f"{name} has {', '.join(shape.names)}" for name, shape in SHAPES.items()),
        )
    return tuple(
        sorted((name for name in found if name != "text"), key=lambda name: name != "preference")
    )


def _explain_format(name: str, fields: Mapping[str, str], template: str | None = None) -> str:
    shape = SHAPES[name]
    written = (
        f"a template such as '{EXAMPLE_TEMPLATE}'"
        if template is None
        else "the template '{}'".format(template.replace("\n", "\\n"))
    )
    return f"{name}: {shape.words.format_map({of: fields.get(of, of) for of in shape.names} | {'template': written})}"


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
        f"source.template {problem}: it says how prompt and response stand in a text, as in '{EXAMPLE_TEMPLATE}'"
    )
