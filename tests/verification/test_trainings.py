"""A record of a training run is on the manifests that it says."""

from pathlib import Path

from gates import ask_manifest
from ledgers import NAME
from pairs import audited_pairs
from tampering import verify

from poisonwatch.ledger.records import append_record
from poisonwatch.release.release import write_release
from poisonwatch.release.trainings import TRAINING, record_training


def find_differences(ledger: object) -> list[str]:
    found = [difference.words for difference in verify(ledger).differences]  # type: ignore[arg-type]
    return [words for words in found if "run directory" not in words]


def test_a_run_that_names_other_manifests_than_it_is_on_is_named(tmp_path: Path) -> None:
    """Whoever writes such a record; one of the gate's is whole."""
    with audited_pairs(tmp_path) as ledger:
        write_release(ledger, NAME, tmp_path / "out")
        answer = ask_manifest(tmp_path / "out", ledger)
        record_training(ledger, "run-7", [tmp_path / "out" / "manifest.json"], answer)
        assert find_differences(ledger) == []
        said = {"training_run": "run-8", "manifests": ["a" * 64], "rows": 2, "cleared": True}
        with ledger.write() as connection:
            append_record(connection, TRAINING, "run-9", {"manifest": "b" * 64}, said, None)
        found = " ".join(find_differences(ledger))
        assert "manifests" in found
        assert "training run" in found
