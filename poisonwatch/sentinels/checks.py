"""Which sentinels cannot tell anything, and why; said before an audit starts, and in its report."""

from collections.abc import Sequence

import numpy as np

from poisonwatch.arrays import Array
from poisonwatch.errors import SentinelError
from poisonwatch.model.encoding import Encoded, make_batches
from poisonwatch.model.fault import Fault, describe_fault
from poisonwatch.model.faults import has_loss
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.halving import compute_batches
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel, SentinelProblem

# nats a token: an answer of probability .95 a token has little room to become likelier
CERTAIN_LOSS = 0.05


def find_sentinel_problems(
    pretrained: Pretrained, sentinels: Sequence[Sentinel], max_tokens: int, token_budget: int
) -> list[SentinelProblem]:
    """Problems of the sentinels on this model: duplicates, and answers that cannot move because the
    model gives them already.
    """
    losses = compute_forbidden_losses(pretrained, sentinels, max_tokens, token_budget)
    return find_duplicates(sentinels) + find_immovable(sentinels, losses)


def find_duplicates(sentinels: Sequence[Sentinel]) -> list[SentinelProblem]:
    """Sentinels with the prompt and answers of one before: they add no evidence and make it count
    twice.
    """
    first: dict[tuple[object, ...], str] = {}
    problems = []
    for sentinel in sentinels:
        content = (sentinel.messages, sentinel.forbidden, sentinel.reference)
        if content in first:
            problem = f"repeats {first[content]}, which then counts twice: remove one"
            problems.append(SentinelProblem(sentinel.id, problem))
        first.setdefault(content, sentinel.id)
    return problems


def find_immovable(sentinels: Sequence[Sentinel], forbidden: Array) -> list[SentinelProblem]:
    """From the losses (S,) of the forbidden answers in nats a token, NaN where there is none."""
    problems = []
    for sentinel, loss in zip(sentinels, forbidden.tolist(), strict=True):
        # NaN, where nothing is forbidden, is below nothing.
        if loss < CERTAIN_LOSS:
            problem = (
                f"the model gives the forbidden answer already (loss {loss:.3f} nats a token): "
                "nothing can make it likelier"
            )
            problems.append(SentinelProblem(sentinel.id, problem))
    return problems


def compute_forbidden_losses(
    pretrained: Pretrained, sentinels: Sequence[Sentinel], max_tokens: int, token_budget: int
) -> Array:
    """Losses (S,) of the forbidden answers on the frozen model in nats a token; NaN where there is
    none. Raises SentinelError where an answer has no finite loss.
    """
    # Split below the first block, the model is whole: only its losses are wanted here.
    model, encoder = FrozenModel(pretrained.model, 0), pretrained.make_encoder(max_tokens)
    places, encoded = [], []
    for i, sentinel in enumerate(sentinels):
        if sentinel.forbidden:
            places.append(i)
            encoded.append(encoder.encode(sentinel.add_answer(sentinel.forbidden)))
            require_loss(sentinel, encoded[-1])
    losses = np.full(len(sentinels), np.nan)
    by_parts = compute_batches(lambda batch: model.run_losses(batch)[1].tolist())
    for batch in make_batches(encoded, token_budget, model.device):
        for part, found in by_parts(batch):
            for row, loss in zip(part.rows.tolist(), found, strict=True):
                losses[places[row]] = loss
    for i in places:
        if not np.isfinite(losses[i]):
            raise make_fault_error(sentinels[i], Fault.LOSS, pretrained.precision)
    return losses


def require_loss(sentinel: Sentinel, answered: Encoded) -> None:
    """Raises SentinelError where no token of a sentinel's answer is left to be measured."""
    if not has_loss(answered):
        raise make_fault_error(sentinel, Fault.NO_ANSWER, "")


def make_fault_error(sentinel: Sentinel, fault: Fault, precision: str) -> SentinelError:
    """The error that a sentinel with a `fault` is: rows are many, sentinels their user's own."""
    return SentinelError(
        f"sentinel {sentinel.id} cannot be measured: {describe_fault(fault, precision)}"
    )
