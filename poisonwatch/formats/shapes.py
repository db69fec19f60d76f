"""The formats that rows may have: which fields each asks of a record, and which turns they are.

A row is what a trainer conditions on (tools, system, history, prompt) and what it trains on (an
answer, or a chosen and a rejected one). What is missing stays missing (None), so that validation
can say so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

from poisonwatch.formats.answers import (
    add_reasoning,
    choose_answer,
    read_answer,
    unmask,
)
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import LISTS, MESSAGE_FIELDS, SHAREGPT_FIELDS, Fields
from poisonwatch.formats.prompts import (
    read_history,
    read_prompt_turns,
    read_system,
    read_tools,
)
from poisonwatch.formats.templates import EXAMPLE_TEMPLATE, read_template_text
from poisonwatch.formats.transcripts import (
    is_dialogue,
    is_transcript,
    read_dialogue,
    read_transcript,
)
from poisonwatch.formats.values import ReadingError, describe_kind, is_nothing


class Conversations(NamedTuple):
    """What a record holds: `turns` (with the chosen answer), and of a preference row the whole
    conversation with the `rejected` one.
    """

    turns: tuple[Turn, ...]
    rejected: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What a format asks of a record: `required` fields, each with its alternatives, and `optional`
    ones; `words` explain it.

    What the system says stands in one of `system`; messages call role and content as
    `message_fields` do; a record whose field `filled` is empty is of another format.
    """

    words: str
    read_turns: Callable[[Fields], Conversations]
    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()
    system: tuple[str, ...] = ("system",)
    message_fields: tuple[str, str] = MESSAGE_FIELDS
    filled: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every field."""
        fields = (*chain.from_iterable(self.required), *self.optional)
        if not self.optional:
            return fields
        return (*fields, *self.message_fields)

    def read(self, fields: Fields) -> Conversations:
        """Every turn of a record. Raises ReadingError."""
        turns, rejected = self.read_turns(fields)
        first: list[Turn] = []
        if "tools" in self.optional:
            first += read_tools(fields)
        if "system" in self.optional:
            system = read_system(fields, self.system)
            # Some rows hold it both in a field of its own and as their first turn.
            if turns[:1] != system:
                first += system
        if rejected:
            rejected = (*first, *rejected)
        return Conversations((*first, *turns), rejected)

    def fits(self, fields: Fields, own_names: bool = False) -> bool:
        """Does a record have all that is required, and not all of it as empty cells? With
        `own_names`, under no alias.
        """
        if self.filled and fields.peek(self.filled) in (None, ""):
            return False
        has_any = False
        for alternatives in self.required:
            paths = [fields.find(name, own_names) for name in alternatives]
            found = [path for path in paths if path is not None]
            if not found:
                return False
            has_any = has_any or any(fields.get(path) != "" for path in found)
        return has_any

    def list_missing(self, fields: Fields) -> list[tuple[str, ...]]:
        """What is required and not there: for each, its alternatives."""
        missing = []
        for alternatives in self.required:
            if all(fields.find(name) is None for name in alternatives):
                missing.append(alternatives)
        return missing


def _read_list(fields: Fields, name: str) -> tuple[Turn, ...]:
    path, value = fields.get_path(name), fields[name]
    if is_dialogue(value):
        return read_dialogue(value)
    return fields.reader.read_turns(value, path, texts=True)


def _read_answered(fields: Fields, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns; where they lack an answer, with the one that stands in a field of its own."""
    if not turns or turns[-1].role == "assistant":
        return turns
    name = choose_answer(fields)
    if is_nothing(fields.peek(name)):
        return turns
    answer = add_reasoning(fields, read_answer(fields, name))
    return (*_mask_prompt(turns), *answer)


def _mask_prompt(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Where both sides are messages, training is on the answer's alone."""
    return tuple(turn._replace(masked=turn.role == "assistant") for turn in turns)


def _read_messages(fields: Fields) -> Conversations:
    return Conversations(_read_answered(fields, _read_list(fields, "messages")))


def _read_sharegpt(fields: Fields) -> Conversations:
    return Conversations(_read_answered(fields, _read_list(fields, "conversations")))


def _read_alpaca(fields: Fields) -> Conversations:
    history = read_history(fields)
    prompt = read_prompt_turns(fields, "instruction")
    answer = add_reasoning(fields, read_answer(fields, "output"))
    return Conversations((*history, *prompt, *answer))


def _read_prompt(fields: Fields) -> Conversations:
    history = read_history(fields)
    answer = read_answer(fields, choose_answer(fields))
    prompt = _mask_prompt(read_prompt_turns(fields, "prompt"))
    return Conversations((*history, *prompt, *add_reasoning(fields, answer)))


def _read_text(fields: Fields) -> Conversations:
    text = fields["text"]
    if not isinstance(text, str):
        raise ReadingError(f"text is {describe_kind(text)}, not text")
    return Conversations(read_template_text(text, fields.template or ""))


def _read_preference(fields: Fields) -> Conversations:
    chosen = _read_chosen(fields)
    rejected = _read_side(fields, "rejected", chosen)
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
    _use_copies(fields, chosen)
    return Conversations(unmask(chosen), unmask(rejected))


def _read_chosen(fields: Fields) -> tuple[Turn, ...]:
    """The conversation that ends with the chosen answer: where only a rejected one is named, it is
    what the row would train on without that.
    """
    if is_nothing(fields.peek("chosen")):
        for name in LISTS:
            if not is_nothing(fields.peek(name)):
                return _read_list(fields, name)
        if fields.find("chosen") is None and fields.find("response") is not None:
            return _read_side(fields, "response")
    return _read_side(fields, "chosen")


def _read_side(fields: Fields, side: str, chosen: tuple[Turn, ...] = ()) -> tuple[Turn, ...]:
    """The conversation that ends with one `side`'s answer; what it begins with stands in the
    answer's own field, or in the prompt's.
    """
    answer, prompt = fields.peek(side), fields.peek("prompt")
    if is_transcript(answer) and (is_nothing(prompt) or is_transcript(prompt)):
        fields.use(side)
        return read_transcript(answer)
    turns = read_answer(fields, side)
    # With its prompt it is a whole conversation.
    if turns and turns[0].role in ("system", "user") and any(turn.role == "user" for turn in turns):
        return turns
    before = _read_before(fields, chosen or turns, len(turns))
    # What the system says stands first, wherever it was written.
    if turns and turns[0].role == "system":
        return (turns[0], *before, *turns[1:])
    return (*before, *turns)


def _read_before(fields: Fields, chosen: tuple[Turn, ...], count: int) -> tuple[Turn, ...]:
    """The turns before an answer of `count` turns: without the chosen one, where they end with it,
    and without what a transcript opens it with.
    """
    history = read_history(fields)
    if is_nothing(fields.peek("prompt")):
        for name in LISTS:
            if is_nothing(fields.peek(name)):
                continue
            turns = _read_list(fields, name)
            if chosen and turns[-1:] == chosen[-1:]:
                turns = _cut_answer(turns, count)
            return (*history, *turns)
        # The prompt may be the last of the earlier turns.
        if history:
            return history
    return (*history, *_read_opening(fields))


def _cut_answer(turns: tuple[Turn, ...], count: int) -> tuple[Turn, ...]:
    """The turns without the last one, or where another answer has several, those that the user's
    last one is followed by.
    """
    end = len(turns) - 1
    while count > 1 and end > 0 and turns[end - 1].role != "user":
        end -= 1
    return turns[:end]


def _read_opening(fields: Fields) -> tuple[Turn, ...]:
    """The turns of the prompt, without the beginning of an answer."""
    turns = read_prompt_turns(fields, "prompt", transcripts=True)
    if turns[-1:] == (Turn("assistant", ""),):
        return turns[:-1]
    return turns


def _use_copies(fields: Fields, chosen: tuple[Turn, ...]) -> None:
    """Note fields that hold nothing but what the chosen conversation holds, too."""
    for name in (*LISTS, "prompt"):
        if is_nothing(fields.peek(name)) or fields.is_used(fields.get_path(name)):
            continue
        copied = replace(fields, reader=replace(fields.reader, unread={}), used=set())
        try:
            turns = _read_begun(copied, name)
        except ReadingError:
            continue
        if turns and turns == chosen[: len(turns)]:
            fields.use(name)


def _read_begun(fields: Fields, name: str) -> tuple[Turn, ...]:
    if name == "prompt":
        return _read_opening(fields)
    return _read_list(fields, name)


_FACETS = ("system", "tools")
_BESIDE_PROMPT = ("context", "history", *_FACETS)

SHAPES = {
    "messages": Shape(
        "{messages}, a list of {{{role}, {content}}}",
        _read_messages,
        required=(("messages",),),
        optional=(*_FACETS, "context", "label"),
        system=("system", "context"),
    ),
    "sharegpt": Shape(
        "{conversations}, a list of {{{from}, {value}}}",
        _read_sharegpt,
        required=(("conversations",),),
        optional=(*_FACETS, "context", "label"),
        system=("system", "context"),
        message_fields=SHAREGPT_FIELDS,
    ),
    "alpaca": Shape(
        "{instruction}, {input} (optional), {output}",
        _read_alpaca,
        required=(("instruction",), ("output",)),
        optional=("input", *_BESIDE_PROMPT, "reasoning", "label"),
    ),
    "prompt": Shape(
        "{prompt} and {answer}",
        _read_prompt,
        required=(("prompt",), ("response", "completion")),
        optional=("input", *_BESIDE_PROMPT, "reasoning", "label"),
    ),
    "preference": Shape(
        "{chosen} and {rejected}, {sides}",
        _read_preference,
        required=(("chosen", *LISTS, "response"), ("rejected",)),
        optional=("prompt", "input", *_BESIDE_PROMPT),
        filled="rejected",
    ),
    "text": Shape("{text}, by {template}", _read_text, required=(("text",),), optional=()),
}
"""The formats by name."""


def explain_format(name: str, called: Mapping[str, str], template: str | None = None) -> str:
    """A format in words, by what its fields are `called` here."""
    shape = SHAPES[name]
    names = {each: called.get(each, each) for each in shape.names}
    if name == "prompt":
        names["answer"] = _explain_answer(called)
    if name == "preference":
        names |= _explain_preference(called)
    names["template"] = f"a template such as '{EXAMPLE_TEMPLATE}'"
    if template is not None:
        escaped = template.replace("\n", "\\n")
        names["template"] = f"the template '{escaped}'"
    return f"{name}: {shape.words.format_map(names)}"


def _explain_answer(called: Mapping[str, str]) -> str:
    both = ("response", "completion")
    named = [called[each] for each in both if each in called]
    if named:
        return " or ".join(named)
    return "response (or completion)"


def _explain_preference(called: Mapping[str, str]) -> dict[str, str]:
    """What the sides of a preference are called, and what they answer."""
    role, content = (called.get(each, each) for each in MESSAGE_FIELDS)
    lists = f"lists of {{{role}, {content}}}"
    lists_met = [called[name] for name in LISTS if name in called]
    found = {"sides": f"as answers to {called.get('prompt', 'prompt')} or as {lists}"}
    if lists_met and "prompt" not in called:
        found["sides"] = f"as answers to {lists_met[0]}, {lists}"
    chosen = [*lists_met, called.get("response")]
    # Where only the rejected answer has a name, the other one is what the row says without it.
    if "rejected" in called and "chosen" not in called and chosen[0]:
        found["chosen"] = f"the answer in {chosen[0]}"
    return found
