"""Turns of a conversation, read from whatever a row holds: lists of messages, of pairs, of texts.

A turn is a role and its text; the text is None where the row lacks it, so that validation can say
so. What cannot be read at all is `ReadingError`, in words that stand behind "the row cannot be
read".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from poisonwatch.formats.contents import (
    Content,
    is_call_part,
    is_result_part,
    join_speech,
    list_calls,
    read_content,
    read_result,
    read_thoughts,
)
from poisonwatch.formats.messages import (
    CALL_KEYS,
    CONTENT_KEYS,
    PAIR_ANSWERS,
    PAIR_PROMPTS,
    ROLE_KEYS,
    THOUGHT_KEYS,
    TOOL_KEYS,
    find_key,
    find_typed_role,
    is_segment,
    read_masks,
    spell_keys,
)
from poisonwatch.formats.paths import escape_key
from poisonwatch.formats.roles import is_role, read_role
from poisonwatch.formats.values import (
    ReadingError,
    get_answer_text,
    get_text,
    get_truth,
    holds_nothing,
    is_missing,
    is_nothing,
    list_messages,
    parse_json_text,
    refuse_printed,
)
from poisonwatch.text.display import excerpt


class Turn(NamedTuple):
    """What one side says, None where the row lacks it; a `masked` turn of the assistant is not
    trained on.
    """

    role: str
    text: str | None
    masked: bool = False


# What is said by a role whose content is null: a tool may give back nothing, a system need not say
# anything. Of others, the text is missing.
_SILENT = {"tool": (Turn("tool", ""),), "system": ()}


@dataclass(slots=True)
class MessageReader:
    """How the messages of one row are read: what `roles` are called here beside the usual names,
    and which keys hold role and content, the first that holds something. `unread` gathers the names
    of what is left over, `tools` definitions of tools that stand in messages.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    role_keys: tuple[str, ...] = ROLE_KEYS
    content_keys: tuple[str, ...] = CONTENT_KEYS
    unread: dict[str, None] = field(default_factory=dict)
    tools: dict[str, Any] = field(default_factory=dict)
    _spelt: Mapping[str, str] = field(default_factory=dict)

    def read_turns(self, value: Any, name: str, texts: bool = False) -> tuple[Turn, ...]:
        """The turns of the field `name`: a list of messages, of pairs or, with `texts`, of what two
        sides say by turns; each of them, and the list, may be JSON in a text.

        Raises ReadingError.
        """
        listed = list_messages(parse_json_text(value))
        if not isinstance(listed, list | tuple):
            refuse_printed(value, name)
            raise self._make_error(name)
        # One text alone is nobody's turn.
        if texts and len(listed) > 1 and all(_is_plain_text(item) for item in listed):
            return _alternate(listed)
        if self._are_roles_and_texts(listed):
            return self._read_named(listed, name)
        turns: list[Turn] = []
        for item in listed:
            turns += self._read_item(item, name)
        return tuple(_join_segments(turns, listed))

    def read_message(self, message: Mapping[str, Any], name: str, role: str) -> list[Turn]:
        """The turns of one message, which is of this role where it does not say so."""
        message = self._spell(message)
        role_key = find_key(message, self.role_keys)
        if role_key is not None:
            role = self._read_role(message[role_key])
        return self._read_speech(message, name, role, role_key)

    def _spell(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """The message with the keys that are known."""
        own = (*self.role_keys, *self.content_keys)
        message, self._spelt = spell_keys(message, own)
        return message

    def _read_role(self, value: Any) -> str:
        # ChatGPT's exports say {author: {role, name}}.
        if isinstance(value, Mapping):
            value = value.get("role")
        return read_role(value, self.roles)

    def _are_roles_and_texts(self, listed: Sequence[Any]) -> bool:
        """Is it a list of [role, text], and not of [prompt, answer]?"""
        pairs = [parse_json_text(item) for item in listed]
        if not pairs or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
        ):
            return False
        return all(is_role(role, self.roles) for role, _ in pairs)

    def _read_named(self, listed: Sequence[Any], name: str) -> tuple[Turn, ...]:
        turns: list[Turn] = []
        for item in listed:
            role, text = parse_json_text(item)
            message = {self.content_keys[0]: text}
            turns += self._read_speech(message, name, read_role(role, self.roles), None)
        return tuple(turns)

    def _read_item(self, item: Any, name: str) -> list[Turn]:
        if isinstance(item, str):
            # Arrow's JSON type writes every message as a text.
            item = parse_json_text(item)
        if isinstance(item, list | tuple) and len(item) == 2:
            return self._read_two(item, name)
        if not isinstance(item, Mapping):
            raise self._make_error(name)
        # Most messages are nothing but this.
        role, said = item.get(self.role_keys[0]), item.get(self.content_keys[0])
        if len(item) == 2 and role and isinstance(role, str) and said and isinstance(said, str):
            return [Turn(read_role(role, self.roles), said)]
        item = self._spell(item)
        role_key = find_key(item, self.role_keys)
        if role_key is not None:
            return self._read_speech(item, name, self._read_role(item[role_key]), role_key)
        answer_key = find_key(item, PAIR_ANSWERS)
        if answer_key is not None:
            return self._read_pair(item, name, answer_key)
        if is_segment(item):
            self._note(item, name, {"label", "text"})
            role = "assistant" if get_truth(item["label"]) else "user"
            return [Turn(role, item["text"])]
        return self._read_typed(item, name)

    def _read_typed(self, item: Mapping[str, Any], name: str) -> list[Turn]:
        """A message without a role, whose type, or whose kind of content, says who it is of."""
        if is_call_part(item) or is_result_part(item):
            content = read_content([item])
            self.note_parts(name, content)
            return self._make_turns("assistant", content, masked=False)
        role = find_typed_role(item)
        data = item.get("data")
        if role and isinstance(data, Mapping) and find_key(item, self.content_keys) is None:
            self._note(item, name, {"type", "data"})
            return self._read_speech(self._spell(data), f"{name}.data", role, "type")
        if role:
            return self._read_speech(item, name, role, "type")
        # Gemini's user need not say who it is.
        if isinstance(item.get("parts"), list | tuple):
            return self._read_speech(item, name, "user", None)
        keys = excerpt(", ".join(map(str, item)) or "(none)", 80)
        raise ReadingError(
            f"a message in {name} has the keys {keys}, and none of them says its role; "
            "source.fields says which does, as in {role: who, content: said}"
        )

    def _read_speech(
        self, message: Mapping[str, Any], name: str, role: str, role_key: str | None
    ) -> list[Turn]:
        content_key = find_key(message, self.content_keys)
        value = None
        if content_key is not None:
            value = message[content_key]
        used: set[str | None] = {role_key, content_key}
        content = self._read_value(value, role)
        self.note_parts(f"{name}.{content_key}", content)
        self._read_calls_and_tools(message, name, content, used)
        masked = False
        if role == "assistant":
            self._read_assistant(message, name, content, used)
            masked = read_masks(message, used)
        self._note(message, name, used)
        return self._make_turns(role, content, masked, is_null=is_missing(value))

    def _read_calls_and_tools(
        self, message: Mapping[str, Any], name: str, content: Content, used: set[str | None]
    ) -> None:
        called = False
        for key in CALL_KEYS:
            if is_nothing(message.get(key)):
                continue
            if holds_nothing(message[key]):
                used.add(key)
            elif not called:
                called = True
                _read_calls(message[key], key, content)
                used.add(key)
        for key in TOOL_KEYS:
            if not is_nothing(message.get(key)):
                self.tools[f"{name}.{key}"] = message[key]
                used.add(key)

    def _read_value(self, value: Any, role: str) -> Content:
        if role == "tool":
            text = read_result(value)
        elif role == "assistant":
            text = get_answer_text(value)
        else:
            text = None
        if text is not None:
            return Content([text])
        content = read_content(value)
        if role != "assistant":
            # Nobody else's thoughts are trained.
            content.texts = [*content.thoughts, *content.texts]
            content.thoughts = []
        return content

    def _read_assistant(
        self, message: Mapping[str, Any], name: str, content: Content, used: set[str | None]
    ) -> None:
        """What only an assistant has: thoughts, and refusals."""
        for key in THOUGHT_KEYS:
            thought = message.get(key)
            if is_nothing(thought) or key in used:
                continue
            found = read_thoughts(thought)
            if found is None:
                continue
            # Some servers give the same thoughts twice.
            if not content.thoughts:
                content.thoughts += found.thoughts
            if content.thoughts == found.thoughts:
                used.add(key)
                self.note_parts(f"{name}.{self._spelt.get(key, key)}", found)
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal and not content.text:
            content.texts = [refusal]
            used.add("refusal")

    def _make_turns(
        self, role: str, content: Content, masked: bool, is_null: bool = False
    ) -> list[Turn]:
        turns = [Turn("tool", result) for result in content.results]
        text = join_speech(content.thoughts, content.text, content.calls)
        if text is None and is_null and role in _SILENT:
            return [*turns, *_SILENT[role]]
        # A message that only hands over what tools gave back says nothing itself.
        if text is not None or not turns:
            turns.append(Turn(role, text, masked))
        return turns

    def _read_two(self, pair: Sequence[Any], name: str) -> list[Turn]:
        prompt, answer = pair
        if isinstance(prompt, Mapping) or isinstance(answer, Mapping):
            raise self._make_error(name)
        texts = []
        for text in (prompt, answer):
            if not is_missing(text) and not isinstance(text, str):
                raise self._make_error(name)
            texts.append(get_text(text))
        return [Turn("user", texts[0]), Turn("assistant", texts[1])]

    def _read_pair(self, pair: Mapping[str, Any], name: str, answer_key: str) -> list[Turn]:
        """A mapping of what is asked and what is answered."""
        used: set[str | None] = {answer_key}
        turns = []
        if isinstance(system := pair.get("system"), str) and system:
            turns.append(Turn("system", system))
            used.add("system")
        prompt_key = find_key(pair, PAIR_PROMPTS)
        asked = Turn("user", None)
        if prompt_key is not None:
            asked = Turn("user", self.read_text(pair[prompt_key], f"{name}.{prompt_key}"))
            used.add(prompt_key)
        turns.append(asked)
        content = self._read_value(pair[answer_key], "assistant")
        self.note_parts(f"{name}.{answer_key}", content)
        self._read_assistant(pair, name, content, used)
        masked = read_masks(pair, used)
        self._note(pair, name, used)
        return [*turns, *self._make_turns("assistant", content, masked)]

    def read_text(self, value: Any, name: str) -> str | None:
        """The text of a field that cannot hold anything else; None where there is none."""
        content = read_content(value)
        if not content.is_text:
            raise ReadingError(f"{name} has a part that is not text")
        self.note_parts(name, content)
        return content.text

    def note_parts(self, name: str, content: Content) -> None:
        """Note what was not read of the parts of a content."""
        for key in content.unread:
            self.unread[f"{name}.{key}"] = None

    def _note(
        self, message: Mapping[str, Any], name: str, used: set[str] | set[str | None]
    ) -> None:
        for key, value in message.items():
            if key not in used and not is_nothing(value):
                key = self._spelt.get(key, key)
                self.unread[f"{name}.{escape_key(key)}"] = None

    def _make_error(self, name: str) -> ReadingError:
        keys = f"{self.role_keys[0]}, {self.content_keys[0]}"
        return ReadingError(f"{name} is not a list of {{{keys}}}")


def _is_plain_text(item: Any) -> bool:
    return isinstance(item, str) and parse_json_text(item) is item


def _alternate(texts: Sequence[str]) -> tuple[Turn, ...]:
    turns = []
    for place, text in enumerate(texts):
        turns.append(Turn(("user", "assistant")[place % 2], text))
    return tuple(turns)


def _join_segments(turns: list[Turn], listed: Sequence[Any]) -> list[Turn]:
    """The turns; of segments, those next to each other and of one side are one."""
    if not listed or not is_segment(parse_json_text(listed[0])):
        return turns
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            turn = Turn(turn.role, (joined.pop().text or "") + (turn.text or ""))
        joined.append(turn)
    return joined


def _read_calls(value: Any, key: str, content: Content) -> None:
    # Some write calls as code.
    if key == "function_calls" and isinstance(parse_json_text(value), str):
        content.texts.append(value)
        return
    content.calls += list_calls(value)
