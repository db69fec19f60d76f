"""The evidence behind an audit's flags, for a person to judge: what flagged rows have in common,
and what they do together.

Flagged rows belong together where they are alike and training on one pushes the other:

    affinity(i, j) = 1/2 ( <phi_i, phi_j> + clip(kinship(i, j) / KIN, 0, 1) )

with phi of `likeness` and the suspects' kinship of `Influence`, in spreads, made symmetric; where
kinship is not known, likeness stands alone. Average-linkage agglomerative clustering (Sokal and
Michener, Univ. Kansas Sci. Bull. 38, 1958) joins clusters while the mean affinity of their pairs is
at least TOGETHER. For each cluster: the words that most of its rows hold and few other rows of the
batch do, an example, the trusted rows nearest to each of its rows, and what the model does when
steered with it (`confirmation`).

Row text is hostile. Here it is data: pass it through `redaction.visible` where it is shown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.detection.confirmation import (
    Confirmation,
    RandomGroupPool,
    confirm,
    draw_pool,
    select_strongest_queries,
)
from poisonwatch.detection.detect import Detection
from poisonwatch.detection.shared_ngrams import SharedNgram, find_shared_ngrams
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import Fitted
from poisonwatch.stride.influence import Influence, Query

AFFINITY_SCALE = 5.0  # spreads that count as much as a likeness of 1
TOGETHER = 0.35  # mean affinity down to which clusters are joined
MOST_CLUSTERED = 2000  # flagged rows; their affinities are held all at once
NEAREST_TRUSTED = 2  # trusted rows named for each flagged row
MOST_CONFIRMED = 8  # clusters


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A trusted row near a flagged one: its `example_id`, its `place` among the trusted rows, and
    the `likeness` in [-1, 1].
    """

    example_id: str
    place: int
    likeness: float


@dataclass(frozen=True, slots=True)
class ClusterEvidence:
    """Flagged rows that are alike, strongest flag first: `rows` are places in the detection's
    examples, `example_ids` their ids.

    `panel` is the one that most of the rows are flagged on. `likeness` is the mean of the rows'
    pairs (1 for a single row), `example` the row nearest to the cluster's centre. `prompt_ngrams`
    and `answer_ngrams` are what the rows share, if anything; `nearest` has the nearest trusted rows
    of each row. Where there is no `confirmation`, `unconfirmed` says why.
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


def gather_cluster_evidence(
    fitted: Fitted,
    influence: Influence,
    detection: Detection,
    sentinels: Sequence[Sentinel],
    progress: Progress = silent,
    seed: int = 0,
    token_budget: int = 2048,
) -> tuple[ClusterEvidence, ...]:
    """The clusters of the flagged rows, largest first, the MOST_CONFIRMED largest with their
    confirmation on the given sentinels.

    `fitted` and `influence` are of the detection's rows. Flags past the MOST_CLUSTERED strongest
    are left out.
    """
    examples, features = detection.rows.new, influence.features
    _, trusted_features = detection.rows.split(features)
    trusted_ids = [example.id for example in detection.rows.trusted]
    place = {example.id: i for i, example in enumerate(examples)}
    panels = {place[flag.example.id]: flag.panel for flag in detection.flags}
    if not panels:
        return ()
    flagged = np.array(list(panels)[:MOST_CLUSTERED], dtype=np.int64)
    found = [
        flagged[members]
        for members in cluster_rows(
            compute_affinity(influence, flagged), [fitted.ids[i] for i in flagged.tolist()]
        )
    ]
    unflagged = np.array([i for i in detection.rows.new_places if i not in panels], dtype=np.int64)
    in_prompts = find_shared_ngrams([example.prompt for example in examples], found)
    in_answers = find_shared_ngrams([example.response for example in examples], found)
    against, impossible = _try_draw_pool(fitted, unflagged, seed, token_budget, progress)
    evidence = []
    for number, rows in enumerate(progress(found, "evidence", len(found))):
        counted = Counter(panels[i] for i in rows.tolist())
        panel = min(counted, key=lambda name: (-counted[name], detection.panels.index(name)))
        confirmation, unconfirmed = None, impossible
        if number >= MOST_CONFIRMED:
            unconfirmed = f"only the {MOST_CONFIRMED} largest clusters are confirmed"
        elif against is not None:
            queries = [
                query
                for query in select_strongest_queries(influence, rows, panel)
                if query.sentinel in sentinels
            ]
            confirmation, unconfirmed = _try_confirm(fitted, rows, against, queries, token_budget)
        ids = tuple(fitted.ids[i] for i in rows.tolist())
        evidence.append(
            ClusterEvidence(
                rows=tuple(rows.tolist()),
                example_ids=ids,
                panel=panel,
                likeness=compute_mean_similarity(features[rows]),
                example=int(rows[find_medoid(features[rows], ids)]),
                prompt_ngrams=in_prompts[number],
                answer_ngrams=in_answers[number],
                nearest=find_nearest_trusted(features[rows], trusted_features, trusted_ids),
                confirmation=confirmation,
                unconfirmed=unconfirmed,
            )
        )
    return tuple(evidence)


def _try_draw_pool(
    fitted: Fitted, unflagged: RowIndices, seed: int, token_budget: int, progress: Progress
) -> tuple[RandomGroupPool | None, str | None]:
    """The rows that random groups are drawn from, or why there are none."""
    try:
        return draw_pool(fitted, unflagged, seed, token_budget, progress), None
    except ValueError as error:
        return None, str(error)


def _try_confirm(
    fitted: Fitted,
    rows: RowIndices,
    against: RandomGroupPool,
    queries: Sequence[Query],
    token_budget: int,
) -> tuple[Confirmation | None, str | None]:
    """A group's confirmation, or why there is none."""
    try:
        return confirm(fitted, rows, against, queries, token_budget), None
    except ValueError as error:
        return None, str(error)


def build_evidence_record(evidence: ClusterEvidence) -> dict[str, Any]:
    """The evidence as plain JSON: what dataclasses hold, with the confirmation's verdict, and
    sentinels by id.
    """
    record = asdict(evidence)
    confirmation = evidence.confirmation
    if confirmation is not None:
        effects = [
            {**asdict(effect), "sentinel": effect.sentinel.id, "harm": effect.harm.tolist()}
            for effect in confirmation.effects
        ]
        verdict = {
            "confirmed": confirmation.confirmed,
            "words": confirmation.words,
            "harm": confirmation.harm.tolist(),
        }
        record["confirmation"] = {**asdict(confirmation), "effects": effects, **verdict}
    return record


def compute_affinity(influence: Influence, rows: RowIndices) -> Array:
    """How much the rows (m,) belong together (m, m), in [-1, 1]; kinship is known of suspects only."""
    phi = influence.features[rows].astype(np.float64)
    together = phi @ phi.T
    suspect = {row: k for k, row in enumerate(influence.suspects.tolist())}
    known = np.array([k for k, row in enumerate(rows.tolist()) if row in suspect], dtype=np.int64)
    of = np.array([suspect[row] for row in rows[known].tolist()], dtype=np.int64)
    kinship = influence.mutual_influence[np.ix_(of, of)]
    pushed = np.clip((kinship + kinship.T) / (2 * AFFINITY_SCALE), 0.0, 1.0)
    together[np.ix_(known, known)] = (together[np.ix_(known, known)] + pushed) / 2
    return together


def cluster_rows(affinity: Array, ids: Sequence[str]) -> list[RowIndices]:
    """Places of m rows, each in one cluster, rising within it; largest cluster first, among equals
    that of the first row.

    From the rows' `affinity` (m, m) and their `ids` (m,): the clusters do not depend on the rows'
    order.
    """
    if len(ids) < 2:
        return [np.arange(len(ids))] * len(ids)
    by_id = np.array(
        sorted(range(len(ids)), key=ids.__getitem__)
    )  # ties between equal affinities must not depend on the order
    linkage = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - TOGETHER
    )
    label = np.empty(len(ids), dtype=np.int64)
    label[by_id] = linkage.fit_predict(1 - affinity[np.ix_(by_id, by_id)])
    found = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    return sorted(found, key=lambda members: (-len(members), members[0]))


def compute_mean_similarity(phi: Features) -> float:
    """Mean likeness of the pairs of rows with features phi (m, f): |sum|^2 less the diagonal. 1 for
    a single row.
    """
    m = len(phi)
    if m < 2:
        return 1.0
    own, total = phi.astype(np.float64), phi.sum(axis=0, dtype=np.float64)
    return float((total @ total - (own**2).sum()) / (m * (m - 1)))


def find_medoid(phi: Features, ids: Sequence[str]) -> int:
    """Which of m rows is most like the others on average, by features phi (m, f); among equals the
    one with the least id.
    """
    like = (phi.astype(np.float64) @ phi.sum(axis=0, dtype=np.float64)).round(9)
    return min(range(len(phi)), key=lambda k: (-like[k], ids[k]))


def find_nearest_trusted(
    phi: Features, trusted: Features, trusted_ids: Sequence[str], most: int = NEAREST_TRUSTED
) -> tuple[tuple[Neighbour, ...], ...]:
    """For each of m rows with features phi (m, f) the `most` trusted rows most like it, most alike
    first, fewer where there are fewer.

    `trusted` (n_ref, f) are the trusted rows' features, `trusted_ids` their ids.
    """
    if not phi.size or not len(trusted_ids):
        return ((),) * len(phi)
    # Among equally similar rows the least id comes first, whatever the rows' order.
    by_id = sorted(range(len(trusted_ids)), key=trusted_ids.__getitem__)
    sorted_trusted = trusted[by_id]
    found = []
    for own in phi:
        similarity = sorted_trusted @ own
        best = np.argsort(-similarity, kind="stable")[:most].tolist()
        neighbours = []
        for k in best:
            place = by_id[k]
            neighbours.append(Neighbour(trusted_ids[place], place, float(similarity[k])))
        found.append(tuple(neighbours))
    return tuple(found)
