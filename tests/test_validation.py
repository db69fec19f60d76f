"""The order of roles, how far sources drift, and what validation reports."""

import json
from itertools import product

import numpy as np
import pytest

from poisonwatch.examples import Example, Message, Rejection
from poisonwatch.validation import (
    Check,
    Facts,
    Validation,
    compute_mix_distance,
    compute_series_shares,
    estimate_chance_distance,
    estimate_tokens,
    find_role_problem,
    mask_numbers,
)


@pytest.mark.parametrize(
    "roles",
    [
        "user assistant",
        "system user assistant",
        "user assistant user assistant",
        "user assistant tool assistant",
        "user assistant tool tool assistant",
        "user assistant assistant",
        "user assistant tool user assistant",
        "system system user assistant",
        "assistant user assistant",
        "system assistant",
        "tools user assistant",
        "tools system user assistant tool assistant",
    ],
)
def test_roles_in_order_are_no_problem(roles: str) -> None:
    """With and without system, one turn or many, tools called one by one or together; an answer
    before a call, a developer's text beside the system's, a greeting first: most trainers take it.
    """
    assert find_role_problem(roles.split()) is None


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ("", "there are no turns"),
        ("tools", "there are no turns"),
        ("tool assistant", "turn 1 is tool: a conversation begins with system, user or assistant"),
        ("tools tools", "turn 1 is tools: a conversation begins with system, user or assistant"),
        ("user assistant system assistant", "turn 3 is system, which may only come first"),
        ("user assistant tools assistant", "turn 3 is tools, which may only come first"),
        (
            "system tool assistant",
            "turn 2 is tool after system: after system comes system or user or assistant",
        ),
        ("tools user tool assistant", "turn 2 is tool after user: after user comes assistant"),
        ("user user assistant", "turn 2 is user after user: after user comes assistant"),
        ("user assistant tool", "the last turn is tool, not assistant"),
        ("system", "the last turn is system, not assistant"),
    ],
)
def test_roles_out_of_order_name_the_turn(roles: str, problem: str) -> None:
    """In words, counted from 1; definitions of tools are no turn."""
    assert find_role_problem(roles.split()) == problem


def test_every_order_of_up_to_five_roles_follows_the_rule() -> None:
    """No problem exactly where: system* (user? assistant tool*)* user? assistant."""
    import re

    rule = re.compile(r"s*(u?at*)*u?a")
    for n in range(1, 6):
        for roles in product(("system", "user", "assistant", "tool"), repeat=n):
            assert (find_role_problem(roles) is None) == bool(
                rule.fullmatch("".join(role[0] for role in roles))
            ), roles


def test_tokens_are_estimated_from_bytes() -> None:
    """Four bytes of UTF-8 a token, rounded up; half surrogates have a length, too."""
    assert [
        estimate_tokens(text) for text in ("", "a", "abcd", "abcde", "\u4f60\u597d", "\ud800")
    ] == [0, 1, 1, 2, 2, 1]


def test_files_of_a_dated_series_are_one_source() -> None:
    """Numbers do not tell series apart; words do."""
    assert (
        mask_numbers("data/2026-11-24.jsonl")
        == mask_numbers("data/2026-11-25.jsonl")
        == "data/#-#-#.jsonl"
    )
    assert compute_series_shares({"a-1": 1, "a-2": 2, "b": 1}) == {"a-#": 0.75, "b": 0.25}
    assert compute_series_shares({}) == compute_series_shares({"a": 0}) == {}


def test_mix_distance_is_the_total_variation_distance() -> None:
    """0 for the same mix, 1 for nothing in common, symmetric, and the largest difference over all
    sets of sources.
    """
    p, q = {"a": 0.5, "b": 0.5}, {"a": 0.2, "c": 0.8}
    assert compute_mix_distance(p, p) == 0
    assert compute_mix_distance(p, {"z": 1.0}) == 1
    assert compute_mix_distance(p, q) == compute_mix_distance(q, p) == pytest.approx(0.8)
    sets = [
        [name for name, inside in zip("abc", chosen, strict=True) if inside]
        for chosen in product((0, 1), repeat=3)
    ]
    assert compute_mix_distance(p, q) == pytest.approx(
        max(sum(p.get(s, 0) - q.get(s, 0) for s in chosen) for chosen in sets)
    )


def test_chance_distance_is_what_sampling_alone_does() -> None:
    """Mean over 4,000 samples of n rows, within 3 %; 0 where there is one source."""
    p = np.array([0.4, 0.3, 0.2, 0.1])
    shares = dict(zip("abcd", p.tolist(), strict=True))
    for n in (50, 400):
        drawn = np.random.default_rng(0).multinomial(n, p, size=4000) / n
        assert estimate_chance_distance(shares, n) == pytest.approx(
            np.abs(drawn - p).sum(axis=1).mean() / 2, rel=0.03
        )
    assert estimate_chance_distance({"a": 1.0}, 5) == 0


def test_known_ids_come_as_a_set_or_by_a_function() -> None:
    """Both pick from the ids of the batch."""
    known = {"a", "b"}
    assert (
        Facts(known=known).select_known({"b", "c"})
        == Facts(known=known.intersection).select_known({"b", "c"})
        == {"b"}
    )
    assert Facts().select_known({"b"}) == set()


def check(
    severity: str = "warn", passed: bool = False, observed: str | None = "3 of 9 rows fail"
) -> Check:
    return Check("expect_x", "prompt", severity, passed, 3, 1 / 3, "it is wrong", observed)  # type: ignore[arg-type]


def test_warnings_are_what_failed_without_keeping_rows_out() -> None:
    """A sentence each, with what was observed."""
    found = Validation(
        [], [], [check(), check(observed=None), check(passed=True), check("reject"), check("note")]
    )
    assert found.warnings == ["it is wrong (3 of 9 rows fail)", "it is wrong"]
    assert (
        Check("e", None, "warn", False, None, None, "few rows", "7").failure_message
        == "few rows (observed: 7)"
    )


def test_the_record_adds_up_and_is_json() -> None:
    """rows = passed + rejected + copies; the checks with every field by name."""
    example = Example.from_messages([Message("user", "x")])
    record = Validation(
        [example, example], [Rejection("s", 0, "s, line 1", "e", "r", "")], [check()], 4, 3
    ).to_record()
    assert (record["rows"], record["passed"], record["rejected"]) == (7, 2, 1)
    assert (record["copies"], record["identical"]) == (4, 3)
    assert json.loads(json.dumps(record)) == record
    assert set(record["checks"][0]) == {
        "expectation",
        "column",
        "severity",
        "passed",
        "failing",
        "share",
        "reason",
        "observed",
    }
    assert Validation.empty().rows == 0
