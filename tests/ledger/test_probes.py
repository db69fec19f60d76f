"""What a checkpoint answered, in the chain of records."""

from pathlib import Path

import pytest
from audits import benign
from ledgers import covered_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import record_probe, require_release
from poisonwatch.ledger.records import ChainHead, read_records
from poisonwatch.release.manifest import load_manifest
from poisonwatch.release.release import write_release


def record(ledger: Ledger, release: str | None) -> ChainHead:
    return record_probe(
        ledger,
        "a-probe",
        name="tiny",
        checkpoint="c" * 64,
        model="m" * 64,
        sentinels="s" * 64,
        release=release,
        asked=[],
    )


def test_a_probe_is_of_a_release_that_the_ledger_wrote(tmp_path: Path) -> None:
    """No other manifest is taken, and nothing is recorded of it."""
    with covered_ledger(tmp_path, flagged=benign(5)[1]["prompt"]) as ledger:
        write_release(ledger, "tiny", tmp_path / "cleared")
        _, digest = load_manifest(tmp_path / "cleared" / "manifest.json")
        require_release(ledger, digest)
        head = record(ledger, digest)
        assert ledger.read_head() == head
        with pytest.raises(InputError, match="no release"):
            record(ledger, "0" * 64)
        with pytest.raises(InputError, match="no release"):
            require_release(ledger, "0" * 64)
        with ledger.read() as connection:
            (found,) = read_records(connection, "probe")
    assert (found.number, found.statement.predicate["release"]) == (head.number, digest)
