"""Who says a turn: the names that trainers have for roles."""

from collections.abc import Mapping
from typing import Any

from poisonwatch.formats.values import ReadingError, get_text
from poisonwatch.text.display import excerpt

ROLES = ("system", "user", "assistant", "tool")

# Written as `_fold` writes them.
ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "system": ("developer", "sys", "system_prompt", "system_message", "system_instruction"),
    "user": ("human", "prompter", "customer", "person", "usr"),
    "assistant": (
        "gpt",
        "chatgpt",
        "gpt4",
        "gpt_4",
        "bing",
        "bard",
        "gemini",
        "claude",
        "ai",
        "bot",
        "chatbot",
        "model",
        "llm",
        "agent",
        "ai_assistant",
        "assistent",
        "function_call",
        "tool_call",
        "tool_calls",
        "tool_use",
    ),
    "tool": (
        "function",
        "observation",
        "observations",
        "function_response",
        "function_result",
        "function_output",
        "tool_response",
        "tool_responses",
        "tool_result",
        "tool_results",
        "tool_output",
        "tools_response",
        "ipython",
        "interpreter",
        "environment",
        "env",
    ),
}
"""What roles are called elsewhere."""


def _fold(name: str) -> str:
    """A name without what trainers write it with: case, spaces, dashes, and marks around it, as in
    <|user|>.
    """
    return name.lower().strip(" \t\n<>|[]:#").replace("-", "_").replace(" ", "_")


def _list_names() -> dict[str, str]:
    found = {role: role for role in ROLES}
    for role, names in ROLE_NAMES.items():
        found |= dict.fromkeys(names, role)
    return found


_ROLES_BY_NAME = _list_names()


def find_role(name: str) -> str | None:
    """The role that trainers mean by a name; None where they know no such."""
    return _ROLES_BY_NAME.get(_fold(name))


def is_role(value: Any, own: Mapping[str, str]) -> bool:
    """Is it the name of a role, the user's `own` or one that trainers use?"""
    if not isinstance(value, str):
        return False
    folded = _fold(value)
    return folded in _ROLES_BY_NAME or any(_fold(known) == folded for known in own)


def read_role(value: Any, own: Mapping[str, str]) -> str:
    """The role that a name stands for: as `own` (the user's) says, or as trainers use it.

    Raises ReadingError where nobody knows it.
    """
    name = get_text(value) or ""
    # Classes are numbers in Arrow.
    if isinstance(value, int) and not isinstance(value, bool):
        name = str(value)
    if role := _ROLES_BY_NAME.get(name) if not own else None:
        return role
    folded = _fold(name)
    for known, role in own.items():
        if _fold(known) == folded:
            return role
    if folded in _ROLES_BY_NAME:
        return _ROLES_BY_NAME[folded]
    shown = excerpt(name.strip().lower(), 40)
    raise ReadingError(
        f"unknown role '{shown}'; roles are {', '.join(ROLES[:-1])} and {ROLES[-1]}; "
        "source.roles says what others are, as in {bing: assistant}"
    )
