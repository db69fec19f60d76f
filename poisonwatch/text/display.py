"""Text for people and logs: secrets taken out, hostile characters made visible."""

import unicodedata


def make_visible(text: str) -> str:
    """The text with control, invisible and direction-changing characters written as \\u{...}; line
    ends and tabs stay.
    """
    return "".join(
        c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"\\u{{{ord(c):x}}}"
        for c in text
    )


def excerpt(text: str, length: int = 80) -> str:
    """One visible line of at most `length` characters."""
    line = " ".join(make_visible(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def get_first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def to_plain_name(text: str) -> str:
    """Text as part of a file or metric name: letters, digits, - and _ of ASCII."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in text) or "_"
