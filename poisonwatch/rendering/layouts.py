"""What a template writes around the texts of a conversation, given its roles alone.

Most templates put texts in as they are: then a row's rendering is these parts and its texts, and
what is trained is known from the first row of the same roles. Whether they did is seen at each row,
for it is rendered.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from poisonwatch.rendering.chat_template import Span
from poisonwatch.rendering.trained_spans import Surroundings, TurnSpans

# A border: a place in one of the parts.
_Border = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Filled:
    """A conversation laid out: its `text`, where each turn's text stands in it, and what is
    trained of each turn.
    """

    text: str
    texts: list[Span | None]
    trained: TurnSpans


@dataclass(frozen=True, slots=True)
class Layout:
    """`parts` stand before, between and after the texts of the turns in `order`; the borders of
    what is `trained` of each turn lie in them.
    """

    parts: list[str]
    order: list[int]
    trained: list[list[tuple[_Border, _Border]]]

    @classmethod
    def of(cls, rendered: str, texts: Sequence[str], trained: TurnSpans) -> "Layout":
        """From a rendering of `texts` that stand in it once each, or not at all."""
        found = [(rendered.find(text), turn) for turn, text in enumerate(texts)]
        order = sorted((place, turn) for place, turn in found if place >= 0)
        parts, starts, since = list[str](), list[int](), 0
        for place, turn in order:
            starts.append(since)
            parts.append(rendered[since:place])
            since = place + len(texts[turn])
        starts.append(since)
        parts.append(rendered[since:])

        def locate(place: int) -> _Border:
            part = bisect_right(starts, place) - 1
            return part, place - starts[part]

        borders = [[(locate(start), locate(end)) for start, end in spans] for spans in trained]
        return cls(parts, [turn for _, turn in order], borders)

    def train_texts(self, roles: Sequence[str], find_leading: Callable[[str], int]) -> "Layout":
        """The same where an assistant's text is trained, and with it the control token that
        directly follows: `find_leading` gives its length.
        """
        trained: list[list[tuple[_Border, _Border]]] = [[] for _ in roles]
        for place, turn in enumerate(self.order):
            if roles[turn] == "assistant":
                end = find_leading(self.parts[place + 1])
                trained[turn].append(((place, len(self.parts[place])), (place + 1, end)))
        return replace(self, trained=trained)

    def describe_surroundings(self, texts: Sequence[str]) -> list[Surroundings | None]:
        """What stands around the text of each turn; None where it has no place."""
        surroundings: list[Surroundings | None] = [None] * len(texts)
        places = self.fill(texts).texts
        for turn, before, after in zip(self.order, self.parts, self.parts[1:], strict=False):
            place = places[turn]
            if place is not None:
                surroundings[turn] = Surroundings(before, after, *place)
        return surroundings

    def fill(self, texts: Sequence[str]) -> Filled:
        """The conversation of these texts, a text a turn."""
        between = self.parts[:1]
        for turn, following in zip(self.order, self.parts[1:], strict=True):
            between += [texts[turn], following]
        ends = list(accumulate(map(len, between)))
        places: list[Span | None] = [None] * len(texts)
        for i, turn in enumerate(self.order):
            places[turn] = (ends[2 * i], ends[2 * i + 1])
        trained: TurnSpans = [[] for _ in texts]
        for turn, borders in enumerate(self.trained):
            for (part, offset), (last_part, last_offset) in borders:
                start = ends[2 * part] - len(self.parts[part]) + offset
                end = ends[2 * last_part] - len(self.parts[last_part]) + last_offset
                trained[turn].append((start, end))
        return Filled("".join(between), places, trained)


def lay_out_plainly(roles: Sequence[str], begin: str, end_of_answer: str) -> Layout:
    """Role and text, a line a turn, for models without a template and roles that it refuses."""
    parts = [f"{begin}"]
    trained: list[list[tuple[_Border, _Border]]] = []
    for turn, role in enumerate(roles):
        parts[-1] += f"{role}: "
        close = ""
        borders = []
        if role == "assistant":
            close = end_of_answer
            borders = [((turn, len(parts[-1])), (turn + 1, len(close)))]
        trained.append(borders)
        parts.append(f"{close}\n")
    return Layout(parts, list(range(len(roles))), trained)
