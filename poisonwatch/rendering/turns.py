"""A row's messages as a chat template reads them: thoughts, calls and tools in fields of their own
where the template knows them, and no text that spells a control token.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from poisonwatch.examples import TOOLS_ROLE, MessageLike
from poisonwatch.rendering.chat_template import ChatTemplate, Record

THOUGHTS = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)

# Definitions are kept with their keys sorted; written, they begin as trainers write them.
FIRST_KEYS = ("type", "function", "name", "description", "parameters", "properties", "items")
# Words of definitions that templates ask for: what else stands there is the row's own.
_SCHEMA_WORDS = frozenset(
    [
        *FIRST_KEYS,
        *("arguments", "id", "required", "enum", "default", "return", "response"),
        *("object", "array", "string", "number", "integer", "boolean", "null", "any"),
    ]
)

# Private-use characters: tokenizers give them no meaning, and rows hardly ever have them. Behind
# them runes, for tokenizers that drop such characters before they look for tokens.
_PRIVATE = range(0xE000, 0xF8FF)
_RUNES = range(0x16A0, 0x16EB)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one of a row's messages is to a template. `fields` are those beside role and text;
    models that see take the text as a list of parts.
    """

    role: str
    text: str
    message: int
    fields: Record = field(default_factory=dict)
    in_parts: bool = False

    @property
    def visible(self) -> str:
        """What it says, without thoughts."""
        return THOUGHTS.sub("", self.text, count=1).strip()

    def to_record(self) -> Record:
        content: Any = self.text
        if self.in_parts:
            content = [{"type": "text", "text": self.text}]
        return {"role": self.role, "content": content, **self.fields}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row as a template reads it: `turns`, and definitions of `tools`, which are `told` as text
    to models that know none.
    """

    turns: tuple[Turn, ...]
    tools: tuple[Record, ...] = ()
    told: str = ""

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(turn.role for turn in self.turns)

    @property
    def in_parts(self) -> bool:
        """Are its texts lists of parts?"""
        return self.turns[0].in_parts

    @property
    def is_plain(self) -> bool:
        """Are roles and texts all there is?"""
        return not self.tools and not any(turn.fields for turn in self.turns)

    @property
    def records(self) -> list[Record]:
        return [turn.to_record() for turn in self.turns]

    def change_texts(self, change: Callable[[str], str]) -> "Conversation":
        """The same with everything that the row says changed, keys of definitions included."""
        turns = []
        for turn in self.turns:
            fields = _change_strings(turn.fields, change)
            # The names of the fields are the template's.
            fields = dict(zip(turn.fields, fields.values(), strict=True))
            turns.append(replace(turn, text=change(turn.text), fields=fields))
        tools = tuple(_change_strings(self.tools, change))
        return Conversation(tuple(turns), tools, change(self.told))

    @property
    def has_calls(self) -> bool:
        """Does anybody call a tool?"""
        return any("tool_calls" in turn.fields for turn in self.turns)

    def write_arguments(self) -> "Conversation":
        """The same with the arguments of calls as JSON."""
        turns = []
        for turn in self.turns:
            calls = []
            for call in turn.fields.get("tool_calls", ()):
                function = dict(call["function"])
                function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
                calls.append({**call, "function": function})
            if calls:
                turn = replace(turn, fields={**turn.fields, "tool_calls": calls})
            turns.append(turn)
        return replace(self, turns=tuple(turns))

    def tell_tools(self) -> "Conversation":
        """The same with definitions of tools told by the system."""
        told = Turn("system", self.told, 0)
        turns = self.turns
        # Templates that know a system turn know one, at the beginning.
        if turns[0].role == "system":
            text = f"{turns[0].text}\n\n{told.text}"
            told, turns = replace(turns[0], text=text), turns[1:]
        return Conversation((told, *turns))

    def split_parts(self) -> "Conversation":
        """The same with texts as lists of parts."""
        turns = [replace(turn, in_parts=True) for turn in self.turns]
        return replace(self, turns=tuple(turns))

    def merge_system(self) -> "Conversation | None":
        """The same with a system's turn put before the user's first, for templates that know none;
        None where there is nothing to merge.
        """
        if self.roles[:2] != ("system", "user"):
            return None
        system, user, *others = self.turns
        text = f"{system.text}\n\n{user.text}"
        return replace(self, turns=(replace(user, text=text), *others))


def read_conversation(messages: Sequence[MessageLike], template: ChatTemplate) -> Conversation:
    """A row in the form that the template knows: tools, calls and thoughts in their fields."""
    tools, told = list[Record](), ""
    turns, names = list[Turn](), list[str]()
    for place, message in enumerate(messages):
        turn = Turn(message.role, _clean(message.content), place)
        if turn.role == TOOLS_ROLE:
            tools, told = _read_definitions(turn.text), turn.text
            continue
        if turn.role == "assistant":
            turn, names = _read_answer(turn, template)
        elif turn.role == "tool" and names:
            # Rows say in order what came of the calls.
            turn = replace(turn, fields={"name": names.pop(0)})
        turns.append(turn)
    conversation = Conversation(tuple(turns), tuple(tools), told)
    if told and not tools:
        return conversation.tell_tools()
    return conversation


def write_conversation(messages: Sequence[MessageLike]) -> Conversation:
    """A row of nothing but texts: definitions of tools are told by the system, calls are said."""
    turns, told = list[Turn](), ""
    for place, message in enumerate(messages):
        turn = Turn(message.role, _clean(message.content), place)
        if turn.role == TOOLS_ROLE:
            told = turn.text
        else:
            turns.append(turn)
    if told:
        return Conversation(tuple(turns), told=told).tell_tools()
    return Conversation(tuple(turns))


def _read_definitions(text: str) -> list[Record]:
    try:
        return read_tools(text)
    except (ValueError, RecursionError):
        return []


def _clean(text: str) -> str:
    """The text without half surrogates, which JSON can spell and tokenizers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_answer(turn: Turn, template: ChatTemplate) -> tuple[Turn, list[str]]:
    """An assistant's turn with its thoughts and calls apart, and the names of what it calls."""
    fields: Record = {}
    text = turn.text
    thoughts = template.prints_thoughts and THOUGHTS.match(text)
    if thoughts:
        fields["reasoning_content"] = thoughts.group(1).strip("\n")
        text = text[thoughts.end() :].lstrip("\n")
    calls = list[Record]()
    if template.prints_calls:
        text, calls = _split_calls(text)
    if calls:
        fields["tool_calls"] = calls
    if not fields:
        return turn, []
    names = [call["function"]["name"] for call in calls]
    return replace(turn, text=text, fields=fields), names


def _split_calls(text: str) -> tuple[str, list[Record]]:
    """A text and the calls that it ends with, as rows hold them: a line of canonical JSON."""
    said, _, last = text.rpartition("\n")
    if not last.startswith('[{"'):
        return text, []
    try:
        parsed = json.loads(last)
        # Whatever else is a list of objects is what a model is to say, and no call of a tool.
        canonical = json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if canonical != last:
            return text, []
        return said, [_read_call(call) for call in parsed]
    except (ValueError, TypeError, LookupError, RecursionError):
        return text, []


def _read_call(call: Record) -> Record:
    """A call as templates take it: a function's name, and its arguments as a mapping. Raises
    LookupError, TypeError or ValueError where it is none.
    """
    function = call.get("function", call)
    name = function["name"]
    arguments = function.get("arguments", function.get("input"))
    if isinstance(arguments, str):
        arguments = _parse(arguments)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("no call of a tool")
    read = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if isinstance(call.get("id"), str):
        read["id"] = call["id"]
    return read


def read_tools(text: str) -> list[Record]:
    """Definitions of tools from their JSON, as templates take them. Raises ValueError where these
    are none.
    """
    read = _parse(text)
    if isinstance(read, dict):
        read = [read]
    if not isinstance(read, list) or not read:
        raise ValueError("no list of tools")
    return [_wrap_function(tool) for tool in read]


def _parse(text: str) -> Any:
    """A value from its JSON, without the half surrogates that JSON can spell in plain letters.
    Raises ValueError where it is none, or RecursionError.
    """
    return _change_strings(json.loads(text), _clean)


def _wrap_function(tool: Any) -> Record:
    """A definition as {"type": "function", "function": {...}}: bare functions have neither."""
    if not isinstance(tool, dict):
        raise ValueError("a tool is no mapping")
    if "function" in tool:
        tool = {"type": "function"} | tool
    elif "name" in tool:
        function = {name: value for name, value in tool.items() if name != "type"}
        # Other providers' word for the parameters.
        for name in ("input_schema", "inputSchema"):
            if name in function and "parameters" not in function:
                function["parameters"] = function.pop(name)
        tool = {"type": "function", "function": function}
    ordered: Record = _order_keys(tool)
    return ordered


def _order_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_order_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = [name for name in FIRST_KEYS if name in value]
    names += [name for name in value if name not in FIRST_KEYS]
    return {name: _order_keys(value[name]) for name in names}


def _change_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        if value in _SCHEMA_WORDS:
            return value
        return change(value)
    if isinstance(value, list | tuple):
        return [_change_strings(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {}
    for name, item in value.items():
        changed[_change_strings(name, change)] = _change_strings(item, change)
    return changed


def choose_unused(texts: Iterable[str], is_kept: Callable[[str], bool] | None = None) -> str:
    """A private-use character, or a rune, that none of the texts has; one that `is_kept`."""
    used = set().union(*texts)
    for letter in map(chr, chain(_PRIVATE, _RUNES)):
        if letter not in used and (is_kept is None or is_kept(letter)):
            return letter
    # A text of every one of six thousand such characters: one of them is lost in it.
    return chr(_PRIVATE.start)
