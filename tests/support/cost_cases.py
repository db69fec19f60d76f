"""Tiny models of several shapes with batches of made-up tokens, whose costs are known beforehand."""

from dataclasses import dataclass

import torch
from tiny_models import build_model

from poisonwatch.config import StrideConfig
from poisonwatch.model.encoding import Batch
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.stride.cost_shapes import AuditShape, BatchShape, ModelShape
from poisonwatch.stride.operators import Basis
from poisonwatch.stride.settings import resolve_further_layers


@dataclass(frozen=True)
class CostCase:
    """A model of `sizes`, and a batch of `rows` of `width` tokens, `answers` of them predicted."""

    family: str
    sizes: dict[str, int]
    r: int
    rows: int
    width: int
    answers: int

    def build(self) -> FrozenModel:
        depth = self.sizes["depth"]
        layer = depth * 2 // 5
        further = resolve_further_layers(StrideConfig(), layer, depth)
        return FrozenModel(build_model(self.family, **self.sizes), layer, further)

    def make_batch(self) -> Batch:
        draw = torch.Generator().manual_seed(0)
        answer = torch.zeros(self.rows, self.width, dtype=torch.bool)
        answer[:, self.width - self.answers :] = True
        shape = self.rows, self.width
        return Batch(
            rows=torch.arange(self.rows),
            input_ids=torch.randint(0, self.sizes["vocab_size"], shape, generator=draw),
            attention_mask=torch.ones(shape, dtype=torch.long),
            answer=answer,
            signs=torch.ones(self.rows),
        )

    def make_basis(self) -> Basis:
        """Some directions: what is computed along them costs the same whichever they are."""
        return Basis(torch.eye(self.sizes["hidden_size"])[:, : self.r - 1].contiguous())

    @property
    def batch(self) -> BatchShape:
        tokens = self.rows * self.width
        return BatchShape(rows=self.rows, tokens=tokens, answer_tokens=self.rows * self.answers)


def make_shape(model: FrozenModel) -> ModelShape:
    return ModelShape.of_model(model)


# What takes most: logits, the blocks above the split, one wide block, rows' gradients.
COST_CASES = {
    "logits": CostCase(
        "llama",
        {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 8000},
        r=16,
        rows=8,
        width=48,
        answers=30,
    ),
    "blocks": CostCase(
        "llama",
        {"depth": 8, "hidden_size": 128, "intermediate_size": 320, "vocab_size": 400},
        r=16,
        rows=6,
        width=70,
        answers=20,
    ),
    "wide": CostCase(
        "qwen3",
        {"depth": 2, "hidden_size": 64, "intermediate_size": 512, "vocab_size": 400},
        r=8,
        rows=4,
        width=64,
        answers=32,
    ),
    "gradients": CostCase(
        "llama",
        {"depth": 1, "hidden_size": 128, "intermediate_size": 64, "vocab_size": 300},
        r=96,
        rows=40,
        width=12,
        answers=4,
    ),
}


def make_audit(**changes: object) -> AuditShape:
    """A small audit."""
    sizes: dict[str, object] = {
        "n": 500,
        "row_tokens": 40.0,
        "answer_share": 0.5,
        "Q": 6,
        "answers": 8,
        "answer_length": 30.0,
        "panels": 2,
        "r": 16,
        "trusted": 0,
        "background": 100,
        "shortlist": 50,
        "token_budget": 2048,
        "keeps_gradients": True,
        **changes,
    }
    return AuditShape(**sizes)  # type: ignore[arg-type]
