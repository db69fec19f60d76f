"""What is passed over is looked into."""

import os
from pathlib import Path

import pytest

from poisonwatch.sources.links import Root
from poisonwatch.sources.looking import Looker
from poisonwatch.sources.side_files import explain_name
from poisonwatch.sources.trees import LocalTree

LINE = b'{"prompt": "Q", "response": "A"}\n'


def look(folder: Path, name: str) -> tuple[str, bool]:
    passing = explain_name(name)
    assert passing is not None
    return make_looker(folder).look(str(folder / name), name, passing)


def make_looker(folder: Path) -> Looker:
    return Looker(LocalTree(Root.of(str(folder), follow_links=False)), str)


@pytest.mark.parametrize(
    "name", ["notes.log", "license.txt", "README", "x.png", "_SUCCESS", "requirements.txt", "x.tmp"]
)
def test_side_files_hold_no_rows_unless_they_begin_like_them(tmp_path: Path, name: str) -> None:
    """Their names say what they are for, not what they are."""
    (tmp_path / name).write_bytes(b"nothing of the kind")
    assert look(tmp_path, name)[1] is False
    (tmp_path / name).write_bytes(LINE)
    reason, may_hold_rows = look(tmp_path, name)
    assert may_hold_rows
    assert "begins like" in reason


def test_card_that_says_what_is_loaded_is_told(tmp_path: Path) -> None:
    """With its own reason."""
    (tmp_path / "README.md").write_text("---\nconfigs:\n- data_files: ../a.jsonl\n---\n")
    reason, may_hold_rows = look(tmp_path, "README.md")
    assert (reason.startswith("its YAML says which files are loaded"), may_hold_rows) == (
        True,
        True,
    )


def test_what_cannot_be_looked_into_may_hold_rows(tmp_path: Path) -> None:
    """A pipe, a link out; one that leads nowhere can hold none."""
    (tmp_path / "root").mkdir()
    (tmp_path / "out.md").write_text("prose")
    (tmp_path / "root" / "b.md").symlink_to("../out.md")
    (tmp_path / "root" / "c.md").symlink_to("nowhere")
    os.mkfifo(tmp_path / "root" / "a.md")
    found = [look(tmp_path / "root", name)[1] for name in ("a.md", "b.md", "c.md")]
    assert found == [True, True, False]


def test_folders_are_looked_into(tmp_path: Path) -> None:
    """Of tools' own folders, what is called as rows counts; of others, all."""
    looker = make_looker(tmp_path)
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "0f1e").write_bytes(LINE)
    assert looker.may_folder_hold_rows(str(tmp_path / "objects"))
    assert not looker.may_tool_folder_hold_rows(str(tmp_path / "objects"))
    (tmp_path / "objects" / "a.jsonl.lock").write_bytes(b"")
    assert not looker.may_tool_folder_hold_rows(str(tmp_path / "objects"))
    (tmp_path / "objects" / "a.jsonl.old").write_bytes(LINE)
    assert looker.may_tool_folder_hold_rows(str(tmp_path / "objects"))
