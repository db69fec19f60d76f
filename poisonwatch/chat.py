"""From messages to token ids, with the answer tokens marked.

The chat template is rendered once per sequence of roles with placeholders where the texts go. Texts are tokenised apart from it, with
special tokens switched off: whatever a row's text spells, it can never become a control token.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

FALLBACK_TEMPLATE = "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"


class MessageLike(Protocol):
    """Anything with a role and a text."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One conversation as tokens: `input_ids` (T,) int32 and `answer` (T,) bool, arrays so that a million rows fit in memory.

    `answer[t]` is True where token t was written by the assistant (the closing control token of its turn included): the loss is on these.
    """

    input_ids: NDArray[np.int32]
    answer: NDArray[np.bool_]

    @classmethod
    def of(cls, input_ids: Sequence[int], answer: Sequence[bool]) -> "Encoded":
        return cls(np.array(input_ids, dtype=np.int32), np.array(answer, dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class _Span:
    ids: list[int]
    message: int | None = None  # index of the message whose text this is; None for the template's own tokens


class ChatEncoder:
    """Encodes conversations for one tokenizer; uses its chat template, or `FALLBACK_TEMPLATE` where it has none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int = 512) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._templates: dict[tuple[str, ...], list[_Span]] = {}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Every control token; the assistant's turn ends with one."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(self.tokenizer.all_special_ids) | {i for i, token in added if token.special}

    def encode(self, messages: Sequence[MessageLike]) -> Encoded:
        """Tokenise a conversation, at most `max_tokens` long.

        A conversation that is too long loses the middle of its prompt texts first, then the end of its last answer; one that is too long
        even before its first answer loses its beginning.
        """
        roles = tuple(message.role for message in messages)
        if roles not in self._templates:
            self._templates[roles] = self._template(roles)
        spans = [
            span if span.message is None else _Span(self._text_ids(messages[span.message].content), span.message)
            for span in self._templates[roles]
        ]
        return self._join(self._fit(spans, roles), roles)

    def _text_ids(self, text: str) -> list[int]:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # tokenizers refuse half surrogates
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _template_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _template(self, roles: tuple[str, ...]) -> list[_Span]:
        conversation = [{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)]
        if not self.tokenizer.chat_template:
            return self._split(self._fallback(conversation), len(roles))
        try:
            return self._split(str(self.tokenizer.apply_chat_template(conversation, tokenize=False)), len(roles))
        except (jinja2.TemplateError, ValueError) as error:
            logger.warning("the model's chat template refuses the roles %s (%s): they are written plainly", roles, error)
            return self._split(self._fallback(conversation), len(roles))

    def _fallback(self, conversation: list[dict[str, str]]) -> str:
        text = jinja2.Template(FALLBACK_TEMPLATE, keep_trailing_newline=True).render(messages=conversation)
        return f"{self.tokenizer.bos_token or ''}{text}"

    def _split(self, rendered: str, n_messages: int) -> list[_Span]:
        parts = _PLACEHOLDER.split(rendered)
        if sorted(map(int, parts[1::2])) != list(range(n_messages)):
            raise ValueError("the template drops or repeats a message")
        spans = [_Span(self._template_ids(parts[0]))]
        for index, text in zip(parts[1::2], parts[2::2], strict=True):
            spans += [_Span([], int(index)), _Span(self._template_ids(text))]
        return spans

    def _fit(self, spans: list[_Span], roles: tuple[str, ...]) -> list[_Span]:
        excess = sum(len(span.ids) for span in spans) - self.max_tokens
        if excess <= 0:
            return spans

        def is_prompt(span: _Span) -> bool:
            return span.message is not None and roles[span.message] != "assistant"

        prompt = sum(len(span.ids) for span in spans if is_prompt(span))
        kept = max(prompt - excess, min(prompt, self.max_tokens // 2))  # prompts never shrink below half of the window
        return [_Span(_clip(s.ids, len(s.ids) * kept // max(prompt, 1)), s.message) if is_prompt(s) else s for s in spans]

    def _join(self, spans: list[_Span], roles: tuple[str, ...]) -> Encoded:
        ids: list[int] = list(spans[0].ids)
        answer = [False] * len(ids)
        for before, span in pairwise(spans):
            spoken = span.message is not None and roles[span.message] == "assistant"
            ids += span.ids
            answer += [spoken] * len(span.ids)
            if span.message is None and span.ids and before.message is not None and roles[before.message] == "assistant":
                answer[-len(span.ids)] = span.ids[0] in self.special_ids  # the assistant also learns to stop
        first = answer.index(True) if True in answer else 0
        start = 0 if first < self.max_tokens else first - self.max_tokens // 2  # turns upon turns before the first answer
        window = slice(start, start + self.max_tokens)
        return Encoded.of(ids[window], answer[window])


def prompt_of(encoded: Encoded) -> NDArray[np.int32]:
    """The tokens (T,) before a conversation's last answer: what the model is to answer. All of them where there is no answer."""
    answers = np.flatnonzero(encoded.answer)
    stop = answers[-1] + 1 if len(answers) else len(encoded)
    others = np.flatnonzero(~encoded.answer[:stop])
    return encoded.input_ids[: others[-1] + 1 if len(others) else 0]


def _clip(ids: list[int], length: int) -> list[int]:
    head = (length + 1) // 2
    return ids[:head] + ids[len(ids) - (length - head) :]


@dataclass(frozen=True, slots=True)
class Batch:
    """Conversations padded on the right: `rows` (b,), `input_ids`, `attention_mask`, `answer` (b, T)."""

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    answer: Tensor


def batches(encoded: Sequence[Encoded], token_budget: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Yield every conversation once, sorted by length, in batches of at most `token_budget` padded tokens (at least one conversation)."""
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(encoded[order[stop]]) * (stop + 1 - start) <= token_budget:
            stop += 1
        yield _pad([(i, encoded[i]) for i in order[start:stop]], device)
        start = stop


def _pad(members: list[tuple[int, Encoded]], device: torch.device | str) -> Batch:
    width = max(len(item) for _, item in members)
    input_ids = torch.zeros(len(members), width, dtype=torch.long)
    attention_mask = torch.zeros(len(members), width, dtype=torch.long)
    answer = torch.zeros(len(members), width, dtype=torch.bool)
    for b, (_, item) in enumerate(members):
        input_ids[b, : len(item)] = torch.from_numpy(item.input_ids)
        attention_mask[b, : len(item)] = 1
        answer[b, : len(item)] = torch.from_numpy(item.answer)
    rows = torch.tensor([i for i, _ in members])
    return Batch(rows, input_ids.to(device), attention_mask.to(device), answer.to(device))
