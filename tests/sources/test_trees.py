"""What lies in a folder, here and on a server."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.links import Root
from poisonwatch.sources.trees import LocalTree, RemoteTree, Tree

FILES = ("b.txt", "a.txt", "x/c.txt", "x/y/d.txt", ".h/e.txt")


@pytest.fixture(params=["local", "memory"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Tree, str]]:
    """The same files in both, and where they begin."""
    if request.param == "local":
        for name in FILES:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        yield LocalTree(Root.of(str(tmp_path), follow_links=False)), str(tmp_path)
        return
    memory = fsspec.filesystem("memory")
    for name in FILES:
        memory.pipe(f"/trees/{name}", name.encode())
    yield RemoteTree(memory, follow_links=False), "/trees"
    memory.rm("/trees", recursive=True)


def test_folders_hold_files_and_folders_by_name(tree: tuple[Tree, str]) -> None:
    """A server and this machine tell the same."""
    place, root = tree
    listing = place.list_folder(root)
    assert list(listing.files) == ["a.txt", "b.txt"]
    assert listing.folders == {".h": f"{root}/.h", "x": f"{root}/x"}
    below = place.list_folder(f"{root}/x")
    assert (list(below.files), below.folders) == (["c.txt"], {"y": f"{root}/x/y"})
    assert sorted(place.walk_files(f"{root}/x")) == [
        (f"{root}/x/c.txt", "c.txt"),
        (f"{root}/x/y/d.txt", "d.txt"),
    ]
    assert place.read_head(f"{root}/x/c.txt", "c", 3) == b"x/c"
    assert place.read_tail(f"{root}/x/c.txt", "c", 3) == b"txt"
    assert place.read_tail(f"{root}/a.txt", "a", 30) == b"a.txt"
    assert place.resolve(f"{root}/a.txt", "a") == f"{root}/a.txt"


def test_links_to_folders_stand_apart(tmp_path: Path) -> None:
    """One that leads nowhere, or to itself, counts as a file: reading it says what it is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    listing = LocalTree(Root.of(str(tmp_path), follow_links=False)).list_folder(str(tmp_path))
    assert listing.links == {"link": f"{tmp_path}/link"}
    assert list(listing.folders) == ["real"]
    assert list(listing.files) == ["gone", "loop"]


class Linking(fsspec.AbstractFileSystem):
    """A server that says that a file is a link."""

    protocol = "linking"

    def ls(self, path: str, detail: bool = True, **_: object) -> list[dict[str, object]]:
        """One link."""
        return [{"name": f"{path}/a.txt", "type": "link", "size": 1}]


def test_link_on_a_server_is_followed_only_if_the_user_says_so() -> None:
    """Nothing tells where it leads."""
    for follow_links in (False, True):
        place = RemoteTree(Linking(), follow_links)
        assert list(place.list_folder("/d").files) == ["a.txt"]
        if follow_links:
            assert place.resolve("/d/a.txt", "a") == "/d/a.txt"
        else:
            with pytest.raises(SourceError, match=r"^a is a link on its server.*follow_links"):
                place.resolve("/d/a.txt", "a")


class Locked(fsspec.AbstractFileSystem):
    """A server that shows one folder and not the one below it."""

    protocol = "locked"

    def ls(self, path: str, detail: bool = True, **_: object) -> list[dict[str, object]]:
        """A folder, or an error."""
        if path.endswith("inner"):
            raise PermissionError("Forbidden")
        return [{"name": f"{path}/inner", "type": "directory", "size": 0}]


def test_folder_that_cannot_be_listed_is_an_error_and_not_empty() -> None:
    """Rows in it are not lost in silence."""
    with pytest.raises(PermissionError):
        RemoteTree(Locked(), follow_links=False).list_folder("/d")


class Strict(fsspec.AbstractFileSystem):
    """A server that gives no part of an empty file, as S3 does."""

    protocol = "strict"

    def find(self, path: str, *_: object, **__: object) -> dict[str, dict[str, object]]:
        name = f"{path}/_SUCCESS"
        return {name: {"name": name, "size": 0, "type": "file"}}

    def cat_file(self, path: str, *_: object, **__: object) -> bytes:
        raise OSError(416, "Requested Range Not Satisfiable", path)


def test_no_part_is_asked_of_a_file_that_is_listed_as_empty() -> None:
    """It has none."""
    tree = RemoteTree(Strict(), follow_links=False)
    with pytest.raises(OSError, match="Range"):
        tree.read_head("x/_SUCCESS", "x", 9)
    tree.list_folder("x")
    assert tree.read_head("x/_SUCCESS", "x", 9) == b""
