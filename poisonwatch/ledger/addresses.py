"""What a ledger's address may say: which database it is, and nothing of how SQLite reads its file.

`immutable` has SQLite leave out the log, where the decision may lie that forbids a row, and others
leave out locks or read another file altogether.
"""

from sqlalchemy import URL

from poisonwatch.errors import ConfigError
from poisonwatch.sources.sql import parse_database_url, refuse_two_places
from poisonwatch.text.display import excerpt

DRIVERS = ("sqlite", "sqlite+pysqlite")
OPTIONS = ("timeout", "uri")  # of SQLite's file: none changes how it is read


def parse_ledger_url(setting: str) -> URL:
    """The SQLAlchemy URL of a ledger. Raises what `parse_database_url` and `refuse_two_places` do,
    and ConfigError where SQLite is to be reached, or its file to be read, in another way.
    """
    url = parse_database_url(setting, "state")
    if url.get_backend_name() != "sqlite":
        return url
    if url.drivername not in DRIVERS:
        shown = excerpt(url.drivername)
        raise ConfigError(f"state begins with {shown}: write sqlite, for Python's own driver")
    for name, value in url.query.items():
        if name not in OPTIONS:
            raise ConfigError(
                f"state has the option `{excerpt(name)}`: a ledger's file is read in one way "
                f"alone, leave it out (allowed are {' and '.join(OPTIONS)})"
            )
        if not isinstance(value, str):
            raise ConfigError(f"state has the option `{name}` more than once: write it once")
    refuse_two_places(url, "state")
    return url
