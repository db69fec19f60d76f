"""What holds rows is for its owner alone, but for those who share it on purpose."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from poisonwatch.errors import ConfigError
from poisonwatch.permissions import (
    UMASK_VARIABLE,
    make_private_file,
    make_private_folder,
    read_umask,
    restrict_file,
    restrict_folder,
    restrict_process,
)


@pytest.fixture(autouse=True)
def open_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose files everybody may read, as most are."""
    monkeypatch.delenv(UMASK_VARIABLE, raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


def get_rights(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:03o}"


def test_new_folders_and_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Those above them, too, where they are made with them."""
    make_private_folder(tmp_path / "a" / "b")
    make_private_file(tmp_path / "a" / "b" / "ledger.db")
    assert get_rights(tmp_path / "a") == get_rights(tmp_path / "a" / "b") == "700"
    assert get_rights(tmp_path / "a" / "b" / "ledger.db") == "600"


def test_what_is_there_keeps_its_rights_and_content(tmp_path: Path) -> None:
    """Whoever made a folder shares it; a ledger that is there is not emptied."""
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "shared" / "ledger.db").write_text("rows")
    make_private_folder(tmp_path / "shared")
    make_private_file(tmp_path / "shared" / "ledger.db")
    assert get_rights(tmp_path / "shared") == "755"
    assert (tmp_path / "shared" / "ledger.db").read_text() == "rows"
    assert get_rights(tmp_path / "shared" / "ledger.db") == "644"


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("umask", "folder", "file"), [("007", "770", "660"), ("027", "750", "640")]
)
def test_a_group_may_share_them(
    umask: str, folder: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the process's own umask takes."""
    monkeypatch.setenv(UMASK_VARIABLE, umask)
    make_private_folder(tmp_path / "new")
    make_private_file(tmp_path / "new" / "file")
    assert (get_rights(tmp_path / "new"), get_rights(tmp_path / "new" / "file")) == (folder, file)


def test_what_was_written_openly_is_closed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    restrict_file(tmp_path / "folder" / "file")
    restrict_folder(tmp_path / "folder")
    assert get_rights(tmp_path / "folder") == "700"
    assert get_rights(tmp_path / "folder" / "file") == "600"


def test_a_process_writes_for_its_owner_alone(tmp_path: Path) -> None:
    """Whichever library writes."""
    restrict_process()
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    assert (get_rights(tmp_path / "file"), get_rights(tmp_path / "folder")) == ("600", "700")


@pytest.mark.parametrize(
    "umask", ["o77", "7", "0o77", "777", "700", "-07", "0000077", "077\n", "٠٧٧"]
)
def test_what_is_no_umask_is_refused(umask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the owner's own rights, too."""
    monkeypatch.setenv(UMASK_VARIABLE, umask)
    with pytest.raises(ConfigError, match=UMASK_VARIABLE):
        read_umask()
