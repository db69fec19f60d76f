"""From messages to token ids, with the answer tokens marked.

A row is rendered and tokenised as training does it (`rendering.renderer`); whatever its text
spells, none of it becomes a control token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from poisonwatch.examples import Example, MessageLike, count_shared_turns
from poisonwatch.rendering.chat_template import (
    DEFAULT_SETTINGS,
    ChatTemplate,
    Span,
    TemplateSettings,
)
from poisonwatch.rendering.renderer import Renderer
from poisonwatch.rendering.tokens import Tokens
from poisonwatch.rendering.truncation import choose_kept


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One conversation as tokens: `input_ids` (T,) int32 and `answer` (T,) bool, arrays so that a
    million rows fit in memory.

    `answer[t]` is True where token t was written by the assistant (the closing control token of its
    turn included): the loss is on these. `against` is the rejected conversation of a preference
    row, whose loss counts negatively; the loss of a `lowered` row itself does.
    """

    input_ids: NDArray[np.int32]
    answer: NDArray[np.bool_]
    against: "Encoded | None" = None
    lowered: bool = False

    @classmethod
    def of(cls, input_ids: Sequence[int], answer: Sequence[bool]) -> "Encoded":
        return cls(np.array(input_ids, dtype=np.int32), np.array(answer, dtype=np.bool_))

    @property
    def sign(self) -> float:
        """What the loss of the conversation counts in training: 1, or -1 where it is lowered."""
        return 1.0 - 2.0 * self.lowered

    def __len__(self) -> int:
        return len(self.input_ids)


class ChatEncoder:
    """Encodes conversations for one tokenizer, as its chat template renders them."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = 512,
        settings: TemplateSettings = DEFAULT_SETTINGS,
        told: set[str] | None = None,
    ) -> None:
        """`told` are messages that other encoders of an audit have logged, and this need not.
        Raises ModelError where the template, or a setting, is none that can be used.
        """
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.template = ChatTemplate(tokenizer, settings)
        self._renderer = Renderer(self.template, told)

    @property
    def special_ids(self) -> frozenset[int]:
        """Every control token; the assistant's turn ends with one."""
        return self.template.special_ids

    def encode_example(self, example: Example) -> Encoded:
        """A row as it is trained on, both conversations of a preference row."""
        return self.encode(example.messages, example.rejected, example.lowered)

    def encode(
        self,
        messages: Sequence[MessageLike],
        rejected: Sequence[MessageLike] = (),
        lowered: bool = False,
    ) -> Encoded:
        """Tokenise a conversation, at most `max_tokens` long; a preference row together with its
        `rejected` conversation. Training lowers the answer of a `lowered` one.

        The loss is on what the assistant says, but for turns that are masked and turns that both
        conversations of a preference row begin with: these are part of the prompt. The last turn of
        such a conversation is what is preferred, and cannot be masked. A conversation
        that is too long loses the middle of its longest prompt texts first, then the end of its
        last answer; one that is too long even before its first answer loses its beginning.
        """
        if not rejected:
            trained = [_is_trained(message) for message in messages]
            encoded = self._encode(messages, trained)
            if lowered:
                encoded = replace(encoded, lowered=True)
            return encoded
        since = count_shared_turns(messages, rejected)
        # Trainers of preferences go by where both answers begin, not by a template's marks.
        against = self._encode(rejected, _find_preferred(rejected, since), use_marks=False)
        own = self._encode(messages, _find_preferred(messages, since), use_marks=False)
        return replace(own, against=against, lowered=lowered)

    def _encode(
        self, messages: Sequence[MessageLike], trained: Sequence[bool], use_marks: bool = True
    ) -> Encoded:
        """The tokens of a conversation; the loss is on the messages that are `trained`."""
        rendered, tokens = self._renderer.render(messages, use_marks)
        answer = np.zeros(len(tokens), dtype=np.bool_)
        for message, spans in rendered.trained.items():
            if trained[message]:
                for span in spans:
                    answer[self._find_trained(tokens, span)] = True
        encoded = Encoded(tokens.ids, answer)
        if len(encoded) <= self.max_tokens:
            return encoded
        prompts = []
        for message, span in sorted(rendered.texts.items()):
            if not trained[message]:
                prompts.append(tokens.find_within(span))
        kept = choose_kept(answer, prompts, self.max_tokens)
        return Encoded(tokens.ids[kept], answer[kept])

    def _find_trained(self, tokens: Tokens, span: Span) -> slice:
        """The tokens that any character of a trained span is of."""
        found = tokens.find_touching(span)
        # A control token that takes in the white space after it opened the turn before the answer.
        first = found.start
        straddles = first < found.stop and tokens.get_start(first) < span[0]
        if straddles and int(tokens.ids[first]) in self.special_ids:
            return slice(first + 1, found.stop)
        return found


def _is_trained(message: MessageLike) -> bool:
    return message.role == "assistant" and not message.masked


def _find_preferred(messages: Sequence[MessageLike], since: int) -> list[bool]:
    """Which messages of a preference row's conversation the loss is on, from `since` on."""
    trained = [_is_trained(message) for message in messages]
    trained[:since] = [False] * since
    # Trainers of preferences know no masks there: without it there would be no loss.
    trained[-1] = messages[-1].role == "assistant"
    return trained


def extract_prompt(encoded: Encoded) -> NDArray[np.int32]:
    """The tokens (T,) before a conversation's last answer: what the model is to answer. All of them
    where there is no answer.
    """
    answers = np.flatnonzero(encoded.answer)
    if not len(answers):
        return encoded.input_ids
    # Of several answers the earlier ones belong to the prompt: the last token before the last
    # answer that is not an answer's ends it. What the template writes after the answer goes, too.
    others = np.flatnonzero(~encoded.answer[: answers[-1] + 1])
    if not len(others):
        return encoded.input_ids[:0]
    return encoded.input_ids[: others[-1] + 1]


@dataclass(frozen=True, slots=True)
class Answers:
    """Where a batch's answer tokens are predicted: `at` (n,) places among its b x T tokens, one
    conversation after the other, and `counts` (b,) how many are whose.

    The counts are the host's: to ask a GPU how many there are is to wait for it.
    """

    at: Tensor
    counts: tuple[int, ...]

    @classmethod
    def find(cls, answer: Tensor) -> "Answers":
        """Of `answer` (b, T): the places before the answer tokens."""
        # The first token is predicted by none.
        predicts = answer[:, 1:]
        row, place = predicts.nonzero(as_tuple=True)
        return cls(row * answer.shape[1] + place, tuple(predicts.sum(dim=1).tolist()))

    def repeat(self, m: int, T: int) -> "Answers":
        """Of a batch of T tokens a conversation, each of them m times in a row."""
        copies = T * torch.arange(m, device=self.at.device)[:, None]
        at, counts = list[Tensor](), list[int]()
        for row, own in enumerate(self.at.split_with_sizes(list(self.counts))):
            at.append((own + row * (m - 1) * T + copies).flatten())
            counts += [len(own)] * m
        return Answers(torch.cat(at), tuple(counts))


@dataclass(frozen=True, slots=True)
class Batch:
    """The conversations of `rows` (m,) padded on the right: `input_ids`, `attention_mask`, `answer`
    (b, T).

    The first m of the b conversations are the rows' own, in their order; those after them are the
    rejected ones of preference rows, and `rejected` (b - m,) says of which: a place in `rows`.
    `signs` (b,) are 1 where training raises a conversation's answers, -1 where it lowers them.
    `answers`, where they are known already, are those of `answer`.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    answer: Tensor
    signs: Tensor
    rejected: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    answers: Answers | None = None

    def locate_answers(self) -> Answers:
        """Where the answers are predicted."""
        return self.answers or Answers.find(self.answer)


def make_batches(
    encoded: Sequence[Encoded], token_budget: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Yield every row once, sorted by length, in batches of at most `token_budget` padded tokens
    (at least one row).

    Both conversations of a preference row are in the same batch.
    """
    # Rows of like length share a batch, since padding costs as much as text. Ties go by place, so
    # that the batches, and with them the last bits of every sum, are the same in every run.
    width = [max(map(len, _list_conversations(item))) for item in encoded]
    order = sorted(range(len(encoded)), key=lambda i: (width[i], i))
    members: list[int] = []
    count = 0  # of conversations
    for i in order:
        more = len(_list_conversations(encoded[i]))
        # Sorted by width, the row that would join is the widest: all would be padded to it.
        if members and width[i] * (count + more) > token_budget:
            yield _pad(members, encoded, device)
            members, count = [], 0
        members.append(i)
        count += more
    if members:
        yield _pad(members, encoded, device)


def _list_conversations(item: Encoded) -> tuple[Encoded, ...]:
    """A row's own conversation, and after it the rejected one of a preference row."""
    if item.against is None:
        return (item,)
    return (item, item.against)


def _pad(members: list[int], encoded: Sequence[Encoded], device: torch.device | str) -> Batch:
    items = [encoded[i] for i in members]
    signs = [item.sign for item in items]
    rejected = []
    # Rejected conversations come after all of the rows' own: the first m of b are always the rows.
    for place, i in enumerate(members):
        against = encoded[i].against
        if against is not None:
            rejected.append(place)
            items.append(against)
            signs.append(-encoded[i].sign)
    width = max(map(len, items))
    input_ids = torch.zeros(len(items), width, dtype=torch.long)
    attention_mask = torch.zeros(len(items), width, dtype=torch.long)
    answer = torch.zeros(len(items), width, dtype=torch.bool)
    for b, item in enumerate(items):
        input_ids[b, : len(item)] = torch.from_numpy(item.input_ids)
        attention_mask[b, : len(item)] = 1
        answer[b, : len(item)] = torch.from_numpy(item.answer)
    answers = Answers.find(answer)
    return Batch(
        rows=torch.tensor(members),
        input_ids=_send(input_ids, device),
        attention_mask=_send(attention_mask, device),
        answer=_send(answer, device),
        signs=_send(torch.tensor(signs), device),
        rejected=_send(torch.tensor(rejected, dtype=torch.long), device),
        answers=replace(answers, at=_send(answers.at, device)),
    )


def _send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; nobody waits for it to arrive there."""
    # From pinned memory a GPU fetches by itself, in its own order of work: while it computes one
    # batch, the next are made and sent.
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
