"""What must not be shown, known by where it stands: in the settings of an audit file, and in the
environment.

`Secrets` is the one way out: whatever leaves an audit (terminal, logs, errors, files, ledger,
MLflow, Prefect) passes its `conceal`. Secrets that it knows become ***, or ${NAME} where they are
the environment's, however they are quoted; what it does not know is told by its shape
(`poisonwatch/text/redaction.py`).
"""

import base64
import functools
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from poisonwatch.text.addresses import (
    HIDDEN,
    Address,
    is_variable,
    parse_address,
)
from poisonwatch.text.display import make_visible
from poisonwatch.text.environment import fill_variables, find_variables
from poisonwatch.text.redaction import (
    LONGEST_TEXT,
    find_named_secrets,
    is_called_secret,
    redact_url,
    show_place,
)
from poisonwatch.text.statements import find_literals

SHORTEST_SECRET = 3  # characters; shorter ones are parts of every other word
LEAST_INSIDE = 6  # characters of a secret that is looked for inside of words, too
SHORTEST_PIECE = 4  # of a secret that somebody took apart at its marks
LONGEST_USER = 15  # characters of a user's name that is no token

# What libraries take out of the environment by themselves.
SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "OPENLINEAGE_API_KEY",
    "PGPASSWORD",
    "POISONWATCH_DASHBOARD_PASSWORD",
    "POISONWATCH_SIGNING_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "RAY_AUTH_TOKEN",
)

_DOUBLED = re.compile(r"'((?:[^']|'')*+)'")
_ESCAPED = re.compile(r"'((?:[^'\\]|\\.|'')*+)'", re.DOTALL)
_MARKS = re.compile(r"[\s/:@#?&=%'\"\\;,]+")
_TOKEN_LIKE = re.compile(r"(?=.*\d).{6,}|.{16,}", re.DOTALL)
_HOST_LIKE = re.compile(r"localhost|\[.*\]|\d+(?:\.\d+){3}|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}")


class Secrets:
    """The secrets of some settings that name files, or `servers`; `messages` are addresses whose
    every part may be one, as those of Apprise, and `queries` are SQL.
    """

    def __init__(
        self,
        settings: Iterable[str | None] = (),
        messages: Iterable[str | None] = (),
        queries: Iterable[str | None] = (),
        servers: Iterable[str | None] = (),
    ) -> None:
        self._shown: dict[str, str] = {}
        for setting in filter(None, settings):
            self._add(setting, _find_in_setting)
            if "://" in setting:
                self._shown.setdefault(setting, show_place(setting))
        for setting in filter(None, servers):
            self._add(setting, _find_in_server)
            if "://" in setting:
                self._shown.setdefault(setting, show_place(setting, of_server=True))
        for setting in filter(None, messages):
            self._add(setting, _find_in_message)
            self._hide(setting, hide_message_address(setting))
        for setting in filter(None, queries):
            self._add(setting, _find_in_query)
        for name in SECRET_VARIABLES:
            self._hide(os.environ.get(name, ""), f"${{{name}}}")
        # A short secret may be a part of a longer one, whose rest would stay.
        longest_first = sorted(self._shown, key=len, reverse=True)
        self._longest = max(map(len, longest_first), default=0)
        self._pattern: re.Pattern[str] | None = None
        if longest_first:
            self._pattern = re.compile("|".join(map(_write_pattern, longest_first)))

    def _add(self, setting: str, find: Callable[[str], Iterator[str]]) -> None:
        filled = fill_variables(setting)
        # What the variables hold is an address itself, where they are more than parts of one.
        for written in dict.fromkeys((setting, filled)):
            for secret in find(written):
                if not is_variable(secret):
                    self._hide(fill_variables(secret), HIDDEN)
        # Last, since a name tells more than stars do.
        for name in find_variables(setting):
            self._hide(os.environ.get(name, ""), f"${{{name}}}")

    def _hide(self, secret: str, shown: str) -> None:
        """Remember a secret, in every form that others may give it."""
        for form in _list_forms(secret):
            if len(form) >= SHORTEST_SECRET:
                self._shown[form] = shown

    def conceal(self, text: str) -> str:
        """The text without any secret; what is longer than LONGEST_TEXT is cut."""
        if len(text) <= LONGEST_TEXT:
            return redact_url(self.conceal_known(text))
        # First cut, then searched: the text may be of any length. A secret that the cut goes
        # through is still found whole.
        parts: list[str] = []
        position = 0
        for match in self._find_known(text[: LONGEST_TEXT + self._longest]):
            if match.start() >= LONGEST_TEXT:
                break
            parts += [text[position : match.start()], self._shown[match[0]]]
            position = match.end()
        parts.append(text[position:LONGEST_TEXT])
        # The last word may be the beginning of an address.
        whole, _, _ = "".join(parts).rpartition(" ")
        return f"{redact_url(whole)}…"

    def conceal_known(self, text: str) -> str:
        """The text without the secrets that are known, and the settings that hold them as they may
        be shown; nothing else in it is looked at.
        """
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._shown[match[0]], text)

    def _find_known(self, text: str) -> Iterator[re.Match[str]]:
        if self._pattern is None:
            return iter(())
        return self._pattern.finditer(text)

    def conceal_error(self, error: BaseException) -> str:
        """What an error says, on one line, without any secret."""
        # Concealed first: a secret that holds the end of a line would be cut in two.
        lines = self.conceal(str(error)).splitlines()
        return next(iter(lines), type(error).__name__)


def recall_secrets(setting: str) -> Secrets:
    """The secrets of a setting that names a place: found once for the many names below it, and anew
    where the environment changed.
    """
    held = tuple(os.environ.get(name) for name in SECRET_VARIABLES)
    return _find_secrets(setting, fill_variables(setting), held)


@functools.lru_cache(maxsize=8)
def _find_secrets(
    setting: str,
    filled: str,  # noqa: ARG001  (what they are known by, as is the next)
    held: tuple[str | None, ...],  # noqa: ARG001
) -> Secrets:
    return Secrets((setting,))


def conceal(text: str, *settings: str | None) -> str:
    """The text without what the environment put into the `settings` (${NAME} again), and without
    their secrets (***). Where it is one of the settings, what may be shown of it.
    """
    return Secrets(settings).conceal(text)


def _write_pattern(secret: str) -> str:
    """A secret where it stands; a short one as a word of its own, since it is a part of others."""
    pattern = re.escape(secret)
    if len(secret) >= LEAST_INSIDE:
        return pattern
    before = r"(?<!\w)" if secret[0].isalnum() else ""
    after = r"(?!\w)" if secret[-1].isalnum() else ""
    return f"{before}{pattern}{after}"


def hide_message_address(setting: str) -> str:
    """An address that messages go to: its kind alone, since every other part may be a token."""
    scheme, separator, _ = setting.partition("://")
    if not separator:
        return HIDDEN
    return f"{scheme}{separator}{HIDDEN}"


def _list_forms(secret: str) -> Iterator[str]:
    """A secret as it is written, and as others may write it: quoted for URLs, for Python, JSON and
    HTML, made visible, on one line.
    """
    for plain in dict.fromkeys((secret, unquote(secret), unquote_plus(secret))):
        yield plain
        for safe in ("", "/"):
            for write in (quote, quote_plus):
                quoted = write(plain, safe=safe, errors="replace")
                yield quoted
                yield re.sub("%..", lambda match: match[0].lower(), quoted)
        yield repr(plain)[1:-1]
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        yield html.escape(plain)
        yield make_visible(plain)
        yield " ".join(plain.split())


def _find_in_server(setting: str) -> Iterator[str]:
    return _find_in_setting(setting, of_server=True)


def _find_in_setting(setting: str, of_server: bool = False) -> Iterator[str]:
    """The secrets of a setting that names a place: an address, or a string of libpq's."""
    address = parse_address(setting, of_server)
    if address is None:
        yield from _find_named(setting)
        return
    yield from _find_login(address)
    for name, value in address.pairs:
        # Most values are words of everyday life, which a message must not lack.
        if _TOKEN_LIKE.fullmatch(value) or is_called_secret(name):
            yield value
        yield from _find_named(unquote_plus(value))
    if address.query and "=" not in address.query:
        yield address.query
    yield address.fragment
    if show_place(setting).endswith(f"/{HIDDEN}"):
        yield from filter(_TOKEN_LIKE.fullmatch, address.path.split("/"))


def _find_in_message(setting: str) -> Iterator[str]:
    """The secrets of an address that messages go to: tokens stand anywhere in it."""
    address = parse_address(setting)
    if address is None:
        yield setting
        return
    yield from _find_in_setting(setting)
    if _TOKEN_LIKE.fullmatch(address.user):
        yield address.user
    for part in (*address.place.split(":"), *address.path.split("/")):
        if _TOKEN_LIKE.fullmatch(part) and not _HOST_LIKE.fullmatch(part):
            yield part


def _find_in_query(query: str) -> Iterator[str]:
    """The texts of a statement, each of which may be a password."""
    literals = [query[start:end] for start, end in find_literals(query)]
    # Databases do not agree on what a backslash before a quote is: a text is known either way.
    for text in (_DOUBLED, _ESCAPED):
        literals += [match[1] for match in text.finditer(query)]
    for literal in dict.fromkeys(literals):
        yield literal
        yield literal.replace("''", "'")
        yield from _find_named(literal)


def _find_login(address: Address) -> Iterator[str]:
    """The password of an address; its user, where that may be a token."""
    yield address.password
    # Whoever takes an unquoted password apart at its marks speaks of its pieces.
    for piece in _MARKS.split(address.password):
        if len(piece) >= SHORTEST_PIECE:
            yield piece
    if not address.password or len(address.user) > LONGEST_USER:
        yield address.user
    if address.names_user:
        login = f"{unquote(address.user)}:{unquote(address.password)}"
        # As it stands in a header of HTTP.
        yield base64.b64encode(login.encode(errors="replace")).decode()


def _find_named(text: str) -> Iterator[str]:
    for start, end in find_named_secrets(text):
        yield text[start:end]
