"""Saved operators: what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from poisonwatch.errors import RunError
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import load_operators


def test_a_folder_without_operators_is_no_run(tmp_path: Path) -> None:
    """The error says what to name instead."""
    with pytest.raises(RunError, match="name the run directory of a finished audit"):
        load_operators(tmp_path)


def test_damaged_operators_are_refused(tmp_path: Path) -> None:
    """No traceback of the file format reaches the user."""
    (tmp_path / OPERATORS_FILE).write_bytes(b"not safetensors")
    with pytest.raises(RunError, match="cannot be read"):
        load_operators(tmp_path)


def test_operators_of_another_format_are_refused(tmp_path: Path) -> None:
    """The error names both formats, and the way out."""
    save_file({"a": torch.zeros(1)}, tmp_path / OPERATORS_FILE, {"format": "1"})
    with pytest.raises(RunError, match=r"has format 1, this version reads 2: repeat the audit"):
        load_operators(tmp_path)
