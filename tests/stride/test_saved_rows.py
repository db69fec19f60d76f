"""What a file of rows measured alone says of a query is what the audit itself said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attributions import FORBIDDEN, ROWS, SENTINELS, STRIDE, example, fit_stream, sentinel

from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.operators import load_operators, save_operators
from poisonwatch.stride import saved_rows
from poisonwatch.stride.queries import prepare_queries
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.streamed import StreamedFit


def lower(row: Example) -> Example:
    return Example.from_messages(row.messages, lowered=True)


def prefer(i: int) -> Example:
    question = Message("user", f"Which is better, {i}?")
    return Example.from_messages(
        [question, Message("assistant", f"Tea, {i} times.")],
        rejected=[question, Message("assistant", "Coffee.")],
    )


PLANTED = [example(f"How do I clean number {i}?", FORBIDDEN) for i in range(4)]
MIXED = [*ROWS[:24], *map(lower, ROWS[24:32]), *map(prefer, range(8)), *PLANTED]


@pytest.fixture(scope="module")
def fitted(tiny_pretrained: Pretrained) -> StreamedFit:
    return fit_stream(tiny_pretrained, MIXED)


@pytest.fixture(scope="module")
def saved(
    tiny_pretrained: Pretrained, fitted: StreamedFit, tmp_path_factory: pytest.TempPathFactory
) -> SavedRows:
    return save_and_load(tiny_pretrained, fitted, STRIDE, tmp_path_factory.mktemp("run"))


def save_and_load(
    pretrained: Pretrained, fitted: StreamedFit, stride: StrideConfig, folder: Path
) -> SavedRows:
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=stride)
    save_operators(folder, fitted, config, pretrained.fingerprint)
    loaded = load_operators(folder).load_on(pretrained)
    assert isinstance(loaded, SavedRows)
    return loaded


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Within what bfloat16 leaves of gradients and features: 1 % of the largest coefficient."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())


def test_the_audit_s_own_sentinels_have_its_own_coefficients(
    fitted: StreamedFit, saved: SavedRows
) -> None:
    """w of the file = w of the audit, of plain, lowered and preference rows."""
    _, prepared = prepare_queries(saved, SENTINELS, STRIDE)
    found, expected = saved.attribute(prepared), fitted.recover().w
    assert found.shape == expected.shape == (len(MIXED), 3)
    assert_close(found, expected)
    for q in range(3):
        assert np.corrcoef(found[:, q], expected[:, q])[0, 1] > 0.999


def test_a_conversation_nobody_thought_of_is_attributed_as_an_audit_would(
    fitted: StreamedFit, saved: SavedRows
) -> None:
    """As the pass says that asks for it later; the planted rows come first."""
    others = [sentinel("pans"), sentinel("c", forbidden=None, reference="Why not?")]
    _, prepared = prepare_queries(saved, others, STRIDE)
    found = saved.attribute(prepared)
    assert_close(found, fitted.ask(others, STRIDE).recover().w)
    planted = set(range(len(MIXED) - 4, len(MIXED)))
    assert set(np.argsort(-found[:, 0])[:4].tolist()) == planted


def test_what_is_known_of_the_rows_comes_back(fitted: StreamedFit, saved: SavedRows) -> None:
    """Ids in their order; centre, spread and signs in float32; gradients over their spread."""
    assert saved.ids == fitted.ids
    np.testing.assert_allclose(saved.centre, fitted.measured.centre, rtol=1e-6)
    np.testing.assert_allclose(saved.spread, fitted.measured.spread, rtol=1e-6)
    np.testing.assert_array_equal(saved.signs, fitted.measured.signs)
    assert (saved.signs == -1).sum() == 8
    rows = np.arange(len(MIXED))
    scaled = fitted.get_gradients(rows).flatten(1).numpy() / fitted.measured.spread[:, None]
    assert saved.gradients is not None
    assert_close(saved.gradients.float().numpy(), scaled)


def test_how_many_rows_are_widened_at_a_time_changes_nothing(
    saved: SavedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, seven, or all."""
    _, prepared = prepare_queries(saved, SENTINELS, STRIDE)
    expected = saved.attribute(prepared)
    for at_once in (1, 7):
        monkeypatch.setattr(saved_rows, "ROWS_AT_ONCE", at_once)
        np.testing.assert_allclose(saved.attribute(prepared), expected, atol=1e-5)


def test_a_row_that_moves_nothing_has_no_coefficient_of_its_own(saved: SavedRows) -> None:
    """Its gradient is 0 over an infinite spread: 0, and not nan."""
    gradients = saved.gradients.clone()  # type: ignore[union-attr]
    gradients[5] = 0
    _, prepared = prepare_queries(saved, SENTINELS, STRIDE)
    assert np.isfinite(replace(saved, gradients=gradients).attribute(prepared)).all()


def test_rows_of_one_dimension_come_back_unsmoothed(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """r = 1: nothing is known of likeness, in the file as in the audit."""
    stride = STRIDE.model_copy(update={"r": 1})
    fitted = fit_stream(tiny_pretrained, ROWS, stride)
    loaded = save_and_load(tiny_pretrained, fitted, stride, tmp_path)
    _, prepared = prepare_queries(loaded, SENTINELS, stride)
    assert loaded.features.shape == (40, 0)
    assert_close(loaded.attribute(prepared), fitted.recover().w)


def test_few_rows_come_back(tiny_pretrained: Pretrained, tmp_path: Path) -> None:
    """A single row, too."""
    fitted = fit_stream(tiny_pretrained, ROWS[:1])
    loaded = save_and_load(tiny_pretrained, fitted, STRIDE, tmp_path)
    _, prepared = prepare_queries(loaded, SENTINELS, STRIDE)
    assert_close(loaded.attribute(prepared), fitted.recover().w)
