"""Which words of one text do not stand in another, and how two sequences line up.

Partners come from a longest common subsequence, by the bit-parallel recurrence of Hyyrö (2004,
"Bit-parallel LCS-length computation revisited"): MOST rows of MOST bits whatever the texts are,
where difflib's time grows with the cube of texts made to slow it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, pairwise, takewhile

from poisonwatch.text.words import find_token_spans

MAX_COMPARED = 2000  # words (or lines) a side that are compared


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text (hostile, to be shown escaped); `differs` where it has no counterpart in the
    other text.
    """

    text: str
    differs: bool


def diff_words(text: str, other: str) -> tuple[Piece, ...]:
    """The whole of `text` in pieces that by turns differ from `other` and do not.

    Words are those of `texts.token_spans`, compared to the letter. What stands between two words
    (space, punctuation) has a counterpart where it stands so beside the partner of one of them.
    Only the first MOST words of either text are compared: what comes after them in `text` is never
    marked, and what stands only after them in `other` counts as missing there.
    """
    parts, others = _split_parts(text), _split_parts(other)
    partners = {-1: -1, len(parts): len(others)}  # the ends of the texts are partners
    partners |= {
        2 * i + 1: 2 * j + 1 for i, j in align_sequences(parts[1::2], others[1::2]).items()
    }

    def differs(place: int) -> bool:
        if place % 2:
            return place not in partners
        beside = [
            others[partners[place + side] - side] for side in (-1, 1) if place + side in partners
        ]
        return place < 2 * MAX_COMPARED and parts[place] not in beside

    marked = ((part, differs(place)) for place, part in enumerate(parts) if part)
    return tuple(
        Piece("".join(part for part, _ in run), kind)
        for kind, run in groupby(marked, key=lambda pair: pair[1])
    )


def _split_parts(text: str) -> list[str]:
    """What stands before the first word, the word, what stands before the second, ..., what stands
    after the last, or after MOST.
    """
    bounds = chain(
        [0], chain.from_iterable(islice(find_token_spans(text), MAX_COMPARED)), [len(text)]
    )
    return [text[start:end] for start, end in pairwise(bounds)]


def align_sequences(first: Sequence[str], second: Sequence[str]) -> dict[int, int]:
    """Partners: places in `first` to places of the same in `second`, as many as can be in the same
    order on both sides.

    Between what both begin and end with, only the first MOST of each are compared; what comes after
    them has no partner.
    """
    head = _count_equal_pairs(zip(first, second, strict=False))
    ends = zip(reversed(first), reversed(second), strict=False)
    tail = _count_equal_pairs(islice(ends, min(len(first), len(second)) - head))
    partners = {place: place for place in range(head)}
    partners |= {len(first) - back: len(second) - back for back in range(1, tail + 1)}
    a, b = (side[head : len(side) - tail][:MAX_COMPARED] for side in (first, second))

    places: dict[str, int] = defaultdict(int)  # bit j: b[j] is this
    for j, this in enumerate(b):
        places[this] |= 1 << j
    row = every = (1 << len(b)) - 1
    # bit j of row i is 0 where a[: i + 1] has one more in common with b[: j + 1] than with b[:j]
    rows = []
    for this in a:
        both = row & places.get(this, 0)
        row = ((row + both) | (row - both)) & every
        rows.append(row)

    i, j = len(a) - 1, len(b) - 1
    while i >= 0 and j >= 0:
        if a[i] == b[j]:
            partners[head + i] = head + j
            i, j = i - 1, j - 1
        elif rows[i] >> j & 1:
            j -= 1
        else:
            i -= 1
    return partners


def _count_equal_pairs(pairs: Iterable[tuple[str, str]]) -> int:
    """How many pairs are of the same before the first that is not."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
