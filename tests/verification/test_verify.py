"""The whole ledger against its records: nothing that was tampered with stays unnamed."""

import json
from pathlib import Path

from servers import postgres_server
from sqlalchemy import select
from tampering import fill_busily, tamper, verify

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_head


def test_a_ledger_that_nobody_touched_is_whole(ledger: Ledger, signer: KeySigner) -> None:
    """And what was checked is counted."""
    found = verify(ledger, signer)
    assert found.differences == []
    assert found.is_whole
    assert (found.audits, found.decisions, found.rows, found.variants) == (2, 4, 9, 1)
    assert found.records == found.signed >= 6
    assert (found.history, found.older_ids, found.run_dirs) == (0, 0, 2)
    assert json.loads(json.dumps(found.record()))["whole"] is True


def test_a_chain_that_was_cut_off_is_found_by_a_head(ledger: Ledger) -> None:
    """With decision, record and signature all taken back, the rest is as it was: only whoever kept
    the head knows.
    """
    with ledger.read() as connection:
        head = read_head(connection)
        last = connection.execute(select(records.c.kind).order_by(records.c.number.desc())).first()
    assert last == ("decision",)
    assert verify(ledger, heads=(head,)).is_whole
    tamper(ledger, f"DELETE FROM signatures WHERE record = {head.number}")
    tamper(ledger, f"DELETE FROM records WHERE number = {head.number}")
    tamper(ledger, "DELETE FROM decisions WHERE number = 4")
    tamper(ledger, "UPDATE rows SET status = 'flagged', decided = NULL WHERE decided = 'benign'")
    assert verify(ledger).is_whole
    found = verify(ledger, heads=(head,)).differences
    assert [difference.what for difference in found] == [f"head {head.number}:{head.hash[:16]}"]


def test_a_ledger_on_postgresql_is_verified_likewise(tmp_path: Path) -> None:
    """On a real server; a value that cannot be read there stops nothing else."""
    with postgres_server() as url, Ledger.at(url) as ledger:
        fill_busily(ledger, tmp_path)
        assert verify(ledger).is_whole
        tamper(ledger, "DELETE FROM audits WHERE audit = 2")
        tamper(ledger, "UPDATE audits SET summary = 'no JSON' WHERE audit = 1")
        tamper(ledger, "UPDATE decisions SET verdict = 'benign' WHERE verdict = 'poison'")
        found = " ".join(difference.what for difference in verify(ledger).differences)
    for part in ("audit two", "audit one", "decision 3"):
        assert part in found
