"""Rows under review follow from audits and decisions."""

import pytest
from tampering import check_found

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.ledger import Ledger

FORGERIES = [
    ("UPDATE reviews SET row = 5", "review"),
    ("UPDATE reviews SET trace = 'tr-0'", "review"),
    ("UPDATE reviews SET answer = 'a-1#1'", "review"),
]


@pytest.mark.parametrize(("statement", "found"), FORGERIES, ids=[f[0][:60] for f in FORGERIES])
def test_what_was_forged_is_named(
    ledger: Ledger, signer: KeySigner, statement: str, found: str
) -> None:
    """Whatever it was."""
    check_found(ledger, signer, statement, found)
