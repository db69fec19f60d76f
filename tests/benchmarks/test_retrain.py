"""Ground truth by retraining: the statistic, the store that resumes, and retrainings of tiny
models.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import retrain
import torch
from fidelity import bootstrap_interval, lds
from retrain import Retrainer, Store, deletion_curve, load_truth, noise, subset
from retraining_tasks import Recipe, Task, toy_rows, toy_task
from scipy.stats import spearmanr
from tiny_models import build_model
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.pretrained import Pretrained

QUICK = Recipe(epochs=2, batch_size=8, rate=1e-3)


@pytest.fixture
def quick() -> Task:
    return replace(toy_task(24), recipe=QUICK)


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results, and no retrainer left over."""
    monkeypatch.setattr(retrain, "TRUTH", tmp_path)
    retrain._retrainer.cache_clear()
    return tmp_path


def drawn(m: int = 40, n: int = 30, Q: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (n, Q), subsets (m, n) and the losses (m, Q) of a world where effects add up exactly."""
    scores = np.random.default_rng(0).normal(size=(n, Q))
    subsets = np.zeros((m, n), dtype=bool)
    for seed in range(m):
        subsets[seed, subset(seed, n)] = True
    return scores, subsets, 5.0 - subsets @ scores


def test_a_subset_is_half_of_the_rows_in_order_and_depends_on_its_seed_alone() -> None:
    assert len(subset(3, 101)) == 50
    assert list(subset(3, 101)) == sorted(set(subset(3, 101)))
    assert list(subset(3, 101)) == list(subset(3, 101)) != list(subset(4, 101))


def test_lds_is_spearman_and_positive_where_a_row_makes_the_query_likelier() -> None:
    scores, subsets, losses = drawn()
    assert lds(scores, subsets, losses) == pytest.approx(1.0)
    assert lds(-scores, subsets, losses) == pytest.approx(-1.0)
    assert lds(np.ones_like(scores), subsets, losses) == pytest.approx(0.0)
    other = np.random.default_rng(1).normal(size=scores.shape).round()  # ties
    expected = [spearmanr(subsets @ other[:, q], -losses[:, q]).statistic for q in range(3)]
    assert lds(other, subsets, losses) == pytest.approx(np.array(expected))


def test_the_interval_holds_the_mean_and_a_paired_difference_to_itself_is_zero() -> None:
    scores, subsets, losses = drawn()
    noisy = scores + np.random.default_rng(1).normal(size=scores.shape)
    interval = bootstrap_interval(noisy, subsets, losses, draws=200)
    assert interval.mean == pytest.approx(lds(noisy, subsets, losses).mean())
    assert interval.low < interval.mean < interval.high
    same = bootstrap_interval(noisy, subsets, losses, noisy, draws=50)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)
    assert bootstrap_interval(scores, subsets, losses, noisy, draws=200).low > 0


def test_a_torn_last_line_is_dropped_and_another_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "truth.jsonl"
    Store(path, {"rows": ["a"]}).add({"seed": 0})
    path.write_bytes(path.read_bytes() + b'{"seed": 1, "los')
    store = Store(path, {"rows": ["a"]})
    assert store.records == [{"seed": 0}]
    store.add({"seed": 1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"rows": ["a"]},
        {"seed": 0},
        {"seed": 1},
    ]
    with pytest.raises(SystemExit, match="another rows"):
        Store(path, {"rows": ["b"]})


def test_an_interrupted_run_ends_in_the_same_truth(quick: Task, truth: Path) -> None:
    retrain.retrain(quick, 3, 2)
    path = truth / "toy.jsonl"
    whole = load_truth("toy", quick.rows)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    retrain.retrain(quick, 3, 2)
    subsets, losses = load_truth("toy")
    assert subsets.shape == (3, 24)
    assert (subsets == whole[0]).all()
    assert (losses == whole[1]).all()
    within, spread = noise("toy")
    assert within.shape == spread.shape == (12,)
    with pytest.raises(ValueError, match="other rows"):
        load_truth("toy", quick.rows[::-1])


def test_toy_rows_differ_from_each_other_and_from_the_queries() -> None:
    rows, queries = toy_rows(200)
    assert len({example.id for example in rows + queries}) == 212
    assert [example.id for example in toy_rows(200)[0]] == [example.id for example in rows]


def test_every_other_epoch_runs_the_one_before_backwards() -> None:
    first, second = np.array(
        [list(batch) for batch in retrain._shuffled_batches(np.arange(24), QUICK, (0, 0))]
    ).reshape(2, 24)
    assert sorted(first) == list(range(24))
    assert list(second) == list(first[::-1])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_packed_conversations_have_their_own_losses(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model, encoder = build_model(family), ChatEncoder(tiny_tokenizer)
    encoded = [encoder.encode(example.messages) for example in toy_task(5).rows]
    with torch.no_grad():
        together = retrain._row_losses(model, encoded)
        for item, loss in zip(encoded, together, strict=True):
            ids, answer = (torch.tensor(np.asarray(part)) for part in (item.input_ids, item.answer))
            logits = model(input_ids=ids[None].long()).logits[0, :-1][answer[1:]]
            assert float(loss) == pytest.approx(
                float(cross_entropy(logits, ids[1:].long()[answer[1:]])), rel=1e-4
            )


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft 0.21 on transformers 5.23
def test_lora_moves_the_queries_and_merges_into_plain_weights(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="peft is an optional extra of the benchmarks")
    pytest.importorskip("peft", reason="peft is an optional extra of the benchmarks")
    toy = toy_task(24)
    start = lambda: Pretrained(build_model("llama"), tiny_tokenizer, "0" * 64)  # noqa: E731
    task = Task("lora", toy.rows, toy.queries, start, replace(QUICK, rate=1e-2, rank=2))
    retrainer = Retrainer(task)
    before = retrainer.query_losses()
    after = retrainer.losses(np.arange(24), (retrain.ALL_ROWS, 0))
    assert np.abs(after - before).min() > 1e-4
    assert (retrainer.losses(np.arange(24), (retrain.ALL_ROWS, 0)) == after).all()
    monkeypatch.setattr(retrain, "CACHE", tmp_path)
    for _ in ("trained", "read from the cache"):
        merged = retrain.trained_model(task).model
        assert not [name for name, _ in merged.named_parameters() if "lora" in name]
        with torch.no_grad():
            assert retrain._row_losses(merged, retrainer.queries).numpy() == pytest.approx(
                after, rel=1e-4
            )


def test_deletion_retrains_once_for_each_set_of_rows(
    quick: Task, truth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.random.default_rng(0).normal(size=24)
    curve = deletion_curve(quick, 2, scores, ks=(3, 6), random_repeats=2)
    assert curve.top.shape == (2,)
    assert curve.random.shape == (2, 2)
    assert len((truth / "toy-deletion.jsonl").read_text().splitlines()) == 1 + 2 + 2 * 2 + 2 * 2
    monkeypatch.setattr(retrain, "_retrainer", lambda task: pytest.fail("retrained again"))
    again = deletion_curve(quick, 2, scores, ks=(3, 6), random_repeats=2)
    assert (again.top == curve.top).all()
