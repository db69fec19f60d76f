"""Hostile text for messages: every medium has its own markup, and a text must have none in any.

Nothing is escaped, since what escapes in one medium is markup in another, and one message goes to
all of them.
"""

import re

from poisonwatch.text.display import excerpt

LONGEST_ALERT_NAME = 80
DATA_FILES = {"json", "jsonl", "csv", "tsv", "parquet", "arrow"}  # no such name is a site's

# The full-width forms of these look alike, and no medium takes them for markup.
_FULL_WIDTH = str.maketrans({c: chr(ord(c) + 0xFEE0) for c in "<>@#&|*~`[]{}\\$^:"})
# An underscore between two letters is part of a name; others begin or end emphasis.
_LOOSE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
# Many media make a link of whatever looks like the name of a site.
_INNER_DOT = re.compile(r"\.(?=\w)")


def neutralise_markup(text: str, longest: int = LONGEST_ALERT_NAME) -> str:
    """One line of at most `longest` characters of a text, that no medium takes for markup, a
    mention or a link.

    Characters that some medium acts on become their full-width twins, and a dot within a word
    becomes [.] so that no site is linked.
    """
    line = excerpt(text, longest).translate(_FULL_WIDTH)
    return _INNER_DOT.sub("[.]", _LOOSE_UNDERSCORE.sub("＿", line))


def format_place(source: str, position: int) -> str:
    """FILE:POSITION without markup; of the usual files as `poisonwatch decide` takes it."""
    name = excerpt(source or "source", LONGEST_ALERT_NAME)
    stem, dot, suffix = name.rpartition(".")
    # No site ends in .jsonl: such a name stays one that can be copied into a command.
    if dot and suffix in DATA_FILES:
        return f"{neutralise_markup(stem)}.{suffix}:{position}"
    return f"{neutralise_markup(name)}:{position}"
