"""A screen across rows: one answer to unrelated prompts."""

import hashlib
from collections import defaultdict
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
    answers, asked = [], []
    for _, example in distinct:
        answers.append(example.response)
        asked.append(join_user_text(example))
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


def _group_same_answers(answers: Sequence[str], trusted: Sequence[str]) -> list[list[int]]:
    """Groups of at least two answers that are the same, without those that a trusted row gives."""
    sets = [frozenset(split_words(text)) for text in (*answers, *trusted)]
    distinct = sorted(set(sets) - {frozenset()}, key=sorted)
    same = _join_same_sets(distinct)
    index: dict[frozenset[str], int] = {}
    for i, words in enumerate(distinct):
        index[words] = same.find_root(i)
    given = {index[words] for words in sets[len(answers) :] if words}
    groups: dict[int, list[int]] = defaultdict(list)
    for i, words in enumerate(sets[: len(answers)]):
        if words and index[words] not in given:
            groups[index[words]].append(i)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


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


def _join_same_sets(sets: Sequence[frozenset[str]]) -> _UnionFind:
    """Which of the sets of words are the same answer.

    In each band of the signature the sets of one bucket are compared with its first alone, so the
    time is linear in their number.
    """
    joined = _UnionFind(len(sets))
    signature = _compute_signatures(sets)
    for band in range(BANDS):
        first_of: dict[bytes, int] = {}
        for i, key in enumerate(signature[:, band * BAND_ROWS : (band + 1) * BAND_ROWS]):
            first = first_of.setdefault(key.tobytes(), i)
            # Roots are cheap, sets of words are not: who is joined already is not compared.
            if joined.find_root(first) == joined.find_root(i):
                continue
            if len(sets[first] & sets[i]) >= SAME_ANSWER * len(sets[first] | sets[i]):
                joined.join(first, i)
    return joined


def _compute_signatures(sets: Sequence[Iterable[str]]) -> NDArray[np.uint64]:
    """The MinHash signatures (len(sets), BANDS x BAND_ROWS) by multiply-shift hashes of the words'
    digests.
    """
    draw = np.random.default_rng(0)
    odd = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shift = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64)
    digests: dict[str, int] = {}
    signature = np.full((len(sets), BANDS * BAND_ROWS), np.iinfo(np.uint64).max)
    for i, words in enumerate(sets):
        x = np.array([_hash_word(word, digests) for word in words], dtype=np.uint64)
        # A long text, a piece at a time: each word has 64 hashes.
        for some in np.array_split(x, len(x) // HASHED_WORDS + 1):
            signature[i] = np.minimum(signature[i], (some[:, None] * odd + shift).min(axis=0))
    return signature


def _hash_word(word: str, digests: dict[str, int]) -> int:
    """64 bits of a word, the same in every process (unlike Python's own hash); `digests` holds
    those of words met before.
    """
    if word not in digests:
        digest = hashlib.blake2b(_encode(word), digest_size=8).digest()
        digests[word] = int.from_bytes(digest, "big")
    return digests[word]
