"""How the bytes of rows are read again: the format, and the Arrow schema of columnar files, as they
are in the ledger.
"""

import hashlib
import json

from sqlalchemy import Connection, select

from poisonwatch.formats.format import Format
from poisonwatch.ledger.ledger import insert_missing
from poisonwatch.ledger.tables import shapes


def find_or_add_shape(connection: Connection, format: Format | None, schema: bytes | None) -> int:
    """The number of a format (None: no row of the file could be read) and a schema."""
    settings = None
    if format is not None:
        settings = format.settings
    text = json.dumps(settings)
    digest = hash_shape(text, schema)
    query = select(shapes.c.shape).where(shapes.c.digest == digest)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        values = {"digest": digest, "format": text, "schema": schema}
        insert_missing(connection, shapes, shapes.c.digest, [values])
        found = connection.execute(query).scalar_one()
    return int(found)


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
