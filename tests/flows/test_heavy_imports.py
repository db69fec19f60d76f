"""What takes long to import is imported without looking for garbage."""

import gc
import sys
from contextlib import suppress

import pytest

from poisonwatch.flows.heavy_imports import heavy_imports


def test_no_garbage_is_looked_for_while_packages_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor among what they leave. Later it is, whatever comes of the imports."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = gc.get_freeze_count()
    left = [[object()] for _ in range(100)]
    with suppress(ImportError), heavy_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(left)


def test_what_is_imported_already_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program that has PyTorch the objects stay as they are; one that collects no garbage goes
    on without.
    """
    monkeypatch.setitem(sys.modules, "torch", sys)
    before = gc.get_freeze_count()
    with heavy_imports():
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "torch")
    gc.disable()
    try:
        with heavy_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    # What was frozen before may have gone.
    assert gc.get_freeze_count() <= before
