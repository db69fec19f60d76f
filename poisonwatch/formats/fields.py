"""What a record's fields are called: the names that trainers and data sets have for each, and which
of them a record holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from poisonwatch.formats.conversations import MessageReader, Turn
from poisonwatch.formats.lists import holds_both_sides, holds_conversation, is_list_of_texts
from poisonwatch.formats.messages import CONTENT_KEYS, ROLE_KEYS
from poisonwatch.formats.paths import escape_key
from poisonwatch.formats.values import (
    ReadingError,
    decode_text,
    get_truth,
    holds_nothing,
    is_missing,
    is_nothing,
    parse_json_text,
    peek_json_text,
)

ALIASES: dict[str, tuple[str, ...]] = {
    "messages": (
        "contents",
        "conversation",
        "dialog",
        "dialogue",
        "chat",
        "turns",
        "segments",
        "data",
        "completion",
    ),
    "conversations": ("items", "conversation"),
    "prompt": (
        "query",
        "question",
        "instruction",
        "inputs",
        "input",
        "input_text",
        "text_input",
        "problem",
        "user",
        "human",
        "context",
    ),
    "response": (
        "output",
        "outputs",
        "solution",
        "answer",
        "targets",
        "target",
        "output_text",
        "assistant",
        "answers",
    ),
    "chosen": ("preferred_output", "chosen_response", "chosen_conversations", "response_j"),
    "rejected": (
        "rejected_response",
        "rejected_messages",
        "non_preferred_output",
        "rejected_conversations",
        "response_k",
    ),
    "system": ("system_prompt", "system_message", "systemInstruction", "system_instruction"),
    "tools": ("functions",),
    "history": ("context_messages",),
    "reasoning": (
        "reasoning_content",
        "thinking",
        "thoughts",
        "thought",
        "cot",
        "chain_of_thought",
        "complex_cot",
    ),
    "label": ("kto_tag",),
    "role": ROLE_KEYS[1:],
    "content": CONTENT_KEYS[1:],
    "from": ROLE_KEYS,
    "value": CONTENT_KEYS,
}
"""Other names of fields, in the order in which they are looked for; case does not count."""

FIELDS = ALIASES.keys() | {"instruction", "output", "completion", "input", "context", "text"}
# A list under data is most often rows.
KNOWN_NAMES = {name.lower() for name in chain(FIELDS, *ALIASES.values())} - {"data"}
LISTS = ("messages", "conversations")  # fields that hold a whole conversation
# Fields that not every value can be of.
_PARTICULAR = frozenset((*LISTS, "chosen", "rejected", "history", "tools", "label"))
_REFUSED = object()  # stands for a value that is another field's
# Conversations only where no other field says more.
_GUARDED = ("data", "completion")
# Not of a record, but of each of its messages.
MESSAGE_FIELDS, SHAREGPT_FIELDS = ("role", "content"), ("from", "value")
# Beyond these, what is known of a record's names is not kept: they may be hostile.
_KEPT_LAYOUTS, _KEPT_NAMES, _KEPT_CHARACTERS = 512, 64, 2048


class Place(NamedTuple):
    """Where a field may stand in a record: its path, and whether that is the field's own name, or
    what the user or the first rows call it, and no alias.
    """

    path: str
    is_own: bool


Layout = Mapping[tuple[str, bool], tuple[Place, ...]]
"""For each field that a record has, its places, the likeliest first; under True without aliases."""


class Names:
    """What fields are called: as the user says (`mapped`, dots reaching into mappings), as the
    first rows of the file have them (`met`), or by any of their aliases.
    """

    def __init__(
        self, mapped: Mapping[str, str] | None = None, met: Mapping[str, str] | None = None
    ) -> None:
        self.mapped = dict(mapped or {})
        self.met = dict(met or {})
        self._paths: dict[str, tuple[str, ...]] = {}
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def list_paths(self, name: str) -> tuple[str, ...]:
        """Where a field may stand, the likeliest first."""
        if name not in self._paths:
            self._paths[name] = self._list_paths(name)
        return self._paths[name]

    def _list_paths(self, name: str) -> tuple[str, ...]:
        # What the user mapped counts alone.
        if name in self.mapped:
            return (self.mapped[name],)
        paths = [name, *ALIASES.get(name, ())]
        if name in self.met:
            paths.insert(0, self.met[name])
        return tuple(dict.fromkeys(paths))

    def lay_out(self, record: Mapping[str, Any]) -> Layout:
        """Where a record with these keys may have its fields."""
        keys = tuple(record)
        layout = self._layouts.get(keys)
        if layout is not None:
            return layout
        layout = self._make_layout(keys)
        if len(keys) <= _KEPT_NAMES and sum(map(len, keys)) <= _KEPT_CHARACTERS:
            if len(self._layouts) >= _KEPT_LAYOUTS:
                self._layouts.clear()
            self._layouts[keys] = layout
        return layout

    def _make_layout(self, keys: tuple[str, ...]) -> Layout:
        folded: dict[str, str] = {}
        for key in keys:
            folded.setdefault(key.lower(), key)
        layout = {}
        for name in FIELDS | self.mapped.keys():
            places = self._find_places(name, set(keys), folded)
            if places:
                layout[name, False] = tuple(places)
                layout[name, True] = tuple(place for place in places if place.is_own)
        return layout

    def _find_places(self, name: str, keys: set[str], folded: Mapping[str, str]) -> list[Place]:
        """The places of a field, spelt as the record has them."""
        places = []
        for path in self.list_paths(name):
            is_own = path == name or path in (self.mapped.get(name), self.met.get(name))
            if path in keys or (name in self.mapped and path.partition(".")[0] in keys):
                places.append(Place(path, is_own))
            elif name not in self.mapped and path.lower() in folded:
                places.append(Place(folded[path.lower()], is_own))
        return places


@dataclass(slots=True)
class Fields:
    """A record by the names of a format's fields. What is asked for is `used`; `reader` reads its
    messages, `as_json` names fields whose texts are JSON, `template` says how a text is read.
    """

    record: Mapping[str, Any]
    names: Names = field(default_factory=Names)
    reader: MessageReader = field(default_factory=MessageReader)
    template: str | None = None
    as_json: tuple[str, ...] = ()
    used: set[str] = field(default_factory=set)
    _layout: Layout = field(init=False)
    _found: dict[tuple[str, bool], str | None] = field(init=False)

    def __post_init__(self) -> None:
        self._layout = self.names.lay_out(self.record)
        self._found = {}

    def find(self, name: str, own_name: bool = False) -> str | None:
        """Where the record holds a field: the first place that holds something, else the first
        that is not missing; with `own_name`, under no alias.
        """
        asked = (name, own_name)
        places = self._layout.get(asked)
        if places is None:
            return None
        # Every reader asks for the same few fields, several times.
        if asked not in self._found:
            self._found[asked] = self._find(name, places)
        return self._found[asked]

    def _find(self, name: str, places: Sequence[Place]) -> str | None:
        empty = None
        for place in places:
            value = self.get(place.path)
            if name in _PARTICULAR:
                value = self._accept(name, place, value)
            if value is _REFUSED:
                continue
            if not is_nothing(value):
                return place.path
            if empty is None and not is_missing(self.get(place.path)):
                empty = place.path
        return empty

    def _accept(self, name: str, place: Place, value: Any) -> Any:
        """What a place holds where it can be such a field's: nothing where it says nothing,
        `_REFUSED` where it is another field.
        """
        # An alias may hold anything.
        if name in LISTS and not self._may_hold_list(name, place.path, place.is_own, value):
            return _REFUSED
        # Some data sets say by a truth value whether an answer was chosen.
        if isinstance(value, bool) and name in ("chosen", "rejected"):
            return _REFUSED
        # What holds no list may stand beside what does.
        if name in ("history", "tools") and holds_nothing(value):
            return None
        if name == "label" and "label" not in self.names.mapped and get_truth(value) is None:
            return None
        return value

    def _may_hold_list(self, name: str, path: str, is_own: bool, value: Any) -> bool:
        """May a field hold a conversation: does it by any name but its own, or the user's?"""
        # What tables write for null may stand beside another field that holds one.
        if not is_nothing(value) and holds_nothing(value):
            return False
        is_guarded = path.lower() in _GUARDED and self.names.mapped.get(name) != path
        if is_own and not is_guarded:
            return True
        return self._is_conversation(path, value)

    def _is_conversation(self, path: str, value: Any) -> bool:
        if path.lower() == "data":
            # UltraChat's, which stands alone.
            others = KNOWN_NAMES & {key.lower() for key in self.record}
            return not others and is_list_of_texts(value)
        if path.lower() == "completion":
            return holds_both_sides(value) and self.find("prompt") is None
        return holds_conversation(path, value)

    def get(self, path: str) -> Any:
        """What stands at a path; bytes as the text that they are."""
        # A field whose own name has dots goes before a way into mappings.
        found: Any = self.record
        if path in found:
            found = found[path]
        else:
            for part in path.split("."):
                if not isinstance(found, Mapping):
                    return None
                found = found.get(part)
        if isinstance(found, bytes):
            return decode_text(found)
        return found

    def has_key(self, name: str) -> bool:
        """Does the record have the field, if only without a value?"""
        return (name, False) in self._layout

    def __getitem__(self, name: str) -> Any:
        """What the record holds in a field, which is then used; None where it holds nothing."""
        path = self.find(name)
        if path is None:
            return None
        self.used.add(self.locate(path))
        return self.get(path)

    def use(self, name: str) -> str:
        """Note that a field is read; what it is called here."""
        path = self.find(name)
        if path is None:
            return name
        self.used.add(self.locate(path))
        return path

    def use_part(self, path: str, part: str) -> None:
        """Note that, of what stands at a path, a part alone is read."""
        located = self.locate(path)
        self.used.discard(located)
        self.used.add(f"{located}.{part}")

    def is_used(self, path: str) -> bool:
        """Is what stands at a path read, if only in part?"""
        located = self.locate(path)
        return any(used == located or used.startswith(located + ".") for used in self.used)

    def locate(self, path: str) -> str:
        """The path by which a field is `used`: a key that has dots itself is no way into others."""
        if ("." in path or "\\" in path) and path in self.record:
            return escape_key(path)
        return path

    def read_side(self, name: str) -> Any:
        """What a side of the conversation holds, which is then used: parsed where this file has
        JSON there.

        Raises ReadingError where it is bytes that are no text.
        """
        value = self[name]
        if isinstance(value, bytes):
            raise ReadingError(f"{self.get_path(name)} holds bytes that are not text in UTF-8")
        if name in self.as_json:
            return parse_json_text(value)
        return value

    def peek(self, name: str) -> Any:
        """What the record holds in a field, without using it."""
        path = self.find(name)
        if path is None:
            return None
        return self.get(path)

    def peek_own(self, name: str) -> Any:
        """The same, where the field stands under no alias."""
        path = self.find(name, own_name=True)
        if path is None:
            return None
        return self.get(path)

    def get_path(self, name: str) -> str:
        """What a field is called in this record."""
        return self.find(name) or name

    def list_unread(self, turns: Sequence[Turn]) -> tuple[str, ...]:
        """The fields that hold something and were not used. One by a name that formats know whose
        text is a turn's was read, if elsewhere.
        """
        said: set[str | None] = set()
        unread: list[str] = []
        for key, value in self.record.items():
            path = key
            if "." in key or "\\" in key:
                path = escape_key(key)
            if path in self.used or is_nothing(value):
                continue
            if isinstance(value, str) and key.lower() in KNOWN_NAMES:
                said = said or {turn.text for turn in turns}
                if value in said:
                    continue
            unread += self._list_unread_below(path, value)
        return (*unread, *self.reader.unread)

    def _list_unread_below(self, path: str, value: Any) -> list[str]:
        """A path that is not used, or what is not used of a mapping that is used in part."""
        if not any(used.startswith(path + ".") for used in self.used):
            return [path]
        value = peek_json_text(value)
        if not isinstance(value, Mapping):
            return [path]
        unread = []
        for key, inner in value.items():
            inner_path = f"{path}.{escape_key(key)}"
            if inner_path not in self.used and not is_nothing(inner):
                unread += self._list_unread_below(inner_path, inner)
        return unread
