"""Text for people and logs: secrets taken out, hostile characters made visible."""

import re
import unicodedata

_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@:\s]*:)?(?P<secret>[^/\s]+)@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<key>[?&][^=&\s]*(?:token|key|secret|password|signature|sig)[^=&\s]*=)(?P<secret>[^&\s]+)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{\w+\}")


def redact_url(text: str) -> str:
    """The text with passwords (and bare tokens) before an @ in URLs, and tokens in their queries, replaced by ***.

    ${NAME} stays: it tells where a secret is, not what it is.
    """

    def hidden(match: re.Match[str]) -> str:
        kept = match["secret"] if _VARIABLE.fullmatch(match["secret"]) else "***"
        start, end = (position - match.start() for position in match.span("secret"))
        return match[0][:start] + kept + match[0][end:]

    return _QUERY.sub(hidden, _USERINFO.sub(hidden, text))


def visible(text: str) -> str:
    """The text with control, invisible and direction-changing characters written as \\u{...}; line ends and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"\\u{{{ord(c):x}}}" for c in text)


def excerpt(text: str, length: int = 80) -> str:
    """One visible line of at most `length` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
