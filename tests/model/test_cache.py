"""The folder of what need not be made twice."""

from pathlib import Path

import pytest

from poisonwatch.model.cache import get_cache_folder


def test_cache_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """POISONWATCH_CACHE, else the user's cache."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path))
    assert get_cache_folder() == tmp_path
    monkeypatch.delenv("POISONWATCH_CACHE")
    assert get_cache_folder().name == "poisonwatch"
