"""A ledger with something in every table, each record signed, and copies of it to tamper with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tampering import fill_busily, make_signer

from poisonwatch.attestation.signer import KeySigner
from poisonwatch.ledger.ledger import Ledger


@pytest.fixture(scope="session")
def signer() -> KeySigner:
    return make_signer()


@pytest.fixture(scope="session")
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
