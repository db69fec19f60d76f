"""`${NAME}` in the audit file: what the environment holds goes in where a place is opened, and
comes out of every text that is shown.

Settings keep the text as it was written; `expand` is called where a file, database or server is
opened, `conceal` wherever something is said about it.
"""

import os
import re
from urllib.parse import quote, unquote

from poisonwatch.errors import ConfigError
from poisonwatch.text.redaction import redact_url

_VARIABLE_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_USERINFO = re.compile(r"://(?:[^/@:\s]*:)?([^/\s]+)@")
_QUERY = re.compile(
    r"[?&][^=&\s]*(?:token|key|secret|password|signature|sig)[^=&\s]*=([^&\s]+)", re.IGNORECASE
)


def expand_variables(text: str, key: str) -> str:
    """The text of setting `key` with every ${NAME} replaced by that environment variable.

    A variable that is the whole user name or password of a URL may hold any characters: it is
    quoted. Raises ConfigError where one is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise ConfigError(
                f"{key}: the environment variable {match[1]} is not set: set it, or write its value in place of {match[0]}"
            )
        before, after = text[: match.start()], text[match.end() :]
        is_user = before.endswith("://") and re.match(r"(:[^/@]*)?@", after)
        is_password = re.search(r"://[^/@:]*:$", before) and after.startswith("@")
        return quote(found, safe="") if is_user or is_password else found

    return _VARIABLE_NAME.sub(value, text)


def conceal(text: str, *settings: str | None) -> str:
    """The text without what the environment put into the `settings` (${NAME} again), and without
    their passwords and tokens (***).
    """
    shown: dict[str, str] = {}
    for setting in filter(None, settings):
        expanded = _VARIABLE_NAME.sub(lambda match: os.environ.get(match[1], ""), setting)
        for secret in (*_USERINFO.findall(expanded), *_QUERY.findall(expanded)):
            shown |= dict.fromkeys((secret, unquote(secret)), "***")
        for name in _VARIABLE_NAME.findall(setting):
            value = os.environ.get(name, "")
            shown |= dict.fromkeys((value, quote(value, safe="")), f"${{{name}}}")
    longest_first = sorted(filter(None, shown), key=len, reverse=True)
    if longest_first:
        text = re.sub("|".join(map(re.escape, longest_first)), lambda match: shown[match[0]], text)
    return redact_url(text)
