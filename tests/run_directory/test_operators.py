"""Saved operators: what is refused, and what comes back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attributions import ROWS, STRIDE
from safetensors.torch import save_file

from poisonwatch.config import AuditConfig
from poisonwatch.errors import RunError
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import load_operators, save_operators
from poisonwatch.stride.attribution import fit


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


def test_saved_operators_know_whose_answers_training_lowers(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """The signs come back; operators of an earlier version have none, and only raised rows."""
    rows = [ROWS[0], replace(ROWS[1], lowered=True), *ROWS[2:8]]
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=STRIDE)
    fitted = fit(tiny_pretrained, rows, STRIDE)
    save_operators(tmp_path, fitted, config, tiny_pretrained.fingerprint)
    saved = load_operators(tmp_path)
    assert saved.load_on(tiny_pretrained).signs.tolist() == [1, -1, *[1] * 6]
    del saved.tensors["signs"]
    np.testing.assert_array_equal(saved.load_on(tiny_pretrained).signs, np.ones(8))
