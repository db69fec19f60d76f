"""Addresses: URLs as people write them, quoted or not, and what of them may be shown.

Shown are scheme, host, port and path (of a database its name, of a file where it lies), nothing
else: user names, passwords, queries and fragments are not. A password that is written out may hold
any character, those that end a host among them: where its end is not certain, it is the last.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

HIDDEN = "***"

FILES = {"file", "local", "sqlite"}
ARCHIVES = {"libarchive", "tar", "zip"}
DATABASES = {
    "amqp",
    "amqps",
    "cockroachdb",
    "databricks",
    "duckdb",
    "mariadb",
    "mongodb",
    "mssql",
    "mysql",
    "oracle",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "redshift",
    "snowflake",
    "trino",
}
# Files of the web and of object stores.
STORES = {
    "abfs",
    "abfss",
    "adl",
    "az",
    "dbfs",
    "ftp",
    "ftps",
    "gcs",
    "git",
    "github",
    "gs",
    "hdfs",
    "hf",
    "http",
    "https",
    "memory",
    "mlflow-artifacts",
    "oci",
    "oss",
    "ray",
    "s3",
    "s3a",
    "s3n",
    "sftp",
    "smb",
    "ssh",
    "wasb",
    "wasbs",
    "webhdfs",
}
# Sites whose paths are secrets: whoever knows one may post there.
WEB_HOOKS = (
    "api.telegram.org",
    "chat.googleapis.com",
    "discord.com",
    "discordapp.com",
    "events.pagerduty.com",
    "hooks.slack.com",
    "hooks.zapier.com",
    "logic.azure.com",
    "maker.ifttt.com",
    "office.com",
    "webhook.site",
)
WEB = {"ftp", "ftps", "http", "https"}
LONGEST_SCHEME = 40  # characters

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_CERTAIN_USER = re.compile(r"(?:[\w.+%-]{1,100}:)?\$\{[A-Za-z_][A-Za-z0-9_]*\}@")
_MARK = re.compile(r"\?")
_NAMED_MARK = re.compile(r"\?(?=[^=/?\s]{1,100}=)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"[\w.${}-]*|\[[0-9A-Fa-f:.]*\]")
_HOST_LIKE = re.compile(r"localhost|\[.*\]|[\w-]*\$\{.*|[\w-]+(?:\.[\w-]+)+", re.ASCII)
# Values of queries that are no secrets: how to connect, said in a word.
_PLAIN_VALUES = {
    *("0", "1", "true", "false", "yes", "no", "on", "off"),
    *("require", "verify-ca", "verify-full", "prefer", "allow", "disable"),
    *("ro", "rw", "rwc", "memory", "shared", "private", "utf8", "utf8mb4"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a URL as they are written: `place` is host and port, `path` begins with a slash,
    `query` and `fragment` are what follows their marks. What is not there is empty.
    """

    scheme: str
    user: str
    password: str
    place: str
    path: str
    query: str
    fragment: str

    @property
    def kind(self) -> str:
        """The scheme without its driver, in lower case."""
        return self.scheme.partition("+")[0].lower()

    @property
    def names_user(self) -> bool:
        """Whether somebody logs in."""
        return bool(self.user or self.password)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names and values of the query, as they are written."""
        pairs = []
        for pair in filter(None, self.query.split("&")):
            name, _, value = pair.partition("=")
            pairs.append((name, value))
        return pairs


def may_be_told(address: Address) -> bool:
    """Whether host and path of an address that anybody may have written are no secrets. Of kinds
    that are not known here any part may be one, as in slack://.
    """
    return address.kind in FILES | ARCHIVES | DATABASES | STORES


def is_variable(text: str) -> bool:
    """Whether a text is ${NAME} and nothing else: it tells where a secret is, not what it is."""
    return _VARIABLE.fullmatch(text) is not None


def is_plain(value: str) -> bool:
    """Whether the value of a query is a word that is nobody's secret."""
    return value.lower() in _PLAIN_VALUES


def is_web_address(text: str) -> bool:
    """Whether an address is of the web, and names somebody to ask."""
    try:
        return text.startswith(("http://", "https://")) and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def parse_address(text: str, of_server: bool = False) -> Address | None:
    """The parts of a URL; None where the text is none. In the path of a server, as a tracking
    server's or a dashboard's, there is no @; in that of a file there may be.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or (scheme and not _SCHEME.fullmatch(scheme)):
        return None
    kind = scheme.partition("+")[0].lower()
    start = _find_place(rest, kind, of_server)
    user, _, password = rest[: max(start - 1, 0)].partition(":")
    rest = rest[start:]
    fragment = ""
    # The names of files and objects may hold # and ?, which elsewhere end a path.
    if kind in WEB | DATABASES:
        rest, _, fragment = rest.partition("#")
    rest, query = _split_query(rest, kind)
    place, slash, path = rest.partition("/")
    return Address(scheme, user, password, place, slash + path, query=query, fragment=fragment)


def _split_query(rest: str, kind: str) -> tuple[str, str]:
    begins = _NAMED_MARK
    if kind in WEB | DATABASES | FILES:
        begins = _MARK
    mark = begins.search(rest)
    if mark is None:
        return rest, ""
    return rest[: mark.start()], rest[mark.end() :]


def _find_place(rest: str, kind: str, of_server: bool) -> int:
    """Where the host begins in what follows `://`: behind the @ that ends the password."""
    last = rest.rfind("@") + 1
    if not last or kind in ARCHIVES or (kind in FILES and rest.startswith("/")):
        return 0
    # A variable is a whole password: what follows it is not.
    certain = _CERTAIN_USER.match(rest)
    if certain is not None:
        return certain.end()
    # The name of a database has no @; that of a file may.
    if kind in DATABASES or of_server:
        return last
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return last
    name, colon, port = authority.partition(":")
    if authority.startswith("["):
        name, colon, port = authority, "", ""
    # What stands where a port does may be the beginning of a password with a slash in it.
    if colon and not (port.isdecimal() and _HOST_LIKE.fullmatch(name)):
        return last
    # The same of a token that stands alone, with a mark in it.
    if rest[len(authority) : len(authority) + 1] in ("?", "#"):
        return last
    return 0


def show_address(address: Address) -> str:
    """What may be shown of an address."""
    place = address.place
    if address.kind not in FILES | ARCHIVES and not _is_place(place):
        place = HIDDEN
    return f"{address.scheme}://{place}{_show_path(address)}"


def _is_place(place: str) -> bool:
    host, _, port = place.rpartition(":")
    if not host or place.endswith("]"):
        host, port = place.rstrip(":"), ""
    return _HOST.fullmatch(host) is not None and (not port or port.isdecimal() or is_variable(port))


def _show_path(address: Address) -> str:
    host = address.place.partition(":")[0].lower()
    is_hook = any(host == site or host.endswith(f".{site}") for site in WEB_HOOKS)
    if is_hook and address.path.strip("/"):
        return f"/{HIDDEN}"
    return address.path


def write_address(address: Address) -> str:
    """An address as a file of settings may hold it, so that it can be used again: with every
    ${NAME}, and the user whose password one is; *** in the place of what is a secret.
    """
    user = ""
    if address.names_user:
        is_known = is_variable(address.password) or (
            not address.password and is_variable(address.user)
        )
        user = f"{HIDDEN}@"
        if is_known:
            user = ":".join(filter(None, (address.user, address.password))) + "@"
    shown = show_address(address).replace("://", f"://{user}", 1)
    pairs = []
    for name, value in address.pairs:
        if not value or is_variable(value) or is_plain(value):
            pairs.append(f"{name}={value}")
        else:
            pairs.append(f"{name}={HIDDEN}")
    return "?".join(filter(None, (shown, "&".join(pairs))))
