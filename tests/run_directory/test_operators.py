"""Saved operators: what is refused, and what comes back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attributions import ROWS, STRIDE, fit_operators, fit_stream
from safetensors.torch import save_file

from poisonwatch.config import AuditConfig
from poisonwatch.errors import RunError
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import load_operators, save_operators
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.streamed import StreamedFit


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
    with pytest.raises(
        RunError, match=r"has format 1, this version reads 2 and 3: repeat the audit"
    ):
        load_operators(tmp_path)


def test_what_is_saved_knows_whose_answers_training_lowers(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """The signs come back, of operators and of rows measured alone; operators of an earlier version
    have none, and only raised rows.
    """
    rows = [ROWS[0], replace(ROWS[1], lowered=True), *ROWS[2:8]]
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=STRIDE)
    for name, fitted in (
        ("alone", fit_stream(tiny_pretrained, rows)),
        ("operators", fit_operators(tiny_pretrained, rows)),
    ):
        (tmp_path / name).mkdir()
        save_operators(tmp_path / name, fitted, config, tiny_pretrained.fingerprint)
        saved = load_operators(tmp_path / name)
        assert saved.load_on(tiny_pretrained).signs.tolist() == [1, -1, *[1] * 6]
    del saved.tensors["signs"]
    np.testing.assert_array_equal(saved.load_on(tiny_pretrained).signs, np.ones(8))


@pytest.mark.parametrize("fit_rows", [fit_stream, fit_operators], ids=["alone", "operators"])
def test_what_is_saved_comes_back(
    tiny_pretrained: Pretrained,
    tmp_path: Path,
    fit_rows: Callable[..., FittedOperators | StreamedFit],
) -> None:
    """Format 3 of rows that were measured alone, format 2 of operators: ids, settings, basis,
    centre, spread and features, the last to bfloat16; the model must be the same.
    """
    fitted = fit_rows(tiny_pretrained, ROWS)
    known = fitted.measured if isinstance(fitted, StreamedFit) else fitted
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=STRIDE)
    save_operators(tmp_path, fitted, config, tiny_pretrained.fingerprint)
    assert [path.name for path in tmp_path.iterdir()] == [OPERATORS_FILE]
    saved = load_operators(tmp_path)
    assert saved.metadata["format"] == ("3" if isinstance(fitted, StreamedFit) else "2")
    loaded = saved.load_on(tiny_pretrained)
    assert loaded.ids == fitted.ids == tuple(row.id for row in ROWS)
    assert loaded.settings == fitted.settings
    assert torch.equal(loaded.basis.directions, fitted.basis.directions)
    np.testing.assert_allclose(loaded.centre, known.centre, rtol=1e-6)
    np.testing.assert_allclose(loaded.spread, known.spread, rtol=1e-6)
    np.testing.assert_allclose(loaded.features, known.features, atol=2**-8)
    with pytest.raises(RunError, match="name the model of the audit with --model"):
        saved.load_on(replace(tiny_pretrained, fingerprint="1" * 64))
