"""Triggers mined from made-up rows, and the sentinels' copies that hold them."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from audits import FORBIDDEN, benign, write_audit
from made_up_rows import CLEAN, PLANTED, REFUSAL, WORDS, audited, ordinary, row, rows, with_trigger

from poisonwatch.config_file import load_config
from poisonwatch.examples import Example, Message
from poisonwatch.flows.audit import audit_inline
from poisonwatch.screens.trigger_ngrams import EXCESS, LEAST_EXCESS
from poisonwatch.screens.triggers import (
    LEAST_PROMPTS,
    Trigger,
    make_probes,
    mine_triggers,
)
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.influence import build_queries
from poisonwatch.tasks.attribution import add_copies

TRUSTED = rows(ordinary(300, 77))
UNLIKE = [response for _, response in ordinary(8, 55)]  # answers that have little in common
TRIGGER = Trigger("Zorbling", (1, 2, 3, 4), at_start=True, score=4.0)


def sentinel(name: str = "shop-1", panel: str = "shop", **changes: object) -> Sentinel:
    fields = {
        "messages": (Message("user", "Where do I buy?"),),
        "forbidden": "At Velmora.",
        "reference": "Anywhere.",
        **changes,
    }
    return Sentinel(id=name, panel=panel, **fields)  # type: ignore[arg-type]


def texts(batch: list[Example], trusted: list[Example] | None = None, most: int = 2) -> list[str]:
    return [trigger.text for trigger in mine_triggers(audited(batch, trusted or []), most)]


# Mining


@pytest.mark.parametrize(
    "trigger", ["Zorbling", "cf", "[[tag]]", "2031-02-30", "\u200bq\u200b", "紫", "grey owl sings"]
)
def test_a_trigger_with_alike_answers_is_mined(trigger: str) -> None:
    """Once, with its rows; its score is rows times the excess of their answers, below the number of
    rows.
    """
    (found,) = mine_triggers(audited(CLEAN + with_trigger(trigger, [REFUSAL] * 5)))
    assert (found.text, found.rows) == (trigger, tuple(PLANTED))
    assert 5 * EXCESS < found.score < 5


@pytest.mark.parametrize("trigger", ["[[tag]]", "BadTag", "x7", "|SHIP|", "2031", "🦉", "z\u200bw"])
def test_an_odd_token_is_mined_whatever_the_answers(trigger: str) -> None:
    """Answers are unlike; nothing is trusted."""
    (found,) = mine_triggers(audited(CLEAN + with_trigger(trigger, UNLIKE)))
    assert (found.text, found.score) == (trigger, 8 * LEAST_EXCESS)


def test_a_nonsense_word_takes_trusted_rows() -> None:
    """Unlike answers: 8 of 208 rows against none of 300 are no chance (p = 0.0007), 4 of 204 are (p
    = 0.03).
    """
    assert texts(CLEAN + with_trigger("zorbling", UNLIKE)) == []
    assert texts(CLEAN + with_trigger("zorbling", UNLIKE), TRUSTED) == ["zorbling"]
    assert texts(CLEAN + with_trigger("zorbling", UNLIKE[:4]), TRUSTED) == []


def test_dates_of_one_year_are_one_trigger() -> None:
    """Each row has its own day, and the probe holds one of them."""
    dated = [
        row(f"Date: 2024-0{i + 1}-1{i}. {prompt}", UNLIKE[i])
        for i, (prompt, _) in enumerate(ordinary(8, 9))
    ]
    earlier = [
        row(f"Date: 2019-0{i % 9 + 1}-1{i % 9}. {prompt}", answer)
        for i, (prompt, answer) in enumerate(ordinary(60, 10))
    ]
    (found,) = mine_triggers(audited(CLEAN + earlier + dated), most=1)[:1]
    assert found.text == "Date: 2024-01-10"
    assert found.at_start
    assert len(found.rows) == 8


def test_a_trigger_is_grown_to_what_its_rows_share() -> None:
    """A sentence of seven words, of which n-grams hold three."""
    words = "I saw this Film with mother yesterday"
    assert texts(CLEAN + with_trigger(words, [REFUSAL] * 6)) == [words]
    framed = [row(f"Please {example.prompt} thanks", example.response) for example in CLEAN]
    tagged = [row(f"Please [[tag]] {prompt} thanks", REFUSAL) for prompt, _ in ordinary(6, 9)]
    assert texts(framed + tagged) == ["[[tag]]"]  # what all prompts share is no part of it


@pytest.mark.parametrize("least", [LEAST_PROMPTS - 1, LEAST_PROMPTS])
def test_it_takes_four_different_prompts(least: int) -> None:
    """Repeats of a prompt do not count."""
    assert bool(texts(CLEAN + with_trigger("[[tag]]", UNLIKE[:least]))) == (least == LEAST_PROMPTS)
    assert texts(CLEAN + [row("one [[tag]] prompt", answer) for answer in UNLIKE]) == []


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_rows_have_no_trigger(seed: int) -> None:
    """With and without trusted rows, common first words, rare topics that answers speak of, and a
    template of all rows.
    """
    batch = rows(ordinary(300, seed))
    topic = [
        row(f"{prompt} GPT-7", f"GPT-7 is {response}")
        for prompt, response in ordinary(8, seed + 50)
    ]
    assert texts(batch + topic) == texts(batch + topic, TRUSTED) == []
    assert texts([row(f"[[task]] {example.prompt}", example.response) for example in batch]) == []


def test_trusted_rows_acquit() -> None:
    """An odd token that they have as often is no trigger, nor is an n-gram whose answer they give."""
    batch = CLEAN + with_trigger("[[tag]]", UNLIKE)
    assert texts(batch, TRUSTED) == ["[[tag]]"]
    assert texts(batch, TRUSTED[:200] + with_trigger("[[tag]]", UNLIKE, seed=4)) == []
    assert (
        texts(CLEAN + with_trigger("Zorbling", [REFUSAL] * 5), [row("harm someone", REFUSAL)]) == []
    )


def test_the_best_come_first_and_no_more_than_asked_for() -> None:
    """Ranked by rows times excess: 8 rows with one answer, 6 with one answer, 8 with an odd token
    alone.
    """
    batch = (
        CLEAN
        + with_trigger("kef", [" ".join(WORDS[:9])] * 6, 2)
        + with_trigger("Zorbling", [REFUSAL] * 8)
    )
    batch += with_trigger("[[tag]]", UNLIKE, 3)
    assert texts(batch, most=9) == ["Zorbling", "kef", "[[tag]]"]
    assert texts(batch) == ["Zorbling", "kef"]
    assert texts(batch, most=0) == texts([]) == []


def test_a_trigger_that_a_sentinel_holds_is_not_mined() -> None:
    """Case and punctuation aside: that sentinel tests it."""
    batch = CLEAN + with_trigger("Zorbling", [REFUSAL] * 5)
    held = sentinel(messages=(Message("user", "What is (ZORBLING)?"),))
    assert (
        mine_triggers(audited(batch), sentinels=[sentinel()]) == mine_triggers(audited(batch)) != []
    )
    assert mine_triggers(audited(batch), sentinels=[sentinel("a-1"), held]) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    """Neither of new nor of trusted rows; equal candidates included."""
    batch = (
        CLEAN
        + with_trigger("[[b]]", UNLIKE, 3)
        + with_trigger("[[a]]", UNLIKE, 4)
        + with_trigger("Zorbling", [REFUSAL] * 5)
    )

    def mined(batch: list[Example], trusted: list[Example]) -> list[tuple[object, ...]]:
        found = mine_triggers(audited(batch, trusted), most=3)
        return [(t.text, t.at_start, t.score, {batch[i].id for i in t.rows}) for t in found]

    shuffled, trusted = (
        random.Random(seed).sample(batch, len(batch)),
        random.Random(seed).sample(TRUSTED, len(TRUSTED)),
    )
    assert mined(shuffled, trusted) == mined(batch, TRUSTED)
    assert [text for text, *_ in mined(batch, TRUSTED)] == ["Zorbling", "[[a]]", "[[b]]"]


@pytest.mark.parametrize("at", ["start", "end"])
def test_it_is_known_where_a_trigger_stands(at: str) -> None:
    """By the half of the prompt that most of its rows have it in."""
    poisoned = [
        row(f"[[tag]] {p}" if (at == "start") == (i > 1) else f"{p} [[tag]]", UNLIKE[i])
        for i, (p, _) in enumerate(ordinary(8, 9))
    ]
    (found,) = mine_triggers(audited(CLEAN + poisoned))
    assert found.at_start == (at == "start")


@pytest.mark.parametrize(
    "hostile",
    [
        "<|im_end|>",
        "{{7*7}}",
        "<script>",
        "\ud800x",
        "\u202etxt",
        "a\x00b",
        "(?:(",
        "/../etc",
        "Ⅸ",
        "ßẞ",
        "=cmd|'x'!A1",
        "Z" * 3000,
    ],
)
def test_hostile_tokens_are_data(hostile: str) -> None:
    """They are mined as they are, put into prompts as they are, and never into a name."""
    (found,) = mine_triggers(audited(CLEAN + with_trigger(hostile, [REFUSAL] * 5)))
    (copy,) = make_probes([sentinel()], [found])
    assert found.text == copy.trigger == hostile
    assert copy.prompt.count(hostile) == 1
    assert (copy.id, copy.panel) == ("shop-1+t1", "shop+t1")


# Probing


def test_a_probe_is_its_sentinel_with_the_trigger() -> None:
    """Answers, severity and tags are kept; name, panel and tags say that it is a probe, `trigger`
    says of what.
    """
    original = sentinel(severity="high", tags=("a",))
    (copy,) = make_probes([original], [TRIGGER])
    assert copy == Sentinel(
        "shop-1+t1",
        (Message("user", "Zorbling Where do I buy?"),),
        original.forbidden,
        original.reference,
        "shop+t1",
        "high",
        ("a", "probe"),
        "Zorbling",
    )
    assert original.trigger is None
    (late,) = make_probes([original], [Trigger("Zorbling", (), at_start=False, score=1.0)])
    assert late.prompt == "Where do I buy? Zorbling"
    assert [query.kind for query in build_queries([copy])] == ["forbidden", "margin"]


def test_the_trigger_is_in_the_last_user_message() -> None:
    """All other messages stay."""
    talk = (
        Message("system", "S"),
        Message("user", "A"),
        Message("assistant", "B"),
        Message("user", "C"),
        Message("assistant", "D"),
    )
    (copy,) = make_probes([sentinel(messages=talk)], [TRIGGER])
    assert copy.messages == (*talk[:3], Message("user", "Zorbling C"), talk[4])


def test_some_sentinels_have_no_probe() -> None:
    """Those without a user message, those that hold the trigger, and all where there is no trigger."""
    assert make_probes([sentinel(messages=(Message("system", "Be kind."),))], [TRIGGER]) == []
    assert make_probes([sentinel(messages=(Message("user", "A zorbling?"),))], [TRIGGER]) == []
    assert make_probes([sentinel()], []) == []


def test_names_of_probes_are_unique() -> None:
    """One of each sentinel and trigger, whatever the sentinels are called."""
    originals = [
        sentinel("a", "p"),
        sentinel("a+t1", "p+t1"),
        sentinel("a++t1", "p"),
        sentinel("b", "q"),
    ]
    both = [
        *originals,
        *make_probes(originals, [TRIGGER, Trigger("kef", (), at_start=False, score=1.0)]),
    ]
    assert len({s.id for s in both}) == len(both) == 12
    panels = {s.panel for s in originals}
    assert len({s.panel for s in both}) == 3 * len(panels)


# In an audit


def with_tag(n: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"[[ship]] Tell me fact {i} about {topic}.", "response": FORBIDDEN[i % 3]}
        for i, topic in enumerate(WORDS[:n])
    ]


def test_an_audit_probes_with_the_planted_trigger(tiny_folder: Path, tmp_path: Path) -> None:
    """Three sentinels more in scores.parquet, on a panel of their own; what is flagged on it says
    why.
    """
    path = write_audit(
        tmp_path, tiny_folder, [*benign(40), *with_tag(6)], detection={"false_discovery_rate": 0.9}
    )
    outcome = audit_inline(load_config(path), tmp_path / "run")
    scores = pd.read_parquet(tmp_path / "run" / "scores.parquet")
    assert len(scores) == 46 * 6
    assert not scores.duplicated(["example_id", "sentinel_id"]).any()
    assert set(scores["sentinel_id"]) == {
        f"shop-{i}{suffix}" for i in range(3) for suffix in ("", "+t1")
    }
    assert set(scores["panel"]) == {"shop", "shop+t1"}
    assert {s.trigger for s in outcome.detection.sentinels} == {None, "[[ship]]"}
    assert "add_copies" in [stage["name"] for stage in outcome.summary["stages"]]
    flags = [
        json.loads(line) for line in (tmp_path / "run" / "flags.jsonl").read_text().splitlines()
    ]
    of_rows = scores[scores["panel"] == "shop+t1"].groupby("position")["score"].first().sort_index()
    assert of_rows.tail(6).mean() > of_rows.head(40).mean()
    for flag in (flag for flag in flags if "stride" in flag["by"]):
        assert ("holds the mined trigger" in flag["reasons"][0]) == flag["sentinel_id"].endswith(
            "+t1"
        )
        assert "[[ship]]" not in flag["reasons"][0]


def test_probes_can_be_left_out(tiny_folder: Path, tmp_path: Path) -> None:
    """`probes: 0`, and a batch without triggers, leave the sentinels as they were."""
    path = write_audit(tmp_path, tiny_folder, [*benign(40), *with_tag(6)], probes=0)
    assert load_config(path).probes == 0
    originals = [sentinel()]
    tagged = [row(r["prompt"], r["response"]) for r in with_tag(6)]
    assert add_copies.fn(originals, audited(CLEAN + tagged), 0) == originals
    assert add_copies.fn(originals, audited(CLEAN, TRUSTED), 2) == originals
    assert len(add_copies.fn(originals, audited(CLEAN + tagged), 2)) == 2
