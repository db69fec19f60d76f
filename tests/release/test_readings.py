"""A row is cleared for the tokens that it was audited as, and for no others."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audits import benign
from gates import ONE, TEA, ask_manifest, ask_rows, reasons
from ledgers import NAME, cover, covered_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.answer import RequiredVersions
from poisonwatch.release.gate import require_cleared
from poisonwatch.release.known_rows import KnownRows
from poisonwatch.release.release import write_release

OWN, OTHER = "1" * 64, "2" * 64
REASON = "another tokenizer or template"
NOW = RequiredVersions(ONE.model, ONE.sentinels, OWN, reads_as_before=True)
SET = replace(NOW, reading=OTHER, reads_as_before=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows that were audited when no reading was recorded: tea is flagged, seven are clean."""
    with covered_ledger(tmp_path, TEA) as opened:
        cover(opened, tmp_path / "one", [TEA], version=ONE)
        yield opened


def ask(ledger: Ledger, folder: Path, required: RequiredVersions) -> dict[str, int]:
    return ask_rows(ledger, folder / "asked", benign(4), required).reasons


def test_a_row_that_was_read_otherwise_is_not_cleared(ledger: Ledger, tmp_path: Path) -> None:
    """In words of its own, with the ledger and by the manifest alone; flagged rows stay flagged,
    another model's audit is another version's.
    """
    version = replace(ONE, reading=OWN)
    cover(ledger, tmp_path / "two", [TEA], version=version, again=True)
    write_release(ledger, NAME, tmp_path / "out")
    assert ask(ledger, tmp_path, NOW) == {"flagged": 1}
    assert ask(ledger, tmp_path, SET) == {"flagged": 1, REASON: 3}
    another = replace(NOW, model="c" * 64)
    assert ask(ledger, tmp_path, another) == {"flagged": 1, "another version": 3}
    for known in (None, ledger):
        assert reasons(tmp_path / "out", known, NOW) == {}
        assert reasons(tmp_path / "out", known, replace(NOW, reading=OWN[:8])) == {}
        assert reasons(tmp_path / "out", known, SET) == {REASON: 7}
    assert ask_manifest(tmp_path / "out", ledger, NOW).record()["reading"] == OWN


def test_what_was_cleared_before_readings_stays_so_where_no_setting_shapes_them(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Before the first audit of this version as after it, which takes the old results over; a
    setting makes other tokens than there ever were.
    """
    write_release(ledger, NAME, tmp_path / "before")
    for name in ("two", "three"):
        assert ask(ledger, tmp_path, NOW) == {"flagged": 1}
        assert ask(ledger, tmp_path, SET) == {"flagged": 1, REASON: 3}
        assert reasons(tmp_path / "before", ledger, NOW) == {}
        assert reasons(tmp_path / "before", ledger, SET) == {REASON: 7}
        version = replace(ONE, reading=OWN, reads_as_before=True)
        assert len(cover(ledger, tmp_path / name, version=version)) == 0
    # It is one reading now, and no other is taken for it.
    later = replace(NOW, reading="3" * 64)
    assert ask(ledger, tmp_path, later) == {"flagged": 1, REASON: 3}


def test_of_several_readings_one_is_asked_for(ledger: Ledger, tmp_path: Path) -> None:
    """A model's version without a reading is of any, where there is one."""
    asked = replace(NOW, reading=None)
    cover(ledger, tmp_path / "two", version=replace(ONE, reading=OWN, reads_as_before=True))
    assert ask(ledger, tmp_path, asked) == {"flagged": 1}
    assert "reading" not in KnownRows(ledger, asked).required.record()
    cover(ledger, tmp_path / "three", version=replace(ONE, reading=OTHER), again=True)
    with pytest.raises(
        InputError, match=r"differ in the reading \(1{12}, 2{12}\), give its digits"
    ):
        KnownRows(ledger, asked)
    with pytest.raises(InputError, match="'x' is no reading version"):
        require_cleared([tmp_path / "asked"], reading_version="x")
