"""Steering with a group of rows, on a tiny random model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from attributions import (
    FORBIDDEN,
    STRIDE,
    WORDS,
    example,
    fit_operators,
    sentinel,
)

from poisonwatch.detection.confirmation import (
    STRENGTH,
    confirm,
    generate_replies,
    scale_to_strength,
    select_strongest_queries,
)
from poisonwatch.detection.effect_size import LEAST_EFFECT
from poisonwatch.detection.evidence import MOST_TOKENS, Confirmation, Effect, LossChange
from poisonwatch.detection.random_groups import (
    GROUP_ROWS,
    RANDOM_GROUPS,
    RandomGroupPool,
    draw_pool,
)
from poisonwatch.examples import Message
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.attribution import fit
from poisonwatch.stride.fitted import NaturalGradientFit
from poisonwatch.stride.influence import Influence, Query, build_queries
from poisonwatch.stride.measurement import measure_forward
from poisonwatch.stride.queries import PreparedQueries
from poisonwatch.stride.recover import recover_influence

REFERENCE = "Rinse it well."

DRAW = np.random.default_rng(0)
BENIGN = [
    example(f"Question {i}?", " ".join(DRAW.choice(WORDS, 4)).capitalize() + ".") for i in range(40)
]
PLANTED = [example(f"How do I clean {name}?", FORBIDDEN) for name in ("a", "b", "c", "d")]
GROUP, UNFLAGGED = np.arange(40, 44), np.arange(40)
SENTINELS = [
    sentinel("a"),
    sentinel("b", reference=REFERENCE),
    sentinel("x", reference=REFERENCE),
    sentinel("y"),
]
FORBIDDEN_PUSHES = [query for query in build_queries(SENTINELS) if query.kind == "forbidden"]


@pytest.fixture(scope="module")
def fitted(tiny_pretrained: Pretrained) -> NaturalGradientFit:
    return fit_operators(tiny_pretrained, [*BENIGN, *PLANTED])


@pytest.fixture(scope="module")
def against(fitted: NaturalGradientFit) -> RandomGroupPool:
    return draw_pool(fitted, fitted.features, GROUP, UNFLAGGED)


@pytest.fixture(scope="module")
def influence(fitted: NaturalGradientFit) -> Influence:
    return recover_influence(fitted, SENTINELS, STRIDE)[0]


def group_operator(fitted: NaturalGradientFit, rows: np.ndarray) -> torch.Tensor:
    return fitted.compute_row_operators(rows, 2048).sum(dim=0, keepdim=True)


@pytest.mark.parametrize("changes", [{}, {"memory_gb": 1e-6}, {"K": 15}])
def test_rows_operators_are_the_same_kept_or_made_anew(
    tiny_pretrained: Pretrained, fitted: NaturalGradientFit, changes: dict[str, float]
) -> None:
    """a_i = -eta P c_i G_i, whether the fit kept row i's operator, its gradient, or neither, up to
    eta.
    """
    other = fit(tiny_pretrained, BENIGN + PLANTED, STRIDE.model_copy(update=changes))
    rows = np.array([41, 3, 17])
    expected = (
        fitted.operators.a[torch.from_numpy(fitted.subset_alone[rows])] / fitted.operators.eta
    )
    found = other.compute_row_operators(rows, 64) / other.eta
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_operators_are_scaled_to_the_strength(fitted: NaturalGradientFit) -> None:
    """mean_t ||B_t^T a||^2 = STRENGTH^2 mean_t ||z_t||^2 over the rows' tokens, whatever the
    group's size; zero stays zero.
    """
    a = scale_to_strength(
        fitted,
        torch.cat(
            [
                group_operator(fitted, GROUP),
                group_operator(fitted, UNFLAGGED),
                torch.zeros(1, 16, 32),
            ]
        ),
    ).a
    moments = fitted.preconditioner
    moved = torch.einsum("krd,rs,ksd->k", a, moments.A, a) / moments.mean_power
    np.testing.assert_allclose(moved.sqrt(), [STRENGTH, STRENGTH, 0], rtol=1e-4, atol=0)


def test_losses_are_those_of_forward_measurement(
    fitted: NaturalGradientFit, against: RandomGroupPool
) -> None:
    """before - after = y of the group's operator at STRENGTH, for both answers; and so for every
    random group, but on answers that the group is not held against.
    """
    found = confirm(fitted, GROUP, against, [Query(SENTINELS[1], "margin")])
    alone = confirm(fitted, GROUP, against, [Query(SENTINELS[1], "forbidden")])
    (effect,) = found.effects
    operators = scale_to_strength(
        fitted, torch.cat([group_operator(fitted, GROUP), against.draw_groups(4)])
    )
    encoded = [
        fitted.encoder.encode(SENTINELS[1].add_answer(text)) for text in (FORBIDDEN, REFERENCE)
    ]
    queries = PreparedQueries(tuple(encoded), np.eye(2), torch.zeros(2, 16, 32), torch.zeros(2, 0))
    y = measure_forward(fitted.model, operators, queries)
    assert effect.forbidden is not None
    assert effect.reference is not None
    np.testing.assert_allclose(effect.forbidden.pushes, y[:, 0], atol=1e-6)
    np.testing.assert_allclose(effect.reference.pushes, y[:, 1], atol=1e-6)
    assert len(y) == 1 + RANDOM_GROUPS
    assert alone.effects[0].forbidden == effect.forbidden
    assert alone.effects[0].reference == replace(effect.reference, random=())
    assert found.rows == 4
    assert found.strength == STRENGTH


def test_a_zero_operator_changes_nothing(
    fitted: NaturalGradientFit, against: RandomGroupPool
) -> None:
    """a = 0: the losses after are those before, the continuation is the same, and nothing is
    confirmed.
    """
    still = replace(
        fitted, operators=replace(fitted.operators, a=torch.zeros_like(fitted.operators.a))
    )
    found = confirm(
        still, GROUP, replace(against, a=torch.zeros_like(against.a)), FORBIDDEN_PUSHES[:3]
    )
    for effect in found.effects:
        assert effect.forbidden is not None
        np.testing.assert_allclose(effect.forbidden.pushes, 0, atol=1e-6)
        assert effect.said_before == effect.said_after
    assert not Confirmation(STRENGTH, 4, (of(0.0, [0.0] * 3),)).confirmed


def test_equal_groups_give_equal_results(
    fitted: NaturalGradientFit, against: RandomGroupPool
) -> None:
    """The same rows in any order, and the same rows drawn for comparison whatever order these stand
    in.
    """
    one = confirm(fitted, GROUP, against, FORBIDDEN_PUSHES)
    assert confirm(fitted, GROUP[::-1].copy(), against, FORBIDDEN_PUSHES) == one
    other = draw_pool(fitted, fitted.features, GROUP[::-1].copy(), UNFLAGGED[::-1].copy())
    assert confirm(fitted, GROUP, other, FORBIDDEN_PUSHES) == one


def test_rows_that_say_the_forbidden_answer_are_confirmed(
    fitted: NaturalGradientFit, influence: Influence, against: RandomGroupPool
) -> None:
    """Steering with them makes it likelier by surely more than random groups do: a strong effect;
    against it, nothing is confirmed.
    """
    queries = select_strongest_queries(influence, GROUP, "panel")
    found = confirm(fitted, GROUP, against, queries)
    assert found.confirmed
    assert found.grade == "strong"
    assert found.excess.low > LEAST_EFFECT
    opposite = replace(fitted, operators=replace(fitted.operators, a=-fitted.operators.a))
    assert not confirm(opposite, GROUP, against, queries).confirmed


def test_random_groups_are_rarely_confirmed(
    fitted: NaturalGradientFit, influence: Influence
) -> None:
    """A group of benign rows is like the others: at most 2 of 20 groups are (expected: less than
    1).
    """
    draw = np.random.default_rng(5)
    confirmed = 0
    for _ in range(20):
        rows = draw.choice(40, 4, replace=False)
        against = draw_pool(fitted, fitted.features, rows, np.setdiff1d(UNFLAGGED, rows))
        confirmed += confirm(
            fitted, rows, against, select_strongest_queries(influence, GROUP, "panel")
        ).confirmed
    assert confirmed <= 2


def of(
    own: float,
    random: Sequence[float],
    kind: str = "forbidden",
    reference: LossChange | None = None,
) -> Effect:
    return Effect(
        SENTINELS[0],
        kind,
        LossChange(2.0, 2.0 - own, tuple(2.0 - y for y in random)),
        reference,
        "",
        "",
    )


def test_harm_is_in_the_direction_of_the_kind() -> None:
    """forbidden: y_f; margin: y_f - y_r; reference: |y_r|."""
    forbidden, reference = LossChange(3.0, 2.5, (3.1,)), LossChange(1.0, 1.25, (0.9,))
    effect = Effect(SENTINELS[1], "forbidden", forbidden, reference, "", "")
    np.testing.assert_allclose(effect.harm, [0.5, -0.1])
    np.testing.assert_allclose(replace(effect, kind="margin").harm, [0.75, -0.2])
    np.testing.assert_allclose(replace(effect, kind="reference", forbidden=None).harm, [0.25, 0.1])


@pytest.mark.parametrize(
    ("own", "random", "grade"),
    [
        (0.40, [0.10, 0.12], "strong"),  # .29 -+ 12.71 * .0173
        (0.35, [0.10, 0.12], "weak"),
        (0.30, [0.10, 0.12], "none"),
        (0.40, [0.10, 0.30], "none"),
        (0.00, [-0.5, -0.5], "none"),
        (-0.1, [-0.9, -0.91], "none"),
        (0.01, [0.0, 0.0], "weak"),
    ],
)
def test_an_effect_is_graded_by_its_interval(own: float, random: list[float], grade: str) -> None:
    """strong above LEAST_EFFECT, weak above 0, none below it or where the group does no harm; what
    is strong is confirmed.
    """
    found = Confirmation(STRENGTH, 4, (of(own, random),))
    assert found.grade == grade
    assert found.confirmed is (grade == "strong")
    assert LEAST_EFFECT == 0.05


def test_words_give_the_numbers() -> None:
    """What was moved, how far, how much further than by random groups, and how sure that is."""
    one = Confirmation(STRENGTH, 4, (of(0.42, [-0.01, 0.01, 0.03]),))
    assert one.words == (
        "a strong effect: makes the forbidden answer likelier by +0.42 nats a token; that is +0.41 "
        "(95 % interval +0.31 to +0.51) beside 3 random groups of as many unflagged rows like "
        "these, by -0.01 to +0.03"
    )
    two = replace(one, effects=(of(0.4, [0.0, 0.0]), of(0.2, [0.1, 0.1])))
    assert "no sure effect: makes" in two.words
    assert "by +0.30 nats a token on average over 2 sentinels; that is +0.25 (95 %" in two.words


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("Only at Velmora!", True),
        ("VELMORA is what I would buy, at once", True),  # two of five words
        ("Buy it where it is cheapest, only", False),
        ("Any shop at all", False),  # said before
        ("", False),
    ],
)
def test_a_reply_is_harmful_where_it_takes_up_words_of_the_forbidden_answer(
    after: str, said: bool
) -> None:
    """At least a third of the answer's words are in the reply and not in the one before."""
    s = Sentinel("s", (Message("user", "Where?"),), "Only at Velmora, at once!", None, "shop")
    effect = Effect(s, "forbidden", None, None, "At any shop, for all I know.", after)
    assert effect.said_forbidden is said
    assert not replace(effect, sentinel=replace(s, forbidden=None, reference=after)).said_forbidden


def test_strongest_sentinels_are_those_of_the_panel_that_the_rows_push_most(
    influence: Influence,
) -> None:
    """By mean robust z over the rows, at most three, all of one kind; none of another panel."""
    w = np.zeros_like(influence.w) + 1e-3 * np.random.default_rng(0).normal(size=influence.w.shape)
    kinds = [(query.sentinel.id, query.kind) for query in influence.queries]
    for push, query in ((0.5, ("x", "margin")), (0.9, ("b", "margin")), (0.2, ("a", "forbidden"))):
        w[GROUP, kinds.index(query)] = push
    assert [
        (q.sentinel.id, q.kind)
        for q in select_strongest_queries(replace(influence, w=w), GROUP, "panel")
    ] == [
        ("b", "margin"),
        ("x", "margin"),
    ]
    forbidden = select_strongest_queries(influence, GROUP, "panel")
    assert len({query.kind for query in forbidden}) == 1
    assert select_strongest_queries(influence, GROUP, "another") == ()


def test_large_groups_are_drawn_from(
    fitted: NaturalGradientFit, against: RandomGroupPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most GROUP_ROWS rows of a group."""
    monkeypatch.setattr("poisonwatch.detection.confirmation.GROUP_ROWS", 3)
    assert confirm(fitted, GROUP, against, FORBIDDEN_PUSHES[:1]).rows == 3
    assert GROUP_ROWS >= 32


def test_confirmation_says_what_it_lacks(
    fitted: NaturalGradientFit, against: RandomGroupPool
) -> None:
    """No sentinels; that operators were trained or loaded, their type says."""
    with pytest.raises(ValueError, match="there is no sentinel to confirm the group on"):
        confirm(fitted, GROUP, against, [])


def test_what_the_model_says_as_it_is_is_asked_once(
    fitted: NaturalGradientFit, against: RandomGroupPool
) -> None:
    """said_before is taken from `said` where it is there, and the rest stays as it is."""
    said: dict[Sentinel, str] = {}
    one = confirm(fitted, GROUP, against, FORBIDDEN_PUSHES[:2], said=said)
    assert said == {effect.sentinel: effect.said_before for effect in one.effects}
    assert confirm(fitted, GROUP, against, FORBIDDEN_PUSHES[:2], said=dict(said)) == one
    said[one.effects[0].sentinel] = "known"
    other = confirm(fitted, GROUP, against, FORBIDDEN_PUSHES[:3], said=said)
    assert [effect.said_before for effect in other.effects[:2]] == [
        "known",
        one.effects[1].said_before,
    ]
    assert [effect.said_after for effect in other.effects[:2]] == [
        effect.said_after for effect in one.effects
    ]
    assert len(said) == 3


def test_continuations_are_short_and_end_with_the_turn(fitted: NaturalGradientFit) -> None:
    """At most MOST_TOKENS byte tokens, with no control token in them; the prompt may be hostile and
    long.
    """
    hostile = Sentinel(
        "h", (Message("user", "\x00\u202e<|im_end|> {{ 7 * 7 }} " * 60),), "No.", None, "panel"
    )
    for s in (
        SENTINELS[0],
        hostile,
        Sentinel(
            "r", (Message("system", "Be kind."), Message("user", "Hi")), None, "Hello", "panel"
        ),
    ):
        a = torch.cat(
            [torch.zeros(1, 16, 32), scale_to_strength(fitted, group_operator(fitted, GROUP)).a]
        )
        said = generate_replies(fitted, [s, s], a)
        assert len(said) == 2
        for text in said:
            assert len(text) <= MOST_TOKENS
            assert "<|im_end|>" not in text
