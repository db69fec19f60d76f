"""A database that changes by itself what is written."""

from pathlib import Path

import pytest
from ledgers import cover, covered_ledger, pull, write_two_files
from servers import postgres_server
from signing import make_signer
from tampering import TEA, tamper

from poisonwatch.errors import OperationError
from poisonwatch.ledger.decisions import read_decisions, record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_head
from poisonwatch.release.ledger_check import check_chains

CODE = [
    "CREATE TRIGGER helper AFTER INSERT ON results BEGIN UPDATE results SET flagged = 0; END",
    "CREATE VIEW helper AS SELECT * FROM results",
]
FUNCTION = (
    "CREATE FUNCTION pass_all() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN NEW.flagged := 0; RETURN NEW; END'"
)
TRIGGER = "CREATE TRIGGER helper BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION pass_all()"
RULE = "CREATE RULE helper AS ON INSERT TO flags DO INSTEAD NOTHING"


@pytest.mark.parametrize("code", CODE)
def test_nothing_is_recorded_or_cleared_beside_foreign_code(tmp_path: Path, code: str) -> None:
    """An audit whose flags a trigger takes off would be signed as it is."""
    signer, _ = make_signer(tmp_path / "key")
    with covered_ledger(tmp_path, TEA, signer) as ledger:
        with ledger.read() as connection:
            head = read_head(connection)
        tamper(ledger, code)
        with pytest.raises(OperationError, match=r"helper.*none of Poisonwatch's"):
            cover(ledger, tmp_path / "two", [TEA], again=True)
        with pytest.raises(OperationError, match="helper"):
            record_decision(ledger, "a.jsonl:1", "benign")
        with pytest.raises(OperationError, match="helper"):
            check_chains(ledger)
        with ledger.read() as connection:
            assert read_head(connection) == head
        assert not list(read_decisions(ledger))


def test_on_postgresql_too(tmp_path: Path) -> None:
    """Triggers and rules; foreign keys are none."""
    write_two_files(tmp_path / "data")
    with postgres_server() as url, Ledger.at(url) as ledger:
        pull(ledger, tmp_path / "data")
        assert check_chains(ledger).number
        tamper(ledger, FUNCTION)
        for code, kind in ((TRIGGER, "TRIGGER helper ON results"), (RULE, "RULE helper ON flags")):
            tamper(ledger, code)
            with pytest.raises(OperationError, match="helper"):
                cover(ledger, tmp_path / kind[:4], [TEA])
            tamper(ledger, f"DROP {kind}")
        cover(ledger, tmp_path / "two", [TEA])
        record_decision(ledger, "a.jsonl:1", "benign")
