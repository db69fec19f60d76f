"""Which lists hold a conversation, where their name does not tell."""

from collections.abc import Mapping
from typing import Any

from poisonwatch.formats.messages import ROLE_KEYS, is_message
from poisonwatch.formats.roles import find_role
from poisonwatch.formats.transcripts import is_dialogue
from poisonwatch.formats.values import list_messages, peek_json_text

_DIALOGUES = ("conversation", "dialog", "dialogue", "chat")


def holds_conversation(path: str, value: Any) -> bool:
    """Does a list that is not called by its field's own name hold a conversation?"""
    listed = list_messages(peek_json_text(value))
    if not isinstance(listed, list | tuple):
        return is_dialogue(value)
    first = peek_json_text(next(iter(listed), None))
    if isinstance(first, Mapping):
        return is_message(first)
    if isinstance(first, list | tuple):
        return len(first) == 2
    # Turns may be called anything, and what is called so be anything, such as tags.
    return isinstance(first, str) and path.lower() in _DIALOGUES


def is_list_of_texts(value: Any) -> bool:
    """Is it a list of two texts or more?"""
    if not isinstance(value, list | tuple) or len(value) < 2:
        return False
    return all(isinstance(item, str) for item in value)


def holds_both_sides(value: Any) -> bool:
    """Is it a list of messages that begins before an answer?"""
    listed = peek_json_text(value)
    if not isinstance(listed, list | tuple) or len(listed) < 2:
        return False
    first = peek_json_text(listed[0])
    if not isinstance(first, Mapping) or not is_message(first):
        return False
    return not any(find_role(str(first.get(key))) == "assistant" for key in ROLE_KEYS)
