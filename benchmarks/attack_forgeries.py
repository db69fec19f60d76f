"""Forgeries by somebody who knows how the ledger works, can write all of it, and has no key."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attack_changes import Change, open_ledger, run_sql
from attack_site import Site

CLEAR_FLAGGED = (
    "UPDATE rows SET status = 'clean' WHERE status = 'flagged'",
    "UPDATE results SET flagged = 0",
)


def list_forgeries(site: Site) -> Iterator[Change]:
    """Each makes a flagged row look cleared, or hides that records are gone."""
    ledger, part = site.folder / "poisonwatch.db", "forgery"
    release_head = json.loads((site.folder / "cleared" / "manifest.json").read_text())["chain"]
    assert release_head["number"] > 0

    def status_alone() -> None:
        run_sql(ledger, (CLEAR_FLAGGED[0], ()))

    def results_too() -> None:
        run_sql(ledger, *[(text, ()) for text in CLEAR_FLAGGED], ("DELETE FROM flags", ()))

    def decided() -> None:
        run_sql(ledger, ("UPDATE rows SET decided = 'benign', status = 'clean'", ()))

    def decision_unsigned() -> None:
        decide(site, signer=None)

    def decision_of_another_key() -> None:
        decide(site, signer=make_other_signer())

    def rewritten() -> None:
        results_too()
        rewrite_chain(ledger)

    def rewritten_and_signed() -> None:
        rewritten()
        sign_all(site, make_other_signer())

    def since_release_off() -> None:
        cut_chain(ledger, after=release_head["number"])

    def ends_off() -> None:
        cut_chain(ledger, after=release_head["number"] - 1)

    def whole_chain_off() -> None:
        cut_chain(ledger, after=0)

    def signatures_off() -> None:
        run_sql(ledger, ("DELETE FROM signatures", ()))

    def signatures_swapped() -> None:
        swap_signatures(ledger)

    def audited_anew() -> None:
        audit_anew(site)

    def manifest_written() -> None:
        write_manifest_of_own(site)

    yield Change(part, "status alone", status_alone)
    yield Change(part, "status, results, flags", results_too)
    yield Change(part, "decided alone", decided)
    yield Change(part, "a decision through the library, unsigned", decision_unsigned)
    yield Change(part, "a decision signed by another key", decision_of_another_key)
    yield Change(part, "results changed, the whole chain rewritten", rewritten)
    yield Change(part, "the same, signed by another key", rewritten_and_signed)
    yield Change(part, "what came since the release cut off", since_release_off)
    yield Change(part, "the same, and the head that its manifest carries", ends_off)
    yield Change(part, "the whole chain cut off", whole_chain_off)
    yield Change(part, "signatures removed", signatures_off)
    yield Change(part, "signatures swapped", signatures_swapped)
    yield Change(part, "another ledger, which never had flags", audited_anew)
    yield Change(part, "a release of its own making", manifest_written)


def make_other_signer() -> Any:
    """A signer whose key nobody trusts."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from poisonwatch.attestation.signer import KeySigner

    return KeySigner(Ed25519PrivateKey.generate())


def decide(site: Site, signer: Any) -> None:
    """Call every flagged row benign, by the library itself."""
    from sqlalchemy import select

    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.decisions import record_decision
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.ledger.tables import rows

    with Ledger.at(load_config(site.config).state, signer=signer) as ledger:
        with ledger.read() as connection:
            query = select(rows.c.id).where(rows.c.status == "flagged")
            ids = [bytes(id).hex() for id in connection.execute(query).scalars()]
        assert ids
        for id in ids:
            record_decision(ledger, id, "benign", author="ann")


def rewrite_chain(ledger: Path) -> None:
    """Make each audit's record fit what the tables say now, and each record the one before it: what
    somebody does who has read the code.
    """
    from poisonwatch.attestation.statement import hash_text, write_canonical

    accounts = describe_audits(ledger)
    raw = open_ledger(ledger)
    found = raw.execute("SELECT number, item, statement FROM records ORDER BY number").fetchall()
    raw.close()
    previous = "0" * 64
    changes = []
    for number, item, stored in found:
        statement = json.loads(stored)
        statement["predicate"]["chain"]["previous"] = previous
        if item in accounts:
            subjects, counts = accounts[item]
            statement["predicate"]["counts"] = counts
            for subject in statement["subject"]:
                old = subject["digest"]["sha256"]
                subject["digest"]["sha256"] = subjects.get(subject["name"], old)
        text = write_canonical(statement)
        previous = hash_text(text)
        update = "UPDATE records SET statement = ?, hash = ? WHERE number = ?"
        changes.append((update, (text, previous, number)))
    run_sql(ledger, *changes)


def describe_audits(ledger: Path) -> dict[str, tuple[dict[str, str], dict[str, int]]]:
    """The digests and counts that the tables have now, by audit."""
    from sqlalchemy import create_engine, select

    from poisonwatch.ledger.audit_records import describe_audit
    from poisonwatch.ledger.tables import audits

    found = {}
    engine = create_engine(f"sqlite:///{ledger}")
    with engine.connect() as connection:
        for audit in connection.execute(select(audits.c.audit)).scalars().all():
            account = describe_audit(connection, audit)
            told = account.predicate
            found[told["audit_id"]] = account.subjects, told["counts"]
    engine.dispose()
    return found


def sign_all(site: Site, signer: Any) -> None:
    """Put another key's signatures in place of all."""
    ledger = site.folder / "poisonwatch.db"
    raw = open_ledger(ledger)
    found = raw.execute("SELECT number, statement FROM records").fetchall()
    raw.close()
    changes: list[tuple[str, tuple[Any, ...]]] = [("DELETE FROM signatures", ())]
    for number, text in found:
        values = (number, signer.key_id, signer.sign(text.encode()))
        changes.append(("INSERT INTO signatures VALUES (?, ?, ?)", values))
    run_sql(ledger, *changes)


def cut_chain(ledger: Path, after: int) -> None:
    """Take the records after a number away, and the decisions that they are about."""
    raw = open_ledger(ledger)
    query = "SELECT count(*) FROM records WHERE kind = 'decision' AND number > ?"
    (decided,) = raw.execute(query, (after,)).fetchone()
    (made,) = raw.execute("SELECT count(*) FROM decisions").fetchone()
    raw.close()
    run_sql(
        ledger,
        ("DELETE FROM signatures WHERE record > ?", (after,)),
        ("DELETE FROM records WHERE number > ?", (after,)),
        ("DELETE FROM decisions WHERE number > ?", (made - decided,)),
    )


def swap_signatures(ledger: Path) -> None:
    """Give two records each other's signature."""
    raw = open_ledger(ledger)
    one, other = raw.execute("SELECT record, envelope FROM signatures LIMIT 2").fetchall()
    raw.close()
    update = "UPDATE signatures SET envelope = ? WHERE record = ?"
    run_sql(ledger, (update, (other[1], one[0])), (update, (one[1], other[0])))


def audit_anew(site: Site) -> None:
    """Put a ledger in place of this one in which nothing was flagged and nobody was told, its chain
    made anew and signed by a key of its own.
    """
    ledger = site.folder / "poisonwatch.db"
    forgotten = ("DELETE FROM flags", "DELETE FROM alerts", "DELETE FROM notified_rows")
    run_sql(ledger, *[(text, ()) for text in (*CLEAR_FLAGGED, *forgotten)])
    rewrite_chain(ledger)
    sign_all(site, make_other_signer())


def write_manifest_of_own(site: Site) -> None:
    """Clear everything, and let the library itself write a release of it, signed by another key."""
    from poisonwatch.config_file import load_config
    from poisonwatch.ledger.ledger import Ledger
    from poisonwatch.release.release import write_release

    audit_anew(site)
    shutil.rmtree(site.folder / "cleared")
    for beside in site.folder.glob("cleared*"):
        shutil.rmtree(beside)
    config = load_config(site.config)
    with Ledger.at(config.state, signer=make_other_signer()) as ledger:
        write_release(ledger, config.name, site.folder / "cleared", "keep")
