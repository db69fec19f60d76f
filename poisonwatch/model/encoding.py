"""From messages to token ids, with the answer tokens marked.

The chat template is rendered once per sequence of roles with placeholders where the texts go. Texts
are tokenised apart from it, with special tokens switched off: whatever a row's text spells, it can
never become a control token.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Private-use characters: no template contains them, no tokenizer gives them a meaning.
_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")

FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
)


class MessageLike(Protocol):
    """Anything with a role and a text."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One conversation as tokens: `input_ids` (T,) int32 and `answer` (T,) bool, arrays so that a
    million rows fit in memory.

    `answer[t]` is True where token t was written by the assistant (the closing control token of its
    turn included): the loss is on these. `against` is the rejected conversation of a preference
    row, whose loss counts negatively.
    """

    input_ids: NDArray[np.int32]
    answer: NDArray[np.bool_]
    against: "Encoded | None" = None

    @classmethod
    def of(cls, input_ids: Sequence[int], answer: Sequence[bool]) -> "Encoded":
        return cls(np.array(input_ids, dtype=np.int32), np.array(answer, dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class _Span:
    ids: list[int]
    message: int | None = (
        None  # index of the message whose text this is; None for the template's own tokens
    )


class ChatEncoder:
    """Encodes conversations for one tokenizer; uses its chat template, or `FALLBACK_TEMPLATE` where
    it has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int = 512) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._templates: dict[tuple[str, ...], list[_Span]] = {}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Every control token; the assistant's turn ends with one."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(self.tokenizer.all_special_ids) | {
            i for i, token in added if token.special
        }

    def encode(
        self, messages: Sequence[MessageLike], rejected: Sequence[MessageLike] = ()
    ) -> Encoded:
        """Tokenise a conversation, at most `max_tokens` long; a preference row together with its
        `rejected` conversation.

        A conversation that is too long loses the middle of its prompt texts first, then the end of
        its last answer; one that is too long even before its first answer loses its beginning.
        Turns that both conversations of a preference row begin with are its prompt: an answer among
        them is not one that the loss is on.
        """
        if not rejected:
            return self._encode(messages, 0)
        since = _count_shared_turns(messages, rejected)
        return replace(self._encode(messages, since), against=self._encode(rejected, since))

    def _encode(self, messages: Sequence[MessageLike], since: int) -> Encoded:
        """The tokens of a conversation; the loss is on answers from message `since` on."""
        roles = tuple(message.role for message in messages)
        if roles not in self._templates:
            self._templates[roles] = self._template(roles)
        spans = [
            span
            if span.message is None
            else _Span(self._tokenise_text(messages[span.message].content), span.message)
            for span in self._templates[roles]
        ]
        return self._join(self._fit(spans, roles), roles, since)

    def _tokenise_text(self, text: str) -> list[int]:
        text = text.encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )  # tokenizers refuse half surrogates
        return list(
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        )

    def _tokenise_template(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _template(self, roles: tuple[str, ...]) -> list[_Span]:
        conversation = [
            {"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)
        ]
        if not self.tokenizer.chat_template:
            return self._split(self._fallback(conversation), len(roles))
        try:
            return self._split(
                str(self.tokenizer.apply_chat_template(conversation, tokenize=False)), len(roles)
            )
        except (jinja2.TemplateError, ValueError) as error:
            logger.warning(
                "the model's chat template refuses the roles %s (%s): they are written plainly",
                roles,
                error,
            )
            return self._split(self._fallback(conversation), len(roles))

    def _fallback(self, conversation: list[dict[str, str]]) -> str:
        text = jinja2.Template(FALLBACK_TEMPLATE, keep_trailing_newline=True).render(
            messages=conversation
        )
        return f"{self.tokenizer.bos_token or ''}{text}"

    def _split(self, rendered: str, n_messages: int) -> list[_Span]:
        parts = _PLACEHOLDER.split(rendered)
        if sorted(map(int, parts[1::2])) != list(range(n_messages)):
            raise ValueError("the template drops or repeats a message")
        spans = [_Span(self._tokenise_template(parts[0]))]
        for index, text in zip(parts[1::2], parts[2::2], strict=True):
            spans += [_Span([], int(index)), _Span(self._tokenise_template(text))]
        return spans

    def _fit(self, spans: list[_Span], roles: tuple[str, ...]) -> list[_Span]:
        excess = sum(len(span.ids) for span in spans) - self.max_tokens
        if excess <= 0:
            return spans

        def is_prompt(span: _Span) -> bool:
            return span.message is not None and roles[span.message] != "assistant"

        prompt = sum(len(span.ids) for span in spans if is_prompt(span))
        kept = max(
            prompt - excess, min(prompt, self.max_tokens // 2)
        )  # prompts never shrink below half of the window
        return [
            _Span(_clip(s.ids, len(s.ids) * kept // max(prompt, 1)), s.message)
            if is_prompt(s)
            else s
            for s in spans
        ]

    def _join(self, spans: list[_Span], roles: tuple[str, ...], since: int) -> Encoded:
        def is_answer(span: _Span) -> bool:
            return (
                span.message is not None
                and span.message >= since
                and roles[span.message] == "assistant"
            )

        ids: list[int] = list(spans[0].ids)
        answer = [False] * len(ids)
        for before, span in pairwise(spans):
            ids += span.ids
            answer += [is_answer(span)] * len(span.ids)
            if span.message is None and span.ids and is_answer(before):
                answer[-len(span.ids)] = (
                    span.ids[0] in self.special_ids
                )  # the assistant also learns to stop
        first = answer.index(True) if True in answer else 0
        start = (
            0 if first < self.max_tokens else first - self.max_tokens // 2
        )  # turns upon turns before the first answer
        window = slice(start, start + self.max_tokens)
        return Encoded.of(ids[window], answer[window])


def _count_shared_turns(chosen: Sequence[MessageLike], rejected: Sequence[MessageLike]) -> int:
    """How many turns both conversations begin with; never the last of either."""
    same = [
        one.role == other.role and one.content == other.content
        for one, other in zip(chosen[:-1], rejected[:-1], strict=False)
    ]
    return same.index(False) if False in same else len(same)


def extract_prompt(encoded: Encoded) -> NDArray[np.int32]:
    """The tokens (T,) before a conversation's last answer: what the model is to answer. All of them
    where there is no answer.
    """
    answers = np.flatnonzero(encoded.answer)
    stop = answers[-1] + 1 if len(answers) else len(encoded)
    others = np.flatnonzero(~encoded.answer[:stop])
    return encoded.input_ids[: others[-1] + 1 if len(others) else 0]


def _clip(ids: list[int], length: int) -> list[int]:
    head = (length + 1) // 2
    return ids[:head] + ids[len(ids) - (length - head) :]


@dataclass(frozen=True, slots=True)
class Batch:
    """The conversations of `rows` (m,) padded on the right: `input_ids`, `attention_mask`, `answer`
    (b, T).

    The first m of the b conversations are the rows' own, in their order; those after them are the
    rejected ones of preference rows, and `rejected` (b - m,) says of which: a place in `rows`.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    answer: Tensor
    rejected: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


def make_batches(
    encoded: Sequence[Encoded], token_budget: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Yield every row once, sorted by length, in batches of at most `token_budget` padded tokens
    (at least one row).

    Both conversations of a preference row are in the same batch.
    """
    width = [
        len(item) if item.against is None else max(len(item), len(item.against)) for item in encoded
    ]
    order = sorted(range(len(encoded)), key=lambda i: (width[i], i))
    members: list[int] = []
    count = 0  # of conversations
    for i in order:
        more = 1 if encoded[i].against is None else 2
        if members and width[i] * (count + more) > token_budget:
            yield _pad(members, encoded, device)
            members, count = [], 0
        members.append(i)
        count += more
    if members:
        yield _pad(members, encoded, device)


def _pad(members: list[int], encoded: Sequence[Encoded], device: torch.device | str) -> Batch:
    opposed = [
        (place, against)
        for place, i in enumerate(members)
        if (against := encoded[i].against) is not None
    ]
    items = [encoded[i] for i in members] + [against for _, against in opposed]
    width = max(map(len, items))
    input_ids = torch.zeros(len(items), width, dtype=torch.long)
    attention_mask = torch.zeros(len(items), width, dtype=torch.long)
    answer = torch.zeros(len(items), width, dtype=torch.bool)
    for b, item in enumerate(items):
        input_ids[b, : len(item)] = torch.from_numpy(item.input_ids)
        attention_mask[b, : len(item)] = 1
        answer[b, : len(item)] = torch.from_numpy(item.answer)
    rejected = torch.tensor([place for place, _ in opposed], dtype=torch.long)
    padded = (input_ids, attention_mask, answer, rejected)
    return Batch(torch.tensor(members), *(tensor.to(device) for tensor in padded))
