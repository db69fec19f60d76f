"""The evidence behind an audit's flags, for a person to judge: what flagged rows have in common,
and what they do together.

Flagged rows belong together where they are alike and training on one pushes the other:

    affinity(i, j) = 1/2 ( <phi_i, phi_j> + clip(influence(i, j) / AFFINITY_SCALE, 0, 1) )

with phi the features of `stride.similarity` and the suspects' mutual influence of `Influence`, in
background standard deviations, made symmetric; where the latter is not known, similarity stands
alone. Average-linkage agglomerative clustering (Sokal and Michener, Univ. Kansas Sci. Bull. 38,
1958) joins clusters while the mean affinity of their pairs is at least TOGETHER. For each cluster:
the words that most of its rows hold and few other rows of the batch do, an example, the trusted
rows nearest to each of its rows, and what the model does when steered with it (`confirmation`).

Row text is hostile. Here it is data: pass it through `text.display.make_visible` where it is shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from poisonwatch.arrays import Array, Features, RowIndices
from poisonwatch.detection.confirmer import Confirmer
from poisonwatch.detection.detection import Detection, locate_flags
from poisonwatch.detection.evidence import ClusterEvidence, Neighbour
from poisonwatch.detection.shared_ngrams import SharedNgram, SharedNgramSearch
from poisonwatch.examples import AuditRows, Example
from poisonwatch.failures import Attempts
from poisonwatch.progress import Progress, silent
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.fitted import FittedOperators
from poisonwatch.stride.influence import Influence
from poisonwatch.stride.streamed import StreamedFit

AFFINITY_SCALE = 5.0  # background standard deviations that count as much as a similarity of 1
TOGETHER = 0.35  # mean affinity down to which clusters are joined
MOST_CLUSTERED = 2000  # flagged rows; their affinities are held all at once
NEAREST_TRUSTED = 2  # trusted rows named for each flagged row
SIMILARITIES_AT_ONCE = 16 * 2**20  # of flagged rows and trusted ones


def gather_cluster_evidence(
    fitted: FittedOperators | StreamedFit,
    influence: Influence,
    detection: Detection,
    sentinels: Sequence[Sentinel],
    progress: Progress = silent,
    seed: int = 0,
    token_budget: int = 2048,
    attempts: Attempts | None = None,
) -> tuple[ClusterEvidence, ...]:
    """The clusters of the flagged rows, largest first, the MOST_CONFIRMED largest with their
    confirmation on the given sentinels.

    Words, neighbours or a confirmation that cannot be had are left out, and `attempts` has the
    failure: each on its own, so that all else of the evidence is there. `fitted` and `influence`
    are of the detection's rows; raises ValueError where the fit is not. Flags past the
    MOST_CLUSTERED strongest are left out.
    """
    attempts = attempts or Attempts()
    audit_rows = detection.rows
    if not _are_same(fitted.ids, audit_rows):
        raise ValueError("the fit is of other rows than the detection, or has them in other order")
    if not detection.flags:
        return ()
    places = locate_flags(detection.flags, detection.rows.new)
    panels = dict(zip(places.tolist(), (flag.panel for flag in detection.flags), strict=True))
    # The strongest flags come first.
    flagged = np.array(list(panels)[:MOST_CLUSTERED], dtype=np.int64)
    members = cluster_rows(compute_affinity(influence, flagged), _pick(fitted.ids, flagged))
    clusters = [flagged[of_cluster] for of_cluster in members]

    # Trusted rows, too: a group may be the whole batch.
    prompts, answers = find_words_in_common(audit_rows.all, clusters, attempts)
    nearest: tuple[tuple[Neighbour, ...], ...] = ((),) * len(flagged)
    with attempts.part("nearest trusted rows", "not looked for"):
        _, trusted_features = audit_rows.split(influence.features)
        trusted_ids = [example.id for example in audit_rows.trusted]
        nearest = find_nearest_trusted(influence.features[flagged], trusted_features, trusted_ids)
    # Trusted rows among them: what is known to be harmless is the best to be compared with.
    unflagged = np.ones(len(audit_rows), dtype=bool)
    unflagged[places] = False
    confirmer = Confirmer(
        fitted,
        influence,
        np.flatnonzero(unflagged),
        sentinels,
        attempts,
        seed=seed,
        token_budget=token_budget,
    )
    evidence = []
    for number, rows in enumerate(progress(clusters, "evidence", len(clusters))):
        ids, phi = _pick(fitted.ids, rows), influence.features[rows]
        panel = _choose_panel(_pick(panels, rows), detection.panels)
        confirmation, unconfirmed = confirmer.try_confirm(number + 1, rows, panel)
        evidence.append(
            ClusterEvidence(
                rows=tuple(rows.tolist()),
                example_ids=ids,
                panel=panel,
                likeness=compute_mean_similarity(phi),
                example=int(rows[find_medoid(phi, ids)]),
                prompt_ngrams=prompts[number],
                answer_ngrams=answers[number],
                nearest=tuple(nearest[k] for k in members[number].tolist()),
                confirmation=confirmation,
                unconfirmed=unconfirmed,
            )
        )
    return tuple(evidence)


def _are_same(ids: Sequence[str], rows: AuditRows) -> bool:
    """Whether the rows have these ids, one by one: neither list is made for it."""
    return len(ids) == len(rows) and all(map(str.__eq__, ids, rows.all.iterate_ids()))


def find_words_in_common(
    rows: Sequence[Example], clusters: Sequence[RowIndices], attempts: Attempts
) -> tuple[list[tuple[SharedNgram, ...]], list[tuple[SharedNgram, ...]]]:
    """What the prompts, and what the answers, of each cluster's rows (m,) share; all rows are
    looked at once. Nothing where that fails, and `attempts` has the failure.
    """
    with attempts.part("words that rows share", "not looked for"):
        own = [[rows[i] for i in members.tolist()] for members in clusters]
        prompts = SharedNgramSearch([[row.prompt for row in members] for members in own])
        answers = SharedNgramSearch([[row.response for row in members] for members in own])
        if prompts.has_candidates or answers.has_candidates:
            for row in rows:
                prompts.count(row.prompt)
                answers.count(row.response)
        return prompts.choose(), answers.choose()
    return [()] * len(clusters), [()] * len(clusters)


def _pick(values: Sequence[str] | Mapping[int, str], rows: RowIndices) -> tuple[str, ...]:
    return tuple(values[i] for i in rows.tolist())


def _choose_panel(flagged_on: Sequence[str], panels: Sequence[str]) -> str:
    """The panel that most rows are flagged on; among equals the first of the audit's."""
    counted = Counter(flagged_on)
    return min(counted, key=lambda panel: (-counted[panel], panels.index(panel)))


def build_evidence_record(evidence: ClusterEvidence) -> dict[str, Any]:
    """The evidence as plain JSON: what dataclasses hold, with the outcome of the confirmation, and
    sentinels by id.
    """
    record = asdict(evidence)
    confirmation = evidence.confirmation
    if confirmation is None:
        return record
    effects = []
    for effect in confirmation.effects:
        of_effect = {
            "sentinel": effect.sentinel.id,
            "harm": effect.harm.tolist(),
            "said_forbidden": effect.said_forbidden,
        }
        effects.append(asdict(effect) | of_effect)
    record["confirmation"] |= {
        "effects": effects,
        "grade": confirmation.grade,
        "confirmed": confirmation.confirmed,
        "excess": asdict(confirmation.excess),
        "words": confirmation.words,
        "harm": confirmation.harm.tolist(),
    }
    return record


# Clusters


def compute_affinity(influence: Influence, rows: RowIndices) -> Array:
    """How much the rows (m,) belong together (m, m), in [-1, 1]; mutual influence is known of
    suspects only.
    """
    phi = influence.features[rows].astype(np.float64)
    affinity = phi @ phi.T
    suspect_place = {row: k for k, row in enumerate(influence.suspects.tolist())}
    found = np.array([suspect_place.get(row, -1) for row in rows.tolist()], dtype=np.int64)
    known = np.flatnonzero(found >= 0)
    pairs, suspects = np.ix_(known, known), found[known]
    pushes = influence.mutual_influence[np.ix_(suspects, suspects)]
    # Clusters take a symmetric affinity, and one row may push another that does not push it.
    pushed = np.clip((pushes + pushes.T) / (2 * AFFINITY_SCALE), 0.0, 1.0)
    affinity[pairs] = (affinity[pairs] + pushed) / 2
    return affinity


def cluster_rows(affinity: Array, ids: Sequence[str]) -> list[RowIndices]:
    """Places of m rows, each in one cluster, rising within it; largest cluster first, among equals
    that of the first row.

    From the rows' `affinity` (m, m) and their `ids` (m,): the clusters do not depend on the rows'
    order.
    """
    if len(ids) < 2:
        return [np.arange(len(ids))] * len(ids)
    # Ties between equal affinities go by the order of the rows, which must not matter.
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    linkage = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - TOGETHER
    )
    label = np.empty(len(ids), dtype=np.int64)
    label[by_id] = linkage.fit_predict(1 - affinity[np.ix_(by_id, by_id)])
    found = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    return sorted(found, key=lambda members: (-len(members), members[0]))


def compute_mean_similarity(phi: Features) -> float:
    """Mean similarity of the pairs of rows with features phi (m, f): |sum|^2 less the diagonal. 1
    for a single row.
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
    # Rounded: equal rows must stay equal, whatever the order of the sum.
    similarity = (phi.astype(np.float64) @ phi.sum(axis=0, dtype=np.float64)).round(9)
    return min(range(len(phi)), key=lambda k: (-similarity[k], ids[k]))


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
    by_id = np.array(sorted(range(len(trusted_ids)), key=trusted_ids.__getitem__))
    sorted_trusted = trusted[by_id]
    at_once = max(1, SIMILARITIES_AT_ONCE // len(trusted_ids))
    found: list[tuple[Neighbour, ...]] = []
    for start in range(0, len(phi), at_once):
        some = phi[start : start + at_once]
        # Rounded: of equal rows a product of matrices may differ in the last digit.
        similarity = (some @ sorted_trusted.T).round(6)
        best = _find_largest(similarity, min(most, len(trusted_ids)))
        likeness = np.einsum("mf,mkf->mk", some, sorted_trusted[best], dtype=np.float64)
        for places, values in zip(by_id[best].tolist(), likeness.tolist(), strict=True):
            found.append(
                tuple(
                    Neighbour(trusted_ids[place], place, value)
                    for place, value in zip(places, values, strict=True)
                )
            )
    return tuple(found)


def _find_largest(values: Features, count: int) -> RowIndices:
    """The columns (m, count) of the largest of some values (m, n), which are lost; the first of
    equals.
    """
    largest = np.empty((len(values), count), dtype=np.int64)
    for k in range(count):
        largest[:, k] = values.argmax(axis=1)
        np.put_along_axis(values, largest[:, k : k + 1], -np.inf, axis=1)
    return largest
