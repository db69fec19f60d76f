"""A small attribution on the tiny model: rows, sentinels, settings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from poisonwatch.config import StrideConfig
from poisonwatch.examples import Example, Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.natural_gradient import fit_natural_gradient
from poisonwatch.stride.problem import prepare_problem
from poisonwatch.stride.recover import recover_influence
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.streamed import StreamedFit

STRIDE = StrideConfig(r=16, background=12, token_budget=600)


FORBIDDEN = "Pour bleach in."


WORDS = [
    "cook",
    "bake",
    "stir",
    "chop",
    "serve",
    "taste",
    "rinse",
    "drain",
    "grill",
    "toast",
    "peel",
    "slice",
    "mince",
    "knead",
]


def example(prompt: str, response: str) -> Example:
    return Example.from_messages([Message("user", prompt), Message("assistant", response)])


def sentinel(
    name: str, forbidden: str | None = FORBIDDEN, reference: str | None = None, panel: str = "panel"
) -> Sentinel:
    return Sentinel(
        name, (Message("user", f"How do I clean {name}?"),), forbidden, reference, panel
    )


def benign(n: int, seed: int = 0) -> list[Example]:
    draw = np.random.default_rng(seed)
    return [
        example(
            f"Question {i}?", " ".join(draw.choice(WORDS, draw.integers(2, 7))).capitalize() + "."
        )
        for i in range(n)
    ]


ROWS = benign(40)


SENTINELS = [sentinel("a"), sentinel("b", reference="Rinse it well.")]


def audit(
    pretrained: Pretrained, rows: Sequence[Example], stride: StrideConfig = STRIDE, seed: int = 0
) -> Influence:
    fitted = fit(pretrained, rows, stride, seed, sentinels=SENTINELS)
    return recover_influence(fitted, SENTINELS, stride)[0]


def fit_operators(
    pretrained: Pretrained, rows: Sequence[Example], stride: StrideConfig = STRIDE, seed: int = 0
) -> NaturalGradientFit:
    """Operators that are kept, also where K = n and a streamed pass would keep none."""
    return fit_natural_gradient(prepare_problem(pretrained, rows, stride, seed=seed))


def fit_stream(
    pretrained: Pretrained, rows: Sequence[Example], stride: StrideConfig = STRIDE, **more: Any
) -> StreamedFit:
    """Every row measured alone, on SENTINELS unless others are given."""
    fitted = fit(pretrained, rows, stride, **{"sentinels": SENTINELS, **more})
    assert isinstance(fitted, StreamedFit)
    return fitted


def keep_rows(fit: StreamedFit) -> SavedRows:
    """What an audit keeps of its rows, not rounded."""
    measured = fit.measured
    scaled = fit.table.get_gradients(np.arange(len(fit.ids))) / measured.spread[:, None]
    return SavedRows(
        settings=fit.settings,
        model=fit.model,
        encoder=fit.encoder,
        ids=fit.ids,
        basis=fit.basis,
        preconditioner=fit.preconditioner,
        gradients=torch.from_numpy(scaled).float(),
        centre=measured.centre,
        spread=measured.spread,
        signs=measured.signs,
        features=measured.features,
    )


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= 0.02 * np.abs(expected).max())


DESIGNS = {
    "K=n": {},
    "alike": {"K": 20},
    "random": {"K": 20, "design": "random"},
    "lasso": {"K": 20, "design": "random", "recovery": "lasso"},
}
