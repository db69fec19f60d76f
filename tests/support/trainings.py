"""Small trainings on the tiny model: rows, memberships, settings, and ways to interrupt one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import build_tokenizer

from poisonwatch.examples import Message
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.recovery.membership import Membership, draw_random_membership
from poisonwatch.stride.fitted import LearningCurve
from poisonwatch.stride.operators import Basis, Operators
from poisonwatch.stride.settings import TrainingSettings
from poisonwatch.stride.sgd import train_operators

N, K, R, D, LAYER = 16, 6, 4, 32, 1
SETTINGS = TrainingSettings(
    epochs=3, operators_per_row=5, rows_per_step=4, sketch=3, checkpoint_every=1
)
STEPS = 12


def rows(n: int = N) -> list[Encoded]:
    encoder = ChatEncoder(build_tokenizer())
    return [
        encoder.encode(
            [Message("user", f"{i}?"), Message("assistant", f"{'Yes. ' * (1 + i % 2)}{i * i}")]
        )
        for i in range(n)
    ]


def draw(n: int = N, k: int = K, d: int = 2) -> Membership:
    return draw_random_membership([str(i) for i in range(n)], k, d)


def start(r: int = R) -> Basis:
    return Basis(
        torch.linalg.qr(torch.randn(D, r - 1, generator=torch.Generator().manual_seed(3)))[0]
    )


def assert_same(
    found: tuple[Operators, LearningCurve], expected: tuple[Operators, LearningCurve]
) -> None:
    """To the bit: operators, basis, scale and learning curve."""
    assert torch.equal(found[0].a, expected[0].a)
    assert torch.equal(found[0].basis.directions, expected[0].basis.directions)
    assert found[0].eta == expected[0].eta
    for name in ("step", "total", "fidelity", "stability", "linearity"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(expected[1], name))


class Interrupted(Exception):  # noqa: N818
    """Ends a training in this process."""


def stop_at(step: int) -> Callable[..., Iterator[int]]:
    def progress(
        items: Iterable[int],
        description: str,
        total: int,
        advance: Callable[[int], int] = lambda _: 1,
    ) -> Iterator[int]:
        for item in items:
            if item == step:
                raise Interrupted
            yield item

    return progress


def interrupt(
    model: FrozenModel, encoded: list[Encoded], checkpoint: Path, step: int = 8, **changes: object
) -> None:
    with pytest.raises(Interrupted):
        train_operators(
            model,
            encoded,
            draw(),
            start(),
            replace(SETTINGS, **changes),
            seed=4,
            checkpoint=checkpoint,
            progress=stop_at(step),
        )


def steps_of(done: list[int]) -> Callable[..., Iterator[int]]:
    def progress(
        items: Iterable[int],
        description: str,
        total: int,
        advance: Callable[[int], int] = lambda _: 1,
    ) -> Iterator[int]:
        seen = list(items)
        assert len(seen) == total
        done.extend(seen)
        yield from seen

    return progress
