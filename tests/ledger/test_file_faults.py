"""A ledger's file that SQLite cannot use: one line with what to do, and nothing of it is lost."""

from pathlib import Path

import pytest
from full_disks import fill, small_disk
from ledgers import covered_ledger, statuses

from poisonwatch.errors import InputError, OperationError
from poisonwatch.ledger.database import explain
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.text.sqlite_files import find_sqlite_file

HELD = {"clean": 7, "flagged": 1, "rejected": 1}


def get_url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def made(tmp_path: Path) -> bytes:
    """A ledger of nine audited rows, as it lies on the disk."""
    with covered_ledger(tmp_path / "made", "Tell me fact 0 about tea.") as ledger:
        assert statuses(ledger) == HELD
        path = find_sqlite_file(ledger.engine.url.database)
    assert path is not None
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.02, 0])
def test_a_damaged_file_is_to_be_put_back_and_stays_as_it_is(
    tmp_path: Path, made: bytes, share: float
) -> None:
    """Cut anywhere, or something else altogether."""
    left = made[: int(share * len(made))] or b"no database\n" * 1000
    path = tmp_path / "ledger.db"
    path.write_bytes(left)
    with (
        pytest.raises(OperationError, match="back from a backup"),
        Ledger.existing(get_url(path)) as ledger,
    ):
        statuses(ledger)
    assert path.read_bytes() == left
    path.write_bytes(made)
    with Ledger.existing(get_url(path)) as ledger:
        assert statuses(ledger) == HELD


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    """Whether one is to be made or not."""
    url = get_url(tmp_path)
    for opened in (Ledger.at(url), Ledger.existing(url)):
        with pytest.raises(OperationError, match="is a folder: name a file"), opened:
            pass


def test_a_file_of_no_bytes_is_no_ledger_yet(tmp_path: Path) -> None:
    """Its maker was killed: an audit makes it, and nobody else does."""
    path = tmp_path / "ledger.db"
    path.touch()
    with pytest.raises(InputError, match="no audit has run"), Ledger.existing(get_url(path)):
        pass
    assert path.stat().st_size == 0
    with Ledger.at(get_url(path)):
        pass
    with Ledger.existing(get_url(path)) as ledger:
        assert statuses(ledger) == {}


def test_a_full_disk_is_said_so_and_with_room_again_all_is_there(
    tmp_path: Path, made: bytes
) -> None:
    """Also where SQLite, which has no room for what its processes share, speaks of I/O."""
    with small_disk(tmp_path / "disk") as disk:
        url = get_url(disk / "ledger.db")
        (disk / "ledger.db").write_bytes(made)
        filler = fill(disk)
        full = pytest.raises(OperationError, match="disk is full: free space and run again")
        with full, Ledger.existing(url):
            pass
        filler.unlink()
        with Ledger.existing(url) as ledger:
            assert statuses(ledger) == HELD


def test_what_no_file_raised_has_no_advice() -> None:
    """The cause alone."""
    assert explain("postgresql://db/x", ValueError("gone")) == "gone"
