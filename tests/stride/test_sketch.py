"""Sketches of gradients: what is kept of them finds what all of them would find."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.stride.operators import Moments, Preconditioner
from poisonwatch.stride.row_pass import precondition_queries
from poisonwatch.stride.sketch import Sketch, _pack, _unpack, choose_sketch

R, D = 8, 24
ROWS = 60


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Some directions have much, most have little, as those of states and gradients.
B = draw(4000, R, seed=1) * torch.arange(1, R + 1).float() ** -1.5
g = draw(4000, D, seed=2) * torch.arange(1, D + 1).float() ** -1.5
PRECONDITIONER = Preconditioner(Moments(B.T @ B, g.T @ g, 1.0, 4000), damping=0.1)
G = torch.einsum("mtr,mtd->mrd", B.view(-1, 10, R), g.view(-1, 10, D))[:ROWS]
QUERIES = torch.einsum("mtr,mtd->mrd", B.view(-1, 10, R), g.view(-1, 10, D))[-5:]
EXACT = (G.flatten(1) @ precondition_queries(PRECONDITIONER, QUERIES).flatten(1).T).numpy()


SPREAD = np.linspace(0.5, 2.0, ROWS, dtype=np.float32)
EFFECTS = EXACT / SPREAD[:, None]


def measure(sketch: Sketch) -> np.ndarray:
    return sketch.encode(G, SPREAD).measure(sketch.project_queries(QUERIES))


def test_whitened_gradients_have_the_preconditioned_inner_product() -> None:
    """<left^T G right, left^T G' right> = <P G, G'>."""
    left, right = PRECONDITIONER.find_whitening()
    H = (left.mT @ G @ right).flatten(1)
    expected = PRECONDITIONER(G).flatten(1) @ G.flatten(1).T
    torch.testing.assert_close(H @ H.T, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_a_sketch_of_every_pair_differs_by_its_rounding() -> None:
    """All r pairs are the whole gradient: 4 bits a number leave 5 % of the effects' variance."""
    whole = Sketch(*PRECONDITIONER.find_whitening(), rank=R)
    error = measure(whole) - EFFECTS
    assert error.var() < 0.06 * EFFECTS.var()


@pytest.mark.parametrize("rank", [1, 2])
def test_a_restored_gradient_is_what_effects_are_measured_by(rank: int) -> None:
    """<H_i, H_q> of a restored row is its measured effect; an odd number of codes, too."""
    left, right = PRECONDITIONER.find_whitening()
    sketch = Sketch(left, right[:, :7].contiguous(), rank)
    sketches, probes = sketch.encode(G, SPREAD), sketch.project_queries(QUERIES)
    restored = sketch.restore(sketches, slice(10, 30)).flatten(1) @ probes.flatten(1).T
    expected = sketches.measure(probes)[10:30]
    np.testing.assert_allclose(restored.numpy(), expected, atol=1e-4 * np.abs(expected).max())


def test_more_pairs_tell_more() -> None:
    """The error falls with every pair; the first two correlate above .85."""
    left, right = PRECONDITIONER.find_whitening()
    found = [measure(Sketch(left, right, rank)) for rank in (1, 2, 4)]
    errors = [float((effects - EFFECTS).var()) for effects in found]
    assert errors == sorted(errors, reverse=True)
    assert np.corrcoef(found[1].ravel(), EFFECTS.ravel())[0, 1] > 0.85


def test_a_gradient_of_one_token_is_one_pair() -> None:
    """Its rank is one: one pair misses nothing but the rounding."""
    single = torch.einsum("mr,md->mrd", B[:ROWS], g[:ROWS])
    sketch = Sketch(*PRECONDITIONER.find_whitening(), rank=1)
    found = sketch.encode(single, np.ones(ROWS, np.float32)).measure(sketch.project_queries(single))
    exact = (PRECONDITIONER(single).flatten(1) @ single.flatten(1).T).numpy()
    exact /= single.flatten(1).norm(dim=1).numpy()
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    ("size", "rank", "b"),
    [(10_000, R, D), (2 * (R + D), 4, D), (R + D, 2, D), (R + 8, 2, 8), (R, 1, R), (1, 1, 1)],
)
def test_size_is_bytes_a_row(size: int, rank: int, b: int) -> None:
    """As many pairs as fit; two at least, where there is room for a quarter of their numbers; of no
    more directions than there are.
    """
    sketch = choose_sketch(PRECONDITIONER, size)
    assert (sketch.rank, sketch.right.shape[1]) == (rank, b)
    codes = sketch.encode(G, SPREAD).codes
    assert codes.shape == (ROWS, sketch.bytes_of_codes)
    assert sketch.bytes_of_codes <= max(size, (R + 2) // 2)


def test_cut_directions_are_those_in_which_gradients_have_least() -> None:
    """What is left has more of H than as many other directions."""
    _, right = PRECONDITIONER.find_whitening()
    energy = (G @ right).pow(2).sum(dim=(0, 1))
    cut = choose_sketch(PRECONDITIONER, R + 8).right
    torch.testing.assert_close(cut, right[:, :8])
    assert float(energy[:8].sum()) > 0.5 * float(energy.sum())


@given(st.integers(1, 9), st.integers(1, 33), st.integers(0, 2**32 - 1))
def test_codes_come_back_from_bytes(m: int, s: int, seed: int) -> None:
    """-7 to 7, whether their number is even or not."""
    codes = np.random.default_rng(seed).integers(-7, 8, (m, s)).astype(np.int8)
    packed = _pack(codes)
    assert packed.nbytes == m * ((s + 1) // 2)
    np.testing.assert_array_equal(_unpack(packed, s), codes)


def test_rows_and_queries_that_nothing_moves_have_no_effect() -> None:
    """0, and no division by it: such a row has an infinite spread."""
    sketch = choose_sketch(PRECONDITIONER, 64)
    rows = sketch.encode(torch.zeros(2, R, D), np.full(2, np.inf, dtype=np.float32))
    assert not rows.measure(sketch.project_queries(QUERIES)).any()
    rows = sketch.encode(G, SPREAD)
    assert not rows.measure(sketch.project_queries(torch.zeros(1, R, D))).any()


@pytest.mark.parametrize("size", [1e-18, 1e18])
def test_rows_of_any_size_are_kept(size: float) -> None:
    """Effects count spreads, which grow with the gradient: they stay as they are."""
    sketch = choose_sketch(PRECONDITIONER, 64)
    probes = sketch.project_queries(QUERIES)
    spread = (SPREAD * size).astype(np.float32)
    found, usual = (
        rows.measure(probes) for rows in (sketch.encode(G * size, spread), sketch.encode(G, SPREAD))
    )
    np.testing.assert_allclose(found, usual, atol=0.05 * np.abs(usual).max())


def test_a_row_that_is_not_finite_harms_no_other() -> None:
    """Its sketch is nothing; those beside it in the batch are as before."""
    sketch = choose_sketch(PRECONDITIONER, 64)
    broken = G[:4].clone()
    broken[1, 2, 3], broken[2, 0, 0] = torch.nan, torch.inf
    found, usual = (sketch.encode(some, SPREAD[:4]) for some in (broken, G[:4]))
    assert not found.scale[1:3].any()
    probes = sketch.project_queries(QUERIES)
    np.testing.assert_allclose(
        found.measure(probes)[[0, 3]], usual.measure(probes)[[0, 3]], rtol=1e-4
    )


def test_lengths_of_queries_do_not_count() -> None:
    """Ten times the gradient is the same question."""
    sketch = choose_sketch(PRECONDITIONER, 64)
    once, tenfold = sketch.project_queries(QUERIES), sketch.project_queries(10 * QUERIES)
    torch.testing.assert_close(once, tenfold)
