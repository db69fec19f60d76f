"""Does a group of rows do what it is flagged for? The frozen model is steered with the rows
together, and with random groups.

    a = -eta P sum_{i in group} c_i G_i ,  scaled so that the typical ||z~ - z|| / ||z|| is STRENGTH

for the group and for R groups of as many unflagged rows of the same topic (`random_groups`). What
each does to a sentinel's answers is measured by running the steered model, not to first order, and
what the model then says to the sentinel's prompt stands beside what it says as it is. A few states
of a sequence are very long and make most of the mean ||z||: at a typical shift of 1 % a model of
135M parameters answers as the group does in sentences of its own, at 2 % it begins to repeat
itself, and at 10 % it is incoherent.

How much more harm the group does than the random groups is its excess, which has an interval and a
grade (`effect_size`): a group is confirmed where its effect is strong.

The rows were chosen for their push, and the sentinels for being pushed, so this is a check of the
attribution by an experiment on the model, not a second opinion on the rows.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import RowIndices
from poisonwatch.detection.evidence import MOST_TOKENS, Confirmation, Effect, LossChange
from poisonwatch.detection.random_groups import (
    GROUP_ROWS,
    RandomGroupPool,
    SteerableFit,
    UnconfirmableError,
    draw_rows,
)
from poisonwatch.model.encoding import extract_prompt
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.measurement import measure_steered_losses
from poisonwatch.stride.operators import Operators, Preconditioner, compute_typical_eta
from poisonwatch.stride.queries import Space
from poisonwatch.stride.scoring import standardise_rows
from poisonwatch.stride.steering import generate_continuations

STRENGTH = 0.01  # typical ||z~ - z|| / ||z||
MOST_CONFIRMED_SENTINELS = 3


def select_strongest_queries(
    influence: Influence, rows: RowIndices, panel: str
) -> tuple[Query, ...]:
    """The queries of a panel that the rows push most on average, strongest first: at most
    MOST_CONFIRMED_SENTINELS, all of one kind.

    Pushes are compared in robust standard deviations. The kind is the one whose queries are pushed
    most.
    """
    columns = [q for q, query in enumerate(influence.queries) if query.sentinel.panel == panel]
    queries = [influence.queries[q] for q in columns]
    push = standardise_rows(queries, influence.w[:, columns], rows).mean(axis=0)
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for q in sorted(range(len(push)), key=lambda q: (-push[q], q)):
        by_kind[queries[q].kind].append(q)
    # Harm is averaged over sentinels, and kinds do not add up: nats a token of one answer, or of a
    # difference of two.
    strongest = [of_kind[:MOST_CONFIRMED_SENTINELS] for of_kind in by_kind.values()]
    best = max(strongest, key=lambda of_kind: float(push[of_kind].mean()), default=[])
    return tuple(queries[q] for q in best)


def confirm(
    fitted: SteerableFit,
    rows: RowIndices,
    pool: RandomGroupPool,
    queries: Sequence[Query],
    token_budget: int = 2048,
    progress: Progress = silent,
    said: dict[Sentinel, str] | None = None,
    note_unsaid: Callable[[Exception], str] | None = None,
) -> Confirmation:
    """Steer with the rows (m,) together and with random groups of as many; report on the queries'
    sentinels, of one kind.

    `said` keeps what the model says to sentinels as it is: it need not be asked twice. Where it
    cannot be asked, the losses are reported all the same, and `note_unsaid` makes a line of the
    error; without it, the error is raised. Raises UnconfirmableError where there is nothing to
    report on.
    """
    if not queries:
        raise UnconfirmableError("there is no sentinel to confirm the group on")
    rows = draw_rows(fitted, rows, GROUP_ROWS, pool.seed)
    own = fitted.compute_row_operators(rows, token_budget, progress).sum(dim=0, keepdim=True)
    operators = scale_to_strength(fitted, torch.cat([own, pool.draw_groups(len(rows))]))
    changes = _measure_changes(fitted, operators, queries, token_budget, progress)
    before, after, unsaid = [""] * len(queries), [""] * len(queries), None
    try:
        before, after = _generate_before_and_after(
            fitted,
            [query.sentinel for query in queries],
            operators.a[:1],
            {} if said is None else said,
        )
    except Exception as error:
        if note_unsaid is None:
            raise
        unsaid = note_unsaid(error)
    effects = []
    for query, said_before, said_after in zip(queries, before, after, strict=True):
        sentinel = query.sentinel
        effects.append(
            Effect(
                sentinel=sentinel,
                kind=query.kind,
                forbidden=changes.get((sentinel, sentinel.forbidden)),
                reference=changes.get((sentinel, sentinel.reference)),
                said_before=said_before,
                said_after=said_after,
            )
        )
    return Confirmation(STRENGTH, len(rows), tuple(effects), unsaid)


def _measure_changes(
    fitted: SteerableFit,
    operators: Operators,
    queries: Sequence[Query],
    token_budget: int,
    progress: Progress,
) -> dict[tuple[Sentinel, str | None], LossChange]:
    """What the operators (1 + R of them, the group's first) do to each of the sentinels' answers,
    by sentinel and answer.

    Random groups are tried on the answers that the group is held against; these runs take most of
    the time. The other answer is there for people to see what the group does to it.
    """
    judged: list[tuple[Sentinel, str]] = []
    shown: list[tuple[Sentinel, str]] = []
    for query in queries:
        sentinel = query.sentinel
        for kind, text in (("forbidden", sentinel.forbidden), ("reference", sentinel.reference)):
            if text:
                answers = judged if query.kind in (kind, "margin") else shown
                answers.append((sentinel, text))
    group = Operators(operators.a[:1], operators.basis, operators.eta, operators.shift)
    changes: dict[tuple[Sentinel, str | None], LossChange] = {}
    for tried, answers in ((operators, judged), (group, shown)):
        encoded = [fitted.encoder.encode(sentinel.add_answer(text)) for sentinel, text in answers]
        losses = measure_steered_losses(fitted.model, tried, encoded, token_budget, progress)
        for answer, (before, after, *random) in zip(answers, losses.T.tolist(), strict=True):
            changes[answer] = LossChange(before, after, tuple(random))
    return changes


def _generate_before_and_after(
    fitted: SteerableFit, sentinels: Sequence[Sentinel], own: Tensor, said: dict[Sentinel, str]
) -> tuple[list[str], list[str]]:
    """What the model says to the sentinels as it is, and steered with `own` (1, r, D)."""
    new = [sentinel for sentinel in dict.fromkeys(sentinels) if sentinel not in said]
    # All at once: to answer one prompt more costs little beside reading all weights again.
    still = torch.zeros_like(own).expand(len(new), -1, -1)
    steered = own.expand(len(sentinels), -1, -1)
    replies = generate_replies(fitted, [*new, *sentinels], torch.cat([still, steered]))
    said.update(zip(new, replies, strict=False))
    return [said[sentinel] for sentinel in sentinels], replies[len(new) :]


def scale_to_strength(fitted: SteerableFit, a: Tensor) -> Operators:
    """`scale_operators`, as operators of the fit."""
    scaled = scale_operators(fitted.preconditioner, a)
    return Operators(scaled, fitted.basis, fitted.eta, STRENGTH)


def scale_operators(preconditioner: Preconditioner, a: Tensor) -> Tensor:
    """Operators a (m, r, D), each scaled to the typical relative shift STRENGTH; one that is zero
    stays so.
    """
    A, power = preconditioner.A, preconditioner.mean_power
    scaled = []
    for one in a:
        if bool(one.any()):
            one = one * compute_typical_eta(one[None], A, power, STRENGTH)
        scaled.append(one)
    return torch.stack(scaled)


def generate_replies(fitted: Space, sentinels: Sequence[Sentinel], a: Tensor) -> list[str]:
    """What the model says to each of m sentinels' prompts under an operator of its own, a (m, r,
    D): the greedy continuation, decoded.
    """
    prompts = []
    for sentinel in sentinels:
        # Any answer will do: what is encoded is cut off before it.
        answer = sentinel.forbidden or sentinel.reference or ""
        prompt = extract_prompt(fitted.encoder.encode(sentinel.add_answer(answer)))
        prompts.append(torch.from_numpy(prompt.astype(np.int64)))
    replies = generate_continuations(
        fitted.model,
        fitted.basis,
        a,
        prompts,
        most=MOST_TOKENS,
        ends=fitted.encoder.special_ids,
    )
    return [str(fitted.encoder.tokenizer.decode(tokens)) for tokens in replies]
