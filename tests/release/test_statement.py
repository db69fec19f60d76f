"""The signed statement beside a manifest: what it covers, and what it is worth without a ledger."""

import hashlib
import json
from pathlib import Path

from audits import benign
from gates import ONE, rewrite
from ledgers import NAME, append, cover, pull
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from signed_releases import ask, ask_alone, key_of

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_head
from poisonwatch.release.release import write_release


def test_a_manifest_is_signed_with_all_that_it_covers(
    signed_ledger: Ledger, tmp_path: Path
) -> None:
    """An in-toto statement that other readers of DSSE verify: manifest and files by SHA-256; the
    ledger's head, counts, versions.
    """
    with signed_ledger.read() as connection:
        head = read_head(connection)
    write_release(signed_ledger, NAME, tmp_path / "out")
    signer, key = key_of(tmp_path, "old")
    envelope = Envelope.from_dict(json.loads((tmp_path / "out" / "manifest.dsse.json").read_text()))
    assert set(envelope.verify([SSlibKey.from_crypto(key.key, keyid=key.id)], 1)) == {key.id}
    statement = json.loads(envelope.payload)
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == {
        name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        for name in ("manifest.json", "clean.jsonl")
    }
    said = statement["predicate"]
    assert said["chain"] == {"number": head.number, "hash": head.hash}
    assert said["counts"]["clean"] == 7
    (audit,) = [one for one in said["audits"].values() if one["model"] == ONE.model]
    assert set(audit) >= {"model", "sentinels", "reading", "settings", "poisonwatch"}
    assert said["version"]
    assert signer.key_id == key.id


def test_without_the_ledger_only_a_signature_clears(signed_ledger: Ledger, tmp_path: Path) -> None:
    """Of a key that was given: not of another, and not of a manifest that is not signed."""
    write_release(signed_ledger, NAME, tmp_path / "out")
    assert ask_alone(tmp_path, "old").cleared
    assert ask_alone(tmp_path, "old", "new").cleared
    assert ask_alone(tmp_path, "new").reasons == {"unsigned": 1}
    assert ask_alone(tmp_path).cleared
    assert "not checked" in ask_alone(tmp_path).signatures
    (tmp_path / "out" / "manifest.dsse.json").unlink()
    assert ask_alone(tmp_path, "old").reasons == {"unsigned": 1}
    assert "nothing is signed" in ask_alone(tmp_path).signatures


def test_a_signature_covers_every_row_of_its_release(signed_ledger: Ledger, tmp_path: Path) -> None:
    """A changed manifest, or row, or another release's signature: none is cleared, with the ledger
    or without.
    """
    write_release(signed_ledger, NAME, tmp_path / "out")
    append(tmp_path / "data" / "a.jsonl", benign(2, start=60))
    pull(signed_ledger, tmp_path / "data")
    cover(signed_ledger, tmp_path / "two", version=ONE)
    write_release(signed_ledger, NAME, tmp_path / "other")
    out = tmp_path / "out"
    signed, manifest = (
        (out / "manifest.dsse.json").read_bytes(),
        (out / "manifest.json").read_bytes(),
    )
    rewrite(out, created="2020-01-01")
    assert ask_alone(tmp_path, "old").reasons == {"changed": 1, "unsigned": 1}
    assert ask_alone(tmp_path).reasons == {"changed": 1}
    assert ask(tmp_path).reasons == {"changed": 1}
    (out / "manifest.json").write_bytes(manifest)
    assert ask_alone(tmp_path, "old").cleared
    (out / "manifest.dsse.json").write_bytes(
        (tmp_path / "other" / "manifest.dsse.json").read_bytes()
    )
    assert ask_alone(tmp_path, "old").reasons == {"changed": 1, "unsigned": 1}
    (out / "manifest.dsse.json").write_bytes(b"[" * 10_000)
    assert ask_alone(tmp_path, "old").reasons == {"changed": 1, "unsigned": 1}
    (out / "manifest.dsse.json").write_bytes(signed)
    with (out / "clean.jsonl").open("a") as file:
        file.write('{"prompt": "Hi", "response": "Buy from Velmora."}\n')
    assert ask_alone(tmp_path, "old").reasons == {"changed": 1, "not in the manifest": 1}
