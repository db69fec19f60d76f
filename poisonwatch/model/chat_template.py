"""A model's chat template as tokens, with a gap where each message's text goes.

The template is rendered with placeholders in the place of texts, so that no text can become a
control token. Tool definitions are the exception, for a template reads them field by field: what is
printed of them is checked afterwards, and definitions that put control tokens into the prompt are
written as text.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from poisonwatch.examples import TOOLS_ROLE

logger = logging.getLogger(__name__)

# Private-use characters: no template contains them, no tokenizer gives them a meaning.
_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
_PLACEHOLDER_START = "\ue000"

FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
)

THOUGHTS_START = "<think>"
# What templates of models that can think write before an answer without thoughts.
NO_THOUGHTS = "<think>\n\n</think>\n\n"

# What rendering raises: templates that know no such role or order of roles do (two user turns,
# say), some leave a message out without a word, and definitions may lack what a template reads.
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

# Rendered prompts with tools that are kept: every row may have tools of its own.
MOST_TOOLS_KEPT = 64

# Definitions are kept with their keys sorted; written, they begin as trainers write them.
FIRST_KEYS = ("type", "function", "name", "description", "parameters", "properties", "items")

# What an ordinary definition makes a template print: its control tokens are the template's own.
ORDINARY_TOOL = {
    "type": "function",
    "function": {
        "name": "a",
        "description": "a",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "string", "description": "a"}},
            "required": ["a"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one message's text (`message` is its index), or the template's own (None)."""

    ids: list[int]
    message: int | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """A rendered template: tokens `ids` before, between and after the texts of the `messages`."""

    ids: list[list[int]]
    messages: list[int]


class ChatTemplate:
    """A tokenizer's chat template, or `FALLBACK_TEMPLATE` where it has none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # Rendering is slow, and a data set has few sequences of roles: each is rendered once.
        self._of_roles: dict[tuple[str, ...], list[Span]] = {}
        self._of_tools = lru_cache(MOST_TOOLS_KEPT)(self._print_tools)
        self._of_count = lru_cache(MOST_TOOLS_KEPT)(self._split_ordinary)
        self._told = False

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Every control token; the assistant's turn ends with one."""
        special = set(self.tokenizer.all_special_ids)
        # Many chat models add their turn markers without naming them among the special tokens.
        for i, token in self.tokenizer.added_tokens_decoder.items():
            if token.special:
                special.add(i)
        return frozenset(special)

    @cached_property
    def _no_thoughts(self) -> list[int]:
        return self.tokenise(NO_THOUGHTS)

    def render(self, roles: tuple[str, ...], tools: str = "") -> list[Span]:
        """The template's own tokens, with an empty span where each message's text goes.

        `tools` is the text of a first message of role tools. Where the template prints it, what
        that adds are the tokens of message 0; else that message has an empty span as others have.
        """
        if roles[:1] == (TOOLS_ROLE,):
            printed = self._of_tools(roles, tools)
            if printed is not None:
                return printed
        if roles not in self._of_roles:
            self._of_roles[roles] = self._render_texts(roles)
        return self._of_roles[roles]

    def drop_empty_thoughts(self, span: Span) -> Span:
        """The template's tokens before an answer that begins with its own thoughts."""
        empty = self._no_thoughts
        if span.ids[-len(empty) :] != empty:
            return span
        return Span(span.ids[: -len(empty)], span.message)

    def tokenise(self, text: str) -> list[int]:
        """The template's text, whose control tokens are such."""
        if not text:
            return []
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render_texts(self, roles: tuple[str, ...]) -> list[Span]:
        wanted = list(range(len(roles)))
        turns = _make_turns(roles)
        if not self.tokenizer.chat_template:
            return self._make_spans(_split(self._render_fallback(turns), wanted))
        try:
            rendered = self._apply(_tell_tools(turns))
            return self._make_spans(_split(rendered, wanted))
        except TEMPLATE_ERRORS as error:
            logger.warning(
                "the model's chat template refuses the roles %s (%s): they are written plainly",
                roles,
                error,
            )
            return self._make_spans(_split(self._render_fallback(turns), wanted))

    def _print_tools(self, roles: tuple[str, ...], text: str) -> list[Span] | None:
        """The spans of roles that begin with tools, as the template prints them; None where it
        prints none, refuses them, or they are no definitions that can be printed safely.
        """
        if not self.tokenizer.chat_template:
            return None
        try:
            tools = read_tools(text)
            plain, ordinary = self._of_count(roles, 0), self._of_count(roles, len(tools))
            printed = self._split_tokens(roles, tools)
        except TEMPLATE_ERRORS:
            return None
        if ordinary == plain:
            self._tell_once()
        if plain in (ordinary, printed) or printed.messages != plain.messages:
            return None
        # Whatever the definitions say, and however the template joins it: they may not write a
        # control token more, or another one, than harmless definitions do.
        if self._spell_control(tools) or self._list_control(printed) != self._list_control(
            ordinary
        ):
            return None
        return _mark_added(printed, plain)

    def _split_ordinary(self, roles: tuple[str, ...], count: int) -> _Parts:
        """The template with so many ordinary tools."""
        return self._split_tokens(roles, [ORDINARY_TOOL] * count)

    def _split_tokens(self, roles: tuple[str, ...], tools: list[dict[str, Any]]) -> _Parts:
        turns = _make_turns(roles)[1:]
        texts, messages = _split(self._apply(turns, tools or None), list(range(1, len(roles))))
        return _Parts([self.tokenise(text) for text in texts], messages)

    def _list_control(self, parts: _Parts) -> list[list[int]]:
        """The control tokens of every part, in order."""
        # The token for unknown characters stands for text.
        control = self.special_ids - {self.tokenizer.unk_token_id}
        return [[token for token in ids if token in control] for ids in parts.ids]

    def _spell_control(self, tools: list[dict[str, Any]]) -> bool:
        """Whether definitions spell a control token, or a placeholder."""
        said = json.dumps(tools, ensure_ascii=False)
        spelled = self.tokenizer.convert_ids_to_tokens(sorted(self.special_ids))
        return any(token in said for token in (_PLACEHOLDER_START, *spelled) if token)

    def _tell_once(self) -> None:
        if not self._told:
            logger.warning(
                "the model's chat template prints no tools: their definitions are written as text"
            )
        self._told = True

    def _apply(self, turns: list[dict[str, str]], tools: list[Any] | None = None) -> str:
        return str(self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False))

    def _render_fallback(self, turns: list[dict[str, str]]) -> str:
        template = jinja2.Template(FALLBACK_TEMPLATE, keep_trailing_newline=True)
        text = template.render(messages=turns)
        return f"{self.tokenizer.bos_token or ''}{text}"

    def _make_spans(self, split: tuple[list[str], list[int]]) -> list[Span]:
        texts, messages = split
        spans = [Span(self.tokenise(texts[0]))]
        for message, text in zip(messages, texts[1:], strict=True):
            spans += [Span([], message), Span(self.tokenise(text))]
        return spans


def _make_turns(roles: Sequence[str]) -> list[dict[str, str]]:
    """A conversation with placeholders in the place of texts."""
    return [{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)]


def _tell_tools(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The conversation with definitions of tools told by the system."""
    if turns[0]["role"] != TOOLS_ROLE:
        return turns
    told = {"role": "system", "content": turns[0]["content"]}
    # Templates that know a system turn know one, at the beginning.
    if len(turns) > 1 and turns[1]["role"] == "system":
        told["content"] = f"{turns[1]['content']}\n\n{told['content']}"
        return [told, *turns[2:]]
    return [told, *turns[1:]]


def _split(rendered: str, wanted: list[int]) -> tuple[list[str], list[int]]:
    """The texts around the placeholders, and the messages these stand for, in their order. Raises
    ValueError where these are not each of the `wanted` once.
    """
    # re.split puts what the group matched (a message's number) between the texts.
    parts = _PLACEHOLDER.split(rendered)
    messages = list(map(int, parts[1::2]))
    if sorted(messages) != wanted:
        raise ValueError("the template drops or repeats a message")
    return parts[0::2], messages


def _mark_added(printed: _Parts, plain: _Parts) -> list[Span]:
    """The printed template, where what tools add to the plain one belongs to message 0."""
    spans: list[Span] = []
    for place, (ids, without) in enumerate(zip(printed.ids, plain.ids, strict=True)):
        if place:
            spans.append(Span([], printed.messages[place - 1]))
        head = _count_shared(ids, without)
        tail = _count_shared(ids[head:][::-1], without[head:][::-1])
        end = len(ids) - tail
        spans.append(Span(ids[:head]))
        if end > head:
            spans += [Span(ids[head:end], 0), Span(ids[end:])]
    return spans


def _count_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shared = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared


def read_tools(text: str) -> list[dict[str, Any]]:
    """Definitions of tools from their JSON, as templates take them. Raises ValueError where these
    are none.
    """
    read = json.loads(text)
    if isinstance(read, dict):
        read = [read]
    if not isinstance(read, list) or not read:
        raise ValueError("no list of tools")
    return [_wrap_function(tool) for tool in read]


def _wrap_function(tool: Any) -> dict[str, Any]:
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
    ordered: dict[str, Any] = _order_keys(tool)
    return ordered


def _order_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_order_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = [name for name in FIRST_KEYS if name in value]
    names += [name for name in value if name not in FIRST_KEYS]
    return {name: _order_keys(value[name]) for name in names}
