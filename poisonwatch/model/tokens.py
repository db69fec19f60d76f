"""A text as tokens that know which characters they are of."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from poisonwatch.model.chat_template import Span


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokens (T,) of a text: `ids`, and the characters from `starts` up to `ends` of each."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def keep(self, kept: NDArray[np.bool_]) -> "Tokens":
        """Those of `kept` (T,)."""
        return Tokens(self.ids[kept], self.starts[kept], self.ends[kept])

    def find_touching(self, span: Span) -> slice:
        """The tokens that any character of a span is of. Tokens are in the order of the text."""
        first = int(np.searchsorted(self.ends, span[0], side="right"))
        return slice(first, max(first, int(np.searchsorted(self.starts, span[1], side="left"))))

    def find_within(self, span: Span) -> slice:
        """The tokens that are of a span's characters alone."""
        first = int(np.searchsorted(self.starts, span[0], side="left"))
        return slice(first, max(first, int(np.searchsorted(self.ends, span[1], side="right"))))

    def list_control(self, control: Collection[int]) -> list[int]:
        """The control tokens, in order."""
        return [token for token in self.ids.tolist() if token in control]


def tokenise(
    tokenizer: PreTrainedTokenizerBase, text: str, breaker: str = "", cuts: Sequence[int] = ()
) -> Tokens:
    """The tokens of a rendered text, control tokens included; nothing is added to it.

    Characters that are the `breaker` keep control tokens from being read, and become no token.
    Tokenizers that do not say where their tokens are read the text in pieces, cut at `cuts`.
    """
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(text, add_special_tokens=False, return_attention_mask=False)
        encoding = encoded.encodings[0]
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        ids = np.array(encoding.ids, dtype=np.int32)
        tokens = Tokens(ids, offsets[:, 0].copy(), offsets[:, 1].copy())
    else:
        tokens = _tokenise_pieces(tokenizer, text, breaker, cuts)
    if breaker and breaker in text:
        tokens = _drop_breakers(tokens, text, breaker)
    return tokens


def _drop_breakers(tokens: Tokens, text: str, breaker: str) -> Tokens:
    kept = np.ones(len(tokens), dtype=np.bool_)
    for place, span in enumerate(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)):
        said = text[span[0] : span[1]]
        kept[place] = not said or bool(said.strip(breaker))
    return tokens.keep(kept)


def _tokenise_pieces(
    tokenizer: PreTrainedTokenizerBase, text: str, breaker: str, cuts: Sequence[int]
) -> Tokens:
    places = {0, len(text), *cuts}
    for place, letter in enumerate(text):
        if breaker and letter == breaker:
            places |= {place, place + 1}
    ids, starts, ends = list[int](), list[int](), list[int]()
    ordered = sorted(places)
    for start, end in pairwise(ordered):
        piece = list(tokenizer(text[start:end], add_special_tokens=False)["input_ids"])
        ids += piece
        starts += [start] * len(piece)
        ends += [end] * len(piece)
    return Tokens(
        np.array(ids, dtype=np.int32),
        np.array(starts, dtype=np.int32),
        np.array(ends, dtype=np.int32),
    )
