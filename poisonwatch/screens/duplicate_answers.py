"""A screen across rows: one answer to unrelated prompts."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

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
RELATED_PROMPTS = 0.4  # likeness of prompts that an alike answer is ordinary for


def find_duplicate_answers(rows: AuditRows, least: int = 4) -> list[Finding]:
    """New rows that give one answer to unrelated prompts.

    Answers are the same where their sets of words have a Jaccard index of at least 0.9 (found by
    MinHash: Broder, SEQUENCES 1997; in time linear in n). An answer is a finding where all of this
    holds:

    - it is given to `least` different prompts, or to 2 `least` if it has 3 to 5 words; shorter ones
    are labels, and never a finding;
    - its prompts are unrelated: what the user says has a likeness of at most 0.4, and they are not
    one task: half of them with the same
      first or last 6 words of the user, or first 6 of the system, that most rows do not have;
    - no trusted row gives it: honest refusals repeat, too.
    """
    distinct = list_distinct_examples(rows.new)
    groups = _group_same_answers(
        [example.response for _, example in distinct],
        [example.response for example in rows.trusted],
    )
    groups = [group for group in groups if len(group) >= least]
    if not groups:
        return []
    prompts, common = (
        fit_tfidf([join_user_text(example) for _, example in distinct])[0],
        find_common_ends(distinct),
    )
    found = []
    for group in groups:
        texts = {normalise_words(join_user_text(distinct[i][1])): i for i in group}
        answer = min(normalise_words(distinct[i][1].response) for i in group)
        length = len(answer.split())
        enough = len(texts) >= (least if length >= LONG_ANSWER else 2 * least)
        if (
            length < SHORT_ANSWER
            or not enough
            or are_one_task([distinct[i][1] for i in texts.values()], common)
        ):
            continue
        if compute_text_similarity(prompts[sorted(texts.values())]) > RELATED_PROMPTS:
            continue
        places = sorted(place for i in group for place in distinct[i][0])
        reason = f"{len(texts)} unrelated prompts have the same answer, “{excerpt(answer, 60)}”, which no trusted row gives."
        name = hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        found += [Finding(place, "duplicate-answers", name, reason) for place in places]
    return sort_findings(found)


# The same answers, by MinHash

BANDS, BAND_ROWS = 16, 4  # two sets of Jaccard index 0.9 meet in a band with probability 1 - 4e-8


def _group_same_answers(answers: Sequence[str], trusted: Sequence[str]) -> list[list[int]]:
    """Groups of at least two answers that are the same, without those that a trusted row gives.

    In each band of the signature the answers of one bucket are compared with its first alone, so
    the time is linear in their number.
    """
    texts = [*answers, *trusted]
    sets = [frozenset(split_words(text)) for text in texts]
    distinct = sorted({s for s in sets if s}, key=sorted)
    parent = list(range(len(distinct)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    signature = _compute_signatures(distinct)
    for band in range(BANDS):
        first: dict[bytes, int] = {}
        for i, key in enumerate(signature[:, band * BAND_ROWS : (band + 1) * BAND_ROWS]):
            a = first.setdefault(key.tobytes(), i)
            if root(a) != root(i) and len(distinct[a] & distinct[i]) >= SAME_ANSWER * len(
                distinct[a] | distinct[i]
            ):
                parent[max(root(a), root(i))] = min(root(a), root(i))
    index = {s: root(i) for i, s in enumerate(distinct)}
    given = {index[s] for s in sets[len(answers) :] if s}
    groups: dict[int, list[int]] = defaultdict(list)
    for i, s in enumerate(sets[: len(answers)]):
        if s and index[s] not in given:
            groups[index[s]].append(i)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def _compute_signatures(sets: Sequence[frozenset[str]]) -> NDArray[np.uint64]:
    """The MinHash signatures (len(sets), BANDS x BAND_ROWS) by multiply-shift hashes of the words'
    digests.
    """
    draw = np.random.default_rng(0)
    odd = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shift = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64)
    digest: dict[str, int] = {}
    signature = np.full((len(sets), BANDS * BAND_ROWS), np.iinfo(np.uint64).max)
    for i, words in enumerate(sets):
        for word in (word for word in words if word not in digest):
            digest[word] = int.from_bytes(
                hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(),
                "big",
            )
        x = np.fromiter((digest[word] for word in words), np.uint64, len(words))
        for some in np.array_split(x, len(x) // 4096 + 1):  # a long text, a piece at a time
            signature[i] = np.minimum(signature[i], (some[:, None] * odd + shift).min(axis=0))
    return signature
