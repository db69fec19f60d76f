"""Forward measurement against a steered model without the library's hooks, and against its
first-order limit.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.config import StrideConfig
from poisonwatch.errors import ModelError
from poisonwatch.examples import Message
from poisonwatch.model.architecture import find_decoder_blocks
from poisonwatch.model.encoding import ChatEncoder, Encoded, make_batches
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.stride.measurement import (
    MEASUREMENTS,
    measure_first_order,
    measure_forward,
    multiply_gradients,
)
from poisonwatch.stride.operators import Basis, Operators
from poisonwatch.stride.queries import PreparedQueries

Models = Callable[[str], PreTrainedModel]
R, D, LAYER = 6, 32, 1


@pytest.fixture(scope="module")
def queries(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    turns = [
        ("Hi", "Hello there"),
        ("Why?", "Because."),
        ("What is the capital of France?", "Paris, of course"),
    ]
    return [
        ChatEncoder(tiny_tokenizer).encode([Message("user", p), Message("assistant", a)])
        for p, a in turns
    ]


def prepared(queries: list[Encoded], G: Tensor | None = None) -> PreparedQueries:
    """A query for each conversation; forward measurement asks for no gradients."""
    if G is None:
        G = torch.zeros(len(queries), R, D)
    return PreparedQueries(
        tuple(queries), np.eye(len(queries), len(G)), G, torch.zeros(len(queries), 0)
    )


def basis_of(seed: int = 0) -> Basis:
    directions = torch.randn(
        D, R - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return Basis(torch.linalg.qr(directions)[0])


def gradients(model: FrozenModel, basis: Basis, queries: list[Encoded]) -> Tensor:
    """G_q = sum_t B(z_t) (x) dL_q/dz_t (Q, r, D), one query at a time."""
    seen = [model.compute_state_gradients(next(make_batches([query], 1))) for query in queries]
    return torch.stack([basis(s.z[0].double()).T @ s.g[0].double() for s in seen])


def scaled(
    model: FrozenModel, basis: Basis, a: Tensor, queries: list[Encoded], shift: float
) -> Operators:
    """a (K, r, D), each scaled to a typical shift ||B^T a_k|| / ||z|| over the queries' tokens."""
    z = torch.cat(
        [model.compute_states(next(make_batches([query], 1)))[0] for query in queries]
    ).double()
    moved = torch.einsum("tr,krd->ktd", basis(z), a).pow(2).sum(-1).mean(1)
    return Operators(
        a * (shift * (z.pow(2).sum(-1).mean() / moved).sqrt())[:, None, None], basis, 1.0, shift
    )


def random_operators(
    model: FrozenModel, basis: Basis, queries: list[Encoded], shift: float, K: int = 5
) -> Operators:
    a = torch.randn(K, R, D, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return scaled(model, basis, a, queries, shift)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_measurement_is_the_loss_before_minus_the_loss_when_steered(
    unfrozen: Models, queries: list[Encoded], family: str
) -> None:
    """y_k(q) = Loss(o_q) - Loss(o~_{q,k}), the latter from a whole float64 pass with z_t + B(z_t)^T
    a_k before block `layer`.
    """
    free = unfrozen(family)
    model = FrozenModel(free, LAYER)
    operators = random_operators(model, basis_of(), queries, 0.1)
    y = measure_forward(model, operators, prepared(queries))

    def loss(query: Encoded, a: Tensor) -> float:
        def steer(
            _: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
        ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
            return (args[0] + operators.basis(args[0]) @ a, *args[1:]), kwargs

        (batch,) = make_batches([query], 1)
        handle = find_decoder_blocks(free)[LAYER].register_forward_pre_hook(steer, with_kwargs=True)
        logits = free(input_ids=batch.input_ids, use_cache=False).logits[0]
        handle.remove()
        return float(
            cross_entropy(logits[:-1], torch.where(batch.answer, batch.input_ids, -100)[0, 1:])
        )

    expected = [[loss(query, 0 * a) - loss(query, a) for query in queries] for a in operators.a]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_measurement_tends_to_first_order_linearly_with_the_shift(
    unfrozen: Models, queries: list[Encoded], family: str
) -> None:
    """||y_forward - y_first|| / ||y_first|| = c shift + O(shift^2): a quarter of the shift, a
    quarter of the error.
    """
    model = FrozenModel(unfrozen(family), LAYER)
    basis = basis_of()
    G = gradients(model, basis, queries)
    errors = []
    for shift in (8e-3, 2e-3, 5e-4):
        operators = random_operators(model, basis, queries, shift)
        first = multiply_gradients(operators, G)
        errors.append(
            np.linalg.norm(measure_forward(model, operators, prepared(queries)) - first)
            / np.linalg.norm(first)
        )
    assert errors[-1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("family", FAMILIES)
def test_going_down_a_rows_own_gradient_makes_that_row_likelier(
    unfrozen: Models, queries: list[Encoded], family: str
) -> None:
    """a_k = -c G_k gives y_k(k) > 0, both ways of measuring: positive means likelier. Its negative
    gives y < 0.
    """
    model = FrozenModel(unfrozen(family), LAYER)
    basis = basis_of()
    G = gradients(model, basis, queries)
    operators = scaled(model, basis, -G, queries, 1e-3)
    against = Operators(-operators.a, basis, 1.0, 1e-3)
    for y, y_against in (
        (multiply_gradients(operators, G), multiply_gradients(against, G)),
        (
            measure_forward(model, operators, prepared(queries)),
            measure_forward(model, against, prepared(queries)),
        ),
    ):
        assert (np.diag(y) > 0).all()
        assert (np.diag(y_against) < 0).all()


def test_operators_of_nothing_measure_nothing(unfrozen: Models, queries: list[Encoded]) -> None:
    """y = 0 for a = 0."""
    model = FrozenModel(unfrozen("llama"), LAYER)
    y = measure_forward(
        model, Operators(torch.zeros(3, R, D), basis_of(), 1.0, 0.005), prepared(queries)
    )
    np.testing.assert_allclose(y, 0, atol=1e-7)


@pytest.mark.parametrize("token_budget", [1, 100, 100_000])
def test_measurement_depends_on_no_batch_size(
    unfrozen: Models, queries: list[Encoded], token_budget: int
) -> None:
    """y is the same with one operator at a time and with all at once, and reports K x Q
    measurements.
    """
    model = FrozenModel(unfrozen("gpt2"), LAYER)
    operators = random_operators(model, basis_of(), queries, 0.01)
    reported = []

    def progress(
        items: Iterable[object],
        description: str,
        total: int,
        advance: Callable[[object], int] = lambda _: 1,
    ) -> Iterator[object]:
        for item in items:
            reported.append(advance(item))
            yield item
        assert sum(reported) == total == 5 * len(queries)

    y = measure_forward(model, operators, prepared(queries), token_budget, progress)
    np.testing.assert_allclose(
        y, measure_forward(model, operators, prepared(queries)), rtol=1e-6, atol=1e-9
    )


def test_each_query_is_measured_as_if_alone(unfrozen: Models, queries: list[Encoded]) -> None:
    """y(., q) does not depend on the other queries or their order."""
    model = FrozenModel(unfrozen("qwen3"), LAYER)
    operators = random_operators(model, basis_of(), queries, 0.01)
    y = measure_forward(model, operators, prepared(queries))
    np.testing.assert_allclose(
        measure_forward(model, operators, prepared(queries[::-1]))[:, ::-1], y
    )
    np.testing.assert_allclose(measure_forward(model, operators, prepared(queries[1:2])), y[:, 1:2])


def test_first_order_is_minus_the_inner_product(unfrozen: Models) -> None:
    """y_k(q) = -<G_q, a_k> (K, Q)."""
    rng = torch.Generator().manual_seed(0)
    a, G = torch.randn(4, R, D, generator=rng), torch.randn(2, R, D, generator=rng)
    operators = Operators(a, basis_of(), 1.0, 0.005)
    model = FrozenModel(unfrozen("llama"), LAYER)
    y = measure_first_order(model, operators, prepared([], G))
    np.testing.assert_array_equal(y, multiply_gradients(operators, G))
    np.testing.assert_allclose(
        y, [[-float((g * each).sum()) for g in G] for each in a], rtol=1e-4, atol=1e-4
    )
    assert y.dtype == np.float64


def test_bfloat16_measures_the_same_within_its_rounding(
    unfrozen: Models, queries: list[Encoded]
) -> None:
    """Half-width weights and states: y correlates with the float64 model's above 0.95 at a shift
    well above their rounding.
    """
    operators = random_operators(
        FrozenModel(unfrozen("llama"), LAYER), basis_of(), queries, 0.05, K=20
    )
    exact = measure_forward(FrozenModel(unfrozen("llama"), LAYER), operators, prepared(queries))
    half = Operators(operators.a.float(), Basis(operators.basis.directions.float()), 1.0, 0.05)
    y = measure_forward(
        FrozenModel(unfrozen("llama").to(torch.bfloat16), LAYER), half, prepared(queries)
    )
    assert np.corrcoef(y.ravel(), exact.ravel())[0, 1] > 0.95


def test_measurements_are_those_of_the_audit_file() -> None:
    """One function for each value of stride.measurement, one signature for all."""
    choices = get_args(StrideConfig.model_fields["measurement"].annotation)
    assert set(MEASUREMENTS) == set(choices)


def test_query_without_answer_tokens_is_refused(unfrozen: Models) -> None:
    """Loss over no tokens is not defined."""
    model = FrozenModel(unfrozen("llama"), LAYER)
    operators = Operators(torch.zeros(1, R, D), basis_of(), 1.0, 0.005)
    with pytest.raises(ModelError, match="no assistant tokens left"):
        measure_forward(model, operators, prepared([Encoded.of([1, 2, 3], [False] * 3)]))
