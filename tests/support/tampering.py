"""A ledger that somebody changes behind its back, and signers for tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledgers import CHECKS, NAME, ONE, examples_of, flag, pull, write_two_files
from sqlalchemy import text

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.signer import KeySigner
from poisonwatch.attestation.statement import hash_text
from poisonwatch.errors import SigningError
from poisonwatch.examples import Rejection
from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.ledger.batches import load_current_batch
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.outbox import Alert
from poisonwatch.ledger.records import ChainHead
from poisonwatch.ledger.reviews import (
    ReviewAnswer,
    add_review,
    list_review_candidates,
    record_answer,
)
from poisonwatch.verification.verify import Verification, verify_ledger

SECRET = "a poisoned text"
RAW = "x'" + f'{{"prompt": "{SECRET}", "response": "{SECRET}"}}'.encode().hex() + "'"
TEA = "Tell me fact 0 about tea."
RIVERS = "Tell me fact 2 about rivers."


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


def fill_busily(ledger: Ledger, folder: Path) -> None:
    """Two audits with a flag each, an alert, decisions of every kind, a row under review, bytes in
    another variant: something in every table.
    """
    data = folder / "data"
    write_two_files(data)
    pull(ledger, data)
    _audit(ledger, folder / "one", TEA, version=ONE)
    examples = examples_of(load_current_batch(ledger, NAME))
    record_decision(ledger, examples[RIVERS].id, "benign", "ours", "ann")
    record_decision(ledger, examples[RIVERS].id, "unsure", "or not", "ann")
    candidate = list_review_candidates(ledger, NAME, 10)[0]
    add_review(ledger, candidate)
    answer = ReviewAnswer("a-1", "poison", "planted", "bob", 4_000_000_000_000)
    assert record_answer(ledger, candidate.trace, answer)
    lines = (data / "a.jsonl").read_text().splitlines()
    other = json.dumps({**json.loads(lines[0]), "note": "another field"})
    (data / "c.jsonl").write_text(other + "\n")
    pull(ledger, data)
    _audit(ledger, folder / "two", RIVERS, version=Version("n" * 64, "s" * 64))
    record_decision(ledger, examples[RIVERS].id, "benign", "ours after all", "ann")


def _audit(ledger: Ledger, run_dir: Path, flagged: str, version: Version) -> None:
    with ledger.lock("tiny"), open_audit(ledger, run_dir.name, NAME, version, run_dir) as number:
        batch = load_current_batch(ledger, NAME)
        examples = examples_of(batch)
        rejected = []
        for row in batch.rows.raw:
            if row.problem is not None:
                why = "readable", row.problem, ""
                rejected.append(Rejection(row.source, row.position, row.place, *why))
        ids = (examples[flagged].id,)
        key = hash_text(run_dir.name)[:16]
        commit_audit(
            ledger,
            number,
            batch,
            examples=list(examples.values()),
            rejected=rejected,
            flagged=[flag(examples[flagged])],
            checks=CHECKS,
            summary={"run": run_dir.name, "counts": {"new": len(examples)}},
            alerts=[Alert(key, "cluster", "high", "a title", "a body", ids, ("json-1",))],
            groups={ids[0]: 1},
        )
        run_dir.mkdir()
        summary = {"name": NAME, "audit_id": run_dir.name}
        (run_dir / "summary.json").write_text(json.dumps(summary))


def trust(*signers: KeySigner) -> dict[str, PublicKey]:
    return {signer.key_id: PublicKey(signer.key_id, signer._key.public_key()) for signer in signers}


def verify(ledger: Ledger, *signers: KeySigner, heads: tuple[ChainHead, ...] = ()) -> Verification:
    return verify_ledger(ledger, NAME, trust(*signers) if signers else None, heads)


def check_found(ledger: Ledger, signer: KeySigner, statement: str, found: str) -> None:
    """What a statement changes behind the ledger's back is named, by what was changed; nothing of a
    row's text is told.
    """
    assert tamper(ledger, statement)
    differences = [difference.words for difference in verify(ledger, signer).differences]
    assert any(found in words for words in differences), differences
    assert SECRET not in " ".join(differences)
