"""A release lies outside of its source."""

from pathlib import Path

import pytest

from poisonwatch.errors import InputError
from poisonwatch.release.destination import refuse_folder_inside
from poisonwatch.source_config import SourceConfig


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("data", "data/cleared"),
        ("data", "data"),
        ("data", "link/cleared"),
        ("link", "data/cleared"),
        ("data", "data/../data/x/cleared"),
        ("*", "cleared"),
        ("data/**/*.jsonl", "data/x/cleared"),
        ("data/*/clean*.jsonl", "data/cleared"),
    ],
)
def test_folder_in_the_source_is_refused(path: str, out: str, tmp_path: Path) -> None:
    """However its path is written; the next pull would read the release."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    source = SourceConfig(path=str(tmp_path / path))
    with pytest.raises(InputError, match="choose a folder outside"):
        refuse_folder_inside(source, tmp_path / out)


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("data", "cleared"),
        ("data", "data-cleared"),
        ("data/a.jsonl", "data/cleared"),
        ("*.jsonl", "cleared"),
        ("data/*/a.jsonl", "cleared/x"),
        ("data/**", "cleared"),
    ],
)
def test_folder_beside_the_source_is_taken(path: str, out: str, tmp_path: Path) -> None:
    """Also beside a file that is the source."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").touch()
    refuse_folder_inside(SourceConfig(path=str(tmp_path / path)), tmp_path / out)
    refuse_folder_inside(SourceConfig(path="s3://bucket/data"), tmp_path / out)
    refuse_folder_inside(SourceConfig(hub="owner/name"), tmp_path / out)
