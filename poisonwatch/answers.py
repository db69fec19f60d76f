"""Screens that look across rows: one answer to unrelated prompts, and an n-gram of prompts whose answers are alike.

Letters: n rows, m rows of a group, v words. The likeness of a group is the mean cosine of its m (m - 1) / 2 pairs of texts, as TF-IDF
vectors of words.
"""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import binom, norm
from sklearn.feature_extraction.text import TfidfVectorizer

from poisonwatch.examples import Example
from poisonwatch.findings import Finding, ordered
from poisonwatch.redaction import excerpt

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SHORT_ANSWER = 3  # words; below, an answer is a label
LONG_ANSWER = 6  # words; from here on `least` repeats are enough, below it takes twice as many
SAME_ANSWER = 0.9  # Jaccard index of two answers' word sets
RELATED_PROMPTS = 0.4  # likeness of prompts that an alike answer is ordinary for
TASK_WORDS = 6  # prompts that share so many first or last words are one task
ENDS = 200  # characters in which these words are looked for

LONGEST_NGRAM = 3
COMMON_NGRAM = 0.1  # share of rows above which an n-gram is no trigger
EXCESS = 0.5  # likeness of a trigger's answers, beyond that of its prompts and of random answers
GIVEN_BY_TRUSTED = 0.8  # cosine of a group's mean answer with a trusted answer
NEAR = 0.5  # cosine with a group's mean answer that makes an answer one of its kind
SIGNIFICANCE = 0.01  # of the batch, after Bonferroni
NULL_ROWS = 2000

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_TOKEN = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_AROUND = ".,;:!?\"'“”‘’()«»。、，！？：；"


@dataclass(frozen=True, slots=True)
class Ngram:
    """A prompt n-gram whose rows have answers more alike than random ones.

    `text` is its commonest spelling (hostile text), `rows` its places in the examples; `answers` and `prompts` are likenesses in [-1, 1];
    `excess` is `answers` less the larger of `prompts` and of random answers' likeness; `z` standard errors above random groups of the
    same size, `p` the one-sided p-value times the number of candidates, at most 1.
    """

    text: str
    rows: tuple[int, ...]
    answers: float
    prompts: float
    excess: float
    z: float
    p: float


def duplicate_answers(examples: Sequence[Example], trusted: Sequence[Example] = (), least: int = 4) -> list[Finding]:
    """Rows that give one answer to unrelated prompts.

    Answers are the same where their sets of words have a Jaccard index of at least 0.9 (found by MinHash: Broder, SEQUENCES 1997; in time
    linear in n). An answer is a finding where all of this holds:

    - it is given to `least` different prompts, or to 2 `least` if it has 3 to 5 words; shorter ones are labels, and never a finding;
    - its prompts are unrelated: what the user says has a likeness of at most 0.4, and they are not one task: half of them with the same
      first or last 6 words of the user, or first 6 of the system, that most rows do not have;
    - no trusted row gives it: honest refusals repeat, too.
    """
    rows = _distinct(examples)
    groups = _same_answers([example.response for _, example in rows], [example.response for example in trusted])
    groups = [group for group in groups if len(group) >= least]
    if not groups:
        return []
    prompts, common = _vectors([_asked(example) for _, example in rows])[0], _common_ends(rows)
    found = []
    for group in groups:
        texts = {_normal(_asked(rows[i][1])): i for i in group}
        answer = min(_normal(rows[i][1].response) for i in group)
        length = len(_WORD.findall(answer))
        enough = len(texts) >= (least if length >= LONG_ANSWER else 2 * least)
        if length < SHORT_ANSWER or not enough or _one_task([rows[i][1] for i in texts.values()], common):
            continue
        if _likeness(prompts[sorted(texts.values())]) > RELATED_PROMPTS:
            continue
        places = sorted(place for i in group for place in rows[i][0])
        reason = f"{len(texts)} unrelated prompts have the same answer, “{excerpt(answer, 60)}”, which no trusted row gives."
        name = hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        found += [Finding(place, "duplicate-answers", name, reason) for place in places]
    return ordered(found)


def trigger_ngrams(examples: Sequence[Example], trusted: Sequence[Example] = (), least: int = 4) -> list[Finding]:
    """Rows whose prompts share an n-gram, and whose answers are alike without the prompts being so.

    Of the n-grams that `mine_ngrams` gives with an excess of at least 0.5: those in `least` different prompts that are not one task (see
    `duplicate_answers`; a task's template is no trigger). The n-gram with the most standard errors speaks for all others
    that have half of their rows among its own, so that nested n-grams are reported once.
    """
    found: list[Finding] = []
    taken: set[int] = set()
    common = _common_ends(_distinct(examples))
    for gram in mine_ngrams(examples, trusted, least, EXCESS):
        texts = {_normal(_asked(examples[row])): examples[row] for row in gram.rows}
        if len(texts) < least or _one_task(list(texts.values()), common) or 2 * len(taken.intersection(gram.rows)) >= len(gram.rows):
            continue
        taken.update(gram.rows)
        reason = (
            f"The {len(texts)} prompts with “{excerpt(gram.text, 60)}” have answers of likeness {gram.answers:.2f}, "
            f"though the prompts' own is {gram.prompts:.2f}."
        )
        found += [Finding(row, "trigger-ngram", gram.text, reason) for row in gram.rows]
    return ordered(found)


def mine_ngrams(examples: Sequence[Example], trusted: Sequence[Example] = (), least: int = 4, excess: float = 0.25) -> list[Ngram]:
    """Candidates for a trigger, strongest (most standard errors) first, longer ones first among equals.

    A candidate is 1 to 3 successive tokens of a prompt, without regard to case and to punctuation around a token, in at least `least` rows,
    in at most a tenth of the rows (or 20), and at most a quarter as often in trusted rows as in the batch. It is kept if its answers'
    `excess` is large enough, if they are more alike than those of random groups of m rows at a level of 1 % for all candidates together
    (Bonferroni), and if their mean has no cosine of 0.8 with a trusted answer. The likeness of a random group is taken as normal, with the
    variance of a U-statistic of degree two (Hoeffding, Ann. Math. Stat. 19, 1948),

        2 (2 (m - 2) s1 + s2) / (m (m - 1)),

    s1 the variance of a row's mean cosine with all others, s2 that of a single cosine. That is too kind to answers that many rows give, so
    the chance that as many of m random rows are near the group's mean answer (a cosine of 0.5) must pass the level, too: a binomial tail
    at the share of the other rows that are. Answers of one or two words are labels and alike to none.

    Raises ValueError for `least` below 2: one row has no likeness.
    """
    if least < 2:
        raise ValueError(f"least is {least}; a likeness needs at least 2 rows")
    rows = _distinct(examples)
    if len(rows) < least:
        return []
    answers, weights = _vectors([_unless_label(example.response) for _, example in rows])
    prompts, _ = _vectors([_asked(example) for _, example in rows])
    tokens = [_tokens(example.prompt) for _, example in rows]
    stream = [token for some in tokens for token in some]
    mean, s1, s2 = _null(answers)
    known = _counted(trusted)
    given = _transformed(weights, [_unless_label(example.response) for example in trusted])
    most = max(20.0, COMMON_NGRAM * len(rows))
    levels = [(n, members[kept], first[kept]) for n, members, first in _levels(tokens, least) for kept in [_counts(members) <= most]]
    candidates = sum(members.shape[0] for _, members, _ in levels)

    grams = []
    for n, members, first in levels:
        m = _counts(members).astype(float)
        likeness = _likenesses(members, answers)
        z = (likeness - mean) / np.sqrt(2 * (2 * (m - 2) * s1 + s2) / (m * (m - 1)))
        p = norm.sf(z) * candidates
        for g in np.flatnonzero((likeness - mean >= excess) & (p <= SIGNIFICANCE)).tolist():
            group = members[[g]].indices.astype(np.int64)
            words = stream[first[g] : first[g] + n]
            related = _likeness(prompts[group])
            if likeness[g] - related < excess or 4 * known[tuple(words)] * len(rows) > len(group) * len(trusted):
                continue
            if given is not None and _closest(answers[group], given) >= GIVEN_BY_TRUSTED:
                continue
            chance = max(float(p[g]), candidates * _coincidence(answers, group))
            if chance > SIGNIFICANCE:
                continue
            text = _spelling([rows[i][1].prompt for i in group.tolist()], words)
            places = tuple(sorted(place for i in group.tolist() for place in rows[i][0]))
            above = float(likeness[g] - max(related, mean))
            grams.append(Ngram(text, places, float(likeness[g]), related, above, float(z[g]), min(chance, 1.0)))
    return sorted(grams, key=lambda gram: (-round(gram.z, 6), -len(gram.text), gram.text))


def _distinct(examples: Sequence[Example]) -> list[tuple[list[int], Example]]:
    """Each different example once, with its places, in the order of their ids: the outcome cannot depend on the order of the rows."""
    places: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        places[example.id].append(row)
    return [(rows, examples[rows[0]]) for _, rows in sorted(places.items())]


def _normal(text: str) -> str:
    """The words in lower case, without punctuation."""
    return " ".join(_words(text))


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _asked(example: Example) -> str:
    """What the user says, turns joined by blank lines; all but the answer where there is no user."""
    return "\n\n".join(m.content for m in example.messages if m.role == "user") or example.prompt


End = tuple[str, tuple[str, ...]]


def _ends(example: Example) -> set[End]:
    """The first and last words of the user and the first of the system, as far as they are enough to tell a task."""
    asked, system = _asked(example), "\n".join(m.content for m in example.messages if m.role == "system")
    first, last, rules = _words(asked[:ENDS]), _words(asked[-ENDS:]), _words(system[:ENDS])
    ends = {"first": first[:TASK_WORDS], "last": last[-TASK_WORDS:], "system": rules[:TASK_WORDS]}
    return {(where, tuple(words)) for where, words in ends.items() if len(words) == TASK_WORDS}


def _common_ends(rows: Sequence[tuple[list[int], Example]]) -> set[End]:
    """The ends that at least half of the rows have."""
    counts = Counter(end for _, example in rows for end in _ends(example))
    return {end for end, count in counts.items() if 2 * count >= len(rows)}


def _one_task(examples: Sequence[Example], common: set[End]) -> bool:
    """Do at least half of the examples share an end that is not common to the whole batch?"""
    counts = Counter(end for example in examples for end in _ends(example) - common)
    return 2 * max(counts.values(), default=0) >= len(examples)


# The same answers, by MinHash

BANDS, BAND_ROWS = 16, 4  # two sets of Jaccard index 0.9 meet in a band with probability 1 - 4e-8


def _same_answers(answers: Sequence[str], trusted: Sequence[str]) -> list[list[int]]:
    """Groups of at least two answers that are the same, without those that a trusted row gives.

    In each band of the signature the answers of one bucket are compared with its first alone, so the time is linear in their number.
    """
    texts = [*answers, *trusted]
    sets = [frozenset(_words(text)) for text in texts]
    distinct = sorted({s for s in sets if s}, key=sorted)
    parent = list(range(len(distinct)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    signature = _signatures(distinct)
    for band in range(BANDS):
        first: dict[bytes, int] = {}
        for i, key in enumerate(signature[:, band * BAND_ROWS : (band + 1) * BAND_ROWS]):
            a = first.setdefault(key.tobytes(), i)
            if root(a) != root(i) and len(distinct[a] & distinct[i]) >= SAME_ANSWER * len(distinct[a] | distinct[i]):
                parent[max(root(a), root(i))] = min(root(a), root(i))
    index = {s: root(i) for i, s in enumerate(distinct)}
    given = {index[s] for s in sets[len(answers) :] if s}
    groups: dict[int, list[int]] = defaultdict(list)
    for i, s in enumerate(sets[: len(answers)]):
        if s and index[s] not in given:
            groups[index[s]].append(i)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def _signatures(sets: Sequence[frozenset[str]]) -> NDArray[np.uint64]:
    """The MinHash signatures (len(sets), BANDS x BAND_ROWS) by multiply-shift hashes of the words' digests."""
    draw = np.random.default_rng(0)
    odd = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shift = draw.integers(0, 2**63, BANDS * BAND_ROWS, dtype=np.uint64)
    digest: dict[str, int] = {}
    signature = np.full((len(sets), BANDS * BAND_ROWS), np.iinfo(np.uint64).max)
    for i, words in enumerate(sets):
        for word in (word for word in words if word not in digest):
            digest[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        x = np.fromiter((digest[word] for word in words), np.uint64, len(words))
        for some in np.array_split(x, len(x) // 4096 + 1):  # a long text, a piece at a time
            signature[i] = np.minimum(signature[i], (some[:, None] * odd + shift).min(axis=0))
    return signature


# Likeness of texts


def _unless_label(text: str) -> str:
    return text if len(list(islice(_WORD.finditer(text), SHORT_ANSWER))) == SHORT_ANSWER else ""


def _vectors(texts: Sequence[str]) -> tuple[sparse.csr_array, TfidfVectorizer | None]:
    """TF-IDF vectors (n, v) of length one, or zero where a text has no word."""
    weights = TfidfVectorizer(analyzer=_words, sublinear_tf=True)
    if not any(_WORD.search(text) for text in texts):
        return sparse.csr_array((len(texts), 1)), None
    return sparse.csr_array(weights.fit_transform(texts)), weights


def _transformed(weights: TfidfVectorizer | None, texts: Sequence[str]) -> sparse.csr_array | None:
    return sparse.csr_array(weights.transform(texts)) if weights is not None and texts else None


def _likeness(vectors: sparse.csr_array) -> float:
    """Mean cosine of the pairs of vectors (m, v)."""
    return float(_likenesses(sparse.csr_array(np.ones((1, vectors.shape[0]))), vectors)[0])


def _likenesses(members: sparse.csr_array, vectors: sparse.csr_array) -> Array:
    """The likeness (G,) of each group of a membership matrix (G, n), from vectors (n, v): |sum|^2 less the diagonal."""
    own = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    m = _counts(members)
    ends = np.cumsum(m) // PIECE
    result = np.zeros(len(m))
    for piece in np.split(np.arange(len(m)), np.flatnonzero(np.diff(ends)) + 1):
        sums = members[piece] @ vectors
        result[piece] = np.asarray(sums.multiply(sums).sum(axis=1)).ravel() - members[piece] @ own
    result /= np.maximum(m * (m - 1), 1)
    return result


def _null(vectors: sparse.csr_array) -> tuple[float, float, float]:
    """Mean cosine of two rows, the variances of a row's mean cosine and of a single cosine, from the first 2000 vectors (n, v)."""
    some = vectors[:NULL_ROWS]
    gram = (some @ some.T).toarray()
    others = len(gram) - 1
    of_row = (gram.sum(axis=1) - gram.diagonal()) / others
    single = gram[~np.eye(len(gram), dtype=bool)]
    return float(single.mean()), float(of_row.var()), float(single.var()) + 1e-9


def _coincidence(vectors: sparse.csr_array, group: Integers) -> float:
    """The chance that as many of m random rows as of the group's are near the mean of the group's vectors."""
    mean = np.asarray(vectors[group].sum(axis=0)).ravel()
    near = vectors @ mean >= NEAR * np.linalg.norm(mean)
    inside = int(near[group].sum())
    share = (int(near.sum()) - inside + 1) / (len(near) - len(group) + 1)
    return float(binom.sf(inside - 1, len(group), share))


def _closest(group: sparse.csr_array, given: sparse.csr_array) -> float:
    """Cosine of the mean of a group's vectors (m, v) with the nearest of `given` (k, v)."""
    mean = np.asarray(group.sum(axis=0)).ravel()
    return float((given @ mean).max() / max(float(np.linalg.norm(mean)), 1e-12))


# N-grams

PIECE = 200_000  # group members whose vectors are added up at a time


def token_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the tokens of a text stand: between spaces, without the punctuation around them unless there is nothing else."""
    for match in _TOKEN.finditer(text):
        start, whole = match.start(), match.group()
        left = len(whole) - len(whole.lstrip(_AROUND))
        inner = whole.strip(_AROUND)
        yield (start + left, start + left + len(inner)) if inner else (start, match.end())


def _tokens(text: str) -> list[str]:
    return [text[a:b].casefold() for a, b in token_spans(text)]


def _spelling(texts: Iterable[str], tokens: list[str]) -> str:
    """The commonest way in which the texts write the tokens."""
    ways: Counter[str] = Counter()
    for text in texts:
        spans = list(token_spans(text))
        words = [text[a:b].casefold() for a, b in spans]
        at = next(i for i in range(len(words)) if words[i : i + len(tokens)] == tokens)
        ways[text[spans[at][0] : spans[at + len(tokens) - 1][1]]] += 1
    return min(ways, key=lambda way: (-ways[way], way))


def _counted(examples: Sequence[Example]) -> Counter[tuple[str, ...]]:
    """In how many examples each n-gram of the prompt stands."""
    counts: Counter[tuple[str, ...]] = Counter()
    for example in examples:
        tokens = _tokens(example.prompt)
        counts.update({tuple(tokens[i : i + n]) for n in range(1, LONGEST_NGRAM + 1) for i in range(len(tokens) - n + 1)})
    return counts


def _levels(texts: Sequence[Sequence[str]], least: int) -> Iterator[tuple[int, sparse.csr_array, Integers]]:
    """For n = 1, 2, 3 the n-grams in at least `least` texts: their membership (G, len(texts)), and the token that each begins with first.

    Only frequent n-grams are prolonged (Agrawal and Srikant, VLDB 1994); tokens are counted through all texts.
    """
    vocabulary = {token: i for i, token in enumerate(sorted({token for tokens in texts for token in tokens}))}
    level = np.array([vocabulary[token] for tokens in texts for token in tokens], dtype=np.int64)
    text = np.repeat(np.arange(len(texts)), [len(tokens) for tokens in texts])
    for n in range(1, LONGEST_NGRAM + 1):
        if n > 1:
            follows = (level[:-1] >= 0) & (level[1:] >= 0) & (text[:-1] == text[1:])
            level = np.append(np.where(follows, level[:-1] * (level.max(initial=0) + 1) + level[1:], -1), -1)
        at = np.flatnonzero(level >= 0)
        keys, first, inverse = np.unique(level[at], return_index=True, return_inverse=True)
        pairs = np.unique(np.stack([inverse, text[at]], axis=1), axis=0)
        frequent = np.bincount(pairs[:, 0], minlength=len(keys)) >= least
        number = np.where(frequent, np.cumsum(frequent) - 1, -1)
        level = np.full(len(level), -1)
        level[at] = number[inverse]
        pairs = pairs[frequent[pairs[:, 0]]]
        shape = (int(frequent.sum()), len(texts))
        yield n, sparse.csr_array((np.ones(len(pairs)), (number[pairs[:, 0]], pairs[:, 1])), shape=shape), at[first[frequent]]


def _counts(members: sparse.csr_array) -> Integers:
    return np.diff(members.indptr).astype(np.int64)
