"""What a tuned model is asked beside its base: the sentinels and their copies; their answers
elsewhere, at ordinary prompts; and ordinary prompts with ordinary answers (`band`, `panels`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from poisonwatch.arrays import Array, Integers
from poisonwatch.errors import InputError
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.model.encoding import ChatEncoder, Encoded
from poisonwatch.model.faults import has_loss
from poisonwatch.screens.copies import copy_sentinels
from poisonwatch.sentinels.checks import require_loss
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.sampling import draw_order
from poisonwatch.text.words import plural

LEAST_ORDINARY = 32  # prompts; fewer say too little of how far answers move
MOST_ORDINARY = 64
ELSEWHERE = 3  # ordinary prompts, E, at which each sentinel's answers are asked, too
NOWHERE = -1  # the place of an answer that a sentinel does not have


@dataclass(frozen=True, slots=True)
class Questions:
    """The `sentinels` (S), copies last, and the conversations of the `ordinary` pairs: two
    for each of N prompts, one after the other.
    """

    sentinels: tuple[Sentinel, ...]
    ordinary: tuple[tuple[Message, ...], ...]


def gather_questions(
    sentinels: Sequence[Sentinel],
    rows: AuditRows,
    ordinary: Sequence[Example],
    probes: int,
    seed: int,
) -> Questions:
    """The sentinels with their copies in the frame of the new rows and with the `probes` likeliest
    triggers of these, as an audit makes them, and prompts of the `ordinary` rows. Raises InputError
    where these are too few.
    """
    pairs = _pair_ordinary(ordinary, seed)
    return Questions(tuple(copy_sentinels(sentinels, rows, probes)), tuple(pairs))


def _pair_ordinary(ordinary: Sequence[Example], seed: int) -> list[tuple[Message, ...]]:
    """The prompts of ordinary rows, each with the answers of the two rows after it."""
    # Rows with one answer would be given their own.
    answers: dict[str, Example] = {}
    for place in draw_order([row.id for row in ordinary], seed).tolist():
        answers.setdefault(ordinary[place].response, ordinary[place])
    drawn = list(islice(answers.values(), MOST_ORDINARY))
    if len(drawn) < LEAST_ORDINARY:
        raise InputError(
            f"{plural(len(drawn), 'trusted row')} with different answers: too few to say how far "
            f"honest tuning moves an answer; {LEAST_ORDINARY} are needed, as `reference`"
        )
    pairs = []
    for place, row in enumerate(drawn):
        for step in (1, 2):
            other = drawn[(place + step) % len(drawn)]
            pairs.append((*row.messages[:-1], Message("assistant", other.response)))
    return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedQuestions:
    """Questions as tokens for one tokenizer: `answers` (A), and where those of the sentinels (S,),
    of theirs `elsewhere` (S, 2, E; forbidden and reference), and of the `ordinary` prompts (N, 2)
    are among them.
    """

    sentinels: tuple[Sentinel, ...]
    answers: tuple[Encoded, ...]
    forbidden: Integers
    reference: Integers
    elsewhere: Integers
    ordinary: Integers

    def spread_losses(self, losses: Array) -> "AnswerLosses":
        """The losses (A,) of the answers, by whose they are."""
        return AnswerLosses(
            forbidden=_pick(losses, self.forbidden),
            reference=_pick(losses, self.reference),
            elsewhere=_pick(losses, self.elsewhere),
            ordinary=losses[self.ordinary],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLosses:
    """Losses in nats a token: of the sentinels' answers (S,), of the same `elsewhere` (S, 2, E),
    and of the ordinary pairs (N, 2); NaN where there is no answer.
    """

    forbidden: Array
    reference: Array
    elsewhere: Array
    ordinary: Array


def encode_questions(encoder: ChatEncoder, questions: Questions) -> EncodedQuestions:
    """The questions as a model is given them. Raises SentinelError where nothing is left of a
    sentinel's answer.
    """
    answers: list[Encoded] = []
    places: dict[str, list[int]] = {"forbidden": [], "reference": []}
    for sentinel in questions.sentinels:
        for kind, text in (("forbidden", sentinel.forbidden), ("reference", sentinel.reference)):
            if not text:
                places[kind].append(NOWHERE)
                continue
            answer = encoder.encode(sentinel.add_answer(text))
            require_loss(sentinel, answer)
            places[kind].append(len(answers))
            answers.append(answer)
    # Losses of short answers vary more than those of long ones.
    usual = int(np.median([int(answer.answer.sum()) for answer in answers]))
    elsewhere = _encode_elsewhere(encoder, questions, answers)
    first = len(answers)
    pairs = [_cut_answer(encoder.encode(each), usual) for each in questions.ordinary]
    ordinary = []
    for place in range(0, len(pairs), 2):
        if has_loss(pairs[place]) and has_loss(pairs[place + 1]):
            ordinary.append((first + place, first + place + 1))
    return EncodedQuestions(
        sentinels=questions.sentinels,
        answers=(*answers, *pairs),
        forbidden=np.array(places["forbidden"], dtype=np.int64),
        reference=np.array(places["reference"], dtype=np.int64),
        elsewhere=elsewhere,
        ordinary=np.array(ordinary, dtype=np.int64).reshape(-1, 2),
    )


def _encode_elsewhere(
    encoder: ChatEncoder, questions: Questions, answers: list[Encoded]
) -> Integers:
    """Add the sentinels' answers at ordinary prompts: their places (S, 2, E). Sentinels of the same
    answers, such as probed copies, share them.
    """
    prompts = [pair[:-1] for pair in questions.ordinary[::2]]
    known: dict[tuple[str | None, str | None], Integers] = {}
    for sentinel in questions.sentinels:
        both = (sentinel.forbidden or None, sentinel.reference or None)
        if both in known:
            continue
        first = len(known) * ELSEWHERE
        places = np.full((2, ELSEWHERE), NOWHERE, dtype=np.int64)
        for kind, text in enumerate(both):
            for step in range(ELSEWHERE if text else 0):
                prompt = prompts[(first + step) % len(prompts)]
                answer = encoder.encode([*prompt, Message("assistant", text or "")])
                if has_loss(answer):
                    places[kind, step] = len(answers)
                    answers.append(answer)
        known[both] = places
    order = [(each.forbidden or None, each.reference or None) for each in questions.sentinels]
    return np.array([known[both] for both in order]).reshape(-1, 2, ELSEWHERE)


def _cut_answer(encoded: Encoded, most: int) -> Encoded:
    """A conversation up to the first `most` tokens of its answer."""
    at = np.flatnonzero(encoded.answer)
    if len(at) <= most:
        return encoded
    end = int(at[most])
    return replace(encoded, input_ids=encoded.input_ids[:end], answer=encoded.answer[:end])


def _pick(losses: Array, places: Integers) -> Array:
    return np.where(places == NOWHERE, np.nan, losses[places])
