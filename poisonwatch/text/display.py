"""Text for people and logs: hostile characters made visible."""

import unicodedata


def make_visible(text: str) -> str:
    """The text with control, invisible and direction-changing characters written as \\u{...}; line
    ends and tabs stay.
    """
    return "".join(map(_make_character_visible, text))


def _make_character_visible(character: str) -> str:
    # The general categories C*: control, format, surrogate, private use, unassigned.
    if character in "\n\t" or unicodedata.category(character)[0] != "C":
        return character
    return f"\\u{{{ord(character):x}}}"


def excerpt(text: str, length: int = 80) -> str:
    """One visible line of at most `length` characters."""
    line = " ".join(make_visible(text).split())
    if len(line) <= length:
        return line
    return line[: length - 1].rstrip() + "…"


def quote_spaced(text: str, length: int = 80) -> str:
    """What somebody wrote, as `excerpt` has it; in quotes where that would lose spaces."""
    if text and text == " ".join(text.split()):
        return excerpt(text, length)
    return repr(text[:length])


def get_first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def to_plain_name(text: str) -> str:
    """Text as part of a file or metric name: letters, digits, - and _ of ASCII."""
    characters = []
    for character in text or "_":
        is_plain = character.isascii() and (character.isalnum() or character in "-_")
        characters.append(character if is_plain else "_")
    return "".join(characters)
