"""The release that documents are about is the one that was written."""

from pathlib import Path

import pytest
from ledgers import NAME
from pairs import audited_pairs

from poisonwatch.errors import InputError
from poisonwatch.provenance.subject import Subject, read_subject
from poisonwatch.release.release import write_release


def test_a_release_is_read_with_its_lineage(subject: Subject) -> None:
    assert (subject.name, subject.rows, subject.counts["repaired"]) == (NAME, 3, 1)
    assert [step.name for step in subject.lineage.list("training run")] == ["run-7"]


def test_files_that_are_not_what_the_manifest_says_have_no_documents(tmp_path: Path) -> None:
    """Whoever reads the documents would take them for these files."""
    with audited_pairs(tmp_path) as ledger:
        write_release(ledger, NAME, tmp_path / "out")
        (tmp_path / "out" / "clean.jsonl").write_text("{}\n")
        with pytest.raises(InputError, match="not what it says"):
            read_subject(ledger, NAME, tmp_path / "out" / "manifest.json")
