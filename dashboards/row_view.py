"""A flagged row as people look at it: its text beside the trusted row that is most like it, with
the words marked that tell why it is here, and the sentinel that it pushes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from poisonwatch.dashboards.group_lines import list_shared_words
from poisonwatch.examples import TOOLS_ROLE, Example
from poisonwatch.flags import label_turn, read_flagged_example
from poisonwatch.ledger.queue import FlaggedRow
from poisonwatch.reports.standing import describe_push
from poisonwatch.reports.templating import LONGEST_MESSAGE, MOST_MESSAGES, keep_ends
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.diff import Piece, diff_words
from poisonwatch.text.phrases import mark_phrases
from poisonwatch.text.words import split_words

# The share of a row's words that a trusted row must say, too, in the same order, for the others to
# be marked. Any two texts of a language have a fifth to a third of their words in common, the small
# ones; below a half more is marked than is not, and marks no longer lead anywhere. Words are
# counted, since how similar states of unrelated rows are differs from model to model.
LEAST_IN_COMMON = 0.5

Marks = Literal["differences", "shared", "none"]


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text with words marked: its start, how many characters are left out, its end."""

    start: tuple[Piece, ...]
    left_out: int
    end: str


@dataclass(frozen=True, slots=True)
class MarkedTurn:
    """One message of a row: `label` is its role, with what training makes of it."""

    label: str
    text: MarkedText


@dataclass(frozen=True, slots=True)
class RowView:
    """A flagged row as it is looked at: its `turns`, the trusted rows, and the sentinel it pushes.

    `marks` says what is marked in the turns: `differences` from the nearest trusted row, where that
    is alike enough (LEAST_IN_COMMON), else words that the group's rows have `shared`. `answer` is
    the last turn's text, where that is the assistant's. `others` are further places of the same
    content; `nearest` has each trusted row with its turns and how similar it is. `push` is the
    row's score beside the trusted rows', in words.
    """

    row: FlaggedRow
    turns: tuple[MarkedTurn, ...]
    marks: Marks
    push: str
    turns_left_out: int
    answer: str
    rejected: str
    others: tuple[tuple[str, int], ...]
    nearest: tuple[tuple[Example, tuple[MarkedTurn, ...], float], ...]
    sentinel: Sentinel | None


def build_row_view(run_dir: Path | None, evidence: Any, row: FlaggedRow) -> RowView:
    """A flagged row with its surroundings, as far as the run directory has them, and may show them:
    `evidence` is its group's line of evidence.jsonl, or None.
    """
    example = read_flagged_example(row.record)
    nearest = readback.find_nearest(run_dir, evidence, row.example_id)
    shared = list_shared_words(evidence)
    # the first is the most similar one
    turns, marks = choose_marks(example, nearest[0][0] if nearest else None, shared)
    own = (row.record["source"], row.record["position"])
    neighbours = []
    for near, similarity in nearest:
        against = mark_turns(near, example)
        if share_unmarked(against) < LEAST_IN_COMMON:
            against = mark_turns(near, None)
        neighbours.append((near, against, similarity))
    last = example.messages[-1]
    sentinels = readback.read_asked_sentinels(run_dir)
    sentinel_id = row.record["sentinel_id"]
    return RowView(
        row=row,
        turns=turns,
        marks=marks,
        push=describe_push(row.record["score"], readback.read_trusted_scores(run_dir, sentinel_id)),
        turns_left_out=max(len(example.messages) - MOST_MESSAGES, 0),
        answer=last.content if last.role == "assistant" else "",
        rejected=example.rejected_response,
        others=tuple(place for place in row.places if place != own),
        nearest=tuple(neighbours),
        sentinel=sentinels.get(sentinel_id),
    )


def choose_marks(
    example: Example, closest: Example | None, phrases: Sequence[str]
) -> tuple[tuple[MarkedTurn, ...], Marks]:
    """A row's turns with the words marked that the trusted row closest to it does not say, where
    the two are alike enough (LEAST_IN_COMMON); else those that the group shares.
    """
    if closest is not None:
        compared = mark_turns(example, closest)
        if share_unmarked(compared) >= LEAST_IN_COMMON:
            return compared, "differences"
    turns = _lay_out_turns(example, lambda _, text: mark_phrases(text, phrases))
    is_any_marked = any(piece.marked for turn in turns for piece in turn.text.start)
    return turns, "shared" if is_any_marked else "none"


def share_unmarked(turns: Sequence[MarkedTurn]) -> float:
    """The share, in [0, 1], of the words of turns that are not marked; 0 where they have none."""
    words = unmarked = 0
    for turn in turns:
        for piece in turn.text.start:
            said = len(split_words(piece.text))
            words += said
            unmarked += 0 if piece.marked else said
    return unmarked / words if words else 0.0


def mark_turns(example: Example, other: Example | None) -> tuple[MarkedTurn, ...]:
    """The messages of a row, at most MOST_MESSAGES, with what the other row does not say marked;
    nothing is where there is none.
    """
    if other is None:
        return _lay_out_turns(example, lambda _, text: (Piece(text, False),))
    return _lay_out_turns(
        example, lambda role, text: diff_words(text, _pick_counterpart(role, other))
    )


def _lay_out_turns(
    example: Example, mark: Callable[[str, str], tuple[Piece, ...]]
) -> tuple[MarkedTurn, ...]:
    """The messages of a row, at most MOST_MESSAGES, both ends of a long one, with what `mark` finds
    in a text of a role.
    """
    shown, _, rest = keep_ends(example.messages, MOST_MESSAGES)
    turns = []
    for message in (*shown, *rest):
        # Cut before it is marked: the time that takes grows with the length, and rows can be long.
        start, left_out, end = keep_ends(message.content, LONGEST_MESSAGE)
        text = MarkedText(mark(message.role, start), left_out, end)
        turns.append(MarkedTurn(label_turn(message, example.lowered), text))
    return tuple(turns)


def _pick_counterpart(role: str, other: Example) -> str:
    """What another row says in the place of a turn: its answers, its tools, or all that is
    asked.
    """
    # Turns of two rows have no order in common.
    if role == "assistant":
        return other.response
    if role == TOOLS_ROLE:
        return other.tools
    return other.prompt
