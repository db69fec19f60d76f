"""Which characters of a rendering trainers put the loss on, turn by turn.

Where the template marks what the assistant generates, these are the marks. Else an answer begins
where the conversation so far, rendered up to the answer, ends (as trl's completion does), and ends
where the conversation up to and with it does: with all that closes the turn, a second end token
included. Where other turns change how a turn is rendered (thoughts that are stripped from history,
a system's text that stands in the last turn), its borders are those of a stand-in text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poisonwatch.rendering.chat_template import TEMPLATE_ERRORS, ChatTemplate, Span
from poisonwatch.rendering.tokens import tokenise
from poisonwatch.rendering.turns import Conversation, choose_unused

# The spans of each turn; only an assistant's has any.
TurnSpans = list[list[Span]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a template wrote `before` and `after` a turn's text, as far as the texts of other turns,
    and where that text stands in the rendering, from `start` up to `end`.
    """

    before: str
    after: str
    start: int
    end: int


def find_marked(
    template: ChatTemplate, conversation: Conversation, marks: Sequence[Span]
) -> TurnSpans | None:
    """The template's own marks, turn by turn; None where they cannot be told apart."""
    spans: TurnSpans = [[] for _ in conversation.turns]
    answers = [i for i, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    if len(answers) == len(marks):
        for i, mark in zip(answers, marks, strict=True):
            spans[i].append(mark)
        return spans
    # Several marks a turn: each belongs to the last answer that has begun.
    begins = []
    for i in answers:
        prompt = template.render(conversation.records[:i], conversation.tools, prompt=True)
        begins.append(len(prompt))
    for mark in marks:
        begun = [i for i, begin in zip(answers, begins, strict=True) if begin < mark[1]]
        if not begun:
            return None
        spans[begun[-1]].append(mark)
    return spans


class DifferenceFinder:
    """Finds the spans of one conversation by what its renderings have in common.

    `text` is the rendering of the whole.
    """

    def __init__(self, template: ChatTemplate, conversation: Conversation, text: str) -> None:
        self.template = template
        self.conversation = conversation
        self.text = text
        self._special = template.special_pattern

    def find(self, surroundings: Sequence[Surroundings | None] = ()) -> TurnSpans | None:
        """The span of each assistant's turn; None where one cannot be found.

        Where the `surroundings` of all turns are known, those that are written alike are trained
        alike, and only the first of them is looked for: to look for all of a long conversation's
        would be to render it as many times.
        """
        spans: TurnSpans = [[] for _ in self.conversation.turns]
        since = 0
        known = dict[object, Span]()
        for place, turn in enumerate(self.conversation.turns):
            if turn.role != "assistant":
                continue
            around = None
            if surroundings:
                around = surroundings[place]
            span = self._find_like(place, around, known)
            if span is None or span[0] < since or turn.visible not in self.text[slice(*span)]:
                return None
            spans[place].append(span)
            since = span[1]
        return spans

    def _find_like(
        self, place: int, around: Surroundings | None, known: dict[object, Span]
    ) -> Span | None:
        """The span of a turn, from that of one with the same surroundings where it is `known`: how
        far it begins from its text, and ends.
        """
        if around is None:
            return self._find_turn(place)
        is_last = place == len(self.conversation.turns) - 1
        key = (around.before, around.after, is_last)
        if key not in known:
            span = self._find_turn(place)
            if span is None:
                return None
            known[key] = (span[0] - around.start, span[1] - around.end)
        start, end = known[key]
        return around.start + start, around.end + end

    def _find_turn(self, place: int) -> Span | None:
        start, end = self._find_start(place), self._find_end(place)
        if start is None or end is None:
            try:
                stood = self._find_by_stand_in(place)
            except TEMPLATE_ERRORS:
                return None
            if stood is None:
                return None
            start = stood[0] if start is None else start
            end = stood[1] if end is None else end
        if end <= start:
            return None
        return start, self._leave_space(start, end)

    def _find_start(self, place: int) -> int | None:
        """Where the conversation before a turn ends, opened for the assistant."""
        before = self.conversation.records[:place]
        if not before:
            return None
        try:
            opened = self._render(before, prompt=True)
            if self.text.startswith(opened):
                return len(opened)
            # Some open the turn with thoughts, say, that this answer does not have: it begins
            # where the two part.
            closed = self._render(before)
        except TEMPLATE_ERRORS:
            return None
        # Where they part before the opening, history is rendered otherwise.
        history = opened[: self._count_shared(opened, closed)]
        if closed == opened or not self.text.startswith(history):
            return None
        return self._find_parting(opened)

    def _find_parting(self, opened: str) -> int:
        """Where a text's tokens are no longer those of the whole."""
        mine = tokenise(self.template.tokenizer, opened)
        theirs = tokenise(self.template.tokenizer, self.text)
        length = min(len(mine), len(theirs))
        parted = np.flatnonzero(mine.ids[:length] != theirs.ids[:length])
        if not len(parted):
            return int(theirs.ends[length - 1])
        return int(theirs.starts[parted[0]])

    def _find_end(self, place: int) -> int | None:
        if place == len(self.conversation.turns) - 1:
            return len(self.text)
        try:
            ended = self._render(self.conversation.records[: place + 1])
        except TEMPLATE_ERRORS:
            return None
        if self.text.startswith(ended):
            return len(ended)
        return None

    def _find_by_stand_in(self, place: int) -> Span | None:
        """Where a text in the place of this turn begins, and where what closes it ends."""
        letter = choose_unused([self.text])
        turns = list(self.conversation.turns)
        turns[place] = replace(turns[place], text=letter, fields={})
        records = Conversation(tuple(turns)).records
        before, found, after = self._render(records).partition(letter)
        if not found or not self.text.startswith(before) or not self.text.endswith(after):
            return None
        last = self._render(records[: place + 1]).partition(letter)[2]
        closing = self._count_shared(after, last)
        ends = self._special.match(after)
        if not closing and ends is not None:
            # Some end the last turn with another token than those before it.
            closing = ends.end()
        start = len(before)
        opening = self._find_opening(records[:place])
        # Empty thoughts, say, stand between the opening of the turn and its text.
        if opening and opening in before:
            start = before.rindex(opening) + len(opening)
        return start, len(self.text) - len(after) + closing

    def _find_opening(self, records: list[dict[str, object]]) -> str:
        """What the template opens an assistant's turn with."""
        if not records:
            return ""
        opened, closed = self._render(records, prompt=True), self._render(records)
        return opened[self._count_shared(opened, closed) :]

    def _leave_space(self, start: int, end: int) -> int:
        """The end of a span without the white space after the control token that ends the answer:
        models do not stop there.
        """
        bare = self.text[start:end].rstrip()
        ends = [match.end() for match in self._special.finditer(bare)]
        if ends and ends[-1] == len(bare):
            return start + len(bare)
        return end

    def _render(self, records: list[dict[str, object]], prompt: bool = False) -> str:
        return self.template.render(records, self.conversation.tools, prompt=prompt)

    def _count_shared(self, one: str, other: str) -> int:
        """How many characters both begin with; half a control token is not shared."""
        low = count_shared(one, other)
        for text in (one, other):
            # No control token is longer: one that is cut begins this near.
            for match in self._special.finditer(text, max(0, low - 80)):
                if match.start() < low < match.end():
                    return match.start()
        return low


def count_shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
