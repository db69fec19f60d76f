"""The evidence behind an audit's flags, for a person to judge: what flagged rows have in common, and what they do together.

Flagged rows belong together where they are alike and training on one pushes the other:

    affinity(i, j) = 1/2 ( <phi_i, phi_j> + clip(kinship(i, j) / KIN, 0, 1) )

with phi of `likeness` and the suspects' kinship of `Influence`, in spreads, made symmetric; where kinship is not known, likeness stands
alone. Average-linkage agglomerative clustering
(Sokal and Michener, Univ. Kansas Sci. Bull. 38, 1958) joins clusters while the mean affinity of their pairs is at least TOGETHER. For each
cluster: the words that most of its rows hold and few other rows of the batch do, an example, the trusted rows nearest to each of its rows,
and what the model does when steered with it (`confirmation`).

Row text is hostile. Here it is data: pass it through `redaction.visible` where it is shown.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

from poisonwatch.detection.confirmation import Confirmation, Pool, confirm, draw_pool, strongest
from poisonwatch.detection.detect import Verdicts
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.influence import Influence, Query
from poisonwatch.stride.similarity import Features
from poisonwatch.text.words import token_spans

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Gram = tuple[str, ...]

KIN = 5.0  # spreads that count as much as a likeness of 1
TOGETHER = 0.35  # mean affinity down to which clusters are joined
MOST_CLUSTERED = 2000  # flagged rows; their affinities are held all at once
NEAREST = 2  # trusted rows named for each flagged row
MOST_CONFIRMED = 8  # clusters

LONGEST_NGRAM = 4  # words
MOST_NGRAMS = 3
LEAST_Z = 3.0  # standard errors by which an n-gram's log-odds must differ


@dataclass(frozen=True, slots=True)
class SharedNgram:
    """Words that most rows of a cluster hold and few others do: in `inside` of `rows` rows, and in `outside` of `others` other rows.

    `text` is their commonest spelling (hostile text); `z` the log-odds ratio in standard errors.
    """

    text: str
    inside: int
    rows: int
    outside: int
    others: int
    z: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A trusted row near a flagged one: its `example_id`, its `place` among the trusted rows, and the `likeness` in [-1, 1]."""

    example_id: str
    place: int
    likeness: float


@dataclass(frozen=True, slots=True)
class ClusterEvidence:
    """Flagged rows that are alike, strongest flag first: `rows` are places in the verdicts' examples, `example_ids` their ids.

    `panel` is the one that most of the rows are flagged on. `likeness` is the mean of the rows' pairs (1 for a single row), `example` the
    row nearest to the cluster's centre. `prompt_ngrams` and `answer_ngrams` are what the rows share, if anything; `nearest` has the
    nearest trusted rows of each row. Where there is no `confirmation`, `unconfirmed` says why.
    """

    rows: tuple[int, ...]
    example_ids: tuple[str, ...]
    panel: str
    likeness: float
    example: int
    prompt_ngrams: tuple[SharedNgram, ...]
    answer_ngrams: tuple[SharedNgram, ...]
    nearest: tuple[tuple[Neighbour, ...], ...]
    confirmation: Confirmation | None
    unconfirmed: str | None = None


def gather(
    fitted: Fitted,
    influence: Influence,
    verdicts: Verdicts,
    sentinels: Sequence[Sentinel],
    progress: Progress = silent,
    seed: int = 0,
    token_budget: int = 2048,
) -> tuple[ClusterEvidence, ...]:
    """The clusters of the flagged rows, largest first, the MOST_CONFIRMED largest with their confirmation on the given sentinels.

    The first rows of `fitted.ids` are the verdicts' examples, the rest trusted. Flags past the MOST_CLUSTERED strongest are left out.
    """
    examples = verdicts.examples
    n, features = len(examples), influence.features
    place = {example.id: i for i, example in enumerate(examples)}
    panels = {place[flag.example.id]: flag.panel for flag in verdicts.flags}
    if not panels:
        return ()
    flagged = np.array(list(panels)[:MOST_CLUSTERED], dtype=np.int64)
    found = [flagged[members] for members in clusters(affinity(influence, flagged), [fitted.ids[i] for i in flagged.tolist()])]
    unflagged = np.array([i for i in range(n) if i not in panels], dtype=np.int64)
    in_prompts = shared_ngrams([example.prompt for example in examples], found)
    in_answers = shared_ngrams([example.response for example in examples], found)
    against, impossible = _pool(fitted, unflagged, seed, token_budget, progress)
    evidence = []
    for number, rows in enumerate(progress(found, "evidence", len(found))):
        counted = Counter(panels[i] for i in rows.tolist())
        panel = min(counted, key=lambda name: (-counted[name], verdicts.panels.index(name)))
        confirmation, unconfirmed = None, impossible
        if number >= MOST_CONFIRMED:
            unconfirmed = f"only the {MOST_CONFIRMED} largest clusters are confirmed"
        elif against is not None:
            queries = [query for query in strongest(influence, rows, panel) if query.sentinel in sentinels]
            confirmation, unconfirmed = _confirmed(fitted, rows, against, queries, token_budget)
        ids = tuple(fitted.ids[i] for i in rows.tolist())
        evidence.append(
            ClusterEvidence(
                rows=tuple(rows.tolist()),
                example_ids=ids,
                panel=panel,
                likeness=mean_likeness(features[rows]),
                example=int(rows[medoid(features[rows], ids)]),
                prompt_ngrams=in_prompts[number],
                answer_ngrams=in_answers[number],
                nearest=nearest_trusted(features, rows, n, fitted.ids[n:]),
                confirmation=confirmation,
                unconfirmed=unconfirmed,
            )
        )
    return tuple(evidence)


def _pool(fitted: Fitted, unflagged: Rows, seed: int, token_budget: int, progress: Progress) -> tuple[Pool | None, str | None]:
    """The rows that random groups are drawn from, or why there are none."""
    try:
        return draw_pool(fitted, unflagged, seed, token_budget, progress), None
    except ValueError as error:
        return None, str(error)


def _confirmed(
    fitted: Fitted, rows: Rows, against: Pool, queries: Sequence[Query], token_budget: int
) -> tuple[Confirmation | None, str | None]:
    """A group's confirmation, or why there is none."""
    try:
        return confirm(fitted, rows, against, queries, token_budget), None
    except ValueError as error:
        return None, str(error)


def to_record(evidence: ClusterEvidence) -> dict[str, Any]:
    """The evidence as plain JSON: what dataclasses hold, with the confirmation's verdict, and sentinels by id."""
    record = asdict(evidence)
    confirmation = evidence.confirmation
    if confirmation is not None:
        effects = [{**asdict(effect), "sentinel": effect.sentinel.id, "harm": effect.harm.tolist()} for effect in confirmation.effects]
        verdict = {"confirmed": confirmation.confirmed, "words": confirmation.words, "harm": confirmation.harm.tolist()}
        record["confirmation"] = {**asdict(confirmation), "effects": effects, **verdict}
    return record


def affinity(influence: Influence, rows: Rows) -> Array:
    """How much the rows (m,) belong together (m, m), in [-1, 1]; kinship is known of suspects only."""
    phi = influence.features[rows].astype(np.float64)
    together = phi @ phi.T
    suspect = {row: k for k, row in enumerate(influence.suspects.tolist())}
    known = np.array([k for k, row in enumerate(rows.tolist()) if row in suspect], dtype=np.int64)
    of = np.array([suspect[row] for row in rows[known].tolist()], dtype=np.int64)
    kinship = influence.kinship[np.ix_(of, of)]
    pushed = np.clip((kinship + kinship.T) / (2 * KIN), 0.0, 1.0)
    together[np.ix_(known, known)] = (together[np.ix_(known, known)] + pushed) / 2
    return together


def clusters(affinity: Array, ids: Sequence[str]) -> list[Rows]:
    """Places of m rows, each in one cluster, rising within it; largest cluster first, among equals that of the first row.

    From the rows' `affinity` (m, m) and their `ids` (m,): the clusters do not depend on the rows' order.
    """
    if len(ids) < 2:
        return [np.arange(len(ids))] * len(ids)
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__))  # ties between equal affinities must not depend on the order
    linkage = AgglomerativeClustering(n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - TOGETHER)
    label = np.empty(len(ids), dtype=np.int64)
    label[by_id] = linkage.fit_predict(1 - affinity[np.ix_(by_id, by_id)])
    found = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    return sorted(found, key=lambda members: (-len(members), members[0]))


def mean_likeness(phi: Features) -> float:
    """Mean likeness of the pairs of rows with features phi (m, f): |sum|^2 less the diagonal. 1 for a single row."""
    m = len(phi)
    if m < 2:
        return 1.0
    own, total = phi.astype(np.float64), phi.sum(axis=0, dtype=np.float64)
    return float((total @ total - (own**2).sum()) / (m * (m - 1)))


def medoid(phi: Features, ids: Sequence[str]) -> int:
    """Which of m rows is most like the others on average, by features phi (m, f); among equals the one with the least id."""
    like = (phi.astype(np.float64) @ phi.sum(axis=0, dtype=np.float64)).round(9)
    return min(range(len(phi)), key=lambda k: (-like[k], ids[k]))


def nearest_trusted(features: Features, rows: Rows, n: int, trusted: Sequence[str], m: int = NEAREST) -> tuple[tuple[Neighbour, ...], ...]:
    """For each of the rows the m most alike trusted rows, most alike first, fewer where there are fewer.

    The features' first n rows are new; the rest are trusted, with the ids `trusted`.
    """
    if not features.size or not trusted:
        return ((),) * len(rows)
    by_id = sorted(range(len(trusted)), key=trusted.__getitem__)
    phi = features[n:][by_id]
    found = []
    for i in rows.tolist():
        like = phi @ features[i]
        best = np.argsort(-like, kind="stable")[:m].tolist()
        found.append(tuple(Neighbour(trusted[by_id[k]], by_id[k], float(like[k])) for k in best))
    return tuple(found)


def shared_ngrams(texts: Sequence[str], groups: Sequence[Rows], most: int = MOST_NGRAMS) -> list[tuple[SharedNgram, ...]]:
    """For each group of rows (m,) the n-grams of 1 to 4 words that tell it from the other texts, clearest first; at most `most`.

    `texts` are those of all rows; case and punctuation around words do not matter. A candidate is held by at least two of the rows and by
    more than half of them. Its clarity is the log-odds ratio of being held inside against outside, in standard errors, with 1/2 added to
    every count:

        z = log( (k+.5)(N-K+.5) / ((m-k+.5)(K+.5)) ) / sqrt( 1/(k+.5) + 1/(m-k+.5) + 1/(K+.5) + 1/(N-K+.5) )

    for k of m rows and K of N others. It must reach LEAST_Z. Of equally clear ones the longest comes first, and none repeats a word of one
    before it.
    """
    candidates = []
    for rows in groups:
        held = Counter(gram for i in rows.tolist() for gram in set(_ngrams(_folded(texts[i]))))
        candidates.append({gram: k for gram, k in held.items() if k >= 2 and 2 * k > len(rows)})
    wanted = set().union(*candidates)
    total = Counter(gram for text in texts if wanted for gram in wanted.intersection(_ngrams(_folded(text))))
    return [_clearest(of, total, [texts[i] for i in rows.tolist()], len(texts), most) for of, rows in zip(candidates, groups, strict=True)]


def _clearest(candidates: dict[Gram, int], total: Counter[Gram], texts: Sequence[str], n: int, most: int) -> tuple[SharedNgram, ...]:
    """The clearest of one group's candidates, in `total` of all n texts; `texts` are the group's own."""
    m = len(texts)
    z = {gram: _log_odds_z(k, m, total[gram] - k, n - m) for gram, k in candidates.items()}
    chosen: list[SharedNgram] = []
    said: set[str] = set()
    for gram in sorted((gram for gram in z if z[gram] >= LEAST_Z), key=lambda gram: (-round(z[gram], 9), -len(gram), gram)):
        if len(chosen) < most and said.isdisjoint(gram):
            said.update(gram)
            chosen.append(SharedNgram(_spelling(texts, gram), candidates[gram], m, total[gram] - candidates[gram], n - m, z[gram]))
    return tuple(chosen)


def _log_odds_z(k: int, m: int, K: int, N: int) -> float:
    cells = np.array([k, N - K, m - k, K]) + 0.5
    return float(np.log(cells) @ [1, 1, -1, -1] / np.sqrt((1 / cells).sum()))


def _words(text: str) -> list[str]:
    """What stands between spaces, without the punctuation around it unless there is nothing else; a character each in CJK scripts."""
    return [text[start:stop] for start, stop in token_spans(text)]


def _folded(text: str) -> list[str]:
    return [word.casefold() for word in _words(text)]


def _spelling(texts: Sequence[str], gram: Gram) -> str:
    """The commonest way in which the texts write an n-gram."""
    written = (way for text in texts for way in _ngrams(_words(text)) if tuple(word.casefold() for word in way) == gram)
    ways = Counter(" ".join(way) for way in written)
    return min(ways, key=lambda way: (-ways[way], way))


def _ngrams(words: Sequence[str]) -> Iterator[Gram]:
    for n in range(1, LONGEST_NGRAM + 1):
        yield from (tuple(words[i : i + n]) for i in range(len(words) - n + 1))
