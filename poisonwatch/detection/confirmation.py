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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poisonwatch.arrays import Array, RowIndices
from poisonwatch.detection.effect_size import CONFIDENCE, EXTENTS, Excess, compute_excess
from poisonwatch.detection.random_groups import (
    GROUP_ROWS,
    RandomGroupPool,
    SteerableFit,
    UnconfirmableError,
    draw_rows,
)
from poisonwatch.flags import PUSH_PHRASES
from poisonwatch.model.encoding import extract_prompt
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.measurement import measure_steered_losses
from poisonwatch.stride.operators import Operators, compute_typical_eta
from poisonwatch.stride.scoring import standardise_rows
from poisonwatch.stride.steering import generate_continuations
from poisonwatch.text.words import split_words

STRENGTH = 0.01  # typical ||z~ - z|| / ||z||
MOST_CONFIRMED_SENTINELS = 3
MOST_TOKENS = 32  # of a continuation
LEAST_SAID = 1 / 3  # of the forbidden answer's words, for a reply to be one of its kind


@dataclass(frozen=True, slots=True)
class LossChange:
    """The loss of one answer in nats a token: `before`, `after` steering with the group, and under
    the `random` groups (R of them; none where the group is not held against this answer).
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
    are greedy continuations of the sentinel's prompt, at most MOST_TOKENS long, or empty where the
    model could not be asked; what the model says may repeat what hostile rows say.
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

    @property
    def said_forbidden(self) -> bool:
        """Does the steered model say what is forbidden? At least LEAST_SAID of the answer's words,
        of as many as a reply has tokens, are in the reply and not in the one before.

        Words are compared, not what they mean: a refusal in words of its own is not seen.
        """
        forbidden = set(split_words(self.sentinel.forbidden or "")[:MOST_TOKENS])
        gained = set(split_words(self.said_after)) - set(split_words(self.said_before))
        return bool(forbidden) and len(forbidden & gained) >= LEAST_SAID * len(forbidden)


def _get_pushes(change: LossChange | None) -> Array:
    """The change's pushes (1 + R,); a zero that fits any other where the answer does not exist."""
    if change is None:
        return np.zeros(1)
    return change.pushes


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What steering with `rows` rows of a group did to the sentinels they push most (at most
    MOST_CONFIRMED_SENTINELS), at `strength`. Where the model could not be asked what it then says,
    `unsaid` says why.
    """

    strength: float
    rows: int
    effects: tuple[Effect, ...]
    unsaid: str | None = None

    @property
    def harm(self) -> Array:
        """(1 + R,): mean over the sentinels."""
        mean: Array = np.mean([effect.harm for effect in self.effects], axis=0)
        return mean

    @property
    def excess(self) -> Excess:
        """How much more harm the group does than the random groups."""
        return compute_excess(np.array([effect.harm for effect in self.effects]))

    @property
    def grade(self) -> str:
        """strong, weak or none: that of the excess, where the group does any harm."""
        if self.harm[0] <= 0:
            return "none"
        return self.excess.grade

    @property
    def confirmed(self) -> bool:
        """Is the effect strong?"""
        return self.grade == "strong"

    @property
    def words(self) -> str:
        """The outcome in one sentence, free of row text."""
        own, random = self.harm[0], self.harm[1:]
        excess = self.excess
        among = ""
        if len(self.effects) > 1:
            among = f" on average over {len(self.effects)} sentinels"
        interval = f"{100 * CONFIDENCE:.0f} % interval {excess.low:+.2f} to {excess.high:+.2f}"
        return (
            f"{EXTENTS[self.grade]}: {PUSH_PHRASES[self.effects[0].kind]} by {own:+.2f} nats a "
            f"token{among}; that is {excess.size:+.2f} ({interval}) beside {len(random)} random "
            f"groups of as many unflagged rows like these, by {random.min():+.2f} to "
            f"{random.max():+.2f}"
        )


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


def generate_replies(fitted: SteerableFit, sentinels: Sequence[Sentinel], a: Tensor) -> list[str]:
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
