r"""Paths of what a record holds: keys, joined by dots. In a key, a dot is written \. and a
backslash \\, so that a key that holds a dot is no way into another one.
"""

import re

_KEY = re.compile(r"(?:\\.|[^.\\])*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def escape_key(key: object) -> str:
    """A key, as it stands in a path; keys of Arrow's maps need not be text."""
    text = str(key)
    if "." not in text and "\\" not in text:
        return text
    return text.replace("\\", "\\\\").replace(".", "\\.")


def split_path(path: str) -> list[str]:
    """The keys that a path leads through."""
    if "\\" not in path:
        return path.split(".")
    keys, at = [], 0
    while at <= len(path):
        found = _KEY.match(path, at)
        # No pattern that may be empty fails; a backslash alone at the end is left out.
        end = found.end() if found else at
        keys.append(_ESCAPED.sub(r"\1", path[at:end]))
        at = end + 1
    return keys


def show_path(path: str) -> str:
    """A path for people, in whose keys dots stand as they are."""
    return ".".join(split_path(path))
