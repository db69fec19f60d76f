"""Releases by who signs: the record of each, and what comes in between."""

import json
from pathlib import Path

import pytest
from audits import benign, write_rows
from gates import ONE, TEA, entries
from ledgers import NAME, cover, pull, statuses
from servers import postgres_server
from signed_releases import VERSIONS, ask, ask_alone, key_of, write_settings
from signing import make_signer
from tampering import LostSigner, tamper

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.errors import InputError, SigningError
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_head, read_records
from poisonwatch.ledger.signing import SignedCount, count_signed
from poisonwatch.release.gate import check_cleared
from poisonwatch.release.release import preview_release, write_release


def test_a_release_is_a_record_of_its_own(signed_ledger: Ledger, tmp_path: Path) -> None:
    """Of the manifest's SHA-256, after the head that the manifest carries; signed, too."""
    write_release(signed_ledger, NAME, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    with signed_ledger.read() as connection:
        (record,) = read_records(connection, "release")
    assert record.number == manifest["chain"]["number"] + 1
    assert record.statement.predicate["counts"] == manifest["counts"]
    _, key = key_of(tmp_path, "old")
    assert SignedCount("release", 1, 1) in count_signed(signed_ledger, {key.id: key})


def test_a_release_that_cannot_be_signed_is_none(signed_ledger: Ledger, tmp_path: Path) -> None:
    """No folder, no record, no row that counts as released."""
    before = statuses(signed_ledger)
    with signed_ledger.read() as connection:
        head = read_head(connection)
    signed_ledger.signer = LostSigner()
    with pytest.raises(SigningError):
        write_release(signed_ledger, NAME, tmp_path / "out")
    assert statuses(signed_ledger) == before
    with signed_ledger.read() as connection:
        assert read_head(connection) == head
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


class Interrupting:
    """Signs, and lets somebody else decide on a row just before it does for the first time."""

    def __init__(self, signer: KeySigner, ledger: Ledger, row: str) -> None:
        self.signer, self.ledger, self.row = signer, ledger, row
        self.key_id = signer.key_id

    def sign(self, payload: bytes) -> str:
        if self.row:
            row, self.row = self.row, ""
            with Ledger.at(self.ledger.url, signer=self.signer) as other:
                record_decision(other, row, "poison")
        return self.signer.sign(payload)

    def try_out(self) -> None:
        """Nothing to try."""


def test_a_decision_that_comes_in_meanwhile_counts(signed_ledger: Ledger, tmp_path: Path) -> None:
    """A row that is called poison while the files are written is in none of them."""
    signer, _ = key_of(tmp_path, "old")
    signed_ledger.signer = Interrupting(signer, signed_ledger, "a.jsonl:2")
    counts = write_release(signed_ledger, NAME, tmp_path / "out")
    assert (counts.clean, counts.quarantined) == (6, 2)
    assert ("a.jsonl", 1) not in {
        (entry["source"], entry["position"]) for entry in entries(tmp_path / "out")
    }
    assert statuses(signed_ledger)["poison"] == 1
    assert ask(tmp_path, "old").cleared


def test_a_preview_is_not_signed(signed_ledger: Ledger, tmp_path: Path) -> None:
    """Nobody meant it to be a release; the ledger clears it all the same."""
    preview_release(signed_ledger, NAME, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.dsse.json").exists()
    assert ask_alone(tmp_path, "old").reasons == {"unsigned": 1}
    assert ask(tmp_path, "old").cleared


def test_on_postgresql_too(tmp_path: Path) -> None:
    """Release, a decision in between, and the gate with a key."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "a.jsonl", benign(6))
    signer, _ = make_signer(tmp_path / "old")
    with postgres_server() as url, Ledger.at(url, signer=signer) as ledger:
        pull(ledger, tmp_path / "data")
        cover(ledger, tmp_path / "one", [TEA], version=ONE)
        write_settings(tmp_path, url)
        ledger.signer = Interrupting(signer, ledger, "a.jsonl:2")
        assert write_release(ledger, NAME, tmp_path / "out").clean == 4
        assert ask(tmp_path, "old").cleared
        assert tamper(ledger, "UPDATE rows SET status = 'clean' WHERE status = 'flagged'")
        with pytest.raises(InputError, match="is not what its records say"):
            check_cleared([tmp_path / "data"], tmp_path / "audit.yaml", *VERSIONS)
