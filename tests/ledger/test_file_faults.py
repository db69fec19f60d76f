"""A ledger's file that SQLite cannot use: one line with what to do, and nothing of it is lost."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from full_disks import fill, read_only_file, small_disk
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


@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
def test_a_damaged_file_is_to_be_put_back_and_stays_as_it_is(
    tmp_path: Path, made: bytes, share: float
) -> None:
    """Cut anywhere."""
    left = made[: int(share * len(made))]
    path = tmp_path / "ledger.db"
    path.write_bytes(left)
    with (
        pytest.raises(OperationError, match="is damaged: put it back from a backup"),
        Ledger.existing(get_url(path)) as ledger,
    ):
        statuses(ledger)
    assert path.read_bytes() == left
    path.write_bytes(made)
    with Ledger.existing(get_url(path)) as ledger:
        assert statuses(ledger) == HELD


def test_another_file_is_no_ledger_and_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"no database\n" * 1000)
    for enter in (Ledger.at, Ledger.existing):
        with (
            pytest.raises(OperationError, match="no ledger: name another file in `state`") as said,
            enter(get_url(path)),
        ):
            pass
        assert "damaged" not in str(said.value)
    assert path.read_bytes() == b"no database\n" * 1000


@pytest.mark.parametrize(
    ("parts", "content", "said"),
    [
        (["-wal", "-shm"], b"", "l.db-wal and l.db-shm beside it .* remove l.db-wal and l.db-shm"),
        (["-wal"], b"", "l.db-wal beside it .* remove l.db-wal and l.db-shm once nobody has"),
        (["-shm"], b"", "l.db-shm beside it .* remove l.db-shm once nobody has"),
        (["-wal"], b"x" * 32, "l.db-wal beside it .* keep it, which may hold what was decided"),
    ],
)
def test_the_part_of_a_log_that_cannot_be_written_is_named(
    tmp_path: Path, made: bytes, parts: list[str], content: bytes, said: str
) -> None:
    """As another user leaves it who read the ledger. A log with something in it is to be kept."""
    with small_disk(tmp_path / "disk", "8m") as disk, ExitStack() as fixed:
        (disk / "l.db").write_bytes(made)
        (disk / "l.db-wal").write_bytes(content)
        (disk / "l.db-shm").touch()
        for part in parts:
            fixed.enter_context(read_only_file(disk / f"l.db{part}"))
        refused = pytest.raises(OperationError, match=said)
        with refused, Ledger.existing(get_url(disk / "l.db")) as ledger:
            ledger.set_audit_state(1, "finished")


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
