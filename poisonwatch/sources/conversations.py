"""Turns of a conversation, read from whatever a row holds: lists of messages, transcripts, texts
with a template.

A turn is a role and its text; the text is None where the row lacks it, so that validation can say
so. What cannot be read at all is `ReadingError`, in words that stand behind "the row cannot be
read".
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from string import Formatter
from typing import Any, NamedTuple

from poisonwatch.text.display import excerpt
from poisonwatch.text.words import unify_line_ends


class Turn(NamedTuple):
    """What one side says, None where the row lacks it; a `masked` turn of the assistant is not
    trained on.
    """

    role: str
    text: str | None
    masked: bool = False


ROLES = ("system", "user", "assistant", "tool")
ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
}
"""What roles are called elsewhere."""

MESSAGE_KEYS, SHAREGPT_KEYS = ("role", "content"), ("from", "value")

PLACEHOLDER_ROLES = {"system": "system", "prompt": "user", "response": "assistant"}
EXAMPLE_TEMPLATE = r"Q: {prompt}\nA: {response}"

_KIND_NAMES = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    type(None): "null",
}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class ReadingError(ValueError):
    """A row that cannot be read, and why."""


def get_text(value: Any) -> str | None:
    """The value where it is text."""
    if isinstance(value, str):
        return value
    return None


def get_optional_text(value: Any, field: str) -> str | None:
    """The text of a field that may be missing or empty. Raises ReadingError where it is there and
    is not text.
    """
    if value is not None and not isinstance(value, str):
        raise ReadingError(f"{field} is {describe_kind(value)}, not text")
    return value or None


def describe_kind(value: Any) -> str:
    """What a value is, for people: JSON's names where it has one."""
    if isinstance(value, Mapping):
        return "an object"
    return _KIND_NAMES.get(type(value), f"a {type(value).__name__}")


def read_turns(value: Any, field: str, keys: tuple[str, str] = MESSAGE_KEYS) -> tuple[Turn, ...]:
    """The turns of a list of mappings that call role and text as `keys` do, or else as the other
    format does; it may be JSON in a text.

    Raises ReadingError.
    """
    listed = _parse_json_text(value)
    if not _is_list_of_mappings(listed):
        raise ReadingError(f"{field} is not a list of {{{', '.join(keys)}}}")
    other = MESSAGE_KEYS if keys == SHAREGPT_KEYS else SHAREGPT_KEYS
    turns = []
    for message in listed:
        # Merged data sets mix the two.
        used = keys
        if message.get(keys[0]) is None:
            used = other
        turns.append(_read_turn(message, used))
    return tuple(turns)


def _is_list_of_mappings(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return all(isinstance(item, Mapping) for item in value)


def _parse_json_text(value: Any) -> Any:
    """Tables without lists hold them as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read_turn(message: Mapping[str, Any], keys: tuple[str, str]) -> Turn:
    role = (get_text(message.get(keys[0])) or "").strip().lower()
    role = ROLE_NAMES.get(role, role)
    if role not in ROLES:
        raise ReadingError(
            f"unknown role '{excerpt(role, 40)}'; roles are system, user, assistant and tool"
        )
    content = _read_content(message.get(keys[1]))
    calls = _dump_calls(message)
    # What the assistant calls is trained on as its words are.
    if calls is None:
        return Turn(role, content)
    if not content:
        return Turn(role, calls)
    return Turn(role, f"{content}\n{calls}")


def _read_content(value: Any) -> str | None:
    """A text, or the texts of a list of {type: text, text}, a line each."""
    if not isinstance(value, list | tuple) or not value:
        return get_text(value)
    return "\n".join(map(_read_part, value))


def _read_part(part: Any) -> str:
    kind, text = None, part
    if isinstance(part, Mapping):
        kind, text = part.get("type"), part.get("text")
    if isinstance(text, str) and kind in (None, "text", "input_text", "output_text"):
        return text
    problem = "a content has a part that is not text"
    if isinstance(kind, str):
        problem += f", but {excerpt(kind, 40)}"
    raise ReadingError(problem)


def _dump_calls(message: Mapping[str, Any]) -> str | None:
    """The tool calls of a message as canonical JSON: sorted keys, no spaces, nothing that is
    null.
    """
    calls = message.get("tool_calls")
    # What OpenAI's interface had before it knew of several calls.
    if not calls and message.get("function_call"):
        calls = [message["function_call"]]
    if not calls:
        return None
    calls = _parse_json_text(calls)
    if not isinstance(calls, list | tuple):
        raise ReadingError(f"tool_calls is {describe_kind(calls)}, not a list")
    try:
        return json.dumps(
            _drop_nulls(calls), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
    except (TypeError, ValueError):
        raise ReadingError("tool_calls is not JSON") from None


def _drop_nulls(value: Any) -> Any:
    """Tables give every record all keys, null where it has none."""
    if isinstance(value, Mapping):
        return {key: _drop_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_drop_nulls(item) for item in value]
    return value


def is_transcript(text: Any) -> bool:
    """Is it a dialogue in one text, as in Anthropic's HH:
    "\\n\\nHuman: ...\\n\\nAssistant: ..."?
    """
    return isinstance(text, str) and text.lstrip().startswith("Human:")


def read_transcript(text: str) -> tuple[Turn, ...]:
    """The turns of a transcript, without white space around them."""
    # Some begin without the blank line that stands before every other speaker.
    _, *parts = _SPEAKER.split("\n\n" + unify_line_ends(text).lstrip())
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        turns.append(Turn(roles[speaker], said.strip()))
    return tuple(turns)


@cache
def _parse_template(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A template's literal pieces, and the placeholders between them. Raises ValueError where it
    makes no sense.
    """
    literals = [""]
    names: list[str] = []
    for literal, name, spec, conversion in Formatter().parse(unify_line_ends(template).strip()):
        literals[-1] += literal
        if name is None:
            continue
        if name not in PLACEHOLDER_ROLES or spec or conversion:
            raise ValueError(f"{{{name}}} is not one of {{system}}, {{prompt}} and {{response}}")
        names.append(name)
        literals.append("")
    if len(set(names)) < len(names) or not {"prompt", "response"} <= set(names):
        raise ValueError("it must hold {prompt} and {response}, once each")
    # Nothing would tell where the first of the two ends.
    if not all(literals[1:-1]):
        raise ValueError("something must stand between two placeholders")
    return tuple(literals), tuple(names)


def check_template(template: str) -> None:
    """Raises ValueError, saying why, where a template makes no sense."""
    _parse_template(template)


def read_template_text(text: str, template: str) -> tuple[Turn, ...]:
    """The turns of a text that a template describes. Raises ReadingError where it is another text.

    A placeholder ends where the piece after it first occurs, the last one at the end: one pass,
    whatever the text. White space around the whole text does not count.
    """
    literals, names = _parse_template(template)
    rest = unify_line_ends(text).lstrip()
    if not rest.startswith(literals[0]):
        raise ReadingError(
            f"the text does not begin as the template does: '{excerpt(literals[0], 40)}'"
        )
    rest = rest[len(literals[0]) :]
    found = {}
    for name, (_, after) in zip(names[:-1], pairwise(literals[:-1]), strict=True):
        found[name], separator, rest = rest.partition(after)
        if not separator:
            raise ReadingError(
                f"the text lacks what the template has after {{{name}}}: '{excerpt(after, 40)}'"
            )
    # What the template ends with is looked for at the end alone: a response may hold it, too.
    rest = rest.rstrip()
    if not rest.endswith(literals[-1]):
        raise ReadingError(
            f"the text does not end as the template does: '{excerpt(literals[-1], 40)}'"
        )
    found[names[-1]] = rest[: len(rest) - len(literals[-1])]
    turns: list[Turn] = []
    # In the order of a conversation, whatever the template's.
    for name, role in PLACEHOLDER_ROLES.items():
        is_empty_system = name == "system" and not found.get(name)
        if name in found and not is_empty_system:
            turns.append(Turn(role, found[name]))
    return tuple(turns)
