"""The formats that rows may have: which fields each asks of a record, and which turns they are.

What is missing stays missing (None), so that validation can say so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from poisonwatch.sources.conversations import (
    EXAMPLE_TEMPLATE,
    SHAREGPT_KEYS,
    ReadingError,
    Turn,
    describe_kind,
    get_optional_text,
    get_text,
    is_transcript,
    read_template_text,
    read_transcript,
    read_turns,
)


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
        # A field whose own name has dots goes before a way into mappings.
        if path in self.record:
            return self.record[path]
        found: Any = self.record
        for part in path.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(part)
        return found


class Conversations(NamedTuple):
    """What a record holds: `turns` (with the chosen answer), and of a preference row the whole
    conversation with the `rejected` one. Of a `lowered` row, training lowers the answer of `turns`.
    """

    turns: tuple[Turn, ...]
    rejected: tuple[Turn, ...] = ()
    lowered: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What a format asks of a record: `required` fields, each with its alternatives, and `optional`
    ones; `words` explain it.
    """

    words: str
    read: Callable[[Fields], Conversations]
    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ("system",)

    @property
    def names(self) -> tuple[str, ...]:
        """Every field."""
        return (*chain.from_iterable(self.required), *self.optional)

    def fits(self, fields: Fields) -> bool:
        """Does a record have all that is required?"""
        return all(self._has_any(fields, names) for names in self.required)

    @staticmethod
    def _has_any(fields: Fields, names: tuple[str, ...]) -> bool:
        return any(fields[name] is not None for name in names)


def _read_messages(fields: Fields) -> Conversations:
    return Conversations(read_turns(fields["messages"], "messages"))


def _read_sharegpt(fields: Fields) -> Conversations:
    return Conversations(read_turns(fields["conversations"], "conversations", SHAREGPT_KEYS))


def _read_alpaca(fields: Fields) -> Conversations:
    prompt = get_text(fields["instruction"])
    extra = get_optional_text(fields["input"], "input")
    if prompt and extra:
        prompt = f"{prompt}\n{extra}"
    return Conversations((Turn("user", prompt), Turn("assistant", get_text(fields["output"]))))


def _read_prompt(fields: Fields) -> Conversations:
    names = ("response", "completion")
    # What the user mapped counts alone.
    mapped = [name for name in names if name in fields.names]
    answers = []
    for name in mapped or names:
        if fields[name] is not None:
            answers.append(fields[name])
    # A row must not show one and train the other.
    if answers[1:] and answers[0] != answers[1]:
        raise ReadingError(
            "its response and its completion differ; "
            "source.fields says which counts, as in {response: completion}"
        )
    answer = get_text(answers[0]) if answers else None
    return Conversations((Turn("user", get_text(fields["prompt"])), Turn("assistant", answer)))


def _read_text(fields: Fields) -> Conversations:
    text = fields["text"]
    if not isinstance(text, str):
        raise ReadingError(f"text is {describe_kind(text)}, not text")
    return Conversations(read_template_text(text, fields.template or ""))


def _read_preference(fields: Fields) -> Conversations:
    chosen = _read_side(fields["prompt"], fields["chosen"], "chosen")
    rejected = _read_side(fields["prompt"], fields["rejected"], "rejected")
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns or turns[-1].role != "assistant":
            raise ReadingError(f"{side} does not end with an answer")
    # Validation names what is missing in the chosen one, as in a row of any other format.
    if any(turn.text is None for turn in chosen):
        return Conversations(chosen)
    if any(turn.text is None for turn in rejected):
        raise ReadingError("a text of rejected is missing or not text")
    if chosen == rejected:
        raise ReadingError("chosen and rejected are the same")
    return Conversations(chosen, rejected)


def _read_side(prompt: Any, answer: Any, side: str) -> tuple[Turn, ...]:
    """The conversation that ends with one `side`'s answer; what it begins with stands in the
    answer's own field, or in the prompt's.
    """
    if isinstance(answer, Mapping):
        answer = [answer]
    if isinstance(answer, list | tuple):
        turns = read_turns(answer, side)
        if turns and turns[0].role != "assistant":
            return turns
        return (*_read_prompt_turns(prompt), *turns)
    if is_transcript(answer) and (not prompt or is_transcript(prompt)):
        return read_transcript(answer)
    return (*_read_prompt_turns(prompt), Turn("assistant", get_text(answer)))


def _read_prompt_turns(prompt: Any) -> tuple[Turn, ...]:
    """The turns before the answer. A transcript may open it."""
    if isinstance(prompt, list | tuple):
        return read_turns(prompt, "prompt")
    turns: tuple[Turn, ...] = (Turn("user", get_text(prompt)),)
    if is_transcript(prompt):
        turns = read_transcript(prompt)
    if turns[-1] == Turn("assistant", ""):
        return turns[:-1]
    return turns


SHAPES = {
    "messages": Shape(
        "{messages}, a list of {{role, content}}", _read_messages, required=(("messages",),)
    ),
    "sharegpt": Shape(
        "{conversations}, a list of {{from, value}}",
        _read_sharegpt,
        required=(("conversations",),),
    ),
    "alpaca": Shape(
        "{instruction}, {input} (optional), {output}",
        _read_alpaca,
        required=(("instruction",), ("output",)),
        optional=("input", "system"),
    ),
    "prompt": Shape(
        "{prompt} and {response} (or {completion})",
        _read_prompt,
        required=(("prompt",), ("response", "completion")),
    ),
    "preference": Shape(
        "{chosen} and {rejected}, as answers to {prompt} or as lists of {{role, content}}",
        _read_preference,
        required=(("chosen",), ("rejected",)),
        optional=("prompt", "system"),
    ),
    "text": Shape("{text}, by {template}", _read_text, required=(("text",),), optional=()),
}
"""The formats by name. `system` is a first turn that stands in a field of its own."""


def explain_format(name: str, fields: Mapping[str, str], template: str | None = None) -> str:
    """A format in words, by what its fields are called here."""
    shape = SHAPES[name]
    names = {each: fields.get(each, each) for each in shape.names}
    if template is None:
        names["template"] = f"a template such as '{EXAMPLE_TEMPLATE}'"
    else:
        escaped = template.replace("\n", "\\n")
        names["template"] = f"the template '{escaped}'"
    return f"{name}: {shape.words.format_map(names)}"
