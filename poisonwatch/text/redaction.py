"""Passwords and tokens, taken out of any text: of errors, of logs, of what others say.

The text may be anybody's, and of any length: every look is a search for one character or word, and
none is repeated, so that time grows with the length alone. Secrets that are known are taken out by
`poisonwatch/text/secrets.py`; here is what can be told by its shape.
"""

import re
from collections.abc import Iterator

from poisonwatch.text.addresses import (
    ARCHIVES,
    HIDDEN,
    LONGEST_SCHEME,
    is_variable,
    may_be_told,
    parse_address,
    show_address,
)

LONGEST_TEXT = 20_000  # characters of a text that anything is told of
LONGEST_NAME = 60  # of a name before an equals sign

# Names of settings whose values are secrets end so, written without - and _.
SECRET_NAMES = (
    "accesskey",
    "accountkey",
    "apikey",
    "auth",
    "authorization",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "sharedaccesskey",
    "sig",
    "signature",
    "token",
)
# In a query any name that holds one of these.
SECRET_PARTS = ("auth", "credential", "key", "pass", "pwd", "secret", "sig", "token")

_SCHEME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")
_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_ADDRESS_END = re.compile(r"[\s\"'<>`]")
_MARK = re.compile(r"[?&=:\s]")
_VALUE_END = re.compile(r"[\s;&]")
_QUERY_VALUE_END = re.compile(r"[\s&\"'<>]")
# What needs no name to be known for a token.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf|gh[oprsu])_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
    r"|xox[abeprs]-[\w-]{10,}|sk-(?:proj-)?[A-Za-z0-9]{32,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]+\.[\w-]*"
    r"|(?i:bearer\s{1,3})[\w.~+/=-]{8,}"
    r")"
)


def redact_url(text: str) -> str:
    """The text with its addresses shown as `show_address` does, and *** in the place of what
    follows a name like password= and of tokens; what is longer than LONGEST_TEXT is cut.

    ${NAME} stays where it is the whole secret: it tells where that is, not what.
    """
    is_cut = len(text) > LONGEST_TEXT
    text = text[:LONGEST_TEXT]
    parts: list[str] = []
    position = 0
    while (found := text.find("://", position)) >= 0:
        start = _find_scheme(text, found, position)
        end = _find_end(text, found + 3)
        parts.append(_redact_words(text[position:start]))
        # An address that is cut may have lost the @ that ends its password.
        if is_cut and end == len(text):
            parts.append(f"{text[start:found]}://{HIDDEN}")
        else:
            parts.append(_show(text[start:end]))
        position = end
    parts.append(_redact_words(text[position:]))
    if is_cut:
        parts.append("…")
    return "".join(parts)


def show_place(setting: str, of_server: bool = False) -> str:
    """A setting that names a place, as an address or a path: what may be shown of it; `of_server`
    is `parse_address`'s.
    """
    inner, last = _split_chain(setting)
    address = parse_address(last, of_server)
    if address is None:
        return inner + redact_url(last)
    return inner + show_address(address)


def _show(text: str) -> str:
    """What may be shown of an address that anybody may have written."""
    inner, last = _split_chain(text)
    address = parse_address(last)
    if address is None:
        return f"{inner}://{HIDDEN}"
    if not may_be_told(address):
        return f"{inner}{address.scheme}://{HIDDEN}"
    return inner + show_address(address)


def _split_chain(text: str) -> tuple[str, str]:
    """What fsspec is to take out of archives, and where the outermost lies: the parts of
    zip://*.jsonl::https://host/rows.zip.
    """
    start = 0
    while True:
        mark, chain = text.find("://", start), text.find("::", start)
        if not start <= mark < chain or text[start:mark] not in ARCHIVES:
            return text[:start], text[start:]
        start = chain + 2


def _find_scheme(text: str, end: int, begin: int) -> int:
    """Where the scheme begins that ends at `end`."""
    start = end
    least = max(begin, end - LONGEST_SCHEME)
    while start > least and text[start - 1] in _SCHEME_CHARACTERS:
        start -= 1
    # A scheme begins with a letter.
    while start < end and not text[start].isalpha():
        start += 1
    return start


def _find_end(text: str, start: int) -> int:
    """Where an address ends whose host, or user, begins at `start`."""
    ended = _ADDRESS_END.search(text, start)
    end = ended.start() if ended else len(text)
    written = text[start:end]
    if "@" in written or _has_port(written):
        return end
    # No number stands where a port does: it is a password with a space or a quote in it.
    following = text.find("://", end)
    limit = following if following >= 0 else len(text)
    line = text.find("\n", end, limit)
    last = text.rfind("@", end, line if line >= 0 else limit)
    if last < 0:
        return end
    ended = _ADDRESS_END.search(text, last)
    return ended.start() if ended else len(text)


def _has_port(written: str) -> bool:
    """Whether the host at the beginning of this has no port, or one that is a number."""
    host = re.split("[/?#]", written, maxsplit=1)[0]
    if host.startswith("["):
        return True
    port = host.partition(":")[2].rstrip(",;:.)")
    return not port or port.isdecimal() or is_variable(port)


def _redact_words(text: str) -> str:
    """A text without addresses, and without the values of what is called a secret."""
    parts: list[str] = []
    position = 0
    for start, end in find_named_secrets(text):
        parts += [text[position:start], HIDDEN]
        position = end
    parts.append(text[position:])
    return _TOKEN.sub(HIDDEN, "".join(parts))


def find_named_secrets(text: str) -> Iterator[tuple[int, int]]:
    """Where the values stand of what is called a secret: in queries (?token=...), in strings of
    libpq and ODBC (password='a b' pwd={a;b}), in JSON and headers ("password": "x").
    """
    query_name: int | None = None
    position = 0
    while (mark := _MARK.search(text, position)) is not None:
        position = mark.end()
        if mark[0] in "?&":
            query_name = mark.end()
            continue
        if mark[0].isspace():
            query_name = None
            continue
        span = None
        if mark[0] == "=" and query_name is not None:
            if is_called_secret(text[query_name : mark.start()]):
                span = _span_to(text, mark.end(), _QUERY_VALUE_END)
            query_name = None
        if span is None and _follows_secret_name(text, mark):
            span = _find_value(text, mark.end())
        if span is not None and span[0] < span[1]:
            position = max(span[1], position)
            if not is_variable(text[span[0] : span[1]]):
                yield span


def is_called_secret(name: str) -> bool:
    """Whether the name of a value in a query is one of those that secrets have."""
    return any(part in name[:LONGEST_NAME].lower() for part in SECRET_PARTS)


def _follows_secret_name(text: str, mark: re.Match[str]) -> bool:
    """Whether the name before an equals sign, or a quoted one before a colon, is a secret's."""
    end = mark.start()
    while end > 0 and end > mark.start() - 3 and text[end - 1] == " ":
        end -= 1
    quoted = end > 0 and text[end - 1] in "\"'"
    if quoted:
        end -= 1
    start = end
    while start > 0 and start > end - LONGEST_NAME and text[start - 1] in _NAME_CHARACTERS:
        start -= 1
    name = text[start:end].lower().replace("-", "").replace("_", "")
    # A colon is punctuation, too: unquoted, only a header's name is one.
    if mark[0] == ":" and not quoted:
        return name in ("authorization", "proxyauthorization", "xapikey")
    return name.endswith(SECRET_NAMES)


def _find_value(text: str, start: int) -> tuple[int, int]:
    """Where a value stands: in quotes or braces, or up to a space."""
    while start < len(text) and text[start] == " ":
        start += 1
    opening = text[start : start + 1]
    if opening and opening in "\"'{":
        closing = "}" if opening == "{" else opening
        end = text.find(closing, start + 1)
        # A quote inside is doubled, or has a backslash before it.
        while end > 0 and (text[end - 1] == "\\" or text[end + 1 : end + 2] == closing):
            end = text.find(closing, end + (1 if text[end - 1] == "\\" else 2))
        return start + 1, end if end >= 0 else len(text)
    for word in ("bearer ", "basic ", "token "):
        if text[start : start + len(word)].lower() == word:
            start += len(word)
    return _span_to(text, start, _VALUE_END)


def _span_to(text: str, start: int, end: re.Pattern[str]) -> tuple[int, int]:
    found = end.search(text, start)
    return start, found.start() if found else len(text)
