"""Of which runs and folders a store tells what may go."""

from pathlib import Path

import pytest

from poisonwatch.integrations.mlflow.prunable import _find_folder


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("file:///a%20b/c", Path("/a b/c")),
        ("/a/b", Path("/a/b")),
        ("s3://bucket/run", None),
        ("mlflow-artifacts:/1/2", None),
        ("file://elsewhere/a", None),
    ],
)
def test_only_folders_of_this_machine_are_counted_here(place: str, folder: Path | None) -> None:
    assert _find_folder(place) == folder
