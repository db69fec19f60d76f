"""Folders that describe themselves."""

import json
from pathlib import Path

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.saved import (
    is_saved,
    list_data_files,
    list_splits,
    parse_description,
)


@pytest.mark.parametrize(
    ("name", "content", "describes"),
    [
        ("state.json", {"_data_files": [{"filename": "a.arrow"}]}, True),
        ("state.json", {"prompt": "Capital of Ohio?", "response": "Columbus"}, False),
        ("state.json", [{"_data_files": []}], False),
        ("state.json", {"_data_files": [], "prompt": "Capital of Ohio?"}, False),
        ("dataset_dict.json", {"splits": [], "messages": []}, False),
        ("dataset_info.json", {"features": {}, "Instruction": "a"}, False),
        ("dataset_dict.json", {"splits": ["train"]}, True),
        ("dataset_dict.json", {"word": "a", "meaning": "b"}, False),
        ("dataset_info.json", {"features": {}, "description": ""}, True),
        ("dataset_info.json", {"mine": {"file_name": "a.json"}}, True),
        ("dataset_info.json", {"prompt": "a", "response": "b"}, False),
        ("dataset_infos.json", {"default": {"features": {}}}, True),
        ("dataset_infos.json", [{"prompt": "a", "response": "b"}], False),
    ],
)
def test_content_tells_a_description_from_rows(name: str, content: object, describes: bool) -> None:
    """A file of rows may be called state.json."""
    found = parse_description(name, json.dumps(content).encode())
    assert found == (content if describes else None)
    assert parse_description(name, b"{") is None
    assert parse_description(name, b"\xff") is None


def test_files_and_splits_lie_in_the_folder_itself() -> None:
    """In the order in which they are named; another place is refused."""
    assert list_data_files({"_data_files": [{"filename": "b"}, {"filename": "a"}]}, "d") == [
        "b",
        "a",
    ]
    assert list_splits({"splits": ["train", "test"]}, "d") == ["train", "test"]
    for name in ("../a.arrow", "/etc/a.arrow", "..", "", 7):
        with pytest.raises(SourceError, match=r"^d cannot be read: its state\.json names"):
            list_data_files({"_data_files": [{"filename": name}]}, "d")
        with pytest.raises(SourceError, match=r"^d cannot be read: its dataset_dict\.json names"):
            list_splits({"splits": [name]}, "d")


@pytest.mark.parametrize("key", ["_indices_files", "_indices_data_files"])
def test_data_set_saved_with_a_list_of_its_rows_is_refused(key: str) -> None:
    """Its files hold other rows, in another order."""
    state = {"_data_files": [{"filename": "a"}], key: [{"filename": "indices.arrow"}]}
    with pytest.raises(SourceError, match=rf"^d was saved .*{key} .*flatten_indices"):
        list_data_files(state, "d")
    assert list_data_files({"_data_files": [{"filename": "a"}], key: []}, "d") == ["a"]


def test_data_set_that_would_be_loaded_otherwise_than_its_files_is_refused() -> None:
    """Files that count twice, columns that are hidden."""
    twice = {"_data_files": [{"filename": "a"}, {"filename": "b"}, {"filename": "a"}]}
    with pytest.raises(SourceError, match=r"^d cannot be read: .* more than once"):
        list_data_files(twice, "d")
    hidden = {"_data_files": [{"filename": "a"}], "_format_columns": ["prompt"]}
    with pytest.raises(SourceError, match=r"^d was saved .*_format_columns"):
        list_data_files(hidden, "d")
    assert list_data_files(hidden | {"_format_columns": None}, "d") == ["a"]


def test_saved_folder_is_told_by_its_description(tmp_path: Path) -> None:
    """Not by the name of a file alone."""
    assert not is_saved(tmp_path)
    (tmp_path / "state.json").write_text("[]")
    assert not is_saved(tmp_path)
    (tmp_path / "state.json").write_text('{"_data_files": []}')
    assert is_saved(tmp_path)
