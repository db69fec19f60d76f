"""`${NAME}` in the audit file: what the environment holds goes in where a place is opened, and
comes out of every text that is shown.

Settings keep the text as it was written; `expand_variables` is called where a file, database or
server is opened, `conceal` wherever something is said about it.
"""

import os
import re
from urllib.parse import quote, unquote

from poisonwatch.errors import ConfigError
from poisonwatch.text.redaction import find_secrets, redact_url

_VARIABLE_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand_variables(text: str, key: str) -> str:
    """The text of setting `key` with every ${NAME} replaced by that environment variable.

    A variable that is the whole user name or password of a URL may hold any characters: it is
    quoted. Raises ConfigError where one is not set.
    """

    def look_up(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise ConfigError(
                f"{key}: the environment variable {match[1]} is not set: "
                f"set it, or write its value in place of {match[0]}"
            )
        before, after = text[: match.start()], text[match.end() :]
        is_user = before.endswith("://") and re.match(r"(:[^/@]*)?@", after)
        is_password = re.search(r"://[^/@:]*:$", before) and after.startswith("@")
        if is_user or is_password:
            return quote(found, safe="")
        return found

    return _VARIABLE_NAME.sub(look_up, text)


def conceal(text: str, *settings: str | None) -> str:
    """The text without what the environment put into the `settings` (${NAME} again), and without
    their passwords and tokens (***).
    """
    shown: dict[str, str] = {}
    for setting in settings:
        if not setting:
            continue
        expanded = _VARIABLE_NAME.sub(lambda match: os.environ.get(match[1], ""), setting)
        # Whoever speaks of a place may have quoted it, or not.
        for secret in find_secrets(expanded):
            shown |= dict.fromkeys((secret, unquote(secret)), "***")
        for name in _VARIABLE_NAME.findall(setting):
            value = os.environ.get(name, "")
            shown |= dict.fromkeys((value, quote(value, safe="")), f"${{{name}}}")
    shown.pop("", None)
    # A short value may be a part of a longer one, whose rest would stay.
    longest_first = sorted(shown, key=len, reverse=True)
    if longest_first:
        text = re.sub("|".join(map(re.escape, longest_first)), lambda match: shown[match[0]], text)
    return redact_url(text)
