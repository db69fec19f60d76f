"""Rows, their bytes, and where they stand."""

import pytest
from tampering import RAW, check_found

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.ledger import Ledger

FORGERIES = [
    ("UPDATE rows SET status = 'clean' WHERE status = 'poison'", "status"),
    ("UPDATE rows SET decided = 'benign' WHERE decided = 'poison'", "status"),
    ("UPDATE rows SET decided = NULL WHERE decided = 'benign'", "status"),
    (f"UPDATE rows SET raw = {RAW} WHERE row = 2", "row"),
    ("UPDATE rows SET digest = x'" + "00" * 32 + "' WHERE row = 2", "bytes"),
    ("UPDATE rows SET id = x'" + "00" * 32 + "' WHERE row = 2", "content"),
    ("UPDATE rows SET id = 'text' WHERE row = 2", "read"),
    ("UPDATE rows SET problem = 'broken' WHERE row = 2", "content"),
    ("UPDATE rows SET problem = NULL WHERE problem IS NOT NULL", "content"),
    ("UPDATE rows SET shape = 99 WHERE row = 2", "shape"),
    ("DELETE FROM rows WHERE row = 2", "audit"),
    (
        f"INSERT INTO rows SELECT 99, {RAW}, raw, digest, shape, NULL, 'clean', NULL, first_seen, "
        "NULL, NULL FROM rows WHERE row = 2",
        "status",
    ),
    (f"UPDATE variants SET raw = {RAW}", "bytes"),
    ("UPDATE variants SET digest = x'00'", "bytes"),
    ("UPDATE variants SET row = 2", "content"),
    ("DELETE FROM variants", "places"),
    ("UPDATE places SET row = 99 WHERE position = 1", "places"),
    ("UPDATE places SET variant = 1 WHERE position = 1", "places"),
    ("DELETE FROM files", "places"),
    ("UPDATE rows SET last_variant = 1 WHERE row = 2", "stood last"),
    ("UPDATE rows SET replaces = 99 WHERE row = 2", "replace none"),
    ("UPDATE shapes SET format = 'null'", "shape"),
    ("UPDATE shapes SET digest = '0'", "shape"),
]


@pytest.mark.parametrize(("statement", "found"), FORGERIES, ids=[f[0][:60] for f in FORGERIES])
def test_what_was_forged_is_named(
    ledger: Ledger, signer: KeySigner, statement: str, found: str
) -> None:
    """Whatever it was."""
    check_found(ledger, signer, statement, found)
