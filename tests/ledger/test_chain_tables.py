"""The chain's tables hold one record a number, and one signature a key."""

from pathlib import Path

import pytest
from ledgers import covered_ledger
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from tampering import TEA

from poisonwatch.ledger.chain_tables import records, signatures


def test_a_number_comes_once_and_a_key_signs_once(tmp_path: Path) -> None:
    """And nothing is signed that is not there."""
    record = {"number": 1, "kind": "", "statement": "", "hash": "", "recorded_at": ""}
    signature = {"record": 1, "key_id": "k", "envelope": ""}
    with covered_ledger(tmp_path, TEA) as ledger:
        with ledger.write() as connection:
            connection.execute(insert(signatures).values(signature))
            connection.execute(insert(signatures).values(signature | {"key_id": "other"}))
        for table, values in (
            (records, record),
            (signatures, signature),
            (signatures, signature | {"record": 9}),
        ):
            with pytest.raises(IntegrityError), ledger.write() as connection:
                connection.execute(insert(table).values(values))
