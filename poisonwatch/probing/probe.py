"""A probe: the same questions to a tuned checkpoint and to its base, and what differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from poisonwatch.arrays import Integers
from poisonwatch.errors import ModelError
from poisonwatch.model.encoding import ChatEncoder, Encoded, extract_prompt
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.probing.checkpoint import refuse_other_tokens
from poisonwatch.probing.losses import compute_answer_losses
from poisonwatch.probing.movements import Movement, are_finite, find_movements
from poisonwatch.probing.panels import PanelMovement, find_panel_movements
from poisonwatch.probing.questions import (
    NOWHERE,
    AnswerLosses,
    EncodedQuestions,
    Questions,
    encode_questions,
)

MOST_SAID = 32  # tokens of a greedy answer
PROMPTS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class AskedModel:
    """What a model answers: the losses of the answers that it was given, and what it says itself
    to each of the sentinels (S).
    """

    questions: EncodedQuestions
    losses: AnswerLosses
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProbedSentinel:
    """How far a sentinel moved, and what the base and the checkpoint say to its prompt (greedy;
    hostile text, to be shown through `make_visible`).
    """

    movement: Movement
    said_before: str
    said_after: str

    def record(self) -> dict[str, Any]:
        """As JSON, in nats a token; null where there is no such answer."""
        movement = self.movement
        trusted = movement.trusted
        return {
            **describe_movement(movement),
            "trusted": None if trusted is None else [_round(loss) for loss in trusted],
            "panel": movement.sentinel.panel,
            "score": _round(movement.score),
            "forbidden": [_round(movement.forbidden.before), _round(movement.forbidden.after)],
            "reference": [_round(movement.reference.before), _round(movement.reference.after)],
            "said_before": self.said_before,
            "said_after": self.said_after,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two models answer beside each other, by sentinel and by panel."""

    sentinels: list[ProbedSentinel]
    panels: list[PanelMovement]


def describe_panel(panel: PanelMovement) -> dict[str, Any]:
    """What a record of the chain says of a panel's movement."""
    return {
        "panel": panel.panel,
        "sentinels": panel.sentinels,
        "way": panel.way,
        "change": _round(panel.change),
        "limit": _round(panel.limit),
        "moved": panel.is_beyond,
    }


def describe_movement(movement: Movement) -> dict[str, Any]:
    """What a record of the chain says of a movement: no text of a row, and no answer."""
    return {
        "sentinel": movement.sentinel.id,
        "kind": movement.kind,
        "change": _round(movement.change),
        "limit": _round(movement.band.limit),
        "moved": movement.is_beyond,
    }


def _round(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def ask_model(pretrained: Pretrained, questions: Questions, max_tokens: int) -> AskedModel:
    """Ask a model. Raises as `ask_losses` does."""
    encoder = pretrained.make_encoder(max_tokens)
    encoded, answers = ask_losses(pretrained, encoder, questions, max_tokens)
    return AskedModel(encoded, answers, tuple(_ask_aloud(pretrained, encoder, encoded)))


def ask_losses(
    pretrained: Pretrained, encoder: ChatEncoder, questions: Questions, max_tokens: int
) -> tuple[EncodedQuestions, AnswerLosses]:
    """The questions in a model's own tokens, and its losses of their answers. Raises ModelError
    where one is no number, and SentinelError where nothing is left of a sentinel's answer.
    """
    encoded = encode_questions(encoder, questions)
    # As many tokens at a time as two of the longest questions have: all logits are held.
    losses = compute_answer_losses(pretrained.model, encoded.answers, 2 * max_tokens)
    answers = encoded.spread_losses(losses)
    if not are_finite(encoded.sentinels, answers):
        raise ModelError(
            f"the model {pretrained.fingerprint[:12]} answers with what is no number: its training "
            "diverged, or its dtype overflows; probe another checkpoint, or set model.dtype"
        )
    return encoded, answers


def _ask_aloud(
    pretrained: Pretrained, encoder: ChatEncoder, questions: EncodedQuestions
) -> list[str]:
    """What the model says to each sentinel's prompt."""
    model = FrozenModel(pretrained.model, 0)
    prompts = []
    for encoded in _list_asked(questions):
        prompts.append(torch.from_numpy(extract_prompt(encoded).astype(np.int64)))
    said = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        some = prompts[start : start + PROMPTS_AT_ONCE]
        for tokens in model.generate(some, lambda z: z, MOST_SAID, encoder.special_ids):
            said.append(str(encoder.tokenizer.decode(tokens)))
    return said


def _list_asked(questions: EncodedQuestions) -> list[Encoded]:
    """A conversation of each sentinel, whichever answer it has."""
    places: Integers = np.where(
        questions.forbidden == NOWHERE, questions.reference, questions.forbidden
    )
    return [questions.answers[place] for place in places.tolist()]


def compare_models(
    base: AskedModel, tuned: AskedModel, trusted: AskedModel | None = None
) -> Comparison:
    """How far each sentinel, and each panel, moved from the base to the tuned model, or from one
    that was tuned on trusted rows. Raises ModelError where they were given other tokens.
    """
    start = base.losses
    refuse_other_tokens(base.questions, tuned.questions)
    if trusted is not None:
        refuse_other_tokens(base.questions, trusted.questions)
        start = trusted.losses
    honest = None if trusted is None else trusted.losses
    movements = find_movements(base.questions.sentinels, base.losses, tuned.losses, honest)
    said = zip(movements, base.said, tuned.said, strict=True)
    panels = find_panel_movements(movements, start, tuned.losses)
    return Comparison([ProbedSentinel(*each) for each in said], panels)


def list_moved_sentinels(probed: Sequence[ProbedSentinel]) -> list[ProbedSentinel]:
    """Those that are beyond their band, furthest first."""
    moved = [each for each in probed if each.movement.is_beyond]
    return sorted(moved, key=lambda each: -each.movement.score)
