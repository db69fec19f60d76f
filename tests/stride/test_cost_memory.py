"""Bytes by formula against what the same code allocates."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from allocations import measure_peak
from cost_cases import COST_CASES, make_audit, make_shape

from poisonwatch.examples import Example, Message
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.products import use_bfloat16_products
from poisonwatch.recovery.local_kriging import compute_smoother
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.stride import cost_memory
from poisonwatch.stride.background import Background
from poisonwatch.stride.operators import Moments, Preconditioner, compute_row_gradients
from poisonwatch.stride.records import RecordStore, RowRecords
from poisonwatch.stride.row_pass import RowMeter, Yardsticks
from poisonwatch.stride.similarity import compute_features, compute_views

WITHIN = 0.15


def make_preconditioner(D: int, r: int) -> Preconditioner:
    draw = torch.Generator().manual_seed(1)
    S, B = torch.randn(3 * D, D, generator=draw), torch.randn(3 * D, r, generator=draw)
    return Preconditioner(Moments(B.T @ B, S.T @ S, 1.0, 3 * D), 0.1)


@pytest.mark.parametrize("name", COST_CASES)
def test_weights_are_counted(name: str) -> None:
    """But for norms, which are below a hundredth in models of any use."""
    model = COST_CASES[name].build()
    held = sum(weight.nbytes for weight in model.model.parameters())
    assert cost_memory.count_weight_bytes(make_shape(model)) == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("name", COST_CASES)
def test_a_batch_of_the_pass_takes_what_is_said(name: str) -> None:
    """Activations, logits, states, gradients and views: whichever is most of it."""
    case = COST_CASES[name]
    model, batch, basis = case.build(), case.make_batch(), case.make_basis()

    def measure() -> object:
        seen = model.compute_state_gradients(batch)
        G = compute_row_gradients(basis, seen)
        compute_views(basis, seen.z, batch)
        return G

    peak, kept = measure_peak(measure)
    said = cost_memory.count_pass_bytes(make_shape(model), case.r, case.batch)
    assert said == pytest.approx(peak, rel=WITHIN)
    assert kept == cost_memory.count_operator_bytes(make_shape(model), case.r, case.rows)


def test_factors_that_are_rounded_are_counted() -> None:
    """Copies in bfloat16 of the head's weights and of what is multiplied with them."""
    case = COST_CASES["logits"]
    model = case.build()
    exact = make_shape(model)
    use_bfloat16_products(model.model)
    rounded = make_shape(model)
    assert (exact.rounds, rounded.rounds) == (False, True)
    more = cost_memory.count_logit_bytes(rounded, case.batch)
    more -= cost_memory.count_logit_bytes(exact, case.batch)
    assert more == 2 * exact.V * (case.batch.answer_tokens + exact.D)


@pytest.mark.parametrize(("name", "b"), [("blocks", 200), ("gradients", 60)])
def test_the_background_takes_what_is_said(name: str, b: int) -> None:
    """Its probes, and what making them holds on the way."""
    case = COST_CASES[name]
    shape = make_shape(case.build())
    preconditioner = make_preconditioner(shape.D, case.r)
    known = torch.randn(b + 10, case.r, shape.D)
    peak, kept = measure_peak(
        lambda: Background.from_gradients(known[torch.arange(b)], preconditioner, np.ones(b))
    )
    said = cost_memory.count_probe_making_bytes(shape, case.r, b)
    assert said == pytest.approx(peak, rel=WITHIN)
    assert kept == pytest.approx(cost_memory.count_operator_bytes(shape, case.r, b), rel=WITHIN)


@pytest.mark.parametrize("name", ["blocks", "gradients"])
def test_factors_take_what_is_said(name: str) -> None:
    """Moments and Cholesky factors, with the basis."""
    case = COST_CASES[name]
    shape = make_shape(case.build())
    said = cost_memory.count_factor_bytes(shape, case.r)
    draw = torch.randn(300, shape.D)

    def make_one() -> object:
        moments = Moments(draw[:, : case.r].T @ draw[:, : case.r], draw.T @ draw, 1.0, 300)
        return Preconditioner(moments, 0.1), case.make_basis()

    peak, kept = measure_peak(lambda: [make_one() for _ in range(shape.splits)])
    assert said == pytest.approx(kept, rel=WITHIN)
    factorising = cost_memory.count_factorising_bytes(shape, make_audit())
    assert peak <= factorising + kept


def list_arrays(records: RowRecords) -> list[np.ndarray]:
    fields = [getattr(records, name) for name in RowRecords.__slots__]
    for above in records.further:
        fields += [above.effects, above.centre, above.views]
    return [values for values in fields if isinstance(values, np.ndarray)]


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("name", ["wide", "gradients"])
def test_a_record_takes_what_is_said_in_memory_and_on_the_disk(
    name: str, keeps: bool, tmp_path: Path, tiny_tokenizer: object
) -> None:
    """With gradients and without, but for a file's own head."""
    case = COST_CASES[name]
    model = case.build()
    shape, basis = make_shape(model), case.make_basis()
    m, Q = 200, 7
    yardsticks = Yardsticks(
        basis=basis,
        background=Background(torch.zeros(3, case.r, shape.D)),
        queries=torch.zeros(Q, case.r, shape.D),
    )
    meter = RowMeter(
        model=model,
        encoder=ChatEncoder(tiny_tokenizer),  # type: ignore[arg-type]
        yardsticks=(yardsticks,) * shape.splits,
        token_budget=100,
        keep_gradients=keeps,
    )
    rows = [Example.from_messages([Message("user", str(i))]) for i in range(m)]
    records = meter.allocate_records(rows)
    audit = make_audit(n=m, Q=Q, r=case.r, keeps_gradients=keeps)
    said = cost_memory.count_disk_bytes(shape, audit)
    assert said == sum(values.nbytes for values in list_arrays(records))
    store = RecordStore(tmp_path)
    store.write("some", records)
    (file,) = tmp_path.iterdir()
    assert said == pytest.approx(file.stat().st_size, rel=WITHIN)
    assert cost_memory.count_shard_bytes(shape, audit) == said


def trace(work: Callable[[], object]) -> tuple[int, int]:
    """The most bytes of arrays that `work` held at once, and those that it left."""
    tracemalloc.start()
    try:
        result = work()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del result
    return peak, kept


@pytest.mark.parametrize(("n", "r"), [(6000, 17), (9000, 6), (40_000, 6)])
def test_the_way_from_records_to_coefficients_takes_what_is_said(n: int, r: int) -> None:
    """Features, graph and smoother of random rows, few enough views for the index, which numpy does
    not allocate, not to be the most of it.
    """
    audit = make_audit(n=n, r=r, Q=9)
    draw = np.random.default_rng(0)
    views = draw.normal(size=(n, 3, r - 1)).astype(np.float32)
    peak, kept = trace(lambda: compute_features(views))
    assert kept == pytest.approx(cost_memory.count_feature_bytes(audit), rel=WITHIN)
    features = compute_features(views)
    assert peak <= 1.05 * 3 * features.nbytes
    peak, kept = trace(lambda: find_neighbours(features))
    assert kept == pytest.approx(cost_memory.count_graph_bytes(audit), rel=WITHIN)
    assert peak == pytest.approx(cost_memory.count_search_bytes(audit), rel=WITHIN)
    graph = find_neighbours(features)
    effects, signs = draw.normal(size=(n, 9)).astype(np.float32), np.ones(n)

    def smooth() -> object:
        smoother = compute_smoother(features, graph, signs)
        return smoother @ (effects - signs[:, None])

    peak, kept = trace(smooth)
    assert peak == pytest.approx(cost_memory.count_smoother_bytes(audit), rel=WITHIN)


def test_what_is_most_grows_with_the_part_that_is_most() -> None:
    """Rows add records and columns; width adds weights and gradients."""
    shape = make_shape(COST_CASES["blocks"].build())
    small = cost_memory.estimate_memory(shape, make_audit(n=100_000, keeps_gradients=False))
    large = cost_memory.estimate_memory(shape, make_audit(n=1_000_000, keeps_gradients=False))
    assert large.records == 10 * small.records
    assert large.model_peak == small.model_peak
    assert large.reduction == pytest.approx(10 * small.reduction, rel=0.01)
    assert large.peak == large.weights + large.factors + large.known + large.reduction


def test_a_sketch_takes_its_codes_and_scale(model: FrozenModel) -> None:
    """s bytes and a float32 a row, and the map beside the factors."""
    shape = make_shape(model)
    without = make_audit(keeps_gradients=False)
    sketched = make_audit(keeps_gradients=False, sketch=100)
    more = cost_memory.count_disk_bytes(shape, sketched)
    assert more - cost_memory.count_disk_bytes(shape, without) == 500 * 104
    expected = 4 * (16**2 + shape.D * min(100, shape.D))
    assert cost_memory.count_sketch_map_bytes(shape, sketched) == expected
    kept = make_audit(sketch=100)
    assert cost_memory.count_sketch_map_bytes(shape, kept) == 0
