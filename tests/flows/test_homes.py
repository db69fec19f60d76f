"""Where no home can be written, other libraries write with temporary files."""

import os
import tempfile
from pathlib import Path

import pytest

from poisonwatch.flows.homes import HOMES, find_homes


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, and an environment in which nobody set a home."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in HOMES:
        # set first, so that what the test leaves is taken away
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return folder


def test_a_home_that_is_no_folder_is_not_written_to(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Private folders stand in, the same ones for the next process."""
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    find_homes()
    first = {name: Path(os.environ[name]) for name in HOMES}
    assert all(place.is_dir() and place.is_relative_to(temporary) for place in first.values())
    assert {place.stat().st_mode & 0o777 for place in first.values()} == {0o700}
    for name in HOMES:
        monkeypatch.delenv(name)
    find_homes()
    assert {name: Path(os.environ[name]) for name in HOMES} == first


def test_a_home_that_can_be_written_stays_and_so_does_what_a_user_has_set(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set, and nothing made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", "/nowhere")
    find_homes()
    assert os.environ["PREFECT_HOME"] == "/nowhere"
    assert "MPLCONFIGDIR" not in os.environ
    assert list(temporary.iterdir()) == []
