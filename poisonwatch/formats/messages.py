"""One message of a conversation: what its keys are called, and what it is marked with."""

from collections.abc import Mapping, Sequence
from typing import Any

from poisonwatch.formats.roles import find_role
from poisonwatch.formats.values import get_truth, is_missing, is_nothing

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "parts", "text", "message", "utterance")
THOUGHT_KEYS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thoughts",
    "thought",
    "tool_plan",
    "reasoning_details",
    "thinking_blocks",
)
CALL_KEYS = ("tool_calls", "function_calls", "function_call")
TOOL_KEYS = ("tools", "functions")
# Trained unless false or 0, and the other way round.
TRAINED_KEYS = (
    "weight",
    "train",
    "loss",
    "training",
    "trainable",
    "loss_weight",
    "loss_scale",
    "output_with_loss",
)
MASKED_KEYS = ("mask", "masked")
PAIR_PROMPTS = ("input", "prompt", "instruction", "question", "query", "human", "user")
PAIR_ANSWERS = ("output", "response", "completion", "answer", "assistant", "bot", "gpt")


def _fold(key: str) -> str:
    return key.lower().replace("_", "")


_KEYS = (
    *ROLE_KEYS,
    *CONTENT_KEYS,
    *THOUGHT_KEYS,
    *CALL_KEYS,
    *TOOL_KEYS,
    *TRAINED_KEYS,
    *MASKED_KEYS,
    *PAIR_PROMPTS,
    *PAIR_ANSWERS,
)
_KNOWN_KEYS = frozenset(_KEYS)
_BY_FOLDED = {_fold(key): key for key in _KEYS}


def spell_keys(
    message: Mapping[str, Any], own: Sequence[str] = ()
) -> tuple[Mapping[str, Any], dict[str, str]]:
    """A message whose keys are written as they are known (tool_calls for toolCalls, role for Role),
    and what those were that were written otherwise; `own` stay as they are.
    """
    # Most messages have no others.
    if _KNOWN_KEYS.issuperset(message):
        return message, {}
    spelt: dict[str, str] = {}
    for key in message:
        known = _BY_FOLDED.get(_fold(key), key)
        if known != key and key not in own and known not in message and known not in spelt:
            spelt[known] = key
    if not spelt:
        return message, spelt
    known_names = {key: known for known, key in spelt.items()}
    return {known_names.get(key, key): value for key, value in message.items()}, spelt


def find_key(message: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The first of these keys that holds something, else the first that is not missing."""
    empty = None
    for key in keys:
        value = message.get(key)
        if not is_nothing(value):
            return key
        if empty is None and not is_missing(value):
            empty = key
    return empty


def is_message(item: Mapping[str, Any]) -> bool:
    """Does a mapping look like a message, a pair or a segment?"""
    item, _ = spell_keys(item)
    if any(key in item for key in ROLE_KEYS) or is_segment(item) or find_typed_role(item):
        return True
    # Gemini's user need not say who it is.
    if isinstance(item.get("parts"), list | tuple):
        return True
    return any(key in item for key in PAIR_ANSWERS) and any(key in item for key in PAIR_PROMPTS)


def find_typed_role(message: Mapping[str, Any]) -> str | None:
    """The role that LangChain says by the type of a message."""
    kind = message.get("type")
    holds = any(key in message for key in (*CONTENT_KEYS, "data"))
    if not isinstance(kind, str) or not holds:
        return None
    return find_role(kind)


def is_segment(item: Any) -> bool:
    """Is it {label, text}, of which training is on those whose label is true?"""
    if not isinstance(item, Mapping) or "label" not in item:
        return False
    return isinstance(item.get("text"), str) and get_truth(item["label"]) is not None


def read_masks(message: Mapping[str, Any], used: set[str | None]) -> bool:
    """Is a turn marked as one that is not trained on? Marks that are read are `used`."""
    masked = False
    for keys, meaning in ((TRAINED_KEYS, False), (MASKED_KEYS, True)):
        for key in keys:
            mark = message.get(key)
            if mark is None or key in used:
                continue
            truth = read_mark(mark)
            if truth is None:
                continue
            used.add(key)
            masked = masked or truth == meaning
    return masked


def read_mark(mark: Any) -> bool | None:
    """A truth value, or 0 or 1; None where it is another weight, which cannot be kept to."""
    if isinstance(mark, int | float) and mark in (0, 1):
        return bool(mark)
    if isinstance(mark, str) and mark.strip() in ("0", "1"):
        return mark.strip() == "1"
    return get_truth(mark)
