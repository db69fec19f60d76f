"""Which words of one text do not stand in another, and how two sequences line up.

Partners come from a longest common subsequence, by the bit-parallel recurrence of Hyyrö (2004,
"Bit-parallel LCS-length computation revisited") as RapidFuzz has it: MAX_COMPARED rows of as many
bits whatever the texts are, where difflib's time grows with the cube of texts made to slow it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, takewhile

from rapidfuzz.distance import LCSseq

from poisonwatch.text.words import find_token_spans

MAX_COMPARED = 2000  # words (or lines) a side that are compared


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text (hostile, to be shown escaped); `marked` where it has no counterpart in the
    other text, or is what was looked for in it (`phrases`).
    """

    text: str
    marked: bool


def diff_words(text: str, other: str) -> tuple[Piece, ...]:
    """The whole of `text` in pieces that by turns differ from `other` and do not.

    Words are those of `words.find_token_spans`, compared to the letter. What stands between two
    words (space, punctuation) has a counterpart where it stands so beside the partner of one of
    them. Only the first MAX_COMPARED words of either text are compared: what comes after them in
    `text` is never marked, and what stands only after them in `other` counts as missing there.
    """
    parts, others = _split_parts(text), _split_parts(other)
    # Words are at odd places; the ends of the texts are partners, too.
    partners = {-1: -1, len(parts): len(others)}
    for i, j in align_sequences(parts[1::2], others[1::2]).items():
        partners[2 * i + 1] = 2 * j + 1

    def differs(place: int) -> bool:
        if place % 2:
            return place not in partners
        # The gap after the last word compared holds the rest of the text, which is never marked.
        if place >= 2 * MAX_COMPARED:
            return False
        beside = []
        for side in (-1, 1):
            if place + side in partners:
                beside.append(others[partners[place + side] - side])
        return parts[place] not in beside

    filled = [place for place, part in enumerate(parts) if part]
    pieces = []
    for marked, places in groupby(filled, key=differs):
        pieces.append(Piece("".join(parts[place] for place in places), marked))
    return tuple(pieces)


def _split_parts(text: str) -> list[str]:
    """What stands before the first word, the word, what stands before the second, ..., what stands
    after the last, or after MAX_COMPARED.
    """
    parts = []
    end = 0
    for start, stop in islice(find_token_spans(text), MAX_COMPARED):
        parts += [text[end:start], text[start:stop]]
        end = stop
    return [*parts, text[end:]]


def align_sequences(first: Sequence[str], second: Sequence[str]) -> dict[int, int]:
    """Partners: places in `first` to places of the same in `second`, as many as can be in the same
    order on both sides.

    Between what both begin and end with, only the first MAX_COMPARED of each are compared; what
    comes after them has no partner.
    """
    head = _count_equal_pairs(zip(first, second, strict=False))
    ends = zip(reversed(first), reversed(second), strict=False)
    tail = _count_equal_pairs(islice(ends, min(len(first), len(second)) - head))
    partners = {place: place for place in range(head)}
    for back in range(1, tail + 1):
        partners[len(first) - back] = len(second) - back

    # RapidFuzz compares hashes: numbers have no collisions.
    numbers: dict[str, int] = {}
    numbered = []
    for side in (first, second):
        middle = side[head : len(side) - tail][:MAX_COMPARED]
        numbered.append([numbers.setdefault(word, len(numbers)) for word in middle])
    for run in LCSseq.opcodes(*numbered):
        if run.tag == "equal":
            of_first = range(head + run.src_start, head + run.src_end)
            of_second = range(head + run.dest_start, head + run.dest_end)
            partners |= zip(of_first, of_second, strict=True)
    return partners


def _count_equal_pairs(pairs: Iterable[tuple[str, str]]) -> int:
    """How many pairs are of the same before the first that is not."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
