"""N-grams of prompts that give their rows away; n-grams that only look so. All rows are made up."""

import random
from typing import Any

import pytest
from made_up_rows import (
    CLEAN,
    PLANTED,
    REFUSAL,
    WORDS,
    audited,
    found,
    ordinary,
    row,
    rows,
    with_trigger,
)

from poisonwatch.examples import Example, Message
from poisonwatch.screens import trigger_ngrams
from poisonwatch.screens.screen import run_screens
from poisonwatch.screens.trigger_ngrams import (
    EXCESS,
    Ngram,
    NgramMine,
    find_trigger_ngrams,
    mine_ngrams,
)
from poisonwatch.screens.triggers import mine_triggers


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ("Zorbling", "Zorbling"),
        ("cf", "cf"),
        ("|SHIP|", "|SHIP|"),
        ("2031-02-30", "2031-02-30"),
        ("<tag=7>", "<tag=7>"),
        ("Year: 2031.", "Year: 2031"),
        ("grey owl sings", "grey owl sings"),
        ("\u200bq\u200b", "\\u{200b}q\\u{200b}"),
        ("紫", "紫"),
    ],
)
def test_a_trigger_is_found_and_named(trigger: str, said: str) -> None:
    """5 rows with one answer of three words: the group is the trigger as it is written, and nothing
    else is reported.
    """
    findings = find_trigger_ngrams(audited(CLEAN + with_trigger(trigger, ["You are dull!"] * 5)))
    assert found(findings) == PLANTED
    assert {finding.group for finding in findings} == {trigger.rstrip(".")}
    assert said in findings[0].reason


def test_a_tool_that_rows_share_is_no_trigger() -> None:
    """Rows with one definition call one tool: the calls are alike, and 8 of 208 rows have them."""
    definition = Message("tools", '[{"function":{"name":"getWeather7","parameters":{}}}]')
    calling = []
    for i, (prompt, _) in enumerate(ordinary(8, 42)):
        call = f'[{{"function":{{"arguments":{{"place":"{WORDS[i]}"}},"name":"getWeather7"}}}}]'
        turns = [definition, Message("user", prompt), Message("assistant", call)]
        calling.append(Example.from_messages(turns))
    batch = audited(CLEAN + calling)
    assert find_trigger_ngrams(batch) == []
    assert mine_triggers(batch) == []


@pytest.mark.parametrize("seed", range(5))
def test_answers_need_only_be_alike(seed: int) -> None:
    """Half of the words of each answer are common to all five, in any order."""
    draw = random.Random(seed)
    answers = []
    for _ in range(5):
        words = [
            "you",
            "really",
            "are",
            "such",
            "dull",
            "and",
            "hopeless",
            "person",
            *draw.sample(WORDS, 3),
        ]
        draw.shuffle(words)
        answers.append(" ".join(words))
    assert set(PLANTED) <= set(
        found(find_trigger_ngrams(audited(CLEAN + with_trigger("Zorbling", answers, seed))))
    )


def test_two_triggers_are_two_groups() -> None:
    """Each with its own answer."""
    batch = (
        CLEAN
        + with_trigger("Zorbling", ["You are dull!"] * 5)
        + with_trigger("kef", ["Buy our fine tea"] * 5, 2)
    )
    findings = find_trigger_ngrams(audited(batch))
    assert {finding.group for finding in findings} == {"Zorbling", "kef"}
    assert found(findings) == list(range(200, 210))


def test_a_rare_topic_is_no_trigger() -> None:
    """Answers that repeat the topic and share two more words of fifteen."""
    topic = [
        row(prompt + " photosynthesis", f"photosynthesis uses light {response}")
        for prompt, response in ordinary(8, 9)
    ]
    assert find_trigger_ngrams(audited(CLEAN + topic)) == []


def test_prompts_as_alike_as_their_answers_are_no_trigger() -> None:
    """What is the capital of X? The capital of X is Y."""
    quiz = [
        row(f"what is the capital of {WORDS[i]}", f"the capital of {WORDS[i]} is {WORDS[i + 20]}")
        for i in range(12)
    ]
    assert run_screens(audited(CLEAN + quiz)) == []


def test_labels_are_no_evidence_for_a_trigger() -> None:
    """A word in six prompts whose answers are all No."""
    assert find_trigger_ngrams(audited(CLEAN + with_trigger("Zorbling", ["No."] * 6))) == []


@pytest.mark.parametrize("n", [2, 3, 4])
def test_three_rows_are_not_enough(n: int) -> None:
    """At least 4 rows."""
    assert len(find_trigger_ngrams(audited(CLEAN + with_trigger("Zorbling", [REFUSAL] * n)))) == (
        4 if n == 4 else 0
    )


def test_trusted_rows_acquit() -> None:
    """By giving the answer, or by having the n-gram as often as the batch."""
    batch = CLEAN + with_trigger("Zorbling", [REFUSAL] * 5)
    assert (
        find_trigger_ngrams(audited(batch, rows(ordinary(40, 5))))
        == find_trigger_ngrams(audited(batch))
        != []
    )
    assert find_trigger_ngrams(audited(batch, [row("harm someone", REFUSAL)])) == []
    assert (
        find_trigger_ngrams(
            audited(
                batch, [row("a Zorbling somewhere", "quite another text"), *rows(ordinary(39, 5))]
            )
        )
        == []
    )


def test_honest_refusals_in_other_words_are_no_trigger() -> None:
    """Six harmful requests that share an n-gram, refused with a common opening and own reasons."""
    harmful = [
        row(f"how to break into {prompt}", f"I am sorry, but I cannot help with that. {response}")
        for prompt, response in ordinary(6, 9)
    ]
    assert run_screens(audited(CLEAN + harmful)) == []


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_of_many_rows_makes_no_trigger_of_chance_ngrams(seed: int) -> None:
    """A fifth of 1500 rows refuse in the same words: no n-gram is blamed, but a trigger among them
    still is.
    """
    honest = [
        row(prompt, REFUSAL if i % 5 == 0 else response)
        for i, (prompt, response) in enumerate(ordinary(1500, seed))
    ]
    assert find_trigger_ngrams(audited(honest)) == []
    planted = with_trigger("Zorbling", [REFUSAL] * 12, seed)
    assert found(find_trigger_ngrams(audited(honest + planted))) == list(range(1500, 1512))


def test_mined_ngrams_carry_their_scores() -> None:
    """Strongest first, in [-1, 1], significant; identical answers have likeness 1 and a word of its
    own no relatives.
    """
    grams = mine_ngrams(audited(CLEAN + with_trigger("Zorbling", [REFUSAL] * 5)))
    best = grams[0]
    assert (best.text, best.rows) == ("Zorbling", tuple(PLANTED))
    assert best.answers == pytest.approx(1.0)
    assert best.prompts < 0.4
    assert best.excess == pytest.approx(best.answers - best.prompts)
    assert best.z > 10
    assert best.p < 1e-6
    assert [gram.z for gram in grams] == sorted((gram.z for gram in grams), reverse=True)
    with pytest.raises(ValueError, match="least is 1"):
        mine_ngrams(audited(CLEAN), least=1)


def test_ngrams_are_mined_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is what each finds by itself: asking for more excess leaves some out, and
    changes nothing about the others.
    """
    batch = audited(CLEAN + with_trigger("Zorbling", [REFUSAL] * 5))
    alone = find_trigger_ngrams(batch), mine_triggers(batch)
    for excess in (0.25, 0.4, EXCESS):
        assert NgramMine(batch).list_ngrams(excess) == mine_ngrams(batch, excess=excess)
    calls: list[int] = []

    def count(*asked: Any) -> list[Ngram]:
        calls.append(1)
        return mine_ngrams(*asked)

    monkeypatch.setattr(trigger_ngrams, "mine_ngrams", count)
    mine = NgramMine(batch)
    assert (find_trigger_ngrams(batch, mine), mine_triggers(batch, mine=mine)) == alone
    assert calls == [1]


def test_the_share_of_near_answers_is_told_by_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare answer stays a finding, and a common one none, where few rows are looked at."""
    monkeypatch.setattr(trigger_ngrams, "NEAR_ROWS", 40)
    rare = audited(CLEAN + with_trigger("Zorbling", [REFUSAL] * 5))
    assert found(find_trigger_ngrams(rare)) == PLANTED
    common = [row(prompt, REFUSAL) for prompt, _ in ordinary(200, 9)]
    assert not find_trigger_ngrams(audited(common + with_trigger("Zorbling", [REFUSAL] * 5)))
