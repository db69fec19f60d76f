"""A ledger is believed only as far as its records go."""

from pathlib import Path

import pytest
from ledgers import NAME
from signed_releases import VERSIONS, ask, public, write_settings
from tampering import tamper

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_head
from poisonwatch.release.gate import check_cleared
from poisonwatch.release.release import write_release


def test_a_head_must_still_be_there(signed_ledger: Ledger, tmp_path: Path) -> None:
    """A ledger that was cut off is whole by itself, and signed: who knows a later head finds out."""
    write_release(signed_ledger, NAME, tmp_path / "out")
    with signed_ledger.read() as connection:
        before = read_head(connection)
    record_decision(signed_ledger, "a.jsonl:2", "poison")
    with signed_ledger.read() as connection:
        head = read_head(connection)
    assert ask(tmp_path, "old", head=str(head)).reasons == {"poison": 1}
    assert ask(tmp_path, "old", head=str(before)).head == str(head)
    tamper(signed_ledger, "DELETE FROM signatures WHERE record = :number", {"number": head.number})
    tamper(signed_ledger, "DELETE FROM records WHERE number = :number", {"number": head.number})
    tamper(signed_ledger, "DELETE FROM decisions")
    tamper(
        signed_ledger,
        "UPDATE rows SET status = 'released', decided = NULL WHERE decided = 'poison'",
    )
    assert ask(tmp_path, "old").cleared
    with pytest.raises(InputError, match="cut off or replaced"):
        ask(tmp_path, "old", head=str(head))
    with pytest.raises(InputError, match="NUMBER:HASH"):
        ask(tmp_path, "old", head="the last one")
    with pytest.raises(InputError, match="--audit"):
        check_cleared([tmp_path / "out" / "manifest.json"], head=str(head))


def test_an_address_that_leaves_out_the_log_clears_nothing(
    signed_ledger: Ledger, tmp_path: Path
) -> None:
    """The decision that forbids a row lies there as long as the ledger is open."""
    write_release(signed_ledger, NAME, tmp_path / "out")
    file = tmp_path / "ledger.db"
    before = file.read_bytes()
    record_decision(signed_ledger, "a.jsonl:2", "poison")
    assert file.read_bytes() == before
    write_settings(tmp_path, f"sqlite:///file:{file}?uri=true")
    assert ask(tmp_path, "old").reasons == {"poison": 1}
    write_settings(tmp_path, f"sqlite:///file:{file}?uri=true&immutable=1")
    with pytest.raises(InputError, match="the option `immutable`"):
        ask(tmp_path, "old")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE rows SET status = 'clean' WHERE status = 'flagged'", "status"),
        ("UPDATE rows SET status = 'clean', decided = 'benign' WHERE status = 'flagged'", "status"),
        ("UPDATE records SET statement = replace(statement, 'clean', 'cleen')", "record 2"),
        ("DELETE FROM records WHERE number = 1", "record 1"),
        ("UPDATE records SET hash = 'x' WHERE number = 2", "record 2"),
    ],
)
def test_a_ledger_that_was_changed_clears_nothing(
    signed_ledger: Ledger, tmp_path: Path, statement: str, said: str
) -> None:
    """With keys or without: one clear error, before anything is said of a row."""
    assert tamper(signed_ledger, statement)
    for keys in ([], public(tmp_path, "old")):
        with pytest.raises(InputError, match=said):
            check_cleared(
                [tmp_path / "data" / "a.jsonl"], tmp_path / "audit.yaml", *VERSIONS, keys=keys
            )
