"""A ledger whose audit is signed, and what the gate says of its releases, by which keys."""

from pathlib import Path
from typing import Any

import yaml
from gates import ONE
from ledgers import NAME

from poisonwatch.attestation.keys import PublicKey, read_private_key, read_public_key
from poisonwatch.attestation.signer import KeySigner
from poisonwatch.release.answer import GateAnswer
from poisonwatch.release.gate import check_cleared

VERSIONS = ONE.model, ONE.sentinels


def write_settings(folder: Path, state: str = "sqlite:///ledger.db", **more: Any) -> None:
    """An audit file, whose model does not exist."""
    settings = {
        "name": NAME,
        "source": "data/*.jsonl",
        "sentinels": "pack:identity",
        "model": "./none",
        "state": state,
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(settings | more))


def public(folder: Path, *names: str) -> list[Path]:
    return [folder / name / "poisonwatch.pub" for name in names]


def key_of(folder: Path, name: str) -> tuple[KeySigner, PublicKey]:
    """What signs with a key of a folder, and its public part."""
    signer = KeySigner(read_private_key(folder / name / "poisonwatch.key"))
    return signer, read_public_key(folder / name / "poisonwatch.pub")


def ask(folder: Path, *keys: str, place: str = "out", **more: Any) -> GateAnswer:
    """What the gate says of a release, by the ledger, where these keys count."""
    path = folder / place / "manifest.json"
    config = folder / "audit.yaml"
    return check_cleared([path], config, *VERSIONS, keys=public(folder, *keys), **more)


def ask_alone(folder: Path, *keys: str) -> GateAnswer:
    """What it says without a ledger."""
    return check_cleared([folder / "out" / "manifest.json"], keys=public(folder, *keys))
