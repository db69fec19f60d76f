"""What stands before an answer: definitions of tools, the system's words, earlier turns, the prompt
with what belongs to it.
"""

from collections.abc import Mapping
from typing import Any

from poisonwatch.examples import TOOLS_ROLE
from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.fields import Fields
from poisonwatch.formats.transcripts import is_transcript, read_transcript
from poisonwatch.formats.values import (
    ReadingError,
    dump_canonical,
    get_optional_text,
    get_text,
    holds_nothing,
    is_nothing,
    parse_json_text,
)


def read_tools(fields: Fields) -> tuple[Turn, ...]:
    """The definitions of tools, as canonical JSON (a text that is none, as it stands); no turn
    where there are none.
    """
    path, value = _find_tools(fields)
    if is_nothing(value):
        return ()
    parsed = parse_json_text(value)
    if isinstance(parsed, list | tuple):
        # Arrow's JSON type writes every definition as a text.
        parsed = [parse_json_text(item) for item in parsed]
    is_none = holds_nothing(parsed)
    if not is_none and not isinstance(parsed, str | list | Mapping):
        return ()
    fields.used.add(path)
    fields.reader.unread.pop(path, None)
    if is_none:
        return ()
    if isinstance(parsed, str):
        return (Turn(TOOLS_ROLE, parsed),)
    try:
        return (Turn(TOOLS_ROLE, dump_canonical(parsed)),)
    except (TypeError, ValueError):
        raise ReadingError(f"{path} is not JSON") from None


def _find_tools(fields: Fields) -> tuple[str, Any]:
    """Where tools are defined: in a field, beside the messages of a prompt, or in a message."""
    in_messages = fields.reader.tools
    for path in in_messages:
        fields.reader.unread[path] = None
    if fields.has_key("tools") and not is_nothing(fields.peek("tools")):
        return fields.locate(fields.get_path("tools")), fields.peek("tools")
    # Amazon Bedrock's.
    config = fields.record.get("toolConfig")
    if isinstance(config, Mapping) and not is_nothing(config.get("tools")):
        return f"{fields.locate('toolConfig')}.tools", config["tools"]
    request = fields.peek("prompt")
    is_text = isinstance(request, str) or request is None
    if not is_text and isinstance(request, Mapping) and not is_nothing(request.get("tools")):
        return f"{fields.locate(fields.get_path('prompt'))}.tools", request["tools"]
    return next(iter(in_messages.items()), ("", None))


def read_system(fields: Fields, names: tuple[str, ...]) -> tuple[Turn, ...]:
    """What the system says in a field of its own, the first of these that holds something.

    Raises ReadingError where it is no text.
    """
    for name in names:
        if not fields.has_key(name) or is_nothing(fields.peek(name)):
            continue
        value = parse_json_text(fields.peek(name))
        is_json = isinstance(value, Mapping) and isinstance(fields.peek(name), str)
        # Gemini's {parts} may be JSON in a text; any other object is one that somebody wrote.
        if is_json and "parts" not in value:
            value = fields.peek(name)
        if isinstance(value, list | tuple | Mapping):
            text = fields.reader.read_text(value, fields.get_path(name))
            # What only looked like JSON is a text.
            text = text or get_text(fields.peek(name))
        elif name == "system":
            text = get_optional_text(value, fields.get_path(name))
        else:
            text = get_text(value)
        if text:
            fields.use(name)
            return (Turn("system", text),)
    return ()


def read_history(fields: Fields) -> tuple[Turn, ...]:
    """Earlier turns in a field of their own."""
    if not fields.has_key("history"):
        return ()
    value = parse_json_text(fields.peek("history"))
    if holds_nothing(value):
        fields.use("history")
        return ()
    if not isinstance(value, list | tuple):
        return ()
    path = fields.use("history")
    return fields.reader.read_turns(value, path, texts=True)


def read_prompt_turns(fields: Fields, name: str, transcripts: bool = False) -> tuple[Turn, ...]:
    """The turns of the prompt field `name`: messages, or a text and what belongs to it; with
    `transcripts`, a dialogue in one text, too.
    """
    value = fields.read_side(name)
    path = fields.get_path(name)
    if isinstance(value, list | tuple):
        return fields.reader.read_turns(value, path, texts=True)
    if isinstance(value, Mapping):
        return _read_request(fields, value, path)
    if transcripts and is_transcript(value):
        return read_transcript(value)
    return (Turn("user", _join_prompt(fields, name, path, get_text(value))),)


def _join_prompt(fields: Fields, name: str, path: str, prompt: str | None) -> str | None:
    """A prompt's text and what belongs to it, a line each."""
    added = []
    # Alpaca's input, and Dolly's context.
    is_instruction = path.lower() == "instruction" or name == "instruction"
    if fields.has_key("input") and (is_instruction or "input" in fields.names.mapped):
        added.append(get_optional_text(fields.peek("input"), fields.use("input")))
    context = fields.peek("context")
    if isinstance(context, str) and fields.get_path("context") != path:
        added.append(context)
        fields.use("context")
    parts = [part for part in (prompt, *added) if part]
    if not parts:
        return prompt
    return "\n".join(parts)


def _read_request(fields: Fields, value: Mapping[str, Any], path: str) -> tuple[Turn, ...]:
    """The messages of {messages, tools}, as OpenAI's preferences have it; or one message."""
    messages = parse_json_text(value.get("messages"))
    if not isinstance(messages, list | tuple):
        return tuple(fields.reader.read_message(value, path, "user"))
    fields.use_part(path, "messages")
    return fields.reader.read_turns(messages, f"{path}.messages")
