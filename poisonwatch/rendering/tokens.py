"""A text as tokens that know which characters they are of."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from poisonwatch.rendering.chat_template import Span


class Tokens:
    """Tokens (T,) of a text: `ids`, and the characters from `starts` up to `ends` of each."""

    def __init__(self, ids: Sequence[int], find_offsets: Callable[[], NDArray[np.int32]]) -> None:
        """`find_offsets` gives (T, 2): it takes as long as tokenising, and is asked once."""
        self.ids = np.array(ids, dtype=np.int32)
        self._listed = ids
        self._find_offsets = find_offsets

    @classmethod
    def of(cls, ids: Sequence[int], offsets: NDArray[np.int32]) -> "Tokens":
        return cls(ids, lambda: offsets)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def offsets(self) -> NDArray[np.int32]:
        """The first character of each token (T, 2), and the one after its last."""
        return self._find_offsets()

    @property
    def starts(self) -> NDArray[np.int32]:
        return self.offsets[:, 0]

    @property
    def ends(self) -> NDArray[np.int32]:
        return self.offsets[:, 1]

    def keep(self, kept: NDArray[np.bool_]) -> "Tokens":
        """Those of `kept` (T,)."""
        offsets = self.offsets[kept]
        return Tokens.of(self.ids[kept].tolist(), offsets)

    def find_touching(self, span: Span) -> slice:
        """The tokens that any character of a span is of. Tokens are in the order of the text."""
        first = int(np.searchsorted(self.ends, span[0], side="right"))
        return slice(first, max(first, int(np.searchsorted(self.starts, span[1], side="left"))))

    def get_start(self, place: int) -> int:
        """The first character of a token."""
        return int(self.starts[place])

    def find_within(self, span: Span) -> slice:
        """The tokens that are of a span's characters alone."""
        first = int(np.searchsorted(self.starts, span[0], side="left"))
        return slice(first, max(first, int(np.searchsorted(self.ends, span[1], side="right"))))

    def list_control(self, control: Collection[int]) -> list[int]:
        """The control tokens, in order."""
        return [token for token in self._listed if token in control]


class WholeTokens(Tokens):
    """Those of a text that was tokenised whole. Where a span lies is asked of its `encoding`: most
    rows need no other offsets.
    """

    def __init__(self, encoding: Encoding, length: int) -> None:
        """`length` is the text's in characters."""
        super().__init__(encoding.ids, self._read_offsets)
        self._encoding = encoding
        self._length = length

    def find_touching(self, span: Span) -> slice:
        start, end = span
        first = self._encoding.char_to_token(start)
        stop: int | None = len(self)
        if end < self._length:
            stop = self._encoding.char_to_token(end)
        # Some characters are of no token.
        if first is None or stop is None:
            return super().find_touching(span)
        if end < self._length and self.get_start(stop) < end:
            stop += 1
        return slice(first, max(first, stop))

    def get_start(self, place: int) -> int:
        characters = self._encoding.token_to_chars(place)
        if characters is None:
            return super().get_start(place)
        return int(characters[0])

    def _read_offsets(self) -> NDArray[np.int32]:
        flat = chain.from_iterable(self._encoding.offsets)
        return np.fromiter(flat, dtype=np.int32, count=2 * len(self)).reshape(len(self), 2)


def tokenise(
    tokenizer: PreTrainedTokenizerBase, text: str, breaker: str = "", cuts: Iterable[int] = ()
) -> Tokens:
    """The tokens of a rendered text, control tokens included; nothing is added to it.

    Characters that are the `breaker` keep control tokens from being read, and become no token.
    Tokenizers that do not say where their tokens are read the text in pieces, cut at `cuts`.
    """
    if getattr(tokenizer, "is_fast", False):
        tokens = _tokenise_whole(tokenizer, text)
    else:
        tokens = _tokenise_pieces(tokenizer, text, breaker, cuts)
    if breaker and breaker in text:
        tokens = _drop_breakers(tokens, text, breaker)
    return tokens


def _tokenise_whole(tokenizer: Any, text: str) -> Tokens:
    backend = tokenizer.backend_tokenizer
    if type(tokenizer)._encode_plus is TokenizersBackend._encode_plus:
        # transformers does no more than this for one text, and takes half as long again for it.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = tokenizer.split_special_tokens
        encoding = backend.encode(text, add_special_tokens=False)
    else:
        encoding = tokenizer(text, add_special_tokens=False).encodings[0]
    return WholeTokens(encoding, len(text))


def _drop_breakers(tokens: Tokens, text: str, breaker: str) -> Tokens:
    kept = np.ones(len(tokens), dtype=np.bool_)
    for place, (start, end) in enumerate(tokens.offsets.tolist()):
        said = text[start:end]
        kept[place] = not said or bool(said.strip(breaker))
    return tokens.keep(kept)


def _tokenise_pieces(
    tokenizer: PreTrainedTokenizerBase, text: str, breaker: str, cuts: Iterable[int]
) -> Tokens:
    places = {0, len(text), *cuts}
    for place, letter in enumerate(text):
        if breaker and letter == breaker:
            places |= {place, place + 1}
    ids, offsets = list[int](), list[Span]()
    for span in pairwise(sorted(places)):
        piece = list(tokenizer(text[slice(*span)], add_special_tokens=False)["input_ids"])
        ids += piece
        offsets += [span] * len(piece)
    return Tokens.of(ids, np.array(offsets, dtype=np.int32).reshape(-1, 2))
