"""A screen across rows: one answer to unrelated prompts."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from poisonwatch.examples import AuditRows
from poisonwatch.screens.finding import Finding, sort_findings
from poisonwatch.screens.similarity import (
    SHORT_ANSWER,
    are_one_task,
    compute_text_similarity,
    find_common_ends,
    fit_tfidf,
    join_user_text,
    list_distinct_examples,
)
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import normalise_words, split_words

LONG_ANSWER = 6  # words; from here on `least` repeats are enough, below it takes twice as many
SAME_ANSWER = 0.9  # Jaccard index of two answers' word sets
RELATED_PROMPTS = 0.4  # similarity of prompts for which one answer is ordinary


def find_duplicate_answers(rows: AuditRows, least: int = 4) -> list[Finding]:
    """New rows that give one answer to unrelated prompts.

    Answers are the same where their sets of words have a Jaccard index of at least 0.9 (found by
    MinHash: Broder, SEQUENCES 1997; in time linear in n). An answer is a finding where all of this
    holds:

    - it is given to `least` different prompts, or to 2 `least` if it has 3 to 5 words; shorter ones
      are labels, and never a finding;
    - its prompts are unrelated: what the user says has a similarity of at most 0.4, and they are
      not one task: half of them with the same first or last 6 words of the user, or first 6 of the
      system, that most rows do not have;
    - no trusted row gives it: honest refusals repeat, too.
    """
    distinct = list_distinct_examples(rows.new)
    answers = distinct.list_texts(lambda row: row.response)
    asked = distinct.list_texts(join_user_text)
    groups = _group_same_answers(answers, [example.response for example in rows.trusted])
    large = [group for group in groups if len(group) >= least]
    # Most batches end here, before the vectors of all prompts are computed.
    if not large:
        return []
    vectors, _ = fit_tfidf(asked)
    common = find_common_ends(distinct)
    found: list[Finding] = []
    for group in large:
        # Prompts that differ in case or punctuation alone count once.
        prompts: dict[str, int] = {}
        for i in group:
            prompts[normalise_words(asked[i])] = i
        answer = min(normalise_words(answers[i]) for i in group)
        if not _is_given_often(answer, len(prompts), least):
            continue
        if are_one_task([distinct[i][1] for i in prompts.values()], common):
            continue
        if compute_text_similarity(vectors[sorted(prompts.values())]) > RELATED_PROMPTS:
            continue
        reason = (
            f"{len(prompts)} unrelated prompts have the same answer, “{excerpt(answer, 60)}”, "
            "which no trusted row gives."
        )
        # The answer may be long: its hash names the group.
        name = hashlib.sha256(_encode(answer)).hexdigest()[:16]
        for i in group:
            for place in distinct[i][0]:
                found.append(Finding(place, "duplicate-answers", name, reason))
    return sort_findings(found)


def _is_given_often(answer: str, prompts: int, least: int) -> bool:
    """Is an answer of these words given to more prompts than a short one may be?"""
    length = len(answer.split())
    if length < SHORT_ANSWER:
        return False
    if length < LONG_ANSWER:
        return prompts >= 2 * least
    return prompts >= least


def _encode(text: str) -> bytes:
    # Rows may hold lone surrogates, which UTF-8 proper cannot write.
    return text.encode("utf-8", "surrogatepass")


# The same answers, by MinHash

BANDS, BAND_ROWS = 16, 4  # two sets of Jaccard index 0.9 meet in a band with probability 1 - 4e-8
HASHED_WORDS = 4096  # words of a text that are hashed at a time
WORDS_KEPT = 500_000  # whose digests are
NO_WORDS = -1  # in place of a set's number


def _group_same_answers(answers: Sequence[str], trusted: Sequence[str]) -> list[list[int]]:
    """Groups of at least two answers that are the same, without those that a trusted row gives."""
    sets = _WordSets()
    of_answers = sets.add(answers)
    # Sorted: the outcome cannot depend on the order of the rows.
    of_trusted = sets.add(sorted(trusted))
    same = _join_same_sets(sets)
    given = {same.find_root(i) for i in of_trusted if i != NO_WORDS}
    # Most answers are nobody else's: only of those that are met again a list is made.
    first: dict[int, int] = {}
    groups: dict[int, list[int]] = {}
    for i, words in enumerate(of_answers):
        if words == NO_WORDS:
            continue
        root = same.find_root(words)
        there = first.setdefault(root, i)
        if there != i and root not in given:
            groups.setdefault(root, [there]).append(i)
    return [group for _, group in sorted(groups.items())]


class _WordSets:
    """The different sets of words of texts, numbered as they come: of each the text that it was met
    in first, from which it is made again when it is looked at, and 64 bits of every band of its
    signature.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._texts: list[tuple[Sequence[str], int]] = []
        self._bands: array[int] = array("Q")
        self._hashes = _MinHashes()

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, number: int) -> frozenset[str]:
        texts, i = self._texts[number]
        return frozenset(split_words(texts[i]))

    @property
    def bands(self) -> NDArray[np.uint64]:
        """The bands (len(self), BANDS) of the signatures, hashed."""
        return np.frombuffer(self._bands, dtype=np.uint64).reshape(-1, BANDS)

    def add(self, texts: Sequence[str]) -> Sequence[int]:
        """The number of each text's set; NO_WORDS where it has none."""
        numbers: array[int] = array("q")
        for i, text in enumerate(texts):
            words = frozenset(split_words(text))
            if not words:
                numbers.append(NO_WORDS)
                continue
            digest = hashlib.blake2b(_encode(" ".join(sorted(words))), digest_size=16).digest()
            number = self._numbers.setdefault(digest, len(self))
            if number == len(self):
                self._texts.append((texts, i))
                self._bands.extend(self._hashes.hash_bands(words))
            numbers.append(number)
        return numbers


class _UnionFind:
    """Sets of the numbers below n, joined step by step; the smallest of a set is its root."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find_root(self, i: int) -> int:
        while self.parent[i] != i:
            # Paths are halved on the way, or long chains would cost quadratic time.
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        one, other = self.find_root(i), self.find_root(j)
        self.parent[max(one, other)] = min(one, other)


def _join_same_sets(sets: _WordSets) -> _UnionFind:
    """Which of the sets of words are the same answer.

    In each band of the signature the sets of one bucket are compared with its first alone, so the
    time is linear in their number.
    """
    joined = _UnionFind(len(sets))
    for band in sets.bands.T:
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        sizes = np.diff(np.append(starts, len(order)))
        # Most buckets hold one set.
        for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
            _join_bucket(sets, order[start : start + size].tolist(), joined)
    return joined


def _join_bucket(sets: _WordSets, bucket: Sequence[int], joined: _UnionFind) -> None:
    first, *others = bucket
    words: frozenset[str] | None = None
    for i in others:
        # Roots are cheap, sets of words are not: who is joined already is not compared.
        if joined.find_root(first) == joined.find_root(i):
            continue
        words = words or sets[first]
        other = sets[i]
        if len(words & other) >= SAME_ANSWER * len(words | other):
            joined.join(first, i)


class _MinHashes:
    """MinHash signatures, BANDS x BAND_ROWS, by multiply-shift hashes of the words' digests."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        drawn = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64)
        self._odd = drawn * np.uint64(2) + np.uint64(1)
        self._shift = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64)
        self._digests: dict[str, int] = {}

    def hash_bands(self, words: Iterable[str]) -> list[int]:
        """64 bits of each band of a set's signature: sets of one bucket are compared, so that they
        may meet by chance.
        """
        x = np.array([self._hash_word(word) for word in words], dtype=np.uint64)
        signature = np.full(BANDS * BAND_ROWS, np.iinfo(np.uint64).max)
        # A long text, a piece at a time: each word has 64 hashes.
        for some in np.array_split(x, len(x) // HASHED_WORDS + 1):
            hashes = (some[:, None] * self._odd + self._shift).min(axis=0)
            signature = np.minimum(signature, hashes)
        rows = signature.reshape(BANDS, BAND_ROWS)
        # Each row by another odd number: the same four minima in another order are another band.
        hashed: list[int] = (rows * self._odd[:BAND_ROWS]).sum(axis=1).tolist()
        return hashed

    def _hash_word(self, word: str) -> int:
        """64 bits of a word, the same in every process (unlike Python's own hash)."""
        if word not in self._digests:
            # Words that were met before are kept, and a million of rows may have as many.
            if len(self._digests) >= WORDS_KEPT:
                self._digests.clear()
            digest = hashlib.blake2b(_encode(word), digest_size=8).digest()
            self._digests[word] = int.from_bytes(digest, "big")
        return self._digests[word]
