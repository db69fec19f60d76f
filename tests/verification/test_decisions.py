"""What people decided is what its records say."""

import pytest
from tampering import check_found

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.ledger import Ledger

FORGERIES = [
    ("UPDATE decisions SET verdict = 'benign' WHERE verdict = 'poison'", "decision"),
    ("UPDATE decisions SET author = 'eve' WHERE number = 1", "decision 1"),
    ("UPDATE decisions SET note = 'eve' WHERE number = 4", "decision 4"),
    ("UPDATE decisions SET row = 5 WHERE number = 3", "decision 3"),
    ("UPDATE decisions SET hash = '0' WHERE number = 4", "decision 4"),
    ("DELETE FROM decisions WHERE number = 4", "decision 4"),
    ("DELETE FROM decisions WHERE number = 2", "decision 2"),
    (
        "INSERT INTO decisions SELECT 5, row, example_id, verdict, note, author, decided_at, hash, "
        "hash, NULL, NULL FROM decisions WHERE number = 4",
        "decision 5",
    ),
]


@pytest.mark.parametrize(("statement", "found"), FORGERIES, ids=[f[0][:60] for f in FORGERIES])
def test_what_was_forged_is_named(
    ledger: Ledger, signer: KeySigner, statement: str, found: str
) -> None:
    """Whatever it was."""
    check_found(ledger, signer, statement, found)
