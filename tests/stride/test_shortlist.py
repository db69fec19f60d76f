"""Answers explained where no gradients were kept: by sketches, and exactly for what comes first."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from attributions import ROWS, SENTINELS, STRIDE, benign, sentinel

from poisonwatch.config import AuditConfig, StrideConfig
from poisonwatch.errors import RunError
from poisonwatch.examples import Example
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import load_operators, save_operators
from poisonwatch.stride import saved_rows
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.explain import attribute_conversation
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.streamed import StreamedFit

# Gradients of no row fit; 128 bytes are five of the sixteen pairs of a row's singular vectors.
SKETCHED = STRIDE.model_copy(update={"memory_gb": 1e-9, "sketch": 128})
MANY = benign(120, seed=3)
BY_ID = {row.id: row for row in MANY}


def save_and_load(
    pretrained: Pretrained, rows: Sequence[Example], stride: StrideConfig, folder: Path
) -> SavedRows:
    folder.mkdir()
    fitted = fit(pretrained, rows, stride, sentinels=SENTINELS)
    config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=stride)
    save_operators(folder, fitted, config, pretrained.fingerprint)
    loaded = load_operators(folder).load_on(pretrained)
    assert isinstance(loaded, SavedRows)
    return loaded


@pytest.fixture(scope="module")
def kept(tiny_pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory) -> SavedRows:
    """With all gradients."""
    return save_and_load(tiny_pretrained, MANY, STRIDE, tmp_path_factory.mktemp("a") / "run")


@pytest.fixture(scope="module")
def sketched(tiny_pretrained: Pretrained, tmp_path_factory: pytest.TempPathFactory) -> SavedRows:
    """Of the same rows, with sketches alone."""
    return save_and_load(tiny_pretrained, MANY, SKETCHED, tmp_path_factory.mktemp("b") / "run")


def read_all(ids: Sequence[str]) -> Mapping[str, Example]:
    return {id: BY_ID[id] for id in ids}


ASKED = ("How do I cook?", "Chop it, then stir.")


def test_sketches_rank_rows_as_gradients_do(kept: SavedRows, sketched: SavedRows) -> None:
    """Rank correlation above .9; most of the exact top 10 are among the first 20."""
    assert sketched.gradients is None
    exact = attribute_conversation(kept, *ASKED, STRIDE)
    found = attribute_conversation(sketched, *ASKED, SKETCHED)
    assert exact.exact.all()
    assert not found.exact.any()
    ranks = [np.argsort(np.argsort(w)) for w in (exact.w, found.w)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
    assert len(set(np.argsort(-exact.w)[:10]) & set(np.argsort(-found.w)[:20])) >= 9


def test_the_first_rows_are_exact_where_rows_can_be_read(
    kept: SavedRows, sketched: SavedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-4 of what gradients tell in full, though not all rows were measured again."""
    monkeypatch.setattr(saved_rows, "SHORTLIST", 15)
    asked: list[str] = []

    def read(ids: Sequence[str]) -> Mapping[str, Example]:
        asked.extend(ids)
        return read_all(ids)

    found = attribute_conversation(sketched, *ASKED, SKETCHED, first=2, read_rows=read)
    first = np.argsort(-found.w)[:2]
    assert found.exact[first].all()
    assert len(asked) == len(set(asked)) < len(MANY)
    monkeypatch.setattr(saved_rows, "SHORTLIST", len(MANY))
    full = attribute_conversation(sketched, *ASKED, SKETCHED, first=2, read_rows=read_all)
    assert full.exact.all()
    np.testing.assert_allclose(found.w[first], full.w[first], atol=1e-4 * np.abs(full.w).max())
    # Kept gradients are in bfloat16, which has 8 bits.
    exact = attribute_conversation(kept, *ASKED, STRIDE)
    np.testing.assert_allclose(full.w, exact.w, atol=0.01 * np.abs(exact.w).max())
    assert set(first) == set(np.argsort(-full.w)[:2])


def test_rows_that_cannot_be_read_leave_their_neighbours_inexact(sketched: SavedRows) -> None:
    """No row is called exact whose smoothing takes in one that was not measured again."""
    gone = set(sketched.ids[::2])

    def read(ids: Sequence[str]) -> Mapping[str, Example]:
        return {id: BY_ID[id] for id in ids if id not in gone}

    found = attribute_conversation(sketched, *ASKED, SKETCHED, read_rows=read)
    assert not found.exact[::2].any()
    near_gone = (abs(sketched.smoother)[:, ::2]).sum(axis=1) > 0
    assert not (found.exact & near_gone).any()


def test_no_more_rows_are_measured_again_than_allowed(
    sketched: SavedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortlist, and what one round of neighbours adds."""
    monkeypatch.setattr(saved_rows, "SHORTLIST", 5)
    monkeypatch.setattr(saved_rows, "MOST_MEASURED", 5)
    asked: list[str] = []

    def read(ids: Sequence[str]) -> Mapping[str, Example]:
        asked.extend(ids)
        return read_all(ids)

    attribute_conversation(sketched, *ASKED, SKETCHED, first=3, read_rows=read)
    assert len(asked) == 5


def test_without_gradients_and_sketches_nothing_is_explained(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """The error names both settings."""
    stride = SKETCHED.model_copy(update={"sketch": 0})
    with pytest.raises(RunError, match=r"stride\.memory_gb.* stride\.sketch above 0"):
        save_and_load(tiny_pretrained, ROWS, stride, tmp_path / "run")


def test_a_row_takes_its_sketch_and_what_a_record_takes(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """The file grows by s bytes a row, and by what the same audit without sketches would."""
    sizes = {}
    for size in (0, 128):
        for n in (20, 120):
            stride = SKETCHED.model_copy(update={"sketch": size})
            folder = tmp_path / f"{size}-{n}"
            folder.mkdir()
            fitted = fit(tiny_pretrained, MANY[:n], stride, sentinels=SENTINELS)
            config = AuditConfig(source={"path": "x"}, sentinels=["y"], stride=stride)
            save_operators(folder, fitted, config, tiny_pretrained.fingerprint)
            sizes[size, n] = (folder / OPERATORS_FILE).stat().st_size
    a_row = {size: (sizes[size, 120] - sizes[size, 20]) / 100 for size in (0, 128)}
    # Five pairs of 16 and 32 numbers in 4 bits, and their scales. The header's length depends on
    # the numbers in it.
    assert a_row[128] - a_row[0] == pytest.approx(5 * (48 / 2 + 4), abs=1)
    assert a_row[0] < 4096


def test_new_sentinels_are_asked_of_sketched_rows(tiny_pretrained: Pretrained) -> None:
    """Suspects are measured exactly, as a pass on these sentinels would have; the others' effects
    correlate above .9.
    """
    stride = SKETCHED.model_copy(update={"shortlist": 6})
    other = [sentinel("another", "Stir, then chop.")]
    measured = fit(tiny_pretrained, MANY, stride, sentinels=other)
    before = fit(tiny_pretrained, MANY, stride, sentinels=SENTINELS)
    assert isinstance(measured, StreamedFit)
    assert isinstance(before, StreamedFit)
    found = before.ask(other, stride).measured.effects[:, 0]
    exact = measured.measured.effects[:, 0]
    tolerance = 1e-4 * np.abs(exact).max()
    beyond = found - before.measured.centre
    equal = np.abs(found - exact) < tolerance
    assert equal.sum() >= 6
    assert equal[np.argsort(-beyond)[:3]].all()
    assert np.corrcoef(found, exact)[0, 1] > 0.9


def test_without_sketches_new_sentinels_take_another_pass(tiny_pretrained: Pretrained) -> None:
    """As it was before there were any."""
    stride = SKETCHED.model_copy(update={"sketch": 0})
    fitted = fit(tiny_pretrained, ROWS, stride, sentinels=SENTINELS)
    assert isinstance(fitted, StreamedFit)
    with pytest.raises(ValueError, match="measure them again"):
        fitted.ask([sentinel("another")], stride)
