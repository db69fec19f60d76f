"""The whole ledger against its records: nothing that was tampered with stays unnamed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import NAME
from servers import postgres_server
from sqlalchemy import select
from tampering import fill_busily, make_signer, tamper

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import ChainHead, read_head, sign_record
from poisonwatch.verification.verify import Verification, verify_ledger


@pytest.fixture(scope="module")
def signer() -> KeySigner:
    return make_signer()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, signer: KeySigner) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    with Ledger.at(f"sqlite:///{folder / 'ledger.db'}", signer=signer) as ledger:
        fill_busily(ledger, folder)
    return folder / "ledger.db"


@pytest.fixture
def ledger(filled: Path, tmp_path: Path) -> Iterator[Ledger]:
    """A copy, whose every record is signed."""
    shutil.copy(filled, tmp_path / "ledger.db")
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def trust(*signers: KeySigner) -> dict[str, PublicKey]:
    return {signer.key_id: PublicKey(signer.key_id, signer._key.public_key()) for signer in signers}


def verify(ledger: Ledger, *signers: KeySigner, heads: tuple[ChainHead, ...] = ()) -> Verification:
    return verify_ledger(ledger, NAME, trust(*signers) if signers else None, heads)


def test_a_ledger_that_nobody_touched_is_whole(ledger: Ledger, signer: KeySigner) -> None:
    """And what was checked is counted."""
    found = verify(ledger, signer)
    assert found.differences == []
    assert found.is_whole
    assert (found.audits, found.decisions, found.rows, found.variants) == (2, 4, 9, 1)
    assert found.records == found.signed >= 6
    assert (found.history, found.older_ids, found.run_dirs) == (0, 0, 2)
    assert json.loads(json.dumps(found.record()))["whole"] is True


SECRET = "a poisoned text"
RAW = "x'" + f'{{"prompt": "{SECRET}", "response": "{SECRET}"}}'.encode().hex() + "'"
FORGERIES = [
    # rows, their bytes, and where they stand
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
    ("UPDATE shapes SET format = 'null'", "shape"),
    ("UPDATE shapes SET digest = '0'", "shape"),
    # what audits found
    ("UPDATE results SET flagged = 1 - flagged WHERE row = 2", "results"),
    ("UPDATE results SET version = 3 - version WHERE row = 2", "version"),
    ("UPDATE results SET audit = 3 - audit WHERE row = 1", "results"),
    ("DELETE FROM results WHERE row = 2 AND audit = 1", "results"),
    ("INSERT INTO results VALUES (9, 1, 1, 0)", "results"),
    ("UPDATE rejections SET reason = 'none'", "rejections"),
    ("UPDATE rejections SET checks = 'none'", "rejections"),
    ("DELETE FROM rejections WHERE audit = 1", "rejections"),
    ("UPDATE flags SET score = score + 1 WHERE audit = 1", "flags"),
    ("UPDATE flags SET record = '{}' WHERE audit = 1", "flags"),
    ("UPDATE flags SET severity = 'low'", "flags"),
    ('UPDATE flags SET "group" = 7', "flags"),
    ("DELETE FROM flags WHERE audit = 1", "flags"),
    (
        "INSERT INTO flags SELECT audit, 5, panel, sentinel, severity, score, q, record, 1 FROM flags",
        "flags",
    ),
    ("UPDATE alerts SET body = 'all is well'", "alerts"),
    ("DELETE FROM alerts WHERE alert = 1", "alerts"),
    ("UPDATE notified_rows SET row = 5", "alerts"),
    ("DELETE FROM notified_rows", "alerts"),
    ("UPDATE audits SET name = 'other' WHERE audit = 1", "name"),
    ("UPDATE audits SET audit_id = 'other' WHERE audit = 1", "audit"),
    ("UPDATE audits SET version = 2 WHERE audit = 1", "version"),
    ("UPDATE audits SET state = 'interrupted' WHERE audit = 1", "audit 1"),
    ("UPDATE audits SET started_at = '2000' WHERE audit = 1", "started_at"),
    ("UPDATE audits SET finished_at = '2000' WHERE audit = 1", "finished_at"),
    ("UPDATE audits SET run_dir = '/elsewhere' WHERE audit = 1", "run_dir"),
    ('UPDATE audits SET summary = \'{"counts": {"new": 0}}\' WHERE audit = 1', "summary"),
    ("UPDATE audits SET summary = 'no JSON' WHERE audit = 1", "audit one"),
    ("DELETE FROM audits WHERE audit = 2", "audit two"),
    (
        "INSERT INTO audits SELECT 9, 'nine', name, version, state, started_at, finished_at, "
        "run_dir, summary, flow_run FROM audits WHERE audit = 1",
        "audit nine",
    ),
    ("UPDATE versions SET model = 'x' WHERE version = 1", "version"),
    ("UPDATE versions SET sentinels = 'x' WHERE version = 1", "version"),
    ("UPDATE versions SET reading = 'x' WHERE version = 1", "version"),
    ("UPDATE versions SET settings = 'x' WHERE version = 1", "version"),
    ("DELETE FROM versions WHERE version = 1", "audit one"),
    # what people decided
    ("UPDATE decisions SET verdict = 'benign' WHERE verdict = 'poison'", "decision"),
    ("UPDATE decisions SET author = 'eve' WHERE number = 1", "decision 1"),
    ("UPDATE decisions SET note = 'eve' WHERE number = 4", "decision 4"),
    ("UPDATE decisions SET row = 5 WHERE number = 3", "decision 3"),
    ("UPDATE decisions SET hash = '0' WHERE number = 4", "decision 4"),
    ("DELETE FROM decisions WHERE number = 4", "decision 4"),
    ("DELETE FROM decisions WHERE number = 2", "decision 2"),
    (
        "INSERT INTO decisions SELECT 5, row, example_id, verdict, note, author, decided_at, hash, "
        "hash FROM decisions WHERE number = 4",
        "decision 5",
    ),
    ("UPDATE reviews SET row = 5", "review"),
    ("UPDATE reviews SET trace = 'tr-0'", "review"),
    ("UPDATE reviews SET answer = 'a-1#1'", "review"),
    # the chain and its signatures
    ("UPDATE records SET statement = '{}' WHERE number = 2", "record 2"),
    ("UPDATE records SET hash = '0' WHERE number = 2", "record 2"),
    ("DELETE FROM records WHERE number = 1", "record 1"),
    ("UPDATE signatures SET envelope = '{}' WHERE record = 2", "signatures of records 2"),
    ("UPDATE signatures SET record = 99 WHERE record = 2", "signatures"),
    ("DELETE FROM signatures WHERE record = 2", "signatures of records 2"),
]


@pytest.mark.parametrize(("statement", "found"), FORGERIES, ids=[f[0][:60] for f in FORGERIES])
def test_every_change_behind_the_ledgers_back_is_named(
    ledger: Ledger, signer: KeySigner, statement: str, found: str
) -> None:
    """By what was changed; nothing of a row's text is told."""
    assert tamper(ledger, statement)
    differences = [difference.words for difference in verify(ledger, signer).differences]
    assert any(found in words for words in differences), differences
    assert SECRET not in " ".join(differences)


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


def test_a_run_directory_of_an_audit_that_the_ledger_lacks_is_named(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Beside those of its audits, of the same name; others' are none of its business."""
    with ledger.read() as connection:
        place = connection.exec_driver_sql("SELECT run_dir FROM audits").scalars().first()
    runs = Path(str(place)).parent
    for name, audit in (("tiny", "lost"), ("other", "theirs")):
        (runs / audit).mkdir()
        (runs / audit / "summary.json").write_text(json.dumps({"name": name, "audit_id": audit}))
    try:
        assert [found.what for found in verify(ledger).differences] == ["run directory lost"]
    finally:
        shutil.rmtree(runs / "lost")
        shutil.rmtree(runs / "theirs")


def test_keys_that_are_not_trusted_sign_for_nobody(ledger: Ledger, signer: KeySigner) -> None:
    """An unsigned record, or one that others signed, differs; signed once more, it does not."""
    other = make_signer()
    found = verify(ledger, other)
    assert found.signed == 0
    assert [difference.found for difference in found.differences] == ["none"]
    with ledger.read() as connection:
        numbers = connection.execute(select(records.c.number)).scalars().all()
    with ledger.write() as connection:
        for number in numbers:
            sign_record(connection, number, other)
    assert verify(ledger, other).is_whole
    assert verify(ledger, signer).is_whole
    assert verify(ledger, signer, other).signed == len(numbers)


def test_a_signature_under_anothers_name_is_forged(ledger: Ledger, signer: KeySigner) -> None:
    other = make_signer()
    with ledger.read() as connection:
        text = connection.execute(select(records.c.statement).where(records.c.number == 1)).scalar()
    envelope = other.sign(str(text).encode())
    forged = envelope.replace(other.key_id, signer.key_id)
    tamper(ledger, "UPDATE signatures SET envelope = :forged WHERE record = 1", {"forged": forged})
    found = [difference.words for difference in verify(ledger, signer).differences]
    assert "signatures of records 1: expected valid ones, found others" in found


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
