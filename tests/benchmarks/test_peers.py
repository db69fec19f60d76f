"""The peers that benchmarks compare STRIDE with, on tiny random models; the formulas are checked
against autograd.
"""

import copy
from collections.abc import Callable

import numpy as np
import peer_ekfac
import peer_gradients
import peers
import pytest
import torch
from slow_tests import slow
from talks import FAMILIES, TALKS
from tiny_models import build_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from poisonwatch.errors import ModelError
from poisonwatch.examples import Message
from poisonwatch.model.encoding import Batch, ChatEncoder, Encoded, make_batches
from poisonwatch.model.pretrained import Pretrained

Build = Callable[[str], Pretrained]


@pytest.fixture(scope="module")
def build(tiny_tokenizer: PreTrainedTokenizerFast) -> Build:
    """A private pretrained model of a family, two blocks deep; GPT-2's biases are no zeros."""

    def made(family: str) -> Pretrained:
        model = build_model(family, depth=2)
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, (nn.Linear, Conv1D)) and module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        return Pretrained(model, tiny_tokenizer, "0" * 64)

    return made


@pytest.fixture(scope="module")
def rows(tiny_tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    encoder = ChatEncoder(tiny_tokenizer)
    return [
        encoder.encode([Message("user", ask), Message("assistant", answer)])
        for ask, answer in TALKS
    ]


def autograd_gradients(model: PreTrainedModel, encoded: list[Encoded]) -> Tensor:
    """G_i (n, P) in float64, from every conversation alone and the parameters of all linear layers
    of the blocks.
    """
    model = copy.deepcopy(model).double().requires_grad_(True)
    layers = peer_gradients.linear_layers(model)
    parameters = [
        p for layer in layers.values() for p in (layer.weight, layer.bias) if p is not None
    ]
    found = []
    for item in encoded:
        logits = model(input_ids=torch.tensor([list(map(int, item.input_ids))])).logits[0]
        answered = [t for t in range(1, len(item)) if item.answer[t]]
        loss = cross_entropy(
            logits[[t - 1 for t in answered]],
            torch.tensor([int(item.input_ids[t]) for t in answered]),
        )
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(found)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> bool:
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


def unprojected(pretrained: Pretrained) -> peers.Projections:
    """Projections that keep everything."""
    sizes = peer_gradients.layer_sizes(pretrained.model)
    return {
        name: (torch.eye(inputs), torch.eye(outputs)) for name, (inputs, outputs) in sizes.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_layers_are_those_of_the_blocks(build: Build, family: str) -> None:
    """7 a block in a Llama, 4 in a GPT-2; neither embeddings nor head."""
    names = list(peer_gradients.linear_layers(build(family).model))
    assert len(names) == 2 * {"llama": 7, "gpt2": 4}[family]
    assert not [name for name in names if "lm_head" in name or "embed" in name]


@pytest.mark.parametrize("family", FAMILIES)
def test_tracin_is_the_inner_product_of_autograds_gradients(
    build: Build, rows: list[Encoded], family: str
) -> None:
    """<G_i, G_q> and its cosine; batches, chunks of queries and their order change nothing."""
    pretrained, queries = build(family), rows[3:] + rows[:1]
    G, G_q = (
        autograd_gradients(pretrained.model, rows),
        autograd_gradients(pretrained.model, queries),
    )
    dot = (G @ G_q.T).numpy()
    cosine = dot / (G.norm(dim=1)[:, None] * G_q.norm(dim=1)).numpy()
    for options in ({}, {"token_budget": 90}, {"query_tokens": 100}):
        scores = peers.tracin(pretrained, rows, queries, **options)
        assert close(scores["TracIn"], dot)
        assert close(scores["TracIn, cosine"], cosine)
    assert close(peer_gradients.gradient_norms(pretrained, rows), G.norm(dim=1).numpy())


def test_losses_are_means_over_answer_tokens(build: Build, rows: list[Encoded]) -> None:
    """A loss without answer tokens is an error, no zero."""
    (batch,) = make_batches(rows, 10_000)
    losses = peer_gradients.row_losses(build("llama").model, batch)
    assert losses.shape == (len(rows),)
    assert bool((losses > 0).all())
    (bare,) = make_batches([Encoded.of([1, 2, 3], [False] * 3)], 100)
    with pytest.raises(ModelError, match="no assistant tokens"):
        peer_gradients.row_losses(build("llama").model, bare)


@pytest.mark.parametrize("family", FAMILIES)
def test_logra_without_reduction_is_tracin_at_large_damping(
    build: Build, rows: list[Encoded], family: str
) -> None:
    """P = I: <P G_i, P G_q> = <G_i, G_q>; (F + damping)^-1 tends to 1 / (damping * mean diagonal of
    F) in each layer.
    """
    pretrained = build(family)
    whole = unprojected(pretrained)
    G = peers.projected_gradients(pretrained, rows, whole)
    tracin = peers.tracin(pretrained, rows, rows)["TracIn"]
    assert close(sum(g @ g.T for g in G.values()).double().numpy(), tracin)
    small = {name: tuple(P[:, :12] for P in pair) for name, pair in whole.items()}
    G = peers.projected_gradients(pretrained, rows, small)
    expected = sum(g @ g.T / (g**2).mean() for g in G.values()).double().numpy() / 1e6
    assert close(
        peers.logra(pretrained, rows, rows, damping=1e6, projections=small)["LoGra"], expected
    )


def test_logra_solves_with_the_damped_fisher(build: Build, rows: list[Encoded]) -> None:
    """sum over layers of G (G^T G / n + damping * mean diagonal)^-1 G_q^T; RelatIF divides by the
    root of a row's own score.
    """
    pretrained = build("llama")
    projections = peers.random_projections(pretrained.model, 4, seed=3)
    assert all(close((P.T @ P).numpy(), np.eye(4)) for pair in projections.values() for P in pair)
    G = [
        g.double().numpy()
        for g in peers.projected_gradients(pretrained, rows, projections).values()
    ]
    expected = 0.0
    for g in G:
        F = g.T @ g / len(g)
        expected = (
            expected + g @ np.linalg.inv(F + 0.1 * np.trace(F) / len(F) * np.eye(len(F))) @ g.T
        )
    scores = peers.logra(pretrained, rows, rows, rank=4, seed=3)
    assert close(scores["LoGra"], expected)
    assert close(scores["LoGra, RelatIF"], expected / np.sqrt(np.diag(expected))[:, None])
    assert close(
        scores["LoGra, unit-norm"], expected / np.sqrt(sum((g**2).sum(axis=1) for g in G))[:, None]
    )


def test_principal_projections_are_leading_eigenvectors(build: Build, rows: list[Encoded]) -> None:
    """No orthonormal directions hold more of E[x x^T] and E[g g^T]."""
    pretrained = build("llama")
    projections = peers.principal_projections(pretrained, rows, 5)
    for name, pair in peer_gradients.covariances(pretrained, rows).items():
        for C, P in zip(pair, projections[name], strict=True):
            assert torch.trace(P.T @ C @ P) == pytest.approx(
                float(torch.linalg.eigvalsh(C)[-5:].sum()), rel=1e-3
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_ekfac_is_tracin_by_layers_at_large_damping(
    build: Build, rows: list[Encoded], family: str
) -> None:
    """(F + damping)^-1 tends to 1 / (damping * mean lambda) in each layer; mean lambda = E ||G||^2
    / (in * out) over drawn labels.
    """
    pretrained = build(family)
    scores = peers.ekfac(pretrained, rows, rows[:3], dampings=(0.1, 1e7), factor_rows=None, seed=4)
    assert list(scores) == [
        f"EK-FAC, damping {d}{end}" for d in ("0.1", "1e+07") for end in ("", ", unit-norm")
    ]
    norms = peer_gradients.gradient_norms(pretrained, rows)
    assert close(
        scores["EK-FAC, damping 0.1, unit-norm"], scores["EK-FAC, damping 0.1"] / norms[:, None]
    )
    labels = torch.Generator().manual_seed(4)
    peer_gradients.covariances(pretrained, rows, generator=labels)  # draws labels first
    mean_lambda = dict.fromkeys(peer_gradients.linear_layers(pretrained.model), 0.0)

    def add(batch: Batch, name: str, x: Tensor, g: Tensor) -> None:
        mean_lambda[name] += float(
            peer_gradients.layer_gradients(x, g).pow(2).mean(dim=1).sum()
        ) / len(rows)

    peer_gradients.visit_rows(pretrained, rows, 2048, add, labels)
    whole = unprojected(pretrained)
    G = peers.projected_gradients(pretrained, rows, whole)
    expected = sum(g @ g[:3].T / mean_lambda[name] for name, g in G.items()).double().numpy() / 1e7
    assert close(scores["EK-FAC, damping 1e+07"], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_ekfac_equals_kronfluence(build: Build, rows: list[Encoded], family: str) -> None:
    """The same factors and scores as the method's reference library, biases and padding included."""
    pytest.importorskip("kronfluence", reason="kronfluence is an optional extra of the benchmarks")
    pretrained = build(family)
    ours = peers.ekfac(pretrained, rows, rows[:3], dampings=(0.1,), factor_rows=None)
    theirs = peers.ekfac_kronfluence(pretrained, rows, rows[:3], low_rank=None, factor_rows=None)
    assert close(
        ours["EK-FAC, damping 0.1"], theirs["EK-FAC (kronfluence), damping heuristic"], 1e-3
    )
    assert close(
        ours["EK-FAC, damping 0.1, unit-norm"],
        theirs["EK-FAC (kronfluence), damping heuristic, unit-norm"],
        1e-3,
    )


def test_a_row_that_is_the_query_comes_first(build: Build, rows: list[Encoded]) -> None:
    """Every peer whose rows are equally long ranks a query's own copy first."""
    pretrained = build("llama")
    texts = [f"{ask} {answer}" for ask, answer in TALKS]
    found = (
        peers.tfidf(texts, texts)
        | peers.bm25(texts, texts)
        | peers.hidden_states(pretrained, rows, rows)
    )
    found |= peers.tracin(pretrained, rows, rows) | peers.logra(pretrained, rows, rows)
    found |= peers.logra(pretrained, rows, rows, principal=True) | peers.ekfac(
        pretrained, rows, rows
    )
    for name, scores in found.items():
        assert scores.shape == (len(rows), len(rows))
        assert scores.dtype == np.float64
        if name in ("TracIn", "LoGra", "LoGra, principal") or (
            name.startswith("EK-FAC") and "unit-norm" not in name
        ):
            assert (np.diag(scores) > 0).all(), name
        else:
            assert (scores.argmax(axis=0) == np.arange(len(rows))).all(), name


def test_hidden_states_are_taken_where_asked(build: Build, rows: list[Encoded]) -> None:
    """Cosines of the states below a block, or after the last one, whatever the batches."""
    pretrained = build("llama")
    for layer in (None, 1):
        with torch.no_grad():
            outputs = [
                pretrained.model(
                    input_ids=torch.tensor([list(map(int, r.input_ids))]), output_hidden_states=True
                )
                for r in rows
            ]
        last = torch.nn.functional.normalize(
            torch.stack([o.hidden_states[-1 if layer is None else layer][0, -1] for o in outputs]),
            dim=1,
        )
        scores = peers.hidden_states(pretrained, rows, rows, layer=layer, token_budget=80)
        assert close(scores["hidden state, last token"], (last @ last.T).numpy())


def test_conv1d_becomes_linear_without_a_change_of_outputs(
    build: Build, rows: list[Encoded]
) -> None:
    """Equal logits, and the original untouched."""
    model = build("gpt2").model
    converted = peer_ekfac.with_linear_layers(model)
    ids = torch.tensor([list(map(int, rows[0].input_ids))])
    with torch.no_grad():
        assert torch.allclose(
            converted(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5
        )
    assert not any(isinstance(module, Conv1D) for module in converted.modules())
    assert any(isinstance(module, Conv1D) for module in model.modules())
    assert list(peer_gradients.linear_layers(converted)) == list(
        peer_gradients.linear_layers(model)
    )


@slow
def test_measured_runs_a_peer_in_a_process_of_its_own(build: Build, rows: list[Encoded]) -> None:
    """The same scores, with the seconds and the memory that they took."""
    pretrained = build("llama")
    scores, seconds, peak_memory_mb = peers.measured(
        peers.tracin, pretrained, rows, rows[:2], token_budget=100
    )
    assert close(scores["TracIn"], peers.tracin(pretrained, rows, rows[:2])["TracIn"])
    assert seconds > 0
    assert peak_memory_mb > 100
