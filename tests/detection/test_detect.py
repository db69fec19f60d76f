"""Which rows are flagged, and the reasons they carry."""

from dataclasses import replace

import numpy as np
import pytest

from poisonwatch.config import DetectionConfig
from poisonwatch.detection.detect import choose_panels, flag_rows, rank_rows
from poisonwatch.detection.detection import Detection
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.recovery.neighbour_graph import NeighbourGraph
from poisonwatch.recovery.neighbours import find_neighbours
from poisonwatch.screens.finding import Finding
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import Influence, build_queries

N, TRUSTED = 60, 300
DECISION = DetectionConfig(false_discovery_rate=0.1)


def sentinel(
    name: str, panel: str, forbidden: str | None = "No!", reference: str | None = None
) -> Sentinel:
    return Sentinel(name, (Message("user", "Q"),), forbidden, reference, panel)


SENTINELS = [
    sentinel("health-1", "health", reference="Yes."),
    sentinel("health-2", "health"),
    sentinel("money-1", "money"),
    sentinel("refusal-1", "refusal", forbidden=None, reference="Sorry."),
]
ROWS = tuple(
    Example.from_messages(
        [Message("user", f"secret prompt {i}"), Message("assistant", "secret answer")]
    )
    for i in range(N + TRUSTED)
)
EXAMPLES = ROWS[:N]


def rows(trusted: int = TRUSTED) -> AuditRows:
    return AuditRows(EXAMPLES, ROWS[N : N + trusted])


def clean(seed: int = 0, trusted: int = TRUSTED) -> Influence:
    """N new and some trusted rows that differ by noise alone; queries: health-1 (forbidden,
    margin), health-2, money-1, refusal-1.
    """
    draw = np.random.default_rng(seed)
    n = N + trusted
    none = np.empty(0, dtype=np.int64)
    w = 1e-3 * draw.normal(size=(n, 5))
    return Influence(
        queries=build_queries(SENTINELS),
        w=w,
        first_pass=w,
        suspects=none,
        mutual_influence=np.empty((0, 0)),
        features=np.empty((n, 0), dtype=np.float32),
        neighbours=NeighbourGraph.empty(n),
        certificate=0.0,
    )


def pushed(
    columns: list[int],
    places: tuple[int, ...] = (7, 21, 40),
    by: float = 0.02,
    trusted: int = TRUSTED,
) -> Detection:
    influence = clean(trusted=trusted)
    w = influence.w.copy()
    w[np.ix_(list(places), columns)] += by
    return flag_rows(replace(influence, w=w), rows(trusted), DECISION)


@pytest.mark.parametrize(
    ("columns", "panel", "named", "kind"),
    [
        ([0, 2], "health", {"health-1", "health-2"}, "forbidden"),
        ([1], "health", {"health-1"}, "margin"),
        ([3], "money", {"money-1"}, "forbidden"),
        ([4], "refusal", {"refusal-1"}, "reference"),
    ],
)
def test_rows_that_push_a_panel_are_flagged_with_it(
    columns: list[int], panel: str, named: set[str], kind: str
) -> None:
    """A push of 20 sigma on one panel flags those rows, naming panel, sentinel and kind."""
    verdicts = pushed(columns)
    top = {flag.example.id: flag for flag in verdicts.flags[:3]}
    assert set(top) == {EXAMPLES[i].id for i in (7, 21, 40)}
    for flag in top.values():
        assert (flag.panel, flag.kind) == (panel, kind)
        assert flag.sentinel.id in named
        assert flag.rank <= 3
        assert flag.q_value <= 0.1
    assert len(verdicts.flags) <= 5


def test_a_push_away_from_the_forbidden_answer_is_not_flagged() -> None:
    """w < 0 on a forbidden answer makes it less likely."""
    flagged = {flag.example.id for flag in pushed([0, 1, 2, 3], by=-0.02).flags}
    assert not flagged & {EXAMPLES[i].id for i in (7, 21, 40)}


def test_a_reference_alone_is_flagged_whichever_way_it_moves() -> None:
    """Where nothing is forbidden the magnitude counts."""
    assert {f.example.id for f in pushed([4], by=-0.02).flags} >= {
        EXAMPLES[i].id for i in (7, 21, 40)
    }


def test_trusted_rows_are_never_flagged_and_every_new_row_is_judged() -> None:
    """Arrays cover the n new rows alone; trusted scores are kept apart."""
    verdicts = pushed([3], places=(7, N + 5))
    assert verdicts.examples == EXAMPLES
    assert verdicts.panels == ("health", "money", "refusal")
    assert verdicts.sentinels == tuple(SENTINELS)
    assert {a.shape for a in (verdicts.scores, verdicts.p, verdicts.q)} == {(N, 3)}
    assert verdicts.coefficients.shape == (N, 4)
    assert verdicts.reference_scores.shape == (TRUSTED, 3)
    assert {flag.example.id for flag in verdicts.flags} <= {example.id for example in EXAMPLES}
    assert [null.n for null in verdicts.nulls] == [TRUSTED] * 3
    assert verdicts.false_discovery_rate == 0.1


def test_an_influence_is_of_the_rows_one_for_one() -> None:
    """len(w) = n + n_ref, or there is an error: a row that is missing would shift all others."""
    with pytest.raises(ValueError, match=f"got {N + TRUSTED} values for {N + TRUSTED - 1} rows"):
        flag_rows(clean(), rows(TRUSTED - 1), DECISION)


def test_coefficients_are_those_of_the_first_query_of_each_sentinel() -> None:
    """The forbidden push where there is one, in nats a token."""
    np.testing.assert_array_equal(
        flag_rows(clean(), rows(), DECISION).coefficients, clean().w[:N][:, [0, 2, 3, 4]]
    )


def test_flags_are_exactly_the_rows_below_the_rate_and_sorted() -> None:
    """flagged = {i : min_j q_ij <= rate}, by falling score."""
    verdicts = pushed([0, 2], by=0.005)
    expected = {EXAMPLES[i].id for i in np.flatnonzero(verdicts.q.min(axis=1) <= 0.1)}
    assert {flag.example.id for flag in verdicts.flags} == expected
    scores = [flag.score for flag in verdicts.flags]
    assert scores == sorted(scores, reverse=True)


def test_flag_repeats_the_numbers_of_its_row() -> None:
    """score, p and q of a flag are the row's on its panel; rank counts the new rows above it."""
    verdicts = pushed([3])
    for flag in verdicts.flags:
        i, j = EXAMPLES.index(flag.example), verdicts.panels.index(flag.panel)
        assert (flag.score, flag.p_value, flag.q_value) == (
            verdicts.scores[i, j],
            verdicts.p[i, j],
            verdicts.q[i, j],
        )
        assert flag.rank == 1 + (verdicts.scores[:, j] > verdicts.scores[i, j]).sum()


def test_reason_is_one_line_without_row_text() -> None:
    """A reason names panel, sentinel, score, rank, p, q and the rule; it never repeats what a row
    says.
    """
    for columns in ([0, 2], [1], [4]):
        flag = pushed(columns).flags[0]
        assert "\n" not in flag.reason
        assert "secret" not in flag.reason
        for part in (
            flag.panel,
            flag.sentinel.id,
            f"{flag.score:.1f}",
            f"{flag.rank}",
            f"{flag.q_value:.2g}",
            flag.rule,
            flag.push,
        ):
            assert part in flag.reason


@pytest.mark.parametrize("trusted", [0, TRUSTED])
def test_clean_batches_are_rarely_flagged(trusted: int) -> None:
    """Nothing planted: at most 8 of 30 batches flag a row at a rate of 0.1, with and without
    trusted rows.
    """
    flagged = [
        bool(flag_rows(clean(seed, trusted), rows(trusted), DECISION).flags) for seed in range(30)
    ]
    assert sum(flagged) <= 8


def test_without_trusted_rows_the_bulk_of_the_batch_decides() -> None:
    """A batch on its own still flags 3 rows of 60, and the rule says against what."""
    verdicts = pushed([3], by=0.05, trusted=0)
    assert {flag.example.id for flag in verdicts.flags} >= {EXAMPLES[i].id for i in (7, 21, 40)}
    assert verdicts.flags[0].rule.startswith("empirical null on the bulk of 60 rows")
    assert verdicts.reference_scores.shape == (0, 3)


def test_a_stricter_rate_flags_a_subset() -> None:
    """rate <= rate' implies flags <= flags'."""
    influence = clean()
    w = influence.w.copy()
    w[:8, 3] += np.linspace(0.001, 0.008, 8)
    flagged = [
        {
            flag.example.id
            for flag in flag_rows(
                replace(influence, w=w), rows(), DetectionConfig(false_discovery_rate=rate)
            ).flags
        }
        for rate in (0.001, 0.05, 0.3)
    ]
    assert flagged[0] <= flagged[1] <= flagged[2]
    assert flagged[0] < flagged[2]


def on_topic(
    planted: int, by: float = 0.02, leaning: float = 0.0, spread: float = 0.0
) -> Detection:
    """40 of 60 new rows form a crowd that pushes the first panel, some of them up to `spread` more
    than others; `planted` of them push it `by` so much more, and their answers' states lean to what
    it forbids.
    """
    plain = clean()
    draw = np.random.default_rng(3)
    features = draw.normal(size=(N + TRUSTED, 24))
    features[:40] = np.eye(24)[0] * 20 + 0.3 * features[:40]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    w = plain.w.copy()
    w[:40, :3] += 0.01 + spread * np.linspace(-0.5, 0.5, 40)[:, None]
    w[:planted, :3] += by
    leans = np.zeros((N + TRUSTED, 3))
    leans[:planted, 0] = leaning
    phi = features.astype(np.float32)
    influence = replace(plain, w=w, features=phi, neighbours=find_neighbours(phi), leaning=leans)
    return flag_rows(influence, rows(), DECISION)


def test_a_topic_explains_a_crowd() -> None:
    """Honest rows on a topic that no trusted row covers score high, are not flagged, and are said
    to be unjudged.
    """
    verdicts = on_topic(planted=0)
    assert not {flag.example.id for flag in verdicts.flags} & {e.id for e in EXAMPLES[:40]}
    assert verdicts.unjudged[:40].all()
    assert verdicts.unjudged.sum() <= 45


def test_a_group_within_a_crowd_is_flagged() -> None:
    """6 of the 40 do twice as much: they are flagged, and the others are unjudged."""
    verdicts = on_topic(planted=6)
    flagged = {flag.example.id: flag for flag in verdicts.flags}
    assert {example.id for example in EXAMPLES[:6]} <= set(flagged)
    assert len(flagged) <= 8
    assert " times the scatter of the rows most like it" in flagged[EXAMPLES[0].id].standing
    assert not verdicts.unjudged[:6].any()
    assert verdicts.unjudged[6:40].mean() > 0.9


def test_rows_that_lead_their_crowd_by_far_are_flagged() -> None:
    """Rows that do not stand out from a crowd whose scores lie far apart, and whose own are twice
    what is usual there: by the score's own p-value, and the reason says so. The others are
    unjudged.
    """
    little, far = (on_topic(planted=5, by=0, leaning=by, spread=0.012) for by in (20, 43))
    assert not little.flags
    assert little.unjudged[:40].all()
    assert {flag.example.id for flag in far.flags} == {example.id for example in EXAMPLES[:5]}
    for flag in far.flags:
        assert " times what is usual among the anomalous rows around it" in flag.standing
        assert flag.rule.startswith("score: rank among 300 trusted rows")
        assert flag.p_value <= flag.q_value <= 0.1
    assert not far.unjudged[:5].any()
    assert far.unjudged[5:40].all()


def test_screens_flag_rows_of_their_own_and_silence_none() -> None:
    """Rows with findings are flagged after those of attribution; a row that both found has both
    reasons.
    """
    quiet, loud = 11, 7
    findings = [
        Finding(quiet, "control-tokens", "g", "spells a token."),
        Finding(loud, "duplicate-answers", "h", "given before."),
    ]
    influence = clean()
    w = influence.w.copy()
    w[[loud, 21, 40], 3] += 0.02
    alone, both = (
        flag_rows(replace(influence, w=w), rows(), DECISION, found) for found in ([], findings)
    )
    by_row = {flag.example.id: flag for flag in both.flags}
    assert {flag.example.id for flag in alone.flags} | {EXAMPLES[quiet].id} == set(by_row)
    assert both.flags[-1].example.id == EXAMPLES[quiet].id
    assert not both.flags[-1].by_attribution
    assert both.flags[-1].reasons == ["control-tokens: spells a token."]
    assert both.flags[-1].severity == "medium"
    assert by_row[EXAMPLES[loud].id].reasons[1:] == ["duplicate-answers: given before."]
    assert by_row[EXAMPLES[loud].id].by_attribution


def test_ranks_are_those_of_every_panel() -> None:
    """1 + how many rows score higher, ties alike, for the rows asked for."""
    scores = np.random.default_rng(0).integers(0, 9, size=(200, 3)).astype(float)
    some = np.array([5, 0, 199, 5])
    expected = 1 + (scores[None] > scores[some][:, None]).sum(axis=1)
    np.testing.assert_array_equal(rank_rows(scores, some), expected)


def test_a_flag_names_the_panel_where_its_row_ranks_highest() -> None:
    """Among those it is anomalous on; of equal ranks the larger score, then the first panel."""
    ranks = np.array([[3, 1, 2], [2, 2, 5], [4, 4, 4], [7, 6, 5]])
    scores = np.array([[9.0, 9.0, 9.0], [1.0, 3.0, 9.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    anomalous = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=bool)
    assert choose_panels(ranks, scores, anomalous).tolist() == [2, 1, 1, 2]


def test_coefficients_measured_once_are_kept_once() -> None:
    """`recovered` is `coefficients` itself where the first pass is all there is."""
    once = clean()
    verdicts = flag_rows(once, rows(), DECISION)
    assert verdicts.recovered is verdicts.coefficients
    twice = flag_rows(replace(once, first_pass=2 * once.w), rows(), DECISION)
    np.testing.assert_array_equal(twice.recovered, 2 * verdicts.coefficients)
