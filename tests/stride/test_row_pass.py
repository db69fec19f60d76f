"""What a pass makes of each row, against operators and loops that take the long way."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import ROWS, SENTINELS, STRIDE, example, fit_operators, fit_stream

from poisonwatch.examples import Example, Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.fault import Fault
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.progress import silent
from poisonwatch.stride.background import Background
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.measurement import measure
from poisonwatch.stride.operators import (
    Moments,
    Preconditioner,
    compute_all_gradients,
    compute_gradients,
)
from poisonwatch.stride.queries import QuerySpace, prepare_queries
from poisonwatch.stride.row_pass import RowMeter, Yardsticks, precondition_queries
from poisonwatch.stride.similarity import VIEWS, survey_views
from poisonwatch.stride.streamed import StreamedFit


def prefer(i: int) -> Example:
    question = Message("user", f"Which is better, {i}?")
    return Example.from_messages(
        [question, Message("assistant", f"Tea, {i} times.")],
        rejected=[question, Message("assistant", "Coffee.")],
    )


def lower(row: Example) -> Example:
    return Example.from_messages(row.messages, lowered=True)


# Plain rows, lowered ones, and preferences.
MIXED = [*ROWS[:24], *map(lower, ROWS[24:32]), *map(prefer, range(8))]


@pytest.fixture(scope="module")
def streamed(tiny_pretrained: Pretrained) -> StreamedFit:
    return fit_stream(tiny_pretrained, MIXED)


@pytest.fixture(scope="module")
def operators(tiny_pretrained: Pretrained) -> NaturalGradientFit:
    return fit_operators(tiny_pretrained, MIXED)


@pytest.fixture(scope="module")
def meter(streamed: StreamedFit) -> RowMeter:
    """At both splits, with a background of other rows, so that no row is its own."""
    bases = [factors.basis for factors in streamed.factors]
    space = QuerySpace(streamed.model, streamed.encoder, bases[0], tuple(bases[1:]))
    _, prepared = prepare_queries(space, SENTINELS, STRIDE)
    encoded = [streamed.encoder.encode_example(row) for row in MIXED[:10]]
    samples = compute_all_gradients(streamed.model, bases, encoded, 600, "", silent)
    yardsticks = []
    asked = (prepared.G, *prepared.further)
    for factors, sample, G in zip(streamed.factors, samples, asked, strict=True):
        background = Background.from_gradients(sample, factors.preconditioner, np.ones(10))
        queries = precondition_queries(factors.preconditioner, G)
        yardsticks.append(Yardsticks(factors.basis, background, queries))
    return RowMeter(
        model=streamed.model,
        encoder=streamed.encoder,
        yardsticks=tuple(yardsticks),
        token_budget=600,
        keep_gradients=True,
    )


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """To a share of the largest number."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_effects_are_those_of_the_operators_of_single_rows(
    streamed: StreamedFit, operators: NaturalGradientFit
) -> None:
    """y_i(q) = -<G_q, a_i> / (eta ||G_q||), from operators that were solved for and kept."""
    queries, prepared = prepare_queries(operators, SENTINELS, STRIDE)
    y = measure(operators, operators.operators, prepared, STRIDE)[operators.subset_alone]
    assert streamed.measured.queries == queries
    assert streamed.measured.effects.shape == (len(MIXED), 3)
    assert_close(streamed.measured.effects, y)


def test_effects_equal_products_with_inverses_in_float64(streamed: StreamedFit) -> None:
    """<(A + d)^-1 G_q (S + d)^-1, G_i> / (||G_q|| spread_i), each row's gradient by itself."""
    moments = streamed.preconditioner.moments
    left, right = (
        torch.linalg.inv(mean + STRIDE.damping * mean.diagonal().mean() * torch.eye(len(mean)))
        for mean in ((m / moments.tokens).double() for m in (moments.A, moments.S))
    )
    _, prepared = prepare_queries(streamed, SENTINELS, STRIDE)
    expected = np.empty((len(MIXED), 3))
    for i, row in enumerate(MIXED):
        encoded = [streamed.encoder.encode_example(row)]
        (G,) = compute_gradients(streamed.model, streamed.basis, encoded, 1, "", silent).double()
        for q, G_q in enumerate(prepared.G.double()):
            push = float((left @ G_q @ right * G).sum() / G_q.norm())
            expected[i, q] = push / streamed.measured.spread[i]
    assert_close(streamed.measured.effects, expected, 1e-4)


def test_centre_and_spread_are_those_that_operators_were_fitted_with(
    streamed: StreamedFit, operators: NaturalGradientFit
) -> None:
    """As for what else is known of the rows: signs and features."""
    measured = streamed.measured
    assert_close(measured.centre, operators.centre)
    np.testing.assert_allclose(measured.spread, operators.spread, rtol=1e-5)
    np.testing.assert_array_equal(measured.signs, operators.signs)
    assert (measured.signs == -1).sum() == 8
    np.testing.assert_allclose(measured.features, operators.features, atol=1e-5)
    assert streamed.eta == pytest.approx(operators.eta, rel=0.5)


def test_lengths_of_queries_do_not_count(streamed: StreamedFit) -> None:
    """P (c G_q) / ||c G_q|| = P G_q / ||G_q|| for c > 0; a query that nothing moves is 0, and not
    0 / 0.
    """
    draw = torch.manual_seed(0)
    G = torch.randn(4, streamed.basis.r, streamed.model.width, generator=draw)
    P = streamed.preconditioner
    expected = precondition_queries(P, G)
    for i in range(4):
        torch.testing.assert_close(expected[i], P(G[i] / G[i].norm()), rtol=1e-3, atol=1e-6)
    scaled = precondition_queries(P, G * torch.tensor([1e-3, 1, 10, 1e4])[:, None, None])
    torch.testing.assert_close(scaled, expected, rtol=1e-3, atol=1e-6)
    assert not precondition_queries(P, torch.zeros_like(G)).any()


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_a_shard_s_records_do_not_depend_on_its_batches(meter: RowMeter, budget: int) -> None:
    """A row's record is that of the row alone, whoever shares its batch."""
    found = measure_all(replace(meter, token_budget=budget), MIXED[12:])
    for i, row in enumerate(MIXED[12:]):
        alone = measure_all(meter, [row])
        assert found.ids[i].tobytes().hex() == row.id
        assert found.signs[i] == alone.signs[0]
        for name in ("effects", "centre", "spread", "views", "gradients"):
            one, other = getattr(found, name), getattr(alone, name)[0]
            assert_close(one[i], other, 1e-3 if name == "centre" else 1e-4)
        for above, of_row in zip(found.further, alone.further, strict=True):
            assert_close(above.effects[i], of_row.effects[0], 1e-4)
            assert_close(above.centre[i], of_row.centre[0], 1e-3)


def test_a_further_split_measures_as_a_split_of_its_own(
    streamed: StreamedFit, tiny_pretrained: Pretrained
) -> None:
    """Effects at the block above are those of a fit that steers there, row by row."""
    assert streamed.settings.further == (2,)
    alone = fit_stream(tiny_pretrained, MIXED, STRIDE.model_copy(update={"layer": 2}))
    assert alone.settings.further == ()
    (above,) = streamed.table.iterate_further()
    assert_close(above.effects, alone.measured.effects)
    assert_close(above.centre, alone.measured.centre)
    np.testing.assert_allclose(above.features, alone.measured.features, atol=1e-5)


def test_gradients_above_are_kept_where_they_are_asked_for(meter: RowMeter) -> None:
    """For a drill, that asks other sentinels later."""
    assert all(above.gradients is None for above in measure_all(meter, MIXED[:3]).further)
    (kept,) = measure_all(replace(meter, keep_further=True), MIXED[:3]).further
    encoded = [meter.encoder.encode_example(row) for row in MIXED[:3]]
    bases = [each.basis for each in meter.yardsticks]
    G = compute_all_gradients(meter.model, bases, encoded, 600, "", silent)[1]
    assert kept.gradients is not None
    assert_close(kept.gradients, G.flatten(1).numpy())


def measure_all(meter: RowMeter, rows: Sequence[Example]):  # type: ignore[no-untyped-def]
    records = meter.allocate_records(rows)
    assert sum(meter.measure_shard(rows, records)) == len(rows)
    return records


def test_views_are_those_of_a_survey(meter: RowMeter) -> None:
    """What says which rows are alike costs no pass of its own."""
    encoded = [meter.encoder.encode_example(row) for row in MIXED]
    expected = survey_views(meter.model, encoded, meter.yardsticks[0].basis, 600)
    found = measure_all(meter, MIXED).views.reshape(len(MIXED), VIEWS, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_record_has_a_size_that_gradients_alone_can_enlarge(meter: RowMeter) -> None:
    """An id, two numbers, and Q effects, one number and three views at each layer: whatever the
    width of the model.
    """
    r, width = meter.yardsticks[0].basis.r, meter.model.width
    small = replace(meter, keep_gradients=False).allocate_records(MIXED[:5])
    arrays = [small.ids, small.effects, small.centre, small.spread, small.signs, small.views]
    (above,) = small.further
    arrays += [above.effects, above.centre, above.views]
    assert sum(array.nbytes for array in arrays) == 5 * (32 + 4 * (2 + 2 * (4 + VIEWS * (r - 1))))
    assert small.gradients is None
    large = meter.allocate_records(MIXED[:5])
    assert large.gradients is not None
    assert large.gradients.nbytes == 5 * 4 * r * width


def test_without_queries_rows_are_measured_all_the_same(meter: RowMeter) -> None:
    """Q = 0: centre, spread and views are there."""
    none = torch.zeros(0, meter.yardsticks[0].basis.r, meter.model.width)
    unasked = tuple(replace(each, queries=none) for each in meter.yardsticks)
    records = measure_all(replace(meter, yardsticks=unasked), ROWS)
    assert records.effects.shape == (40, 0)
    assert (records.spread > 0).all()
    assert records.views.any(axis=1).all()


def test_a_row_that_moves_nothing_does_nothing() -> None:
    """G_i = 0: spread infinite, centre and effects 0."""
    draw = torch.manual_seed(1)
    b, g = (torch.randn(50, k, generator=draw) for k in (3, 4))
    P = Preconditioner(Moments(b.T @ b, g.T @ g, 50.0, 50), 0.1)
    sample = torch.randn(5, 3, 4, generator=draw)
    queries = precondition_queries(P, torch.randn(2, 3, 4, generator=draw))
    background = Background.from_gradients(sample, P, np.ones(5))
    yardsticks = Yardsticks(None, background, queries)  # type: ignore[arg-type]
    effects, centre, spread = yardsticks.measure(torch.zeros(1, 3, 4))
    assert np.isinf(spread).all()
    assert not centre.any()
    assert not effects.any()


def test_a_row_without_an_answer_is_left_out(meter: RowMeter, tiny_pretrained: Pretrained) -> None:
    """Nothing is left of it within `max_tokens`: its record says so, the other row's is what it is
    without.
    """
    short = replace(meter, encoder=ChatEncoder(tiny_pretrained.tokenizer, 8))
    row = Example.from_messages([Message("user", "Why? " * 40)])
    for measuring in (meter, short):
        rows = [example("Why?", "So."), row]
        records = measuring.allocate_records(rows)
        assert sum(measuring.measure_shard(rows, records)) == len(rows)
        assert records.faults.tolist() == [Fault.NONE, Fault.NO_ANSWER]
        alone = measuring.allocate_records(rows[:1])
        list(measuring.measure_shard(rows[:1], alone))
        np.testing.assert_array_equal(records.effects[:1], alone.effects)
