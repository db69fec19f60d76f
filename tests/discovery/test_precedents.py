"""Whether earlier audits had rows that push the way a group does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import STRIDE, benign, fit_stream, keep_rows
from discovered import make_examples

from poisonwatch.discovery.precedents import (
    EarlierAudit,
    carry_over,
    find_direction,
    find_precedents,
    measure_pushes,
)
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.operators import Basis
from poisonwatch.stride.saved_rows import SavedRows, read_nothing
from poisonwatch.stride.streamed import StreamedFit

PANS = make_examples(16)
N = 8  # of them in each audit


@pytest.fixture(scope="module")
def now(tiny_pretrained: Pretrained) -> StreamedFit:
    return fit_stream(tiny_pretrained, [*PANS[:N], *benign(24, seed=1)], STRIDE)


@pytest.fixture(scope="module")
def then(tiny_pretrained: Pretrained) -> SavedRows:
    """An earlier audit of other rows, some of the same kind; its basis is its own."""
    return keep_rows(fit_stream(tiny_pretrained, [*PANS[N:], *benign(20, seed=5)], STRIDE))


def earlier(saved: SavedRows) -> EarlierAudit:
    return EarlierAudit(3, "a-3", saved, dict.fromkeys(saved.ids, "old.jsonl"))


def trusted_of(fit: StreamedFit) -> np.ndarray:
    return np.arange(len(fit.ids)) >= N + 4


def test_rows_of_the_same_kind_are_found_in_an_earlier_audit(
    now: StreamedFit, then: SavedRows
) -> None:
    """With their number and source, though trusted rows, and so the basis, were others."""
    direction = find_direction(now, np.arange(N), trusted_of(now), read_nothing)
    (found,), left_out = find_precedents([direction], [None, earlier(then)], set())
    assert left_out == 1
    assert not found.is_new
    (rows,) = found.alike
    assert (rows.audit, rows.audit_id) == (3, "a-3")
    assert N - 2 <= rows.rows <= N + 2
    assert rows.sources == {"old.jsonl": rows.rows}
    assert found.rows == len(then.ids)


def test_an_audit_without_them_has_none_and_its_own_rows_do_not_count(
    now: StreamedFit, then: SavedRows
) -> None:
    """A direction is new where only rows push it that are audited again."""
    direction = find_direction(now, np.arange(N), trusted_of(now), read_nothing)
    again = {row.id for row in PANS}
    (found,), _ = find_precedents([direction], [earlier(then)], again)
    assert found.is_new
    assert found.last == 3
    assert found.rows == len(then.ids) - N


def test_a_row_alone_has_no_direction(now: StreamedFit) -> None:
    """Nothing says how alike others must be."""
    assert find_direction(now, np.arange(1), trusted_of(now), read_nothing) is None
    (found,), _ = find_precedents([None], [], set())
    assert not found.audits


def test_a_fit_and_what_is_kept_of_it_say_the_same(now: StreamedFit) -> None:
    """Pushes on a direction, and the direction itself."""
    saved = keep_rows(now)
    direction = find_direction(now, np.arange(N), trusted_of(now), read_nothing)
    kept = find_direction(saved, np.arange(N), trusted_of(now), read_nothing)
    assert direction is not None
    assert kept is not None
    assert kept.push == pytest.approx(direction.push, rel=1e-3)
    pushes = measure_pushes(now, direction.G)
    assert np.allclose(measure_pushes(saved, kept.G), pushes, rtol=1e-3, atol=1e-3)


def test_gradients_over_a_turned_basis_are_the_same_gradients() -> None:
    """G' = [V^T U, 1] G for orthonormal U and V: carried there and back it is as it was where both
    span the same, and the constant is never touched.
    """
    draw = torch.Generator().manual_seed(0)
    full = torch.linalg.qr(torch.randn(6, 6, generator=draw)).Q
    turn = torch.linalg.qr(torch.randn(4, 4, generator=draw)).Q
    one, other = Basis(full[:, :4]), Basis(full[:, :4] @ turn)
    G = torch.randn(2, 5, 6, generator=draw)
    there = carry_over(G, one, other)
    assert torch.allclose(carry_over(there, other, one), G, atol=1e-5)
    assert torch.equal(there[:, -1], G[:, -1])
    apart = carry_over(G, one, Basis(full[:, 4:]))
    assert apart.shape == (2, 3, 6)
    assert torch.allclose(apart[:, :-1], torch.zeros(2, 2, 6), atol=1e-5)


def test_an_audit_of_a_smaller_basis_is_compared_with_as_far_as_it_goes(
    now: StreamedFit, tiny_pretrained: Pretrained
) -> None:
    """Its rows of the same kind are found still."""
    small = STRIDE.model_copy(update={"r": 8})
    saved = keep_rows(fit_stream(tiny_pretrained, [*PANS[N:], *benign(20, seed=5)], small))
    direction = find_direction(now, np.arange(N), trusted_of(now), read_nothing)
    assert direction is not None
    loose = replace(direction, push=direction.push / 2)
    (found,), _ = find_precedents([loose], [earlier(saved)], set())
    assert found.alike
