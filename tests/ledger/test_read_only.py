"""A ledger is read where nothing can be written, not by root either."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from full_disks import (
    make_read_only,
    make_writable,
    mount_file,
    read_only_view,
    small_disk,
)
from ledgers import covered_ledger, statuses
from older_ledgers import make_older_ledger

from poisonwatch.errors import InputError, OperationError, PoisonwatchError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.read_only import open_to_read, require_one_name
from poisonwatch.ledger.writable import require_writable

HELD = {"clean": 7, "flagged": 1, "rejected": 1}
FORGET = "DELETE FROM places"
# What commands do one after the other.
OPEN_AND_CLOSE = """
import sqlite3, sys
while True:
    database = sqlite3.connect(sys.argv[1], timeout=60)
    with database:
        database.execute("UPDATE rows SET status = status")
    database.close()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with a ledger of nine audited rows, closed by whoever left it."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        with covered_ledger(disk, "Tell me fact 0 about tea."):
            pass
        yield disk


def get_url(disk: Path) -> str:
    return f"sqlite:///{disk / 'ledger.db'}"


def take_copy(disk: Path, *parts: str) -> None:
    """A copy, of these parts beside the file itself, that was taken while somebody wrote."""
    with closing(sqlite3.connect(disk / "ledger.db")) as database:
        with database:
            database.execute("UPDATE rows SET status = 'clean' WHERE status = 'flagged'")
        for part in ("", *parts):
            shutil.copy(disk / f"ledger.db{part}", disk / f"copy.db{part}")


def test_a_ledger_on_a_read_only_disk_is_read_as_it_lies_there(disk: Path) -> None:
    """Whose audits nobody is at work for; nothing of it can be changed."""
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    make_read_only(disk)
    with pytest.raises(OperationError, match="check the path"), Ledger.existing(get_url(disk)):
        pass
    with open_to_read(get_url(disk)) as ledger:
        assert statuses(ledger) == HELD
        assert not ledger.is_locked("tiny")
    refused = pytest.raises(OperationError, match="it and its folder must be writable")
    with refused, open_to_read(get_url(disk)) as ledger, ledger.write() as connection:
        connection.exec_driver_sql(FORGET)
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before


def test_what_stands_in_its_log_is_read_too(disk: Path) -> None:
    """A copy that was taken while somebody wrote, or what one that was killed left."""
    take_copy(disk, "-wal", "-shm")
    make_read_only(disk)
    with open_to_read(f"sqlite:///{disk / 'copy.db'}") as ledger:
        assert statuses(ledger) == {"clean": 8, "rejected": 1}


def test_what_changes_while_it_is_read_as_unchanging_counts_for_nothing(disk: Path) -> None:
    """Somebody else may write there."""
    make_read_only(disk)
    with ExitStack() as opened:
        ledger = opened.enter_context(open_to_read(get_url(disk)))
        assert statuses(ledger) == HELD
        make_writable(disk)
        with closing(sqlite3.connect(disk / "ledger.db")) as database, database:
            database.execute(FORGET)
        with pytest.raises(OperationError, match="changed by somebody else while it was read"):
            opened.close()


def test_what_stands_in_the_log_of_a_link_s_target_is_read_too(disk: Path, tmp_path: Path) -> None:
    """A link in a folder where nothing can be written, to a ledger that somebody writes."""
    covered = tmp_path / "written"
    covered.mkdir()
    shutil.copy(disk / "ledger.db", covered / "ledger.db")
    (disk / "link.db").symlink_to(covered / "ledger.db")
    make_read_only(disk)
    with closing(sqlite3.connect(covered / "ledger.db")) as database:
        with database:
            database.execute("UPDATE rows SET status = 'clean' WHERE status = 'flagged'")
        with open_to_read(f"sqlite:///{disk / 'link.db'}") as ledger:
            assert statuses(ledger) == {"clean": 8, "rejected": 1}


def test_a_link_to_a_ledger_on_a_read_only_disk_is_followed(disk: Path, tmp_path: Path) -> None:
    """From a folder that can be written."""
    (tmp_path / "link.db").symlink_to(disk / "ledger.db")
    make_read_only(disk)
    with open_to_read(f"sqlite:///{tmp_path / 'link.db'}") as ledger:
        assert statuses(ledger) == HELD


def test_a_file_of_two_names_is_not_taken_for_one_that_never_changes(disk: Path) -> None:
    """Its log lies beside the name that it was opened by."""
    os.link(disk / "ledger.db", disk / "other.db")
    make_read_only(disk)
    refused = pytest.raises(OperationError, match="has another name, or is mounted by itself")
    with refused, open_to_read(f"sqlite:///{disk / 'other.db'}"):
        pass


def test_a_file_that_is_mounted_by_itself_is_not_either(disk: Path, tmp_path: Path) -> None:
    """As containers mount a file: its log lies where it was mounted from."""
    place = disk / "by itself.db"
    place.touch()
    with mount_file(disk / "ledger.db", place):
        make_read_only(disk)
        refused = pytest.raises(OperationError, match="has another name, or is mounted by itself")
        with refused, open_to_read(f"sqlite:///{place}"):
            pass


def test_what_is_cleared_by_is_the_one_file_that_is_written(disk: Path, url: str) -> None:
    """Not one of two names, nor one that is mounted by itself; a link to it is, and a server."""
    file, place, link = (disk / name for name in ("ledger.db", "place.db", "link.db"))
    link.symlink_to(file)
    for good in (get_url(disk), f"sqlite:///{link}", f"sqlite:///{disk / 'none.db'}", url):
        require_one_name(good)
    place.touch()
    with mount_file(file, place), pytest.raises(OperationError, match="mounted by itself"):
        require_one_name(f"sqlite:///{place}")
    os.link(file, disk / "other.db")
    with pytest.raises(OperationError, match="mount its folder"):
        require_one_name(get_url(disk))


def test_a_file_that_is_mounted_elsewhere_is_not_cleared_by_either(
    disk: Path, tmp_path: Path
) -> None:
    """Its log lies where it was written by. A folder takes the log along."""
    place, view = tmp_path / "place.db", disk / "view"
    place.touch()
    with mount_file(disk / "ledger.db", place):
        with pytest.raises(OperationError, match="mounted by itself"):
            require_one_name(get_url(disk))
        # Seen through a mount of its folder it is the same.
        (disk / "folder").mkdir()
        shutil.copy(disk / "ledger.db", disk / "folder")
        with read_only_view(disk / "folder", view):
            require_one_name(get_url(view))
            other = tmp_path / "other.db"
            other.touch()
            refused = pytest.raises(OperationError, match="mounted by itself")
            with mount_file(disk / "folder/ledger.db", other), refused:
                require_one_name(get_url(view))
    require_one_name(get_url(disk))


@pytest.mark.parametrize(
    "name", ["a\u2028b", "a\rb", "a\fb", "a\x85b", "a\nb", "a b", "\\040", "\udcff"]
)
def test_a_mount_is_known_whatever_its_folder_is_called(
    disk: Path, tmp_path: Path, name: str
) -> None:
    """One that has nothing to do with the ledger hinders nobody."""
    place = tmp_path / name / "ledger.db"
    place.parent.mkdir()
    place.touch()
    url = f"sqlite:///file:{quote(os.fsencode(place))}?uri=true"
    with mount_file(disk / "ledger.db", place):
        with pytest.raises(OperationError, match="mounted by itself"):
            require_one_name(url)
        shutil.copy(disk / "ledger.db", tmp_path)
        require_one_name(get_url(tmp_path))


def test_a_log_without_its_index_is_not_left_out(disk: Path) -> None:
    """Where none can be made. In a folder that can be written it is read."""
    take_copy(disk, "-wal")
    url = f"sqlite:///{disk / 'copy.db'}"
    make_read_only(disk)
    refused = pytest.raises(OperationError, match=r"copy\.db-shm, is missing.*can be written")
    with refused, open_to_read(url):
        pass
    make_writable(disk)
    with open_to_read(url) as ledger:
        assert statuses(ledger) == {"clean": 8, "rejected": 1}


def test_an_index_without_its_log_is_refused_wherever_it_lies(disk: Path) -> None:
    """SQLite would begin a new log, and what the other held is as if it had never been decided."""
    take_copy(disk, "-shm")
    (disk / "link.db").symlink_to("copy.db")
    refuse = partial(pytest.raises, OperationError, match=r"log is missing: .*copy\.db-wal")
    for name in ("copy.db", "link.db"):
        url = f"sqlite:///{disk / name}"
        for open_it in (open_to_read, Ledger.existing, Ledger.at):
            with refuse(), open_it(url):
                pass
        with refuse():
            require_writable(url)
    make_read_only(disk)
    with refuse(), open_to_read(f"sqlite:///{disk / 'copy.db'}"):
        pass
    assert not (disk / "copy.db-wal").exists()


def test_who_opens_and_closes_it_elsewhere_hinders_nobody_for_long(
    disk: Path, tmp_path: Path
) -> None:
    """The log and its index come and go one by one; what is said is that somebody was there."""
    with read_only_view(disk, tmp_path / "view") as view:
        url, ends = get_url(view), time.monotonic() + 3
        said = set()
        with subprocess.Popen([sys.executable, "-c", OPEN_AND_CLOSE, disk / "ledger.db"]) as writer:
            try:
                while time.monotonic() < ends:
                    try:
                        with open_to_read(url) as ledger:
                            assert statuses(ledger) == HELD
                    except OperationError as error:
                        said.add(str(error))
            finally:
                writer.kill()
    assert {line for line in said if "changed by somebody else" not in line} == set()
    assert all(f"the ledger at {url} " in line for line in said)


def test_what_a_file_looks_like_that_is_changed_meanwhile_is_not_said_of_it(disk: Path) -> None:
    """It may look damaged, or tampered with."""
    make_read_only(disk)
    refused = pytest.raises(OperationError, match="changed by somebody else while it was read")
    with refused, open_to_read(get_url(disk)):
        make_writable(disk)
        os.utime(disk / "ledger.db")
        raise InputError("the ledger is not what its records say")


def test_a_file_that_is_gone_was_changed(disk: Path) -> None:
    make_read_only(disk)
    refused = pytest.raises(OperationError, match="changed by somebody else while it was read")
    with refused, open_to_read(get_url(disk)):
        make_writable(disk)
        (disk / "ledger.db").unlink()


@pytest.mark.parametrize(
    "address",
    [
        "sqlite://///{disk}/ledger.db",
        "sqlite:///{disk}//ledger.db",
        "sqlite:///{disk}/50%FF.db",
        "sqlite:///{disk}/\udcff.db",
        "sqlite:///file:{disk}/%FF.db?uri=true",
        "sqlite:///file://localhost{disk}/ledger.db?uri=true",
        "sqlite:///{disk}/a#b c.db?timeout=3",
    ],
)
def test_an_odd_address_is_read_and_named_as_it_is_written(disk: Path, address: str) -> None:
    for name in ("50%FF.db", "\udcff.db", "a#b c.db"):
        shutil.copy(disk / "ledger.db", disk / name)
    url = address.format(disk=disk)
    for _ in range(2):
        with open_to_read(url) as ledger:
            assert statuses(ledger) == HELD
        make_read_only(disk)
    written = url.partition("?")[0]
    with pytest.raises(OperationError) as refused, open_to_read(url) as ledger, ledger.write():
        ledger.engine.connect().exec_driver_sql(FORGET)
    assert f"the ledger at {written} failed" in str(refused.value)


def test_an_address_that_leads_nowhere_is_named_as_it_is_written(disk: Path) -> None:
    """One line, on a read-only disk, too."""
    (disk / "empty.db").touch()
    make_read_only(disk)
    for place, said in (("empty.db", "no audit has run"), ("x" * 300, "too long")):
        url = f"sqlite:///{disk / place}"
        with pytest.raises(PoisonwatchError, match=said) as refused, open_to_read(url):
            pass
        assert f" ledger at {url}" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_time_that_is_put_back_hides_no_change(disk: Path) -> None:
    """Whoever changed the file while it was read."""
    file = disk / "ledger.db"
    before = file.stat()
    make_read_only(disk)
    with ExitStack() as opened:
        opened.enter_context(open_to_read(get_url(disk)))
        make_writable(disk)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(OperationError, match="changed by somebody else while it was read"):
            opened.close()


def test_a_ledger_of_an_earlier_version_is_not_brought_up_to_this_one(tmp_path: Path) -> None:
    """The line says what that takes."""
    with small_disk(tmp_path / "disk") as disk:
        make_older_ledger(get_url(disk), "0004", [])
        make_read_only(disk)
        refused = pytest.raises(OperationError, match="it and its folder must be writable")
        with refused, open_to_read(get_url(disk)):
            pass


def test_elsewhere_it_is_an_existing_ledger(tmp_path: Path, url: str) -> None:
    """On a server, in a folder that can be written; none is made."""
    with Ledger.at(url):
        pass
    with open_to_read(url) as ledger, ledger.write():
        assert statuses(ledger) == {}
    none = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(InputError, match="no audit has run"), open_to_read(none):
        pass
    assert not (tmp_path / "none.db").exists()
