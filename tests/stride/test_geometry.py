"""What is set before the pass: by which rows, and what is known of them afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from attributions import ROWS, STRIDE

from poisonwatch.checkpoints.store import CheckpointStore
from poisonwatch.examples import Example
from poisonwatch.model.encoding import make_batches
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.background import Background
from poisonwatch.stride.geometry import Reference, gather_reference
from poisonwatch.stride.operators import compute_gradients
from poisonwatch.stride.problem import FitProblem, prepare_problem
from poisonwatch.stride.similarity import survey_views

TRUSTED = np.arange(25, 40)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("POISONWATCH_CACHE", str(tmp_path))
    return tmp_path


def pose(pretrained: Pretrained, trusted: np.ndarray | None = None) -> FitProblem:
    return prepare_problem(pretrained, ROWS, STRIDE, trusted=trusted)


def make_gradients(problem: FitProblem, reference: Reference, rows: np.ndarray) -> torch.Tensor:
    """G (m, r, D) of rows, each by itself."""
    basis = reference.geometry.basis
    return compute_gradients(problem.model, basis, problem.encode(rows), 1, "", silent)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def sum_moments(problem: FitProblem, reference: Reference, rows: np.ndarray):  # type: ignore[no-untyped-def]
    """Sums over the tokens of rows, one row at a time: B B^T, g g^T and how many there are."""
    A, S, tokens = 0, 0, 0
    for row in problem.encode(rows):
        seen = problem.model.compute_state_gradients(next(make_batches([row], 1)))
        B, g = reference.geometry.basis(seen.z)[seen.mask], seen.g[seen.mask]
        A, S, tokens = A + B.T @ B, S + g.T @ g, tokens + len(B)
    return A, S, tokens


def test_without_trusted_rows_the_sample_sets_all(tiny_pretrained: Pretrained) -> None:
    """Moments, gradients and views are those of the sample, in its order; every one of its rows is
    an ordinary conversation.
    """
    problem = pose(tiny_pretrained)
    reference = gather_reference(problem)
    geometry = reference.geometry
    np.testing.assert_array_equal(geometry.known, problem.sample)
    np.testing.assert_array_equal(geometry.own, np.arange(STRIDE.background))
    A, S, tokens = sum_moments(problem, reference, problem.sample)
    moments = geometry.preconditioner.moments
    assert_near(moments.A, A)
    assert_near(moments.S, S)
    assert moments.tokens == tokens
    assert_near(geometry.G, make_gradients(problem, reference, problem.sample))
    views = survey_views(problem.model, problem.encode(problem.sample), geometry.basis, 600)
    np.testing.assert_allclose(reference.views[0], views, atol=1e-5)


def test_trusted_rows_set_basis_and_factors_and_the_sample_the_background(
    tiny_pretrained: Pretrained,
) -> None:
    """Known are the trusted rows as they were drawn, then the rest of the sample; of these alone
    the sample's are ordinary conversations.
    """
    problem = pose(tiny_pretrained, TRUSTED)
    reference = gather_reference(problem)
    geometry, sample = reference.geometry, problem.sample
    trusted = problem.order[np.isin(problem.order, TRUSTED)]
    np.testing.assert_array_equal(geometry.known[:15], trusted)
    assert set(geometry.known[15:].tolist()) == set(sample.tolist()) - set(TRUSTED.tolist())
    A, S, tokens = sum_moments(problem, reference, TRUSTED)
    moments = geometry.preconditioner.moments
    assert_near(moments.A, A)
    assert_near(moments.S, S)
    assert moments.tokens == tokens
    assert_near(geometry.G, make_gradients(problem, reference, geometry.known))
    among = np.flatnonzero(geometry.own >= 0)
    np.testing.assert_array_equal(geometry.known[among], sample[geometry.own[among]])
    assert len(among) == len(sample)
    expected = Background.from_gradients(
        make_gradients(problem, reference, sample), geometry.preconditioner, np.ones(len(sample))
    )
    assert_near(geometry.background.probes, expected.probes)


def test_the_background_pushes_what_lowered_rows_would_raise(tiny_pretrained: Pretrained) -> None:
    """Signs stand beside the sample's rows, wherever they are."""
    rows = [Example.from_messages(row.messages, lowered=i % 2 == 0) for i, row in enumerate(ROWS)]
    problem = prepare_problem(tiny_pretrained, rows, STRIDE)
    reference = gather_reference(problem)
    raised = prepare_problem(tiny_pretrained, ROWS, STRIDE)
    G = make_gradients(raised, reference, problem.sample)
    expected = Background.from_gradients(
        G, reference.geometry.preconditioner, np.ones(len(problem.sample))
    )
    assert_near(reference.geometry.background.probes, expected.probes)


def test_what_was_kept_of_trusted_rows_gives_the_same_geometry(
    tiny_pretrained: Pretrained, cache: Path
) -> None:
    """To the bit, from the file, at each of the model's splits."""
    first = gather_reference(pose(tiny_pretrained, TRUSTED)).geometries
    (file,) = (cache / "statistics").iterdir()
    written = file.stat().st_ino
    again = gather_reference(pose(tiny_pretrained, TRUSTED)).geometries
    assert file.stat().st_ino == written
    assert len(first) == 2
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.basis.directions, other.basis.directions)
        assert torch.equal(one.G, other.G)
        assert torch.equal(one.background.probes, other.background.probes)
        np.testing.assert_array_equal(one.own, other.own)


def test_bases_that_an_interrupted_fit_left_are_taken_up(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """And are the same."""
    store = CheckpointStore(tmp_path / "work")
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE, store=store)
    first = gather_reference(problem).geometries
    assert store.list_names("bases") == ["bases"]
    again = CheckpointStore(tmp_path / "work")
    problem = prepare_problem(tiny_pretrained, ROWS, STRIDE, store=again)
    for one, other in zip(first, gather_reference(problem).geometries, strict=True):
        assert torch.equal(one.basis.directions, other.basis.directions)
    assert again.results_reused == 1


@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_set_a_geometry(tiny_pretrained: Pretrained, n: int) -> None:
    """All of them are known, and every number is finite."""
    problem = prepare_problem(tiny_pretrained, ROWS[:n], STRIDE)
    geometry = gather_reference(problem).geometry
    assert sorted(geometry.known.tolist()) == list(range(n))
    assert torch.isfinite(geometry.background.probes).all()
