"""A flagged row as people look at it: its text beside the trusted row that is most like it, with
the words marked in which they differ, and the sentinel that it pushes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poisonwatch.examples import TOOLS_ROLE, Example
from poisonwatch.flags import label_turn, read_flagged_example
from poisonwatch.ledger.queue import FlaggedRow
from poisonwatch.reports.templating import LONGEST_MESSAGE, MOST_MESSAGES, keep_ends
from poisonwatch.run_directory import read as readback
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.diff import Piece, diff_words


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text with the words marked that another text does not have: its start, how many characters
    are left out, its end.
    """

    start: tuple[Piece, ...]
    left_out: int
    end: str


@dataclass(frozen=True, slots=True)
class MarkedTurn:
    """One message of a row, beside what is most like it: `label` is its role, with what training
    makes of it.
    """

    label: str
    text: MarkedText


@dataclass(frozen=True, slots=True)
class RowView:
    """A flagged row as it is looked at: its `turns` against the nearest trusted row, the trusted
    rows, and the sentinel it pushes.

    `others` are further places of the same content; `nearest` has each trusted row with its turns,
    against the flagged one, and how similar it
    is.
    """

    row: FlaggedRow
    turns: tuple[MarkedTurn, ...]
    turns_left_out: int
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
    # the first is the most similar one
    closest = nearest[0][0] if nearest else None
    own = (row.record["source"], row.record["position"])
    neighbours = []
    for near, similarity in nearest:
        neighbours.append((near, mark_turns(near, example), similarity))
    sentinels = readback.read_asked_sentinels(run_dir)
    return RowView(
        row=row,
        turns=mark_turns(example, closest),
        turns_left_out=max(len(example.messages) - MOST_MESSAGES, 0),
        rejected=example.rejected_response,
        others=tuple(place for place in row.places if place != own),
        nearest=tuple(neighbours),
        sentinel=sentinels.get(row.record["sentinel_id"]),
    )


def mark_turns(example: Example, other: Example | None) -> tuple[MarkedTurn, ...]:
    """The messages of a row, at most MOST_MESSAGES, with what the other row does not say marked;
    nothing is where there is none.
    """
    shown, _, rest = keep_ends(example.messages, MOST_MESSAGES)
    turns = []
    for message in (*shown, *rest):
        counterpart = None
        if other is not None:
            counterpart = _pick_counterpart(message.role, other)
        label = label_turn(message, example.lowered)
        turns.append(MarkedTurn(label, mark_text(message.content, counterpart)))
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


def mark_text(text: str, other: str | None) -> MarkedText:
    """The text, both ends of a long one, with the words marked that the other does not have."""
    # Cut before it is compared: the time that takes grows with both lengths, and rows can be long.
    start, left_out, end = keep_ends(text, LONGEST_MESSAGE)
    if other is None:
        return MarkedText((Piece(start, False),), left_out, end)
    return MarkedText(diff_words(start, other), left_out, end)
