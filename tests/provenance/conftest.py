"""One release, with a flipped pair, which a training run named."""

import pytest
from gates import ask_manifest
from ledgers import NAME
from pairs import PAIR, audited_pairs

from poisonwatch.ledger.decisions import record_decision
from poisonwatch.provenance.subject import Subject, read_subject
from poisonwatch.release.release import write_release
from poisonwatch.release.trainings import record_training


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("provenance")
    manifest = folder / "out" / "manifest.json"
    with audited_pairs(folder) as ledger:
        record_decision(ledger, PAIR, "flip", "sold", "<b>ann</b>")
        write_release(ledger, NAME, folder / "out")
        record_training(ledger, "run-7", [manifest], ask_manifest(folder / "out", ledger))
        return read_subject(ledger, NAME, manifest)
