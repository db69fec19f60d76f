"""What a record's fields are called: the names that trainers and data sets have for each, and which
of them a record holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from poisonwatch.sources.conversations import CONTENT_KEYS, ROLE_KEYS, MessageReader, Turn
from poisonwatch.sources.values import is_missing, is_nothing, parse_json_text

ALIASES: dict[str, tuple[str, ...]] = {
    "messages": ("contents", "conversation", "dialog", "dialogue", "chat", "turns", "segments"),
    "conversations": ("items", "conversation"),
    "prompt": ("query", "question", "instruction", "inputs", "input", "problem", "user", "human"),
    "response": ("output", "outputs", "solution", "answer", "targets", "target", "assistant"),
    "chosen": ("preferred_output", "chosen_response", "response_j"),
    "rejected": (
        "rejected_response",
        "rejected_messages",
        "non_preferred_output",
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

LISTS = ("messages", "conversations")  # fields that hold a whole conversation
# Not of a record, but of each of its messages.
MESSAGE_FIELDS, SHAREGPT_FIELDS = ("role", "content"), ("from", "value")
# Beyond these, the names of a record are not remembered: they may be hostile.
_REMEMBERED_NAMES, _REMEMBERED_CHARACTERS = 64, 2048


@dataclass(frozen=True, slots=True)
class Names:
    """What fields are called: as the user says (`mapped`, dots reaching into mappings), as the
    first rows of the file have them (`met`), or by any of their aliases.
    """

    mapped: tuple[tuple[str, str], ...] = ()
    met: tuple[tuple[str, str], ...] = ()

    def list_paths(self, name: str) -> tuple[str, ...]:
        """Where a field may stand, the likeliest first."""
        mapped = dict(self.mapped).get(name)
        # What the user mapped counts alone.
        if mapped is not None:
            return (mapped,)
        paths = [name, *ALIASES.get(name, ())]
        if met := dict(self.met).get(name):
            paths.insert(0, met)
        return tuple(dict.fromkeys(paths))


def _locate(names: Names, field: str, keys: Sequence[str]) -> tuple[str, ...]:
    """The paths of a field that records with these keys may have, spelt as they have them."""
    folded: dict[str, str] = {}
    for key in keys:
        folded.setdefault(key.lower(), key)
    known = set(keys)
    is_mapped = field in dict(names.mapped)
    found = []
    for path in names.list_paths(field):
        if path in known or (is_mapped and path.partition(".")[0] in known):
            found.append(path)
        elif not is_mapped and path.lower() in folded:
            found.append(folded[path.lower()])
    return tuple(found)


@lru_cache(1024)
def _remember_paths(_names: Names, _keys: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What `_locate` gave for records with these keys, by field: most records of a file have the
    same.
    """
    return {}


def _is_list(value: Any) -> bool:
    return isinstance(parse_json_text(value), list | tuple)


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
    _keys: tuple[str, ...] = ()
    _paths: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keys = keys = tuple(self.record)
        if len(keys) <= _REMEMBERED_NAMES and sum(map(len, keys)) <= _REMEMBERED_CHARACTERS:
            self._paths = _remember_paths(self.names, keys)

    def find(self, name: str, own_name: bool = False) -> str | None:
        """Where the record holds a field: the first place that holds something, else the first
        that is not missing; with `own_name`, under no alias.
        """
        empty = None
        for path in self._list_paths(name):
            is_alias = path != name and not self._is_settled(name, path)
            if is_alias and own_name:
                continue
            value = self.get(path)
            if is_alias and name in LISTS and not _is_list(value):
                continue
            # Some data sets say by a truth value whether an answer was chosen.
            if name in ("chosen", "rejected") and isinstance(value, bool):
                continue
            if not is_nothing(value):
                return path
            if empty is None and not is_missing(value):
                empty = path
        return empty

    def _list_paths(self, name: str) -> tuple[str, ...]:
        found = self._paths.get(name)
        if found is None:
            found = self._paths[name] = _locate(self.names, name, self._keys)
        return found

    def _is_settled(self, name: str, path: str) -> bool:
        """Does the user say that the field is called so, or do the first rows?"""
        return (name, path) in self.names.mapped or (name, path) in self.names.met

    def get(self, path: str) -> Any:
        """What stands at a path."""
        # A field whose own name has dots goes before a way into mappings.
        if path in self.record:
            return self.record[path]
        found: Any = self.record
        for part in path.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(part)
        return found

    def has_key(self, name: str) -> bool:
        """Does the record have the field, if only without a value?"""
        return bool(self._list_paths(name))

    def __getitem__(self, name: str) -> Any:
        """What the record holds in a field, which is then used; None where it holds nothing."""
        return self.get(self.use(name))

    def use(self, name: str) -> str:
        """Note that a field is read; where it stands."""
        path = self.get_path(name)
        self.used.add(path)
        return path

    def use_part(self, path: str, part: str) -> None:
        """Note that, of what stands at a path, a part alone is read."""
        self.used.discard(path)
        self.used.add(f"{path}.{part}")

    def read_side(self, name: str) -> Any:
        """What a side of the conversation holds, which is then used: parsed where this file has
        JSON there.
        """
        value = self[name]
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
        """The fields that hold something and were not used. One whose text is a turn's was read,
        if elsewhere.
        """
        said = None
        unread = []
        for key, value in self.record.items():
            if key in self.used or is_nothing(value):
                continue
            if isinstance(value, str):
                if said is None:
                    said = {turn.text for turn in turns}
                if value in said:
                    continue
            unread += self._list_unread_below(key, value)
        return (*unread, *self.reader.unread)

    def _list_unread_below(self, path: str, value: Any) -> list[str]:
        """A path that is not used, or what is not used of a mapping that is used in part."""
        below = [used for used in self.used if used.startswith(path + ".")]
        if not below or not isinstance(value, Mapping):
            return [path]
        unread = []
        for key, inner in value.items():
            inner_path = f"{path}.{key}"
            if inner_path not in self.used and not is_nothing(inner):
                unread += self._list_unread_below(inner_path, inner)
        return unread
