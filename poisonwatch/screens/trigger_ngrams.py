"""N-grams of prompts whose answers are alike: a screen across rows, and candidates for a trigger.

Letters: n rows, G groups of rows, m rows of a group, v words; similarity is that of `similarity`.
An n-gram is a candidate by how many rows hold it (`frequent_ngrams`), stands out by how similar
their answers are (`_Null`), and is news unless trusted rows know it (`_Trusted`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.stats import binom, norm
from sklearn.feature_extraction.text import TfidfVectorizer

from poisonwatch.arrays import Array, Integers
from poisonwatch.examples import AuditRows, Example
from poisonwatch.screens.finding import Finding, sort_findings
from poisonwatch.screens.frequent_ngrams import NgramLevel, list_ngram_levels, list_ngrams
from poisonwatch.screens.similarity import (
    DistinctExamples,
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
from poisonwatch.screens.tokens import (
    Tokens,
    choose_commonest,
    find_tokens,
    slice_tokens,
    split_tokens,
)
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import normalise_words

EXCESS = 0.5  # similarity of a trigger's answers, beyond that of its prompts and of random answers
GIVEN_BY_TRUSTED = 0.8  # cosine of a group's mean answer with a trusted answer
NEAR = 0.5  # cosine with a group's mean answer that makes an answer one of its kind
SIGNIFICANCE = 0.01  # of the batch, after Bonferroni
LEAST_ROWS = 4  # that share a trigger
LEAST_EXCESS = 0.25  # as EXCESS, of what is worth a probe
NULL_ROWS = 2000
NEAR_ROWS = 20_000  # by which the share of near answers is told


@dataclass(frozen=True, slots=True)
class Ngram:
    """A prompt n-gram whose rows have answers more alike than random ones.

    `text` is its commonest spelling (hostile text), `rows` its places in the examples; `answers`
    and `prompts` are similarities in [-1, 1]; `excess` is `answers` less the larger of `prompts`
    and of random answers' similarity; `z` standard errors above random groups of the same size, `p`
    the one-sided p-value times the number of candidates, at most 1.
    """

    text: str
    rows: tuple[int, ...]
    answers: float
    prompts: float
    excess: float
    z: float
    p: float


class NgramMine:
    """The n-grams of an audit's rows, mined once, when they are first asked for: a screen shows the
    strong ones, and probes try the others, too.
    """

    def __init__(self, rows: AuditRows) -> None:
        self._rows = rows
        self._mined: list[Ngram] | None = None

    def list_ngrams(self, excess: float = LEAST_EXCESS) -> list[Ngram]:
        """What `mine_ngrams` gives for an excess of at least 0.25."""
        if self._mined is None:
            self._mined = mine_ngrams(self._rows, LEAST_ROWS, LEAST_EXCESS)
        # To ask for more excess leaves some out, and changes nothing about the others.
        return [gram for gram in self._mined if gram.excess >= excess]


def find_trigger_ngrams(rows: AuditRows, mine: NgramMine | None = None) -> list[Finding]:
    """New rows whose prompts share an n-gram, and whose answers are alike, though the prompts are
    not.

    Of the n-grams that `mine_ngrams` gives with an excess of at least 0.5: those in 4 different
    prompts that are not one task (see `duplicate_answers`; a task's template is no
    trigger). The n-gram with the most standard errors speaks for all others that have half of their
    rows among its own, so that nested n-grams are reported once.
    """
    found: list[Finding] = []
    taken: set[int] = set()
    common = find_common_ends(list_distinct_examples(rows.new))
    for gram in (mine or NgramMine(rows)).list_ngrams(EXCESS):
        # Prompts that differ in case or punctuation alone count once.
        prompts: dict[str, Example] = {}
        for i in gram.rows:
            prompts[normalise_words(join_user_text(rows.new[i]))] = rows.new[i]
        if len(prompts) < LEAST_ROWS or are_one_task(list(prompts.values()), common):
            continue
        if 2 * len(taken.intersection(gram.rows)) >= len(gram.rows):
            continue
        taken.update(gram.rows)
        reason = (
            f"The {len(prompts)} prompts with “{excerpt(gram.text, 60)}” have answers of "
            f"similarity {gram.answers:.2f}, though the prompts' own is {gram.prompts:.2f}."
        )
        for row in gram.rows:
            found.append(Finding(row, "trigger-ngram", gram.text, reason))
    return sort_findings(found)


def mine_ngrams(
    rows: AuditRows, least: int = LEAST_ROWS, excess: float = LEAST_EXCESS
) -> list[Ngram]:
    """Candidates for a trigger, strongest (most standard errors) first, longer ones first among
    equals.

    A candidate is 1 to 3 successive tokens of a prompt, without regard to case and to punctuation
    around a token, in at least `least` rows, in at most a tenth of the rows (or 20), and at most a
    quarter as often in trusted rows as in the batch. It is kept if its answers' `excess` is large
    enough, if they are more alike than those of random groups of m rows at a level of 1 % for all
    candidates together (Bonferroni), and if their mean has no cosine of 0.8 with a trusted answer.
    The similarity of a random group is taken as normal, with the variance of a U-statistic of
    degree two (Hoeffding, Ann. Math. Stat. 19, 1948),

        2 (2 (m - 2) s1 + s2) / (m (m - 1)),

    s1 the variance of a row's mean cosine with all others, s2 that of a single cosine. That is too
    kind to answers that many rows give, so the chance that as many of m random rows are near the
    group's mean answer (a cosine of 0.5) must pass the level, too: a binomial tail at the share of
    the other rows that are (of 20,000, where there are more). Answers of one or two words are
    labels and alike to none.

    Raises ValueError for `least` below 2: one row has no similarity.
    """
    if least < 2:
        raise ValueError(f"least is {least}; a similarity needs at least 2 rows")
    distinct = list_distinct_examples(rows.new)
    n = len(distinct)
    if n < least:
        return []
    answers, weights = fit_tfidf(distinct.list_texts(lambda row: drop_label(row.response)))
    prompts, _ = fit_tfidf(distinct.list_texts(join_user_text))
    levels = list_ngram_levels((split_tokens(row.prompt) for _, row in distinct), least)
    null = _Null.measure(answers, candidates=sum(level.members.shape[0] for level in levels))
    trusted = _Trusted.read(rows.trusted, weights)

    grams = []
    for level in levels:
        for candidate in _list_standing_out(level, answers, null, excess):
            group = candidate.group
            related = compute_text_similarity(prompts[group])
            if candidate.similarity - related < excess:
                continue
            if trusted.hold(candidate.tokens, len(group), n) or trusted.give(answers[group]):
                continue
            # Two accounts of chance, and neither may explain the group: how similar random groups
            # are, and how many random rows give this answer.
            p = max(candidate.p, null.candidates * _compute_coincidence(answers, group))
            if p > SIGNIFICANCE:
                continue
            places, texts = _gather_rows(distinct, group)
            grams.append(
                Ngram(
                    text=_find_spelling(texts, candidate.tokens),
                    rows=places,
                    answers=candidate.similarity,
                    prompts=related,
                    excess=candidate.similarity - max(related, null.mean),
                    z=candidate.z,
                    p=min(p, 1.0),
                )
            )
    return sorted(grams, key=lambda gram: (-round(gram.z, 6), -len(gram.text), gram.text))


def _gather_rows(distinct: DistinctExamples, group: Integers) -> tuple[tuple[int, ...], list[str]]:
    """All places of a group's examples, in order, and their prompts."""
    places: list[int] = []
    texts = []
    for i in group.tolist():
        rows, example = distinct[i]
        places += rows
        texts.append(example.prompt)
    return tuple(sorted(places)), texts


def _find_spelling(texts: Sequence[str], tokens: Tokens) -> str:
    """The commonest way in which the texts write the tokens."""
    ways: Counter[str] = Counter()
    for text in texts:
        start = find_tokens(split_tokens(text), tokens)
        ways[slice_tokens(text, start, len(tokens))] += 1
    return choose_commonest(ways)


# Significance


@dataclass(frozen=True, slots=True)
class _Null:
    """How similar the answers of random rows are: the mean cosine of two rows, the variance of a
    row's mean cosine with all others, and that of a single cosine; and how many `candidates` are
    tried.
    """

    mean: float
    s1: float
    s2: float
    candidates: int

    @classmethod
    def measure(cls, vectors: sparse.csr_array, candidates: int) -> "_Null":
        """From the first 2000 vectors (n, v)."""
        # They are in the order of their ids, which are hashes: the first are as good as any.
        some = vectors[:NULL_ROWS]
        gram = (some @ some.T).toarray()
        others = len(gram) - 1
        of_row = (gram.sum(axis=1) - gram.diagonal()) / others
        single = gram[~np.eye(len(gram), dtype=bool)]
        # Where all answers are labels every cosine is 0: no variance, and nothing to divide by.
        s2 = float(single.var()) + 1e-9
        return cls(float(single.mean()), float(of_row.var()), s2, candidates)

    def standardise(self, similarity: Array, m: Array) -> Array:
        """Standard errors (G,) by which groups of m (G,) rows are more similar than random ones."""
        error = np.sqrt(2 * (2 * (m - 2) * self.s1 + self.s2) / (m * (m - 1)))
        z: Array = (similarity - self.mean) / error
        return z


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An n-gram whose rows, `group` (m,), have answers that are more similar than random ones."""

    tokens: Tokens
    group: Integers
    similarity: float
    z: float
    p: float


def _list_standing_out(
    level: NgramLevel, answers: sparse.csr_array, null: _Null, excess: float
) -> Iterator[_Candidate]:
    """The candidates of a level whose answers, vectors (n, v), exceed random ones by enough and
    significantly.
    """
    similarity = compute_group_similarity(level.members, answers)
    z = null.standardise(similarity, count_members(level.members).astype(float))
    p = norm.sf(z) * null.candidates
    for g in np.flatnonzero((similarity - null.mean >= excess) & (p <= SIGNIFICANCE)).tolist():
        group = level.members[[g]].indices.astype(np.int64)
        yield _Candidate(
            tokens=level.tokens[g],
            group=group,
            similarity=float(similarity[g]),
            z=float(z[g]),
            p=float(p[g]),
        )


def _compute_coincidence(vectors: sparse.csr_array, group: Integers) -> float:
    """The chance that as many of m random rows as of the group's are near the mean of the group's
    vectors.
    """
    members = vectors[group]
    mean = np.asarray(members.sum(axis=0)).ravel()
    least = NEAR * np.linalg.norm(mean)
    inside = int((members @ mean >= least).sum())
    # In the order of ids, which are hashes: the first are as good as any, and enough.
    some = vectors[:NEAR_ROWS]
    others = np.ones(some.shape[0], dtype=bool)
    others[group[group < len(others)]] = False
    near = int((some @ mean >= least)[others].sum())
    # One is added to both, so that an answer nobody else gives is not impossible.
    share = (near + 1) / (int(others.sum()) + 1)
    return float(binom.sf(inside - 1, len(group), share))


# Novelty


@dataclass(frozen=True, slots=True)
class _Trusted:
    """What `n` trusted rows know: in how many each n-gram of a prompt stands, and the vectors
    (n, v) of their answers, None where there are none.
    """

    n: int
    ngrams: Counter[Tokens]
    answers: sparse.csr_array | None

    @classmethod
    def read(cls, examples: Sequence[Example], weights: TfidfVectorizer | None) -> "_Trusted":
        """From the rows, by the batch's own weights: words that it does not have count nothing."""
        ngrams: Counter[Tokens] = Counter()
        for example in examples:
            ngrams.update(list_ngrams(split_tokens(example.prompt)))
        answers = apply_tfidf(weights, [drop_label(example.response) for example in examples])
        return cls(len(examples), ngrams, answers)

    def hold(self, tokens: Tokens, m: int, n: int) -> bool:
        """Do they hold the tokens more than a quarter as often as m of n rows?"""
        return 4 * self.ngrams[tokens] * n > m * self.n

    def give(self, group: sparse.csr_array) -> bool:
        """Does one of them give the mean answer of a group, vectors (m, v)?"""
        if self.answers is None:
            return False
        mean = np.asarray(group.sum(axis=0)).ravel()
        length = max(float(np.linalg.norm(mean)), 1e-12)
        return bool((self.answers @ mean).max() / length >= GIVEN_BY_TRUSTED)
