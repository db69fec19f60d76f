"""A ledger after an audit, and its release."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gates import ONE, TEA
from ledgers import NAME, cover, covered_ledger
from signed_releases import write_settings
from signing import make_signer

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.release import write_release


@pytest.fixture
def cleared_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows audited under ONE: tea is flagged, a broken line rejected, the others are clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        cover(opened, tmp_path / "one", [TEA], version=ONE)
        yield opened


@pytest.fixture
def out(cleared_ledger: Ledger, tmp_path: Path) -> Path:
    """A release of the seven clean rows."""
    write_release(cleared_ledger, NAME, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def signed_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The same, beside an audit file, audited under ONE by who signs with `old`; there is a key
    `new`, too.
    """
    signer, _ = make_signer(tmp_path / "old")
    make_signer(tmp_path / "new")
    write_settings(tmp_path)
    with covered_ledger(tmp_path, TEA, signer) as opened:
        cover(opened, tmp_path / "one", [TEA], version=ONE)
        yield opened
