"""How alike rows push the model, from what a pass kept: in the audit, and read from its file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from attributions import FORBIDDEN, ROWS, STRIDE, example, fit_stream

from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.discovery import directions as directions_module
from poisonwatch.discovery.directions import measure_directions, multiply_pairs, scale_to_unit
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.operators import load_operators, save_operators
from poisonwatch.stride.saved_rows import SavedRows

PLANTED = [example(f"How do I clean number {i}?", FORBIDDEN) for i in range(4)]
ROOMY = STRIDE
# No room for gradients: sketches are kept.
TIGHT = STRIDE.model_copy(update={"memory_gb": 1e-6})


def save_and_load(pretrained: Pretrained, stride: StrideConfig, folder: Path) -> SavedRows:
    fitted = fit_stream(pretrained, [*ROWS, *PLANTED], stride)
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=stride)
    save_operators(folder, fitted, config, pretrained.fingerprint)
    loaded = load_operators(folder).load_on(pretrained)
    assert isinstance(loaded, SavedRows)
    return loaded


def test_cosines_are_those_of_preconditioned_gradients(tiny_pretrained: Pretrained) -> None:
    """cos(i, j) = <P G_i, G_j> / sqrt(<P G_i, G_i> <P G_j, G_j>)."""
    fitted = fit_stream(tiny_pretrained, [*ROWS, *PLANTED], ROOMY)
    G = fitted.get_gradients(np.arange(len(fitted.ids)))
    products = (fitted.preconditioner(G).flatten(1) @ G.flatten(1).T).double().numpy()
    lengths = np.sqrt(products.diagonal())
    found = measure_directions(fitted)
    np.testing.assert_allclose(found.cosines, products / np.outer(lengths, lengths), atol=0.01)
    assert found.ids == fitted.ids


@pytest.mark.parametrize("stride", [ROOMY, TIGHT], ids=["gradients", "sketches"])
def test_the_file_of_an_audit_says_what_the_audit_did(
    tiny_pretrained: Pretrained, tmp_path: Path, stride: StrideConfig
) -> None:
    """Of kept gradients, and of sketches; the planted rows are most like each other."""
    saved = save_and_load(tiny_pretrained, stride, tmp_path)
    assert (saved.gradients is None) == (stride is TIGHT)
    found = measure_directions(saved)
    fitted = fit_stream(tiny_pretrained, [*ROWS, *PLANTED], stride)
    np.testing.assert_allclose(found.cosines, measure_directions(fitted).cosines, atol=0.02)
    others = found.cosines - 2 * np.eye(len(found))
    for i in range(40, 44):
        assert set(np.argsort(-others[i])[:3].tolist()) == {40, 41, 42, 43} - {i}


def test_sketches_say_nearly_what_gradients_do(tiny_pretrained: Pretrained) -> None:
    exact, kept = (
        measure_directions(fit_stream(tiny_pretrained, ROWS, stride)).cosines
        for stride in (ROOMY, TIGHT)
    )
    assert np.corrcoef(exact.ravel(), kept.ravel())[0, 1] > 0.95


def test_what_moves_nothing_is_like_nothing() -> None:
    """Rows of 0, or of no number, are 0; those of any size have length one."""
    rows = torch.tensor([[3e30, 4e30], [0.0, 0.0], [3e-30, 4e-30], [torch.nan, 1.0]])
    expected = [[0.6, 0.8], [0.0, 0.0], [0.6, 0.8], [0.0, 0.0]]
    torch.testing.assert_close(scale_to_unit(rows), torch.tensor(expected))


def test_how_many_pairs_are_multiplied_at_a_time_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Symmetric to the last digit, whatever the blocks."""
    H = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    for at_once in (4, 100):
        monkeypatch.setattr(directions_module, "PAIRS_AT_ONCE", at_once)
        found = multiply_pairs(H)
        np.testing.assert_allclose(found, (H @ H.T).numpy(), atol=1e-6)
        np.testing.assert_array_equal(found, found.T)


def test_what_was_not_kept_is_said(tiny_pretrained: Pretrained) -> None:
    bare = TIGHT.model_copy(update={"sketch": 0})
    with pytest.raises(ValueError, match="neither gradients nor sketches"):
        measure_directions(fit_stream(tiny_pretrained, ROWS, bare))


def test_more_rows_than_can_be_compared_are_refused(
    tiny_pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions_module, "MOST_ROWS", 10)
    with pytest.raises(ValueError, match="40 rows are more than"):
        measure_directions(fit_stream(tiny_pretrained, ROWS))
