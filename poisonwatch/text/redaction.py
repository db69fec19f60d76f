"""Passwords and tokens, taken out of URLs."""

import re

# Two places where a URL holds a secret: before an @, and in its query. Repetitions have a limit:
# the text may be anybody's, and without one a long word takes minutes.
_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,40}://)(?P<user>[^/@:\s]*:)?(?P<secret>[^/\s]+)@", re.IGNORECASE
)
_QUERY = re.compile(
    r"(?P<key>[?&][^=&?\s]{0,200}(?:token|key|secret|password|signature|sig)[^=&?\s]{0,200}=)"
    r"(?P<secret>[^&\s]+)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\$\{\w+\}")


def find_secrets(text: str) -> list[str]:
    """The passwords (and bare tokens) before an @ in URLs, and the tokens in their queries."""
    found = []
    for pattern in (_USERINFO, _QUERY):
        found += [match["secret"] for match in pattern.finditer(text)]
    return found


def redact_url(text: str) -> str:
    """The text with what `find_secrets` finds in it replaced by ***.

    ${NAME} stays: it tells where a secret is, not what it is.
    """

    def hide(match: re.Match[str]) -> str:
        if _VARIABLE.fullmatch(match["secret"]):
            return match[0]
        start = match.start("secret") - match.start()
        end = match.end("secret") - match.start()
        return f"{match[0][:start]}***{match[0][end:]}"

    return _QUERY.sub(hide, _USERINFO.sub(hide, text))
