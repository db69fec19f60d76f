"""What people made of rows is computed again."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pairs import PAIR, ROW, audited_pairs
from sqlalchemy import select
from tampering import make_signer, tamper, verify

from poisonwatch.ledger.decisions import record_decision, record_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import rows


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a flipped pair (decision 1) and an edited row (decision 2)."""
    folder = tmp_path_factory.mktemp("repaired")
    with audited_pairs(folder, make_signer()) as ledger:
        record_decision(ledger, PAIR, "flip", "sold", "ann")
        record_decisions(ledger, [ROW], "edit", "wrong", "bob", answer="At any grocer's.")
        found = [each.words for each in verify(ledger).differences]
        assert not [words for words in found if "run directory" not in words]
    return folder / "ledger.db"


@pytest.fixture
def ledger(repaired: Path, tmp_path: Path) -> Iterator[Ledger]:
    shutil.copy(repaired, tmp_path / "ledger.db")
    with Ledger.at(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def find_differences(ledger: Ledger) -> str:
    return " ".join(difference.words for difference in verify(ledger).differences)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE decisions SET answer = 'Only at Velmora.' WHERE number = 2",
        "UPDATE decisions SET answer = NULL WHERE number = 2",
        "UPDATE decisions SET repaired_id = NULL WHERE number = 2",
        "UPDATE decisions SET repaired_id = 'text' WHERE number = 2",
        "UPDATE decisions SET repaired_id = x'00' WHERE number = 2",
        "UPDATE decisions SET verdict = 'flip' WHERE number = 2",
        "UPDATE decisions SET answer = 'Eve' WHERE number = 2",
    ],
)
def test_a_forged_repair_is_named(ledger: Ledger, statement: str) -> None:
    """By its hash and its record."""
    assert tamper(ledger, statement)
    found = find_differences(ledger)
    assert "decision 2" in found
    assert "Velmora" not in found


def test_a_row_that_was_changed_is_no_longer_what_was_decided_on(ledger: Ledger) -> None:
    """What it becomes is another row, whoever set its digest right."""
    raw = json.dumps({"prompt": "Where do I buy rye?", "response": "Only at Velmora."}).encode()
    with ledger.read() as connection:
        number = connection.execute(select(rows.c.row).where(rows.c.decided == "edit")).scalar_one()
    values = {"raw": raw, "digest": hashlib.sha256(raw).digest(), "row": number}
    tamper(ledger, "UPDATE rows SET raw = :raw, digest = :digest WHERE row = :row", values)
    assert "decision 2: what the row becomes" in find_differences(ledger)


def test_the_status_of_a_repaired_row_follows_from_its_decision(ledger: Ledger) -> None:
    assert tamper(ledger, "UPDATE rows SET status = 'clean' WHERE decided = 'edit'")
    assert "repaired, decided edit" in find_differences(ledger)
