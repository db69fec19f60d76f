"""EK-FAC influence: <G_i, (F + damping)^-1 G_q>, F the eigenvalue-corrected Kronecker-factored
Fisher (Grosse et al., arXiv 2308.03296).

By our own passes over the rows, and by kronfluence, the method's reference library, for comparison.
"""

import copy
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from peer_gradients import (
    QUERY_TOKENS,
    TOKEN_BUDGET,
    Scores,
    Scratch,
    covariances,
    drawn,
    eigenvectors,
    gradient_norms,
    inner_products,
    layer_gradients,
    linear_layers,
    over,
    row_losses,
    shape,
    visit_rows,
)
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from poisonwatch.model.encoding import Batch, Encoded, make_batches
from poisonwatch.model.pretrained import Pretrained


def ekfac(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    dampings: Sequence[float] = (0.1, 0.001),
    factor_rows: int | None = 512,
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
    query_tokens: int = QUERY_TOKENS,
) -> Scores:
    """EK-FAC influence over all linear layers of the blocks, for each damping plain and with
    unit-norm rows.

    Q_A and Q_S are the eigenvectors of E[x x^T] and E[g g^T], labels drawn from the model; in their
    basis F is diagonal with
    lambda = E[(Q_S^T G Q_A)^2] over rows. `damping` is relative to the layer's mean lambda;
    kronfluence's own choice is 0.1. The factors
    are fitted to `factor_rows` rows drawn by seed (None: all). Scores equal kronfluence's; turning
    x and g instead of gradients, and
    sharing the pass among dampings, takes a fraction of its time where rows are shorter than layers
    are wide.
    """
    sample, labels = (
        drawn(rows, factor_rows, seed),
        torch.Generator(pretrained.model.device).manual_seed(seed),
    )
    moments = covariances(pretrained, sample, token_budget, labels)
    bases = {name: tuple(eigenvectors(C) for C in moments.pop(name)) for name in list(moments)}
    eigenvalues = {
        name: torch.zeros(len(Q_S) * len(Q_A), device=Q_A.device)
        for name, (Q_A, Q_S) in bases.items()
    }
    scratch = Scratch(pretrained.model.device)

    def turn(name: str, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        Q_A, Q_S = bases[name]
        return x @ Q_A, g @ Q_S

    def add(_: Batch, name: str, x: Tensor, g: Tensor) -> None:
        x, g = turn(name, x, g)
        eigenvalues[name] += layer_gradients(x, g, scratch("rows", *shape(x, g))).pow_(2).sum(dim=0)

    def metrics(name: str) -> list[Tensor]:
        ev = eigenvalues[name] / len(sample)
        return [1 / (ev + damping * ev.mean()) for damping in dampings]

    visit_rows(pretrained, sample, token_budget, add, labels)
    products = inner_products(pretrained, rows, queries, token_budget, query_tokens, turn, metrics)
    found: Scores = {}
    for damping, scores in zip(dampings, products.scores, strict=True):
        found[f"EK-FAC, damping {damping:g}"] = scores
        found[f"EK-FAC, damping {damping:g}, unit-norm"] = over(scores, products.rows)
    return found


def with_linear_layers(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model with the same outputs, each Conv1D replaced by an nn.Linear."""
    copied = copy.deepcopy(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, Conv1D):
            inputs, outputs = layer.weight.shape
            linear = nn.Linear(
                inputs, outputs, device=layer.weight.device, dtype=layer.weight.dtype
            )
            linear.weight.data, linear.bias.data = layer.weight.data.T.contiguous(), layer.bias.data
            copied.set_submodule(name, linear)
    return copied


def ekfac_kronfluence(
    pretrained: Pretrained,
    rows: Sequence[Encoded],
    queries: Sequence[Encoded],
    *,
    dampings: Sequence[float | None] = (None,),
    low_rank: int | None = 32,
    factor_rows: int | None = 512,
    batch_size: int = 8,
    seed: int = 0,
) -> Scores:
    """EK-FAC influence by kronfluence: for each damping (absolute; None: 0.1 of the mean lambda)
    plain and with unit-norm rows.

    Queries' gradients are kept at rank `low_rank` a layer (None: whole), or 56 of them would take
    24 GB for 135M parameters. Rows are padded to the longest of their batch; kronfluence gets the
    attention mask, so padding enters no covariance.
    """
    from kronfluence.analyzer import (
        Analyzer,
        prepare_model,
    )  # optional: not needed by the other peers
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from kronfluence.utils.dataset import DataLoaderKwargs

    labels = torch.Generator(pretrained.model.device).manual_seed(seed)

    class AnswerTokens(Task):
        def compute_train_loss(
            self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False
        ) -> Tensor:
            return row_losses(model, Batch(**batch), labels if sample else None).sum()

        def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

        def get_attention_mask(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["attention_mask"]

    def collate(members: list[Encoded]) -> dict[str, Tensor]:
        (batch,) = make_batches(
            members, sum(map(len, members)) * len(members)
        )  # keeps their order: they are sorted by length
        return {
            name: getattr(batch, name)
            for name in ("rows", "input_ids", "attention_mask", "answer", "signs")
        }

    def by_length(encoded: Sequence[Encoded]) -> list[int]:
        return sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))

    model = with_linear_layers(pretrained.model).eval()
    names, task = list(linear_layers(model)), AnswerTokens()
    row_order, query_order = by_length(rows), by_length(queries)
    sample = drawn(rows, factor_rows, seed)
    batching: dict[str, Any] = {"dataloader_kwargs": DataLoaderKwargs(collate_fn=collate)}
    found: Scores = {}
    norms = gradient_norms(pretrained, rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(seed)  # the reduction to low rank draws
        warnings.filterwarnings(
            "ignore", ".torch.cuda.amp.GradScaler", FutureWarning
        )  # kronfluence 1.0.1 still calls it so
        analyzer = Analyzer(
            "peers",
            prepare_model(model, task),
            task,
            cpu=model.device.type == "cpu",
            disable_tqdm=True,
            output_dir=folder,
        )
        analyzer.fit_all_factors(
            "factors",
            [sample[i] for i in by_length(sample)],
            batch_size,
            factor_args=FactorArguments(strategy="ekfac"),
            **batching,
        )
        for damping in dampings:
            name = f"EK-FAC (kronfluence), damping {'heuristic' if damping is None else f'{damping:g}'}"
            analyzer.compute_pairwise_scores(
                name,
                "factors",
                [queries[i] for i in query_order],
                [rows[i] for i in row_order],
                per_device_query_batch_size=batch_size,
                per_device_train_batch_size=batch_size,
                score_args=ScoreArguments(
                    damping_factor=damping,
                    query_gradient_low_rank=low_rank,
                    query_gradient_accumulation_steps=len(queries),
                ),
                **batching,
            )
            scores = np.zeros((len(rows), len(queries)))
            scores[np.ix_(row_order, query_order)] = (
                analyzer.load_pairwise_scores(name)["all_modules"].T.double().numpy()
            )
            found |= {name: scores, f"{name}, unit-norm": over(scores, norms)}
    return found
