"""Whether a ledger can be written into is known without making or changing one."""

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from full_disks import make_read_only, small_disk
from ledgers import sqlite_ledger
from postgres_faults import connect
from servers import postgres_server
from sqlalchemy import text

from poisonwatch.errors import ConfigError, OperationError, PoisonwatchError
from poisonwatch.ledger.database import VERSION_TABLE
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.writable import require_writable


def list_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(url: str) -> PoisonwatchError:
    """What it says; opening the ledger and writing into it fails in the same way."""
    with pytest.raises(PoisonwatchError) as asked:
        require_writable(url)
    failed = pytest.raises(PoisonwatchError)
    with failed as opened, Ledger.at(url) as ledger, ledger.write() as connection:
        connection.exec_driver_sql("CREATE TABLE trial (n INTEGER)")
    assert type(asked.value) is type(opened.value)
    return asked.value


def test_one_that_can_be_written_stays_as_it_is(tmp_path: Path) -> None:
    """Whether it is there, is to be made below folders that are to be made, or is in memory."""
    with sqlite_ledger(tmp_path):
        pass
    before = list_files(tmp_path)
    require_writable(f"sqlite:///{tmp_path / 'ledger.db'}")
    require_writable(f"sqlite:///{tmp_path / 'to' / 'be' / 'made.db'}")
    require_writable("sqlite://")
    assert list_files(tmp_path) == before


def test_who_writes_at_this_moment_shows_that_it_can_be(tmp_path: Path) -> None:
    with sqlite_ledger(tmp_path) as ledger, ledger.write():
        require_writable(ledger.url)


def test_who_has_it_alone_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever opens or closes it has; not who keeps it, as opening it does not either."""
    with sqlite_ledger(tmp_path):
        pass
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    holder = sqlite3.connect(tmp_path / "ledger.db", check_same_thread=False)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    closing = threading.Timer(0.5, holder.close)
    closing.start()
    require_writable(url)
    closing.join()
    monkeypatch.setattr("poisonwatch.ledger.writable.PATIENCE_S", 0.1)
    with sqlite3.connect(tmp_path / "ledger.db") as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationError, match="another process has it"):
            require_writable(url)
    holder.close()


def test_a_place_where_none_can_be_is_refused_as_opening_it_is(tmp_path: Path) -> None:
    """Below a file, on a folder, in something else, or behind a link that leads nowhere."""
    (tmp_path / "file").write_bytes(b"no database\n" * 1000)
    assert "Not a directory" in str(refusal(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}"))
    assert "is a folder" in str(refusal(f"sqlite:///{tmp_path}"))
    assert "is no ledger" in str(refusal(f"sqlite:///{tmp_path / 'file'}"))
    (tmp_path / "link.db").symlink_to(tmp_path / "not mounted" / "ledger.db")
    refusal(f"sqlite:///{tmp_path / 'link.db'}")
    with sqlite_ledger(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database.close()
    newer = refusal(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert isinstance(newer, ConfigError)
    assert "newer version" in str(newer)


# The last is more files than a process may have open.
@pytest.mark.parametrize(
    "place", ["/proc/ledger.db", "/proc/self/to/be/made.db", "/dev/fd/99999999"]
)
def test_where_rights_say_that_a_file_can_be_made_and_none_can_it_is_refused(place: str) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    said = str(refusal(f"sqlite:///{place}"))
    assert "cannot be used" in said
    assert f"no file can be made in '{Path(place).parent}': " in said or "to/be" in place


def test_a_device_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    """Nothing is left beside them, and none is waited for."""
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "link's target")
    (tmp_path / "link").symlink_to("link's target")
    before = sorted(Path("/dev").iterdir())
    for place in ("/dev/null", "/dev/full", tmp_path / "pipe", tmp_path / "link"):
        said = str(refusal(f"sqlite:///{place}"))
        assert "name a file in `state`" in said
        assert str(place) in said
    assert sorted(Path("/dev").iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "link's target", "pipe"]


@pytest.mark.parametrize(
    "place", ["x" * 300, "nul\0.db", "file:nul%00.db?uri=true", "a.db?uri=maybe", "a.db?timeout=x"]
)
def test_an_address_that_is_none_is_refused_in_one_line(tmp_path: Path, place: str) -> None:
    """A name that is too long, a null character, an option that is no number."""
    prefix = "" if place.startswith("file:") else f"{tmp_path}/"
    said = refusal(f"sqlite:///{prefix}{place}")
    assert "\n" not in str(said)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_read_only_is_refused_with_a_ledger_and_without(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        with sqlite_ledger(disk / "made"):
            pass
        make_read_only(disk)
        assert "permissions" in str(refusal(f"sqlite:///{disk / 'made' / 'ledger.db'}"))
        refusal(f"sqlite:///{disk / 'new' / 'ledger.db'}")


def test_a_server_that_cannot_be_reached_or_written_is_refused() -> None:
    """As a standby is."""
    assert "cannot be used" in str(refusal("postgresql://nobody@127.0.0.1:9/ledger"))
    with postgres_server() as url:
        require_writable(url)
        with connect(url) as connection:
            assert connection.execute(text("SELECT count(*) FROM pg_tables")).scalar_one() > 0
        mark = "&" if "?" in url else "?"
        only = f"{url}{mark}options=-c%20default_transaction_read_only%3Don"
        with pytest.raises(OperationError, match="read-only, as its server is"):
            require_writable(only)
