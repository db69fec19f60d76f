"""A ledger that somebody changes behind its back, and signers for tests."""

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.errors import SigningError
from poisonwatch.ledger.ledger import Ledger


def make_signer() -> KeySigner:
    """One with a key of its own."""
    return KeySigner(Ed25519PrivateKey.generate())


class LostSigner:
    """A signer whose key is not there any more."""

    key_id = "0" * 64

    def sign(self, payload: bytes) -> str:
        raise SigningError("the key is gone")

    def try_out(self) -> None:
        raise SigningError("the key is gone")


def tamper(ledger: Ledger, statement: str, values: Mapping[str, Any] | None = None) -> int:
    """Run SQL on a ledger, without asking what it breaks; returns how many rows it changed."""
    with ledger.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        changed = connection.execute(text(statement), dict(values or {})).rowcount
        connection.commit()
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        else:
            connection.exec_driver_sql("SET session_replication_role = DEFAULT")
            connection.commit()
    return changed
