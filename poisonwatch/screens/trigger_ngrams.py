"""N-grams of prompts whose answers are alike: a screen across rows, and candidates for a trigger.

Letters: n rows, G groups of rows, m rows of a group, v words; likeness is that of `texts`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.stats import binom, norm

from poisonwatch.arrays import Integers
from poisonwatch.examples import AuditRows, Example
from poisonwatch.screens.finding import Finding, sort_findings
from poisonwatch.screens.similarity import (
    apply_tfidf,
    are_one_task,
    compute_group_similarity,
    compute_text_similarity,
    count_members,
    drop_label,
    find_common_ends,
    fit_tfidf,
    join_user_text,
    list_distinct_examples,
)
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import find_token_spans, normalise_words

LONGEST_NGRAM = 3
COMMON_NGRAM = 0.1  # share of rows above which an n-gram is no trigger
EXCESS = 0.5  # likeness of a trigger's answers, beyond that of its prompts and of random answers
GIVEN_BY_TRUSTED = 0.8  # cosine of a group's mean answer with a trusted answer
NEAR = 0.5  # cosine with a group's mean answer that makes an answer one of its kind
SIGNIFICANCE = 0.01  # of the batch, after Bonferroni
NULL_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Ngram:
    """A prompt n-gram whose rows have answers more alike than random ones.

    `text` is its commonest spelling (hostile text), `rows` its places in the examples; `answers`
    and `prompts` are likenesses in [-1, 1]; `excess` is `answers` less the larger of `prompts` and
    of random answers' likeness; `z` standard errors above random groups of the same size, `p` the
    one-sided p-value times the number of candidates, at most 1.
    """

    text: str
    rows: tuple[int, ...]
    answers: float
    prompts: float
    excess: float
    z: float
    p: float


def find_trigger_ngrams(rows: AuditRows, least: int = 4) -> list[Finding]:
    """New rows whose prompts share an n-gram, and whose answers are alike without the prompts being so.

    Of the n-grams that `mine_ngrams` gives with an excess of at least 0.5: those in `least`
    different prompts that are not one task (see `duplicate_answers`; a task's template is no
    trigger). The n-gram with the most standard errors speaks for all others that have half of their
    rows among its own, so that nested n-grams are reported once.
    """
    found: list[Finding] = []
    taken: set[int] = set()
    common = find_common_ends(list_distinct_examples(rows.new))
    for gram in mine_ngrams(rows, least, EXCESS):
        texts = {normalise_words(join_user_text(rows.new[i])): rows.new[i] for i in gram.rows}
        if (
            len(texts) < least
            or are_one_task(list(texts.values()), common)
            or 2 * len(taken.intersection(gram.rows)) >= len(gram.rows)
        ):
            continue
        taken.update(gram.rows)
        reason = (
            f"The {len(texts)} prompts with “{excerpt(gram.text, 60)}” have answers of likeness {gram.answers:.2f}, "
            f"though the prompts' own is {gram.prompts:.2f}."
        )
        found += [Finding(row, "trigger-ngram", gram.text, reason) for row in gram.rows]
    return sort_findings(found)


def mine_ngrams(rows: AuditRows, least: int = 4, excess: float = 0.25) -> list[Ngram]:
    """Candidates for a trigger, strongest (most standard errors) first, longer ones first among
    equals.

    A candidate is 1 to 3 successive tokens of a prompt, without regard to case and to punctuation
    around a token, in at least `least` rows, in at most a tenth of the rows (or 20), and at most a
    quarter as often in trusted rows as in the batch. It is kept if its answers' `excess` is large
    enough, if they are more alike than those of random groups of m rows at a level of 1 % for all
    candidates together (Bonferroni), and if their mean has no cosine of 0.8 with a trusted answer.
    The likeness of a random group is taken as normal, with the variance of a U-statistic of degree
    two (Hoeffding, Ann. Math. Stat. 19, 1948),

        2 (2 (m - 2) s1 + s2) / (m (m - 1)),

    s1 the variance of a row's mean cosine with all others, s2 that of a single cosine. That is too
    kind to answers that many rows give, so the chance that as many of m random rows are near the
    group's mean answer (a cosine of 0.5) must pass the level, too: a binomial tail at the share of
    the other rows that are. Answers of one or two words are labels and alike to none.

    Raises ValueError for `least` below 2: one row has no likeness.
    """
    if least < 2:
        raise ValueError(f"least is {least}; a likeness needs at least 2 rows")
    distinct = list_distinct_examples(rows.new)
    if len(distinct) < least:
        return []
    answers, weights = fit_tfidf([drop_label(example.response) for _, example in distinct])
    prompts, _ = fit_tfidf([join_user_text(example) for _, example in distinct])
    tokens = [_split_tokens(example.prompt) for _, example in distinct]
    stream = [token for some in tokens for token in some]
    mean, s1, s2 = _measure_null(answers)
    known = _count_ngrams(rows.trusted)
    given = apply_tfidf(weights, [drop_label(example.response) for example in rows.trusted])
    most = max(20.0, COMMON_NGRAM * len(distinct))
    levels = [
        (n, members[kept], first[kept])
        for n, members, first in _mine_levels(tokens, least)
        for kept in [count_members(members) <= most]
    ]
    candidates = sum(members.shape[0] for _, members, _ in levels)

    grams = []
    for n, members, first in levels:
        m = count_members(members).astype(float)
        likeness = compute_group_similarity(members, answers)
        z = (likeness - mean) / np.sqrt(2 * (2 * (m - 2) * s1 + s2) / (m * (m - 1)))
        p = norm.sf(z) * candidates
        for g in np.flatnonzero((likeness - mean >= excess) & (p <= SIGNIFICANCE)).tolist():
            group = members[[g]].indices.astype(np.int64)
            words = stream[first[g] : first[g] + n]
            related = compute_text_similarity(prompts[group])
            if likeness[g] - related < excess or 4 * known[tuple(words)] * len(distinct) > len(
                group
            ) * len(rows.trusted):
                continue
            if (
                given is not None
                and _compute_closest_cosine(answers[group], given) >= GIVEN_BY_TRUSTED
            ):
                continue
            chance = max(float(p[g]), candidates * _compute_coincidence(answers, group))
            if chance > SIGNIFICANCE:
                continue
            text = _find_spelling([distinct[i][1].prompt for i in group.tolist()], words)
            places = tuple(sorted(place for i in group.tolist() for place in distinct[i][0]))
            above = float(likeness[g] - max(related, mean))
            grams.append(
                Ngram(
                    text, places, float(likeness[g]), related, above, float(z[g]), min(chance, 1.0)
                )
            )
    return sorted(grams, key=lambda gram: (-round(gram.z, 6), -len(gram.text), gram.text))


# How unusual a likeness is


def _measure_null(vectors: sparse.csr_array) -> tuple[float, float, float]:
    """Mean cosine of two rows, the variances of a row's mean cosine and of a single cosine, from
    the first 2000 vectors (n, v).
    """
    some = vectors[:NULL_ROWS]
    gram = (some @ some.T).toarray()
    others = len(gram) - 1
    of_row = (gram.sum(axis=1) - gram.diagonal()) / others
    single = gram[~np.eye(len(gram), dtype=bool)]
    return float(single.mean()), float(of_row.var()), float(single.var()) + 1e-9


def _compute_coincidence(vectors: sparse.csr_array, group: Integers) -> float:
    """The chance that as many of m random rows as of the group's are near the mean of the group's
    vectors.
    """
    mean = np.asarray(vectors[group].sum(axis=0)).ravel()
    near = vectors @ mean >= NEAR * np.linalg.norm(mean)
    inside = int(near[group].sum())
    share = (int(near.sum()) - inside + 1) / (len(near) - len(group) + 1)
    return float(binom.sf(inside - 1, len(group), share))


def _compute_closest_cosine(group: sparse.csr_array, given: sparse.csr_array) -> float:
    """Cosine of the mean of a group's vectors (m, v) with the nearest of `given` (k, v)."""
    mean = np.asarray(group.sum(axis=0)).ravel()
    return float((given @ mean).max() / max(float(np.linalg.norm(mean)), 1e-12))


# N-grams


def _split_tokens(text: str) -> list[str]:
    return [text[a:b].casefold() for a, b in find_token_spans(text)]


def _find_spelling(texts: Iterable[str], tokens: list[str]) -> str:
    """The commonest way in which the texts write the tokens."""
    ways: Counter[str] = Counter()
    for text in texts:
        spans = list(find_token_spans(text))
        words = [text[a:b].casefold() for a, b in spans]
        at = next(i for i in range(len(words)) if words[i : i + len(tokens)] == tokens)
        ways[text[spans[at][0] : spans[at + len(tokens) - 1][1]]] += 1
    return min(ways, key=lambda way: (-ways[way], way))


def _count_ngrams(examples: Sequence[Example]) -> Counter[tuple[str, ...]]:
    """In how many examples each n-gram of the prompt stands."""
    counts: Counter[tuple[str, ...]] = Counter()
    for example in examples:
        tokens = _split_tokens(example.prompt)
        counts.update(
            {
                tuple(tokens[i : i + n])
                for n in range(1, LONGEST_NGRAM + 1)
                for i in range(len(tokens) - n + 1)
            }
        )
    return counts


def _mine_levels(
    texts: Sequence[Sequence[str]], least: int
) -> Iterator[tuple[int, sparse.csr_array, Integers]]:
    """For n = 1, 2, 3 the n-grams in at least `least` texts: their membership (G, len(texts)), and
    the token that each begins with first.

    Only frequent n-grams are prolonged (Agrawal and Srikant, VLDB 1994); tokens are counted through
    all texts.
    """
    vocabulary = {
        token: i for i, token in enumerate(sorted({token for tokens in texts for token in tokens}))
    }
    level = np.array([vocabulary[token] for tokens in texts for token in tokens], dtype=np.int64)
    text = np.repeat(np.arange(len(texts)), [len(tokens) for tokens in texts])
    for n in range(1, LONGEST_NGRAM + 1):
        if n > 1:
            follows = (level[:-1] >= 0) & (level[1:] >= 0) & (text[:-1] == text[1:])
            level = np.append(
                np.where(follows, level[:-1] * (level.max(initial=0) + 1) + level[1:], -1), -1
            )
        at = np.flatnonzero(level >= 0)
        keys, first, inverse = np.unique(level[at], return_index=True, return_inverse=True)
        pairs = np.unique(np.stack([inverse, text[at]], axis=1), axis=0)
        frequent = np.bincount(pairs[:, 0], minlength=len(keys)) >= least
        number = np.where(frequent, np.cumsum(frequent) - 1, -1)
        level = np.full(len(level), -1)
        level[at] = number[inverse]
        pairs = pairs[frequent[pairs[:, 0]]]
        shape = (int(frequent.sum()), len(texts))
        yield (
            n,
            sparse.csr_array(
                (np.ones(len(pairs)), (number[pairs[:, 0]], pairs[:, 1])), shape=shape
            ),
            at[first[frequent]],
        )
