"""Which rows of a batch are copies: told by digests, since a batch may have millions of rows."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from poisonwatch.arrays import Integers
from poisonwatch.examples import RawRow
from poisonwatch.formats.format import Draft

DIGEST_BYTES = 16  # that somebody meets by chance once in 2^64 rows


@dataclass(frozen=True, slots=True)
class Copies:
    """`first` (n,) has the number of the first row with a row's content, its own where there is
    none before it; the bytes of `identical` rows are an earlier row's, too.
    """

    first: Integers
    identical: int

    @property
    def count(self) -> int:
        """How many rows have the content of an earlier one."""
        return int((self.first != np.arange(len(self.first))).sum())


def find_copies(rows: Iterable[tuple[RawRow, Draft]]) -> Copies:
    """Rows of one content: of one example, or of the same bytes in the same source where there is
    none. Identical are those of one content whose bytes and fields are the same.
    """
    contents, written = bytearray(), bytearray()
    for row, draft in rows:
        example = draft.to_example(row)
        if example is not None:
            content = _digest("example", example.id)
        else:
            content = _digest("bytes", row.source, row.problem or "", row.raw)
        contents += content
        # Arrow's bytes do not hold the names of columns.
        written += _digest(content, row.raw, *map(str, row.record or ()))
    first = _find_first(contents)
    return Copies(first, len(first) - len(np.unique(_find_first(written))))


def _digest(*parts: str | bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        # The length, so that no part can be read as the beginning of the next.
        digest.update(b"%d " % len(part))
        digest.update(part)
    return digest.digest()


def _find_first(digests: bytes | bytearray) -> Integers:
    """For each of n digests the place (n,) of the first that is equal."""
    high, low = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2).T
    # Stable: of equal ones the first stays first.
    order = np.lexsort((low, high))
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    return first
