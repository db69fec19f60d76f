"""SQL as people write it: where its texts and comments stand, which may hold passwords."""

import re
from collections.abc import Iterator

from poisonwatch.text.addresses import HIDDEN, is_variable

# What begins a text, a name in quotes, or a comment.
_OPENING = re.compile(r"'|\"|`|--|/\*|\$(?:[A-Za-z_]\w{0,40})?\$")


def hide_literals(query: str) -> str:
    """A statement with *** in the place of every text and comment. A text that is ${NAME} stays."""
    parts: list[str] = []
    position = 0
    for start, end in find_literals(query):
        shown = query[start:end]
        if shown and not is_variable(shown):
            shown = HIDDEN
        parts += [query[position:start], shown]
        position = end
    parts.append(query[position:])
    return "".join(parts)


def find_literals(query: str) -> Iterator[tuple[int, int]]:
    """Where the texts of a statement stand, without their quotes, and what comments say."""
    position = 0
    while (opening := _OPENING.search(query, position)) is not None:
        mark = opening[0]
        start = opening.end()
        end, position = _find_closing(query, start, mark)
        # What stands in other quotes is the name of a column or a table.
        if mark not in ('"', "`"):
            yield start, end


def _find_closing(query: str, start: int, mark: str) -> tuple[int, int]:
    """Where what a mark opened ends, and where the statement goes on."""
    closing = {"--": "\n", "/*": "*/"}.get(mark, mark)
    end = query.find(closing, start)
    while mark == "'" and end >= 0:
        # Some databases take a backslash before a quote for its escape, and others do not: what
        # is text from there on, nobody can tell.
        if query[end - 1] == "\\" and end > start:
            return len(query), len(query)
        # A quote inside is doubled.
        if query[end + 1 : end + 2] != "'":
            break
        end = query.find(closing, end + 2)
    if end < 0:
        return len(query), len(query)
    return end, end + len(closing)
