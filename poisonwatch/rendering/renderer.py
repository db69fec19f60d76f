"""From a row's messages to the text that a trainer would make of them, and what of it is trained.

The row goes through the model's own chat template: its thoughts, calls and tools in the family's
form, where the template has one, else as texts; a system's turn in the user's first where the
template knows none. What no template takes is written plainly, a line a turn.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from poisonwatch.examples import MessageLike
from poisonwatch.rendering.chat_template import TEMPLATE_ERRORS, ChatTemplate, Span
from poisonwatch.rendering.guards import Guard
from poisonwatch.rendering.layouts import Filled, Layout, lay_out_plainly
from poisonwatch.rendering.tokens import Tokens, tokenise
from poisonwatch.rendering.trained_spans import (
    DifferenceFinder,
    Surroundings,
    TurnSpans,
    count_shared,
    find_marked,
)
from poisonwatch.rendering.turns import (
    Conversation,
    choose_unused,
    read_conversation,
    write_conversation,
)

logger = logging.getLogger(__name__)

NO_TOOLS = "the model's chat template prints no tools: their definitions are written as text"
REFUSED = (
    "the model's chat template refuses the roles %s: they are written plainly, a line a turn, as "
    "all that it refuses (told once)"
)
STAND_INS = (
    "what is trained of a row cannot be told from what the model's chat template renders: its "
    "texts are put where the template puts placeholders (told once)"
)
LEFT_OUT = (
    "the model's chat template leaves out what tools say: training does not see it, nor does the "
    "audit"
)

# What a data set's rows are like is known from few sequences of roles. Of each turn in one half a
# kilobyte is kept: 64 MB.
MOST_TURNS_KEPT = 1 << 17
# A row of more turns is written as text alone: to take it apart is to render it for each of them,
# and takes seconds with some templates.
MOST_APART = 64


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as one text: where the texts of its messages stand in it, and what is trained, both by
    message. Characters that are the `breaker` are no part of it.

    `control` are the control tokens that the template writes, in order, where they are known.
    """

    text: str
    texts: dict[int, Span]
    trained: dict[int, list[Span]]
    breaker: str = ""
    control: list[int] | None = None


class Renderer:
    """Renders the rows of an audit with one template."""

    def __init__(self, template: ChatTemplate, told: set[str] | None = None) -> None:
        """`told` are the messages that another renderer of the same audit has logged already."""
        self.template = template
        self._guard = Guard(template.special_tokens, template.normalise)
        # The token for unknown characters stands for text.
        self._control = frozenset(template.special_ids - {template.tokenizer.unk_token_id})
        # Rendering is slow to take apart, and a data set has few sequences of roles.
        self._layouts: dict[tuple[tuple[str, ...], bool, bool], _KnownLayout | None] = {}
        self._turns_kept = 0
        self._told = set() if told is None else told

    def render(
        self, messages: Sequence[MessageLike], use_marks: bool = True
    ) -> tuple[Rendered, Tokens]:
        """The row as a text, and as its tokens: no control token among them is the row's own.

        With `use_marks`, what the template marks as generated is trained, where it marks anything.
        """
        rendered = self._render(messages, use_marks)
        tokens = self._tokenise(rendered)
        control = tokens.list_control(self._control)
        if control == rendered.control:
            return rendered, tokens
        # How many there are to be is seen where no text can be part of any.
        fenced = self._render(messages, use_marks, fence=True)
        fenced_tokens = self._tokenise(fenced)
        if rendered.control is None and control == fenced_tokens.list_control(self._control):
            return rendered, tokens
        return fenced, fenced_tokens

    def _tokenise(self, rendered: Rendered) -> Tokens:
        spans = chain.from_iterable(rendered.trained.values())
        return tokenise(
            self.template.tokenizer,
            rendered.text,
            rendered.breaker,
            cuts=chain.from_iterable(spans),
        )

    def _render(
        self, messages: Sequence[MessageLike], use_marks: bool, fence: bool = False
    ) -> Rendered:
        texts = [message.content for message in messages]
        breaker = ""
        change = self._guard.break_tokens
        if fence:
            change = self._guard.fence
        if fence or any(map(self._guard.is_spelled, texts)):
            breaker = choose_unused(texts, self._guard.keeps)
        for conversation in self._propose(messages):
            if breaker:
                conversation = conversation.change_texts(partial(change, breaker=breaker))
            rendered = self._try(conversation, use_marks)
            if rendered is None:
                continue
            if breaker:
                rendered = replace(rendered, breaker=breaker)
            return rendered
        conversation = write_conversation(messages)
        if breaker:
            conversation = conversation.change_texts(partial(change, breaker=breaker))
        return replace(self._write_plainly(conversation), breaker=breaker)

    def _propose(self, messages: Sequence[MessageLike]) -> Iterator[Conversation]:
        """The row in the forms that a template may take, the most faithful first."""
        if self.template.is_missing:
            return
        for split in (False, True):
            for form in self._read_forms(messages):
                if split:
                    form = form.split_parts()
                yield form
                merged = form.merge_system()
                if merged is not None:
                    yield merged

    def _read_forms(self, messages: Sequence[MessageLike]) -> Iterator[Conversation]:
        read = read_conversation(messages, self.template)
        yield read
        if read.has_calls:
            # Some templates join arguments to text.
            yield read.write_arguments()
        if read.tools:
            yield read.tell_tools()
        if read.tools and read.has_calls:
            yield read.write_arguments().tell_tools()
        if not read.is_plain:
            yield write_conversation(messages)

    def _try(self, conversation: Conversation, use_marks: bool) -> Rendered | None:
        """The rendering of a conversation; None where the template does not take it."""
        known = None
        if conversation.is_plain:
            known = self._find_layout(conversation, use_marks)
            if known is None:
                return None
            filled = self._fill(known.layout, conversation)
            if filled is not None:
                return _describe(filled, conversation, known.control)
        found = None
        if len(conversation.turns) <= MOST_APART:
            found = self._take_apart(conversation, use_marks)
        if found is None and known is not None:
            self._tell_once(STAND_INS)
            texts = [turn.text for turn in conversation.turns]
            return _describe(known.layout.fill(texts), conversation, known.control)
        return found

    def _fill(self, layout: Layout, conversation: Conversation) -> Filled | None:
        """The conversation laid out, where that is what the template renders."""
        texts = [turn.text for turn in conversation.turns]
        try:
            rendered = self.template.render(conversation.records)
        except TEMPLATE_ERRORS:
            return None
        filled = layout.fill(texts)
        if filled.text != rendered:
            # Many templates trim texts.
            filled = layout.fill([text.strip() for text in texts])
        if filled.text != rendered:
            return None
        return filled

    def _find_layout(self, conversation: Conversation, use_marks: bool) -> "_KnownLayout | None":
        """What the template writes around texts of such roles; None where it refuses them."""
        key = (conversation.roles, conversation.in_parts, use_marks)
        if key not in self._layouts:
            self._turns_kept += len(conversation.turns)
            if self._turns_kept > MOST_TURNS_KEPT:
                self._layouts.clear()
                self._turns_kept = len(conversation.turns)
            layout = self._make_layout(conversation, use_marks)
            known = None
            if layout is not None:
                known = self._know(layout, len(conversation.turns))
            self._layouts[key] = known
        return self._layouts[key]

    def _make_layout(self, conversation: Conversation, use_marks: bool) -> Layout | None:
        turns = []
        for place, turn in enumerate(conversation.turns):
            turns.append(replace(turn, text=f"\ue000{place}\ue001"))
        conversation = Conversation(tuple(turns))
        texts = [turn.text for turn in turns]
        try:
            rendered, marks = self._render_text(conversation, use_marks)
        except TEMPLATE_ERRORS:
            return None
        for turn in turns:
            count = rendered.count(turn.text)
            if not count and turn.role == "tool":
                self._tell_once(LEFT_OUT)
            elif count != 1:
                return None
        bare = Layout.of(rendered, texts, [[] for _ in turns])
        surroundings = bare.describe_surroundings(texts)
        trained = self._find_trained(conversation, rendered, marks, surroundings)
        if trained is not None:
            return Layout.of(rendered, texts, trained)
        self._tell_once(STAND_INS)
        return bare.train_texts(conversation.roles, self._guard.find_leading)

    def _know(self, layout: Layout, turns: int) -> "_KnownLayout":
        harmless = layout.fill(["a"] * turns)
        tokens = tokenise(self.template.tokenizer, harmless.text)
        return _KnownLayout(layout, tokens.list_control(self._control))

    def _render_text(
        self, conversation: Conversation, use_marks: bool
    ) -> tuple[str, Sequence[Span]]:
        """The text of a conversation, and what the template marks of it. Raises one of
        TEMPLATE_ERRORS.
        """
        if use_marks and self.template.has_marks:
            text, marks = self.template.render_marked(conversation.records, conversation.tools)
            if marks:
                return text, marks
        return self.template.render(conversation.records, conversation.tools), []

    def _find_trained(
        self,
        conversation: Conversation,
        text: str,
        marks: Sequence[Span],
        surroundings: Sequence[Surroundings | None] = (),
    ) -> TurnSpans | None:
        """What is trained of a rendering; None where it cannot be found."""
        try:
            if marks:
                return find_marked(self.template, conversation, marks)
            return DifferenceFinder(self.template, conversation, text).find(surroundings)
        except TEMPLATE_ERRORS:
            return None

    def _take_apart(self, conversation: Conversation, use_marks: bool) -> Rendered | None:
        """The rendering of a conversation that is no layout filled; None where it is refused, or
        leaves out what the system or a user says, or what is trained cannot be found.
        """
        try:
            text, marks = self._render_text(conversation, use_marks)
            printed = self._find_printed(conversation, text)
        except TEMPLATE_ERRORS:
            return None
        trained = self._find_trained(conversation, text, marks)
        if trained is None or (conversation.tools and printed is None):
            return None
        places, since = dict[int, Span](), 0
        for turn in conversation.turns:
            said = turn.text.strip()
            place = text.find(said, since)
            if place < 0:
                # Some put the system's text behind the turns that follow it.
                place = text.find(said)
            elif turn.role != "system":
                since = place + len(said)
            if place < 0 and turn.role in ("system", "user"):
                return None
            if place >= 0:
                places[turn.message] = (place, place + len(said))
        if printed is not None:
            places[0] = printed
        by_message = {}
        for turn, spans in zip(conversation.turns, trained, strict=True):
            by_message[turn.message] = spans
        return Rendered(text, places, by_message)

    def _find_printed(self, conversation: Conversation, text: str) -> Span | None:
        """Where the definitions of tools stand; None without any, or where none are printed."""
        if not conversation.tools:
            return None
        bare = self.template.render(conversation.records)
        if bare == text:
            self._tell_once(NO_TOOLS)
            return None
        start = count_shared(bare, text)
        tail = count_shared(bare[start:][::-1], text[start:][::-1])
        return start, len(text) - tail

    def _write_plainly(self, conversation: Conversation) -> Rendered:
        roles, template = conversation.roles, self.template
        if not template.is_missing:
            self._tell_once(REFUSED, roles)
        layout = lay_out_plainly(roles, template.begin, template.end_of_answer)
        known = self._know(layout, len(roles))
        texts = [turn.text for turn in conversation.turns]
        return _describe(known.layout.fill(texts), conversation, known.control)

    def _tell_once(self, message: str, *details: object) -> None:
        if message not in self._told:
            logger.warning(message, *details)
        self._told.add(message)


@dataclass(frozen=True, slots=True)
class _KnownLayout:
    """A layout, and the control tokens that stand in it."""

    layout: Layout
    control: list[int]


def _describe(filled: Filled, conversation: Conversation, control: list[int]) -> Rendered:
    texts, trained = dict[int, Span](), dict[int, list[Span]]()
    for turn, place, spans in zip(conversation.turns, filled.texts, filled.trained, strict=True):
        if place is not None:
            texts[turn.message] = place
        trained[turn.message] = spans
    return Rendered(filled.text, texts, trained, control=control)
