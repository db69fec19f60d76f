"""The evidence behind an audit's flags, as it is kept and shown: what flagged rows have in
common, and what the model does when steered with them.

How it is found is in `clusters` and `confirmation`, which need the model; whoever shows it does
not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import Array
from poisonwatch.detection.effect_size import CONFIDENCE, EXTENTS, Excess, compute_excess
from poisonwatch.detection.shared_ngrams import SharedNgram
from poisonwatch.flags import PUSH_PHRASES
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.words import split_words

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


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A trusted row near a flagged one: its `example_id`, its `place` among the trusted rows, and
    their similarity, `likeness`, in [-1, 1].
    """

    example_id: str
    place: int
    likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvidence:
    """Flagged rows that are alike, strongest flag first: `rows` are places among the detection's
    new rows, `example_ids` their ids.

    `panel` is the one that most of the rows are flagged on. `likeness` is the mean similarity of
    the rows' pairs (1 for a single row), `example` the row nearest to the cluster's centre.
    `prompt_ngrams` and `answer_ngrams` are what the rows share, if anything; `nearest` has the
    nearest trusted rows of each row. Where there is no `confirmation`, `unconfirmed` says why.
    """

    rows: tuple[int, ...]
    example_ids: tuple[str, ...]
    panel: str
    likeness: float
    example: int
    prompt_ngrams: tuple[SharedNgram, ...]
    answer_ngrams: tuple[SharedNgram, ...]
    nearest: tuple[tuple[Neighbour, ...], ...]
    confirmation: Confirmation | None
    unconfirmed: str | None = None


def number_groups(evidence: Sequence[ClusterEvidence]) -> dict[str, int]:
    """By example id, the number of a flagged row's group from 1: its line of evidence.jsonl."""
    groups = {}
    for number, group in enumerate(evidence, start=1):
        for id in group.example_ids:
            groups[id] = number
    return groups
