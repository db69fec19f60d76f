"""A root holds its files; what links lead to outside is another's."""

import os
from pathlib import Path

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.links import Root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, beside a file that is not in it."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("inside")
    (tmp_path / "outside").write_text("secret")
    return folder


def test_links_are_resolved_within_the_root_and_refused_beyond(root: Path) -> None:
    """resolve(path) lies in the root, or raises and names the setting; also through ..; the root
    may be a link.
    """
    (root / "in").symlink_to("sub/a")
    (root / "out").symlink_to("../outside")
    (root.parent / "again").symlink_to("root")
    inside = Root.of(str(root.parent / "again"), follow_links=False)
    assert inside.resolve(str(root / "in"), "in") == str(root / "sub" / "a")
    for path in (root / "out", root / ".." / "outside"):
        with pytest.raises(SourceError, match=r"^out .*`source\.follow_links: true`"):
            inside.resolve(str(path), "out")
    assert Root.of(str(root), follow_links=True).resolve(str(root / "out"), "out") == str(
        root.parent / "outside"
    )


def test_a_path_that_became_a_link_after_it_was_resolved_is_not_opened(root: Path) -> None:
    """Neither the file nor a folder on the way."""
    inside = Root.of(str(root), follow_links=False)
    target = inside.resolve(str(root / "sub" / "a"), "a")
    with inside.open(target, "a") as file:
        assert file.read() == b"inside"
    (root / "sub" / "a").unlink()
    (root / "sub" / "a").symlink_to("../../outside")
    with pytest.raises(OSError, match=r"Too many levels"):
        inside.open(target, "a")
    (root / "sub" / "a").unlink()
    (root / "sub").rmdir()
    (root.parent / "other").mkdir()
    (root.parent / "other" / "a").write_text("secret")
    (root / "sub").symlink_to("../other")
    with pytest.raises(OSError, match=r"Not a directory"):
        inside.open(target, "a")


@pytest.mark.parametrize("follow_links", [True, False])
def test_a_file_that_became_a_pipe_is_not_waited_for(root: Path, follow_links: bool) -> None:
    """It is an error at once."""
    inside = Root.of(str(root), follow_links)
    os.mkfifo(root / "pipe")
    with pytest.raises(SourceError, match=r"^p is a pipe, a device or a folder"):
        inside.open(str(root / "pipe"), "p")
