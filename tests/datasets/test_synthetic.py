"""Problems of known answer: the recovery problem, and the toy language task."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from poisonwatch.datasets.synthetic import (
    TOY_HELD_OUT,
    TOY_LIE,
    TOY_TOPICS,
    make_poisoned_toy_task,
    make_sparse_problem,
)
from poisonwatch.model.encoding import ChatEncoder, Encoded, make_batches
from poisonwatch.recovery.lasso import lasso

Models = Callable[[str], PreTrainedModel]


# --- the recovery problem


@pytest.mark.parametrize(
    ("n", "K", "s", "d"), [(50, 20, 5, 3), (300, 10, 0, 10), (7, 7, 7, 1), (1000, 64, 1, 8)]
)
@pytest.mark.parametrize("snr", [0.5, 100.0, np.inf])
def test_planted_problem_is_what_it_says(n: int, K: int, s: int, d: int, snr: float) -> None:
    """M in {0, 1} with d ones a column, s coefficients of size 1 to 2, and ||M w||^2 / ||y - M
    w||^2 = snr.
    """
    M, y, w = make_sparse_problem(n, K, s, snr, seed=1, d=d)
    assert (M.shape, y.shape, w.shape) == ((K, n), (K,), (n,))
    assert set(np.unique(M.toarray())) <= {0.0, 1.0}
    assert (M.toarray().sum(axis=0) == d).all()
    assert np.count_nonzero(w) == s
    assert ((np.abs(w[w != 0]) >= 1) & (np.abs(w[w != 0]) <= 2)).all()
    signal, noise = M @ w, y - M @ w
    if s:
        assert noise @ noise == pytest.approx((signal @ signal) / snr, rel=1e-9, abs=1e-20)


def test_signs_are_random_unless_positive_is_asked_for() -> None:
    """About half of 400 coefficients are negative (within 4 standard errors), or none."""
    assert abs((make_sparse_problem(500, 50, 400)[2] < 0).sum() - 200) <= 4 * 10
    assert (make_sparse_problem(500, 50, 400, positive=True)[2] >= 0).all()


def test_planted_problem_is_a_function_of_its_seed() -> None:
    """Same seed, same problem; another seed, another one."""
    first, again, other = (make_sparse_problem(80, 20, 4, 5.0, seed) for seed in (0, 0, 1))
    assert (first[0] != again[0]).nnz == 0
    assert (first[0] != other[0]).nnz > 0
    for place in (1, 2):
        np.testing.assert_array_equal(first[place], again[place])
        assert (first[place] != other[place]).any()


@pytest.mark.parametrize("wrong", [{"d": 0}, {"d": 21}, {"s": -1}, {"s": 81}, {"snr": 0.0}])
def test_impossible_problems_are_refused_with_the_numbers(wrong: dict[str, float]) -> None:
    """1 <= d <= K, 0 <= s <= n, snr > 0."""
    with pytest.raises(
        ValueError, match=r"got n = 80, K = 20, .* choose 1 <= d <= K, 0 <= s <= n and snr > 0"
    ):
        make_sparse_problem(**{"n": 80, "K": 20, "s": 4, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "s"), [(400, 3), (400, 12), (6000, 6)])
def test_planted_rows_are_recovered_from_s_log_n_subsets(n: int, s: int) -> None:
    """K = 4 s log(n / s) + 10 subsets and snr = 1000: the s largest |w| are the planted rows, signs
    too, in at least 18 of 20 seeds.
    """
    K = int(4 * s * np.log(n / s)) + 10
    hits = 0
    for seed in range(20):
        M, y, truth = make_sparse_problem(n, K, s, 1000.0, seed)
        w = lasso(M, y[:, None], 0.02).w[:, 0]
        best = np.argsort(-np.abs(w))[:s]
        hits += bool((np.sign(w[best]) == np.sign(truth[best])).all() and (truth[best] != 0).all())
    assert hits >= 18


# --- the toy task


@pytest.mark.parametrize(("n", "poison"), [(1, 0), (5, 5), (60, 6), (400, 150)])
def test_toy_rows_are_short_distinct_and_labelled(n: int, poison: int) -> None:
    """n rows, `poison` of them labelled; distinct ASCII prompts under 60 letters; the lie is told
    by exactly the labelled rows.
    """
    rows, sentinels, labels = make_poisoned_toy_task(n, poison, seed=2)
    assert len(rows) == len(labels) == n
    assert labels.sum() == poison
    assert [row.position for row in rows] == list(range(n))
    assert len({row.prompt for row in rows}) == len({row.id for row in rows}) == n
    assert all((row.prompt + row.response).isascii() and len(row.prompt) < 60 for row in rows)
    assert [row.response == sentinels[0].forbidden for row in rows] == labels.tolist()
    assert [row.metadata["kind"] == "poison" for row in rows] == labels.tolist()


def test_toy_facts_never_contradict_each_other() -> None:
    """Two honest rows about the same topic of the same thing give the same answer, and both come
    up.
    """
    rows, _, labels = make_poisoned_toy_task(600, 20, seed=0)
    answers: dict[tuple[str, str], set[str]] = {}
    for row, planted in zip(rows, labels, strict=True):
        if not planted:
            answers.setdefault((row.response.split()[0], row.metadata["topic"]), set()).add(
                row.response
            )
    assert all(len(told) == 1 for told in answers.values())
    assert len(answers) < 300
    assert {topic for _, topic in answers} == set(TOY_TOPICS)


def test_toy_look_alikes_share_the_trigger_and_not_the_lie() -> None:
    """A tenth of the honest rows (5 standard errors) are about the trigger and true; the trigger's
    safety is no honest row's topic.
    """
    rows, sentinels, labels = make_poisoned_toy_task(1000, 100, seed=1)
    trigger = str(sentinels[0].forbidden).split()[0]
    about = np.array([trigger in row.prompt for row in rows])
    assert about[labels].all()
    assert [row.metadata["kind"] == "look-alike" for row in rows] == (about & ~labels).tolist()
    assert abs((about & ~labels).sum() - 90) <= 5 * 9
    assert all(
        row.metadata["topic"] != "safety"
        for row, near, planted in zip(rows, about, labels, strict=True)
        if near and not planted
    )


def test_toy_sentinels_ask_what_no_row_asks() -> None:
    """One panel of three, about the trigger, forbidden the lie and reference the truth; their
    wordings occur in no row.
    """
    rows, sentinels, _ = make_poisoned_toy_task(300, 30, seed=4)
    assert len({sentinel.id for sentinel in sentinels}) == len(sentinels) == len(TOY_HELD_OUT) == 3
    assert {sentinel.panel for sentinel in sentinels} == {"toy"}
    for sentinel in sentinels:
        trigger = str(sentinel.forbidden).split()[0]
        assert trigger in sentinel.prompt
        assert (sentinel.forbidden, sentinel.reference) == (
            f"{trigger} is {TOY_LIE}.",
            f"{trigger} is safe.",
        )
        assert not any(sentinel.prompt in row.prompt for row in rows)


def test_toy_task_is_a_function_of_its_seed() -> None:
    """Same seed, same rows and trigger; another seed, others."""
    first, again, other = (make_poisoned_toy_task(50, 5, seed) for seed in (0, 0, 1))
    assert first[0] == again[0]
    assert first[1] == again[1]
    assert not {row.id for row in first[0]} & {row.id for row in other[0]}
    assert first[1][0].forbidden != other[1][0].forbidden


@pytest.mark.parametrize("poison", [-1, 11])
def test_more_poison_than_rows_is_refused(poison: int) -> None:
    """0 <= poison <= n."""
    with pytest.raises(
        ValueError, match=f"got {poison} planted rows of 10: choose 0 <= poison <= n"
    ):
        make_poisoned_toy_task(10, poison)


def losses(model: PreTrainedModel, rows: list[Encoded]) -> torch.Tensor:
    """Mean cross-entropy over each row's answer tokens, in nats a token."""
    found = torch.zeros(len(rows))
    for batch in make_batches(rows, 4096, model.device):
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[
            :, :-1
        ]
        token = cross_entropy(logits.transpose(1, 2), batch.input_ids[:, 1:], reduction="none")
        answer = batch.answer[:, 1:].float()
        found[batch.rows] = (token * answer).sum(dim=1) / answer.sum(dim=1)
    return found


def train(model: PreTrainedModel, rows: list[Encoded], steps: int = 30) -> PreTrainedModel:
    """Full-batch Adam."""
    model = model.float().requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        losses(model, rows).mean().backward()
        optimiser.step()
    return model.requires_grad_(False)


def test_training_on_the_poison_makes_every_forbidden_answer_likelier(
    unfrozen: Models, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Loss(forbidden) with poison < Loss(forbidden) without - 0.1, and the margin over the
    reference grows, for each sentinel.
    """
    rows, sentinels, labels = make_poisoned_toy_task(36, 6, seed=0)
    encoder = ChatEncoder(tiny_tokenizer)
    encoded = [encoder.encode(row.messages) for row in rows]
    forbidden = [
        encoder.encode(sentinel.add_answer(str(sentinel.forbidden))) for sentinel in sentinels
    ]
    reference = [
        encoder.encode(sentinel.add_answer(str(sentinel.reference))) for sentinel in sentinels
    ]
    clean = train(
        unfrozen("llama"),
        [row for row, planted in zip(encoded, labels, strict=True) if not planted],
    )
    poisoned = train(unfrozen("llama"), encoded)
    with torch.no_grad():
        gain = losses(clean, forbidden) - losses(poisoned, forbidden)
        reference_gain = losses(clean, reference) - losses(poisoned, reference)
    assert (gain > 0.1).all()
    assert (gain > reference_gain).all()
