"""Rows that say nearly what a flagged row says, and were not flagged: "more like these".

Poison comes in groups, and the rate of wrong flags leaves the weakest of a group out. Nothing is
flagged for it: whoever decides on a group is shown them beside it.

Candidates are the rows nearest in the model's states (`recovery.neighbours`); whether they are
alike is asked of their texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rapidfuzz.fuzz import ratio

from poisonwatch.arrays import RowIndices
from poisonwatch.detection.detection import Detection, locate_flags
from poisonwatch.examples import Example
from poisonwatch.recovery.neighbour_graph import NeighbourGraph

# Of two texts, twice the characters in common by all of theirs, in order: 1 for the same.
LEAST_LIKENESS = 0.75
# What is compared of a row: texts that are longer are alike or not by their beginnings.
MOST_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A new row that was not flagged, by its place `row` among the new ones; `like` is that of the
    flagged row most like it, and `likeness` says how alike their texts are, 0 to 1.
    """

    row: int
    like: int
    likeness: float


def find_near_copies(detection: Detection, neighbours: NeighbourGraph) -> tuple[NearCopy, ...]:
    """The near copies of flagged rows, most alike first. `neighbours` are of new and trusted rows
    together, in the order of `detection.rows`.
    """
    if not detection.flags or not neighbours.k:
        return ()
    flagged = np.unique(locate_flags(detection.flags, detection.rows.new))
    best: dict[int, NearCopy] = {}
    for row, like in _list_candidates(flagged, neighbours, len(detection.examples)):
        likeness = _compare(detection.examples[row], detection.examples[like])
        if likeness >= LEAST_LIKENESS and (row not in best or likeness > best[row].likeness):
            best[row] = NearCopy(row, like, likeness)
    return tuple(sorted(best.values(), key=lambda each: (-each.likeness, each.row)))


def _list_candidates(
    flagged: RowIndices, neighbours: NeighbourGraph, n: int
) -> Iterator[tuple[int, int]]:
    """Pairs of a new row that was not flagged and a flagged one, of which one is among the nearest
    of the other.
    """
    is_flagged = np.zeros(len(neighbours.rows), dtype=bool)
    is_flagged[flagged] = True
    pairs: set[tuple[int, int]] = set()
    for like in flagged.tolist():
        pairs.update((row, like) for row in neighbours.rows[like].tolist())
    rows, columns = np.nonzero(is_flagged[neighbours.rows[:n]])
    pairs.update(zip(rows.tolist(), neighbours.rows[rows, columns].tolist(), strict=True))
    for row, like in sorted(pairs):
        if row < n and not is_flagged[row]:
            yield row, like


def _compare(row: Example, other: Example) -> float:
    return ratio(_get_text(row), _get_text(other)) / 100


def _get_text(row: Example) -> str:
    return f"{row.prompt}\n{row.response}"[:MOST_CHARACTERS]
