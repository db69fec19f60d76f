"""Does a group of rows do what it is flagged for? The frozen model is steered with the rows
together, and with random groups.

    a = -eta P sum_{i in group} c_i G_i ,  scaled so that the typical ||z~ - z|| / ||z|| is STRENGTH

for the group and for RANDOM_GROUPS groups of as many unflagged new rows. What each does to a
sentinel's answers is measured by running the steered model, not to first order, and what the model
then says to the sentinel's prompt stands beside what it says as it is. A few states of a sequence
are very long and make most of the mean ||z||: at a typical shift of 1 % a model of 135M parameters
answers as the group does in sentences of its own, at 2 % it begins to repeat itself, and at 10 % it
is incoherent.

The group is confirmed where it goes further in the harmful direction than every random group. Were
its rows like any others, that would happen one time in RANDOM_GROUPS + 1. They were chosen for
their push, so this is a check of the attribution by an experiment on the model, not a second
opinion on the rows: honest rows about what a sentinel asks can pass it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.flags import PUSH_PHRASES
from poisonwatch.model.encoding import extract_prompt
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.measurement import measure_steered_losses
from poisonwatch.stride.operators import Operators, compute_typical_eta
from poisonwatch.stride.sampling import draw_order
from poisonwatch.stride.scoring import standardise_rows
from poisonwatch.stride.steering import generate_continuations
from poisonwatch.stride.streamed import StreamedFit

# Fits that tell what single rows do.
SteerableFit = NaturalGradientFit | StreamedFit

STRENGTH = 0.01  # typical ||z~ - z|| / ||z||
RANDOM_GROUPS = 19  # one in twenty by chance
GROUP_ROWS = 64  # of a larger group so many are drawn
MOST_CONFIRMED_SENTINELS = 3
MOST_TOKENS = 32  # of a continuation


@dataclass(frozen=True, slots=True)
class LossChange:
    """The loss of one answer in nats a token: `before`, `after` steering with the group, and under
    the `random` groups (R of them).
    """

    before: float
    after: float
    random: tuple[float, ...]

    @property
    def pushes(self) -> Array:
        """y = Loss(o) - Loss(o~) (1 + R,): by the group, then by the random groups. Positive makes
        the answer likelier.
        """
        return self.before - np.array([self.after, *self.random])


@dataclass(frozen=True, slots=True)
class Effect:
    """What steering does to one sentinel: to its `forbidden` and `reference` answers (None where it
    has none), and to what the model says.

    `kind` is the push that the group is held against (see `Query`). `said_before` and `said_after`
    are greedy continuations of the sentinel's prompt, at most MOST_TOKENS long; what the model says
    may repeat what hostile rows say.
    """

    sentinel: Sentinel
    kind: str
    forbidden: LossChange | None
    reference: LossChange | None
    said_before: str
    said_after: str

    @property
    def harm(self) -> Array:
        """(1 + R,) in nats a token, by the group, then by the random groups: how far they push in
        the harmful direction of the `kind`.
        """
        if self.kind == "reference":
            # Nothing is forbidden: any move of the reference answer counts as harm.
            return np.abs(_get_pushes(self.reference))
        if self.kind == "margin":
            return _get_pushes(self.forbidden) - _get_pushes(self.reference)
        return _get_pushes(self.forbidden)


def _get_pushes(change: LossChange | None) -> Array:
    """The change's pushes (1 + R,); a zero that fits any other where the answer does not exist."""
    if change is None:
        return np.zeros(1)
    return change.pushes


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What steering with `rows` rows of a group did to the sentinels they push most (at most
    MOST_CONFIRMED_SENTINELS), at `strength`.
    """

    strength: float
    rows: int
    effects: tuple[Effect, ...]

    @property
    def harm(self) -> Array:
        """(1 + R,): mean over the sentinels."""
        mean: Array = np.mean([effect.harm for effect in self.effects], axis=0)
        return mean

    @property
    def confirmed(self) -> bool:
        """Does the group push in the harmful direction, and further than every random group?"""
        return bool(self.harm[0] > max(0.0, float(self.harm[1:].max())))

    @property
    def words(self) -> str:
        """The outcome in one sentence, free of row text."""
        own, random = self.harm[0], self.harm[1:]
        among = ""
        if len(self.effects) > 1:
            among = f" on average over {len(self.effects)} sentinels"
        return (
            f"{PUSH_PHRASES[self.effects[0].kind]} by {own:+.2f} nats a token{among}; "
            f"{len(random)} random groups of as many rows "
            f"by {random.min():+.2f} to {random.max():+.2f}"
        )


@dataclass(frozen=True, slots=True)
class RandomGroupPool:
    """Unflagged `rows` (u,) that random groups are drawn from, with what each does on its own: `a`
    (u, r, D).
    """

    rows: RowIndices
    a: Tensor
    seed: int

    def draw_groups(self, m: int) -> Tensor:
        """The operators (R, r, D) of random groups of m rows."""
        draw = np.random.default_rng([self.seed, m])
        groups = []
        for _ in range(RANDOM_GROUPS):
            members = np.sort(draw.choice(len(self.rows), m, replace=False))
            groups.append(self.a[torch.from_numpy(members).to(self.a.device)].sum(dim=0))
        return torch.stack(groups)


def draw_pool(
    fitted: SteerableFit,
    unflagged: RowIndices,
    seed: int = 0,
    token_budget: int = 2048,
    progress: Progress = silent,
) -> RandomGroupPool:
    """Draw the pool from the unflagged new rows (u,): by ids and seed, whatever their order."""
    # With twice the rows of the largest group, two random groups share half of theirs on average;
    # with more, each of them costs another backward pass.
    rows = _draw_rows(fitted, unflagged, 2 * GROUP_ROWS, seed)
    return RandomGroupPool(rows, fitted.compute_row_operators(rows, token_budget, progress), seed)


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
) -> Confirmation:
    """Steer with the rows (m,) together and with random groups of as many; report on the queries'
    sentinels, of one kind.

    Raises ValueError where there is nothing to report on, or the pool is smaller than the group.
    """
    if not queries:
        raise ValueError("there is no sentinel to confirm the group on")
    rows = _draw_rows(fitted, rows, GROUP_ROWS, pool.seed)
    if len(pool.rows) < len(rows):
        raise ValueError(
            f"there are {len(pool.rows)} unflagged rows to draw random groups of {len(rows)} from"
        )
    own = fitted.compute_row_operators(rows, token_budget, progress).sum(dim=0, keepdim=True)
    operators = scale_to_strength(fitted, torch.cat([own, pool.draw_groups(len(rows))]))
    sentinels = [query.sentinel for query in queries]
    changes = _measure_changes(fitted, operators, sentinels, token_budget, progress)
    # No steering, then the group's: what the model says as it is stands beside what it says then.
    before_and_after = torch.cat([torch.zeros_like(own), operators.a[:1]])
    effects = []
    for query in queries:
        sentinel = query.sentinel
        said_before, said_after = generate_replies(fitted, sentinel, before_and_after)
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
    return Confirmation(STRENGTH, len(rows), tuple(effects))


def _measure_changes(
    fitted: SteerableFit,
    operators: Operators,
    sentinels: Sequence[Sentinel],
    token_budget: int,
    progress: Progress,
) -> dict[tuple[Sentinel, str | None], LossChange]:
    """What the operators (1 + R of them, the group's first) do to each of the sentinels' answers,
    by sentinel and answer.
    """
    answers: list[tuple[Sentinel, str]] = []
    for sentinel in sentinels:
        for text in (sentinel.forbidden, sentinel.reference):
            if text:
                answers.append((sentinel, text))
    encoded = [fitted.encoder.encode(sentinel.add_answer(text)) for sentinel, text in answers]
    losses = measure_steered_losses(fitted.model, operators, encoded, token_budget, progress)
    changes: dict[tuple[Sentinel, str | None], LossChange] = {}
    for answer, (before, after, *random) in zip(answers, losses.T.tolist(), strict=True):
        changes[answer] = LossChange(before, after, tuple(random))
    return changes


def scale_to_strength(fitted: SteerableFit, a: Tensor) -> Operators:
    """Operators a (m, r, D), each scaled to the typical relative shift STRENGTH; one that is zero
    stays so.
    """
    A, power = fitted.preconditioner.A, fitted.preconditioner.mean_power
    scaled = []
    for one in a:
        if bool(one.any()):
            one = one * compute_typical_eta(one[None], A, power, STRENGTH)
        scaled.append(one)
    return Operators(torch.stack(scaled), fitted.basis, fitted.eta, STRENGTH)


def generate_replies(fitted: SteerableFit, sentinel: Sentinel, a: Tensor) -> list[str]:
    """What the model says to a sentinel's prompt under each of m operators a (m, r, D): the greedy
    continuation, decoded.
    """
    # Any answer will do: what is encoded is cut off before it.
    answer = sentinel.forbidden or sentinel.reference or ""
    prompt = extract_prompt(fitted.encoder.encode(sentinel.add_answer(answer)))
    replies = generate_continuations(
        fitted.model,
        fitted.basis,
        a,
        prompt=torch.from_numpy(prompt.astype(np.int64)),
        most=MOST_TOKENS,
        ends=fitted.encoder.special_ids,
    )
    return [str(fitted.encoder.tokenizer.decode(tokens)) for tokens in replies]


def _draw_rows(fitted: SteerableFit, rows: RowIndices, most: int, seed: int) -> RowIndices:
    """At most `most` of the rows, drawn by ids and seed, in the order of the draw."""
    return rows[draw_order([fitted.ids[i] for i in rows.tolist()], seed)[:most]]
