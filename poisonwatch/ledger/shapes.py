"""How the bytes of rows are read again: the format, and the Arrow schema of columnar files, as they
are in the ledger.
"""

import hashlib
import json
from typing import NamedTuple

from sqlalchemy import Connection, select

from poisonwatch.formats.format import Format
from poisonwatch.ledger.ledger import insert_missing
from poisonwatch.ledger.tables import shapes


class ShapeTable:
    """The shapes of rows, as one transaction sees them. A shape never changes: of thousands of
    files of one shape, one asks the ledger.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers: dict[str, int] = {}  # by digest
        self._stored: dict[int, _Stored] = {}  # by number

    def find_or_add(self, format: Format | None, schema: bytes | None) -> int:
        """The number of a format (None: no row of the file could be read) and a schema."""
        settings = None
        if format is not None:
            settings = format.settings
        text = json.dumps(settings)
        digest = hash_shape(text, schema)
        if digest not in self._numbers:
            self._numbers[digest] = self._ask(digest, text, schema)
        return self._numbers[digest]

    def digest(self, shape: int) -> str:
        """What tells a shape from others."""
        return self._load(shape).digest

    def schema(self, shape: int) -> bytes | None:
        """The Arrow schema of a shape; None where its files have none."""
        return self._load(shape).schema

    def _ask(self, digest: str, format: str, schema: bytes | None) -> int:
        query = select(shapes.c.shape).where(shapes.c.digest == digest)
        found = self._connection.execute(query).scalar_one_or_none()
        if found is None:
            values = {"digest": digest, "format": format, "schema": schema}
            insert_missing(self._connection, shapes, shapes.c.digest, [values])
            found = self._connection.execute(query).scalar_one()
        return int(found)

    def _load(self, shape: int) -> "_Stored":
        if shape not in self._stored:
            query = select(shapes.c.digest, shapes.c.schema).where(shapes.c.shape == shape)
            self._stored[shape] = _Stored(*self._connection.execute(query).tuples().one())
        return self._stored[shape]


class _Stored(NamedTuple):
    digest: str
    schema: bytes | None


def hash_shape(format: str, schema: bytes | None) -> str:
    """What tells a shape from others: a schema is too long to be a unique column itself."""
    return hashlib.sha256(b"\0".join((format.encode(), schema or b""))).hexdigest()


def load_format(connection: Connection, shape: int | None) -> Format | None:
    """The format of a shape, if there is any."""
    query = select(shapes.c.format).where(shapes.c.shape == shape)
    return parse_format(connection.execute(query).scalar_one_or_none() or "null")


def parse_format(settings: str) -> Format | None:
    """The format of a shape; None where no row of its file could be read."""
    stored = json.loads(settings)
    if stored is None:
        return None
    return Format(**stored)
