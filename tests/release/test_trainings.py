"""Training runs that name what they train on: on record, in the chain."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gates import ask_manifest
from ledgers import NAME
from pairs import audited_pairs

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import read_head
from poisonwatch.release.manifest import hash_file
from poisonwatch.release.release import write_release
from poisonwatch.release.trainings import check_run, read_trainings, record_training


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with audited_pairs(tmp_path) as opened:
        write_release(opened, NAME, tmp_path / "out")
        yield opened


def test_a_run_is_on_record_with_what_it_named_and_the_answer(
    ledger: Ledger, tmp_path: Path
) -> None:
    """A run that was refused, too; one that asks again comes again."""
    manifest = tmp_path / "out" / "manifest.json"
    answer = ask_manifest(tmp_path / "out", ledger)
    record_training(ledger, "run-7", [manifest, manifest], answer)
    record_training(ledger, "run-7", [manifest], replace(answer, rows=0))
    with ledger.read() as connection:
        first, second = read_trainings(connection)
        assert second.record == read_head(connection).number
    assert (first.run, first.manifests) == ("run-7", (hash_file(manifest),))
    assert (first.rows, first.cleared, second.cleared) == (2, True, False)


@pytest.mark.parametrize("run", ["", "  ", "a\nb", "\x1b[2J", "x" * 201, "a\u202eb"])
def test_what_names_no_run_is_refused(run: str) -> None:
    with pytest.raises(InputError, match="one line"):
        check_run(run)


def test_ids_of_runs_are_taken_as_they_are() -> None:
    assert check_run(" wandb://team/run 7 <b> ") == "wandb://team/run 7 <b>"
