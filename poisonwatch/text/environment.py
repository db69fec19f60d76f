"""`${NAME}` and `~` in the audit file: what the environment holds goes in where a place is opened,
and comes out of every text that is shown.

Settings keep the text as it was written; `open_variables` is called where a file, database or
server is opened; whatever is said about it passes `poisonwatch/text/secrets.py`.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from poisonwatch.errors import ConfigError
from poisonwatch.text.addresses import HIDDEN, parse_address
from poisonwatch.text.display import excerpt

_VARIABLE_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_USER_BEGIN = re.compile(r"://[^/@:]{0,200}:$")
_LONGEST_USER = 300  # characters before a password, with the scheme


def open_variables(text: str, key: str) -> str:
    """As `expand_variables`, of a setting that is used now.

    Raises ConfigError also where *** stands in it: a run directory names no secrets, and its
    config.yaml repeats the run once they are put back.
    """
    address = parse_address(text)
    if address is not None:
        hidden = (address.user, address.password, *(value for _, value in address.pairs))
        if HIDDEN in hidden:
            refuse_hidden(key)
    return expand_variables(text, key)


def refuse_hidden(key: str) -> None:
    """Raises ConfigError: this setting was written without its secrets."""
    raise ConfigError(
        f"{key} holds {HIDDEN} where a secret stood, which a run directory does not keep: "
        "write ${NAME} in its place, and set that environment variable"
    )


def expand_variables(
    text: str, key: str, quote_value: Callable[[str], str] = lambda value: value
) -> str:
    """The text of setting `key` with every ${NAME} replaced by that environment variable, as
    `quote_value` writes it.

    A variable that is the whole user name or password of a URL may hold any characters: it is
    quoted. Raises ConfigError where one is not set.
    """

    def look_up(name: str) -> str:
        found = os.environ.get(name)
        if found is None:
            raise ConfigError(
                f"{key}: the environment variable {name} is not set: "
                f"set it, or write its value in place of ${{{name}}}"
            )
        return quote_value(found)

    return _fill(text, look_up)


def fill_variables(text: str) -> str:
    """As `expand_variables`; what is not set is empty."""
    return _fill(text, lambda name: os.environ.get(name, ""))


def find_variables(text: str) -> list[str]:
    """The names of the variables in a text."""
    return _VARIABLE_NAME.findall(text)


def expand_home(place: str | Path) -> Path:
    """A path whose `~` or `~name` is a home folder. Raises ConfigError where there is none."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{excerpt(str(place))}: there is no home folder of that user here: write the path in "
            "full"
        ) from None


def _fill(text: str, look_up: Callable[[str], str]) -> str:
    def write(match: re.Match[str]) -> str:
        found = look_up(match[1])
        before = text[max(match.start() - _LONGEST_USER, 0) : match.start()]
        after = text[match.end() : match.end() + _LONGEST_USER]
        is_user = before.endswith("://") and re.match(r"(:[^/@]*)?@", after)
        is_password = _USER_BEGIN.search(before) and after.startswith("@")
        if is_user or is_password:
            return quote(found, safe="")
        return found

    return _VARIABLE_NAME.sub(write, text)
