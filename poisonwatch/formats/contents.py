"""What one message says: texts, thoughts, calls of tools and what these gave back, however it
writes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poisonwatch.formats.paths import escape_key
from poisonwatch.formats.values import (
    ReadingError,
    describe_kind,
    dump_canonical,
    get_answer_text,
    is_missing,
    is_nothing,
    parse_json_text,
)
from poisonwatch.text.display import excerpt

_TEXT_KINDS = (None, "text", "input_text", "output_text")
_THOUGHT_KINDS = ("thinking", "reasoning", "reasoning.text", "reasoning.summary")
_THOUGHT_KEYS = ("thinking", "reasoning", "reasoningText", "text", "content", "summary")
# What a model runs itself, and what comes of it, stands in its turn.
_RUN = (
    "executableCode",
    "executable_code",
    "codeExecutionResult",
    "code_execution_result",
)
# Keys, or types, of parts that are calls of tools, and of parts that are what tools gave back.
_CALLS = ("tool_use", "server_tool_use", "tool_call", "function_call", "functionCall", "toolUse")
_RESULTS = (
    "tool_result",
    "function_call_output",
    "functionResponse",
    "function_response",
    "toolResult",
)


@dataclass(slots=True)
class Content:
    """What a message says by kind. `unread` names keys of its parts that were not read."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def text(self) -> str | None:
        """Its texts, a line each; None where there are none."""
        if not self.texts:
            return None
        return "\n".join(self.texts)

    @property
    def is_text(self) -> bool:
        """Is there nothing in it but texts?"""
        return not (self.thoughts or self.calls or self.results)

    def leave(self, part: Mapping[str, Any], *read: str | None) -> None:
        """Note what a part has beside the keys that were `read`."""
        for key, value in part.items():
            if key not in read and not is_nothing(value):
                self.unread.append(escape_key(key))


def read_content(value: Any) -> Content:
    """A text, or a list of texts and parts such as {type: text, text}, bare or as {parts}; or one
    part alone.

    Raises ReadingError where a part is an image, or anything else that cannot be read.
    """
    content = Content()
    if isinstance(value, Mapping) and isinstance(value.get("parts"), list | tuple):
        content.leave(value, "parts", "role", "content_type")
        value = value["parts"]
    elif isinstance(value, Mapping) and _is_part(value):
        value = [value]
    if isinstance(value, str):
        content.texts.append(value)
    elif isinstance(value, list | tuple):
        for part in value:
            _read_part(part, content)
    return content


def _read_part(part: Any, content: Content) -> None:
    if isinstance(part, str):
        # Arrow's JSON type writes every part as a text.
        parsed = parse_json_text(part)
        if not isinstance(parsed, Mapping) or not isinstance(parsed.get("type"), str):
            content.texts.append(part)
            return
        part = parsed
    if not isinstance(part, Mapping):
        raise ReadingError("a content has a part that is not text")
    kind = part.get("type")
    if isinstance(kind, str) and kind in _THOUGHT_KINDS:
        _read_thought(part, content)
    elif kind == "refusal" and isinstance(part.get("refusal"), str):
        content.texts.append(part["refusal"])
        content.leave(part, "type", "refusal")
    elif isinstance(kind, str) and kind in _CALLS:
        content.calls.append(part)
    elif isinstance(kind, str) and kind in _RESULTS:
        _read_result(part, content)
    elif (text_key := _find_text_key(part)) and _is_text_kind(kind):
        _read_text(part, text_key, content)
    elif kind is None and isinstance(part.get("reasoningContent"), Mapping):
        _read_thought(part["reasoningContent"], content)
        content.leave(part, "reasoningContent")
    elif kind is None and (key := _find_key(part, _RUN)):
        content.texts.append(_dump({key: part[key]}, key))
        content.leave(part, key)
    elif kind is None and (key := _find_key(part, _CALLS)):
        content.calls.append({key: part[key]})
        content.leave(part, key)
    elif kind is None and (key := _find_key(part, _RESULTS)):
        content.results.append(_dump(part[key], key))
        content.leave(part, key)
    else:
        raise ReadingError(_describe_part(kind))


def _is_text_kind(kind: Any) -> bool:
    return kind is None or (isinstance(kind, str) and kind in _TEXT_KINDS)


def _find_text_key(part: Mapping[str, Any]) -> str | None:
    """The key of a part's text."""
    return next((key for key in ("text", "content") if isinstance(part.get(key), str)), None)


def _is_part(value: Mapping[str, Any]) -> bool:
    """Is a mapping what a list of parts may hold?"""
    kind = value.get("type")
    if isinstance(kind, str):
        return True
    return _find_text_key(value) is not None


def is_call_part(value: Mapping[str, Any]) -> bool:
    """Is it a call of a tool, by its type?"""
    kind = value.get("type")
    return isinstance(kind, str) and kind in _CALLS


def is_bare_call(value: Mapping[str, Any]) -> bool:
    """Is it {name, arguments}, and nothing else but an id?"""
    return {"name", "arguments"} <= value.keys() <= {"name", "arguments", "id", "type"}


def is_result_part(value: Mapping[str, Any]) -> bool:
    """Is it what a tool gave back, by its type?"""
    kind = value.get("type")
    return isinstance(kind, str) and kind in _RESULTS


def _read_text(part: Mapping[str, Any], key: str, content: Content) -> None:
    # Gemini marks thoughts so.
    if part.get("thought") is True:
        content.thoughts.append(part[key])
        content.leave(part, "type", key, "thought")
        return
    content.texts.append(part[key])
    content.leave(part, "type", key, "role")


def _read_thought(part: Mapping[str, Any], content: Content) -> None:
    key = _find_key(part, _THOUGHT_KEYS)
    if key is not None:
        content.thoughts.append(_join_texts(part[key]))
    content.leave(part, "type", key)


def read_thoughts(value: Any) -> Content | None:
    """Thoughts in a field of their own: a text, a part, or a list of these; None for others."""
    content = Content()
    if isinstance(value, str):
        content.thoughts.append(value)
    parts = value
    if isinstance(value, Mapping):
        parts = [value]
    if isinstance(parts, list | tuple):
        for part in parts:
            if isinstance(part, str):
                content.thoughts.append(part)
            elif isinstance(part, Mapping):
                _read_thought(part, content)
            else:
                return None
    if not content.thoughts:
        return None
    return content


def _read_result(part: Mapping[str, Any], content: Content) -> None:
    key = _find_key(part, ("content", "output", "result", "text"))
    result = ""
    if key is not None:
        result = _join_texts(part[key])
    content.results.append(result)
    content.leave(part, "type", key)


def _join_texts(value: Any) -> str:
    """The texts of a text or of parts; what holds others is canonical JSON."""
    if isinstance(value, str):
        return value
    try:
        inner = read_content(value)
    except ReadingError:
        return _dump(value, "a part")
    if inner.text is None or not inner.is_text or inner.unread:
        return _dump(value, "a part")
    return inner.text


def read_result(value: Any) -> str | None:
    """What a tool says: text, or anything else as canonical JSON; None where it is nothing."""
    if isinstance(value, list | tuple) and not value:
        return None
    if isinstance(value, Mapping) and "parts" not in value and "type" not in value:
        return _dump(value, "what a tool says")
    if isinstance(value, Mapping | list | tuple):
        return _join_texts(value)
    return get_answer_text(value)


def _find_key(part: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        if not is_nothing(part.get(name)):
            return name
    return None


def _describe_part(kind: Any) -> str:
    problem = "a content has a part that is not text"
    if isinstance(kind, str):
        problem += f", but {excerpt(kind, 40)}"
    return problem


def _dump(value: Any, what: str) -> str:
    try:
        return dump_canonical(value)
    except (TypeError, ValueError):
        raise ReadingError(f"{what} is not JSON") from None


def list_calls(value: Any) -> list[Any]:
    """The calls of a message's own field, as a list: one call, a list, or either as JSON text.

    Raises ReadingError where it is something else.
    """
    calls = parse_json_text(value)
    if isinstance(calls, Mapping):
        return [calls]
    if not isinstance(calls, list | tuple):
        raise ReadingError(f"tool_calls is {describe_kind(calls)}, not a list")
    # Arrow's JSON type writes every call as a text.
    return [parse_json_text(call) for call in calls if not is_missing(call)]


def join_speech(thoughts: list[str], text: str | None, calls: list[Any]) -> str | None:
    """Everything that one turn says, as a model would write it: thoughts, text, calls (canonical
    JSON); None where it says nothing.

    Raises ReadingError where the calls are not JSON.
    """
    said = text
    if calls:
        try:
            dumped = dump_canonical(calls)
        except (TypeError, ValueError):
            raise ReadingError("tool_calls is not JSON") from None
        said = dumped
        if text:
            said = f"{text}\n{dumped}"
    return add_thoughts(thoughts, said)


def add_thoughts(thoughts: list[str], text: str | None) -> str | None:
    """The text after what was thought, unless it begins with the same thoughts."""
    thought = "\n\n".join(each.strip("\n") for each in thoughts if each.strip())
    if not thought:
        return text
    start, end, _ = (text or "").lstrip().partition("</think>")
    if end and start.removeprefix("<think>").strip() == thought.strip():
        return text
    return f"<think>\n{thought}\n</think>\n\n{text or ''}"
