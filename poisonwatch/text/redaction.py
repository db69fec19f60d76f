import re

_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@:\s]*:)?(?P<secret>[^/\s]+)@", re.IGNORECASE
)

_QUERY = re.compile(
    r"(?P<key>[?&][^=&\s]*(?:token|key|secret|password|signature|sig)[^=&\s]*=)(?P<secret>[^&\s]+)",
    re.IGNORECASE,
)

_VARIABLE = re.compile(r"\$\{\w+\}")


def redact_url(text: str) -> str:
    """The text with passwords (and bare tokens) before an @ in URLs, and tokens in their queries,
    replaced by ***.

    ${NAME} stays: it tells where a secret is, not what it is.
    """

    def hidden(match: re.Match[str]) -> str:
        kept = match["secret"] if _VARIABLE.fullmatch(match["secret"]) else "***"
        start, end = (position - match.start() for position in match.span("secret"))
        return match[0][:start] + kept + match[0][end:]

    return _QUERY.sub(hidden, _USERINFO.sub(hidden, text))
