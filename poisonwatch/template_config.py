"""What an audit file may say about chat templates."""

from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, JsonValue

from poisonwatch.errors import ModelError

# The same row gives the same numbers tomorrow. Llama's templates print this one where they are not
# told which day it is.
DEFAULT_TEMPLATE_DATE = date(2024, 7, 26)

# What rendering hands to a template itself.
_RENDERING = frozenset(
    [
        *("messages", "conversation", "tools", "documents", "chat_template"),
        *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens"),
        *("tokenize", "tokenizer_kwargs", "return_dict", "return_tensors"),
        *("return_assistant_tokens_mask", "padding", "truncation", "max_length"),
    ]
)


def _check_kwargs(kwargs: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in kwargs:
        if name in _RENDERING:
            raise ValueError(f"{name} is not for settings: rows have it, or rendering sets it")
    return kwargs


TemplateKwargs = Annotated[dict[str, JsonValue], AfterValidator(_check_kwargs)]


def is_template(place: str) -> bool:
    """Is it a chat template itself, and not the path of one's file?"""
    # Every template has a tag; no path that anybody writes does.
    return "{%" in place or "{{" in place


def read_template(place: str | None) -> str | None:
    """A template that is given as itself, or as the path of its file. Raises ModelError where the
    file cannot be read.
    """
    if place is None or is_template(place):
        return place
    try:
        return Path(place).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.chat_template {place} cannot be read ({type(error).__name__}): name a .jinja "
            "file, or give the template itself"
        ) from None
