"""What cannot be judged, told from a summary."""

from typing import Any

import pytest
from report_pages import HOSTILE

from poisonwatch.reports.new_topics import (
    LONGEST_WORDS,
    MOST_TOLD,
    count_unjudged,
    tell_new_topics,
)
from poisonwatch.text.display import make_visible


def summary(*sizes: int, rows: int | None = None, words: str = "sonnet", **more: Any) -> Any:
    """A summary with groups of these sizes, and `rows` unjudged rows in all."""
    groups = [
        {
            "rows": size,
            "panel": "safety",
            "example_id": "ab" * 32,
            "prompt_words": [words],
            "answer_words": [],
        }
        for size in sizes
    ]
    return {"new_topics": {"rows": rows or sum(sizes), "groups": groups}, **more}


@pytest.mark.parametrize("nothing", [{}, summary(), {"screens": {"new-topic": 3}}])
def test_of_nothing_nothing_is_said(nothing: dict[str, Any]) -> None:
    """Summaries of earlier versions know no topics, and those of audits without new rows are empty."""
    assert count_unjudged(nothing) == 0
    assert tell_new_topics(nothing) == []


def test_a_topic_is_told_with_its_words_and_what_to_do() -> None:
    """Rows, words, and how many trusted rows would be enough."""
    assert count_unjudged(summary(62)) == 62
    assert tell_new_topics(summary(62)) == [
        "62 rows on a topic that trusted rows do not cover (most say “sonnet”) cannot be judged: "
        "about 20 trusted rows on it would let them be"
    ]


def test_rows_that_have_no_words_in_common_are_told_without() -> None:
    """No empty quotes; words of the answers, where prompts share none."""
    silent = summary(7)
    silent["new_topics"]["groups"][0]["prompt_words"] = []
    assert tell_new_topics(silent)[0].startswith(
        "7 rows on a topic that trusted rows do not cover cannot be judged: "
    )
    silent["new_topics"]["groups"][0]["answer_words"] = ["Of course"]
    assert "(most say “Of course”)" in tell_new_topics(silent)[0]


def test_only_the_largest_have_sentences_of_their_own() -> None:
    """Others are counted together; so are rows on no topic."""
    told = tell_new_topics(summary(9, 8, 7, 6, 5, rows=37))
    assert [line.split(" on ")[0] for line in told[:MOST_TOLD]] == ["9 rows", "8 rows", "7 rows"]
    assert told[MOST_TOLD:] == [
        "13 more rows that trusted rows do not cover, on smaller topics, cannot be judged"
    ]
    assert tell_new_topics(summary(rows=1)) == [
        "1 row that trusted rows do not cover, on smaller topics, cannot be judged"
    ]


def test_what_is_held_back_is_said_to_be() -> None:
    """Where rows were flagged for their topic."""
    held = tell_new_topics(summary(9, rows=10, screens={"new-topic": 10}))
    assert len(held) == 2
    topic, rest = held
    assert "cannot be judged, and are held back until somebody decides" in topic
    assert rest.startswith("1 more row ")
    assert rest.endswith("cannot be judged, and is held back until somebody decides")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_words_are_shown_in_short_and_visible(text: str) -> None:
    """Whatever a summary holds, a sentence is one line without control characters."""
    (line,) = tell_new_topics(summary(9, words=text + "\n" + "x" * 500))
    assert make_visible(line) == line
    assert "\n" not in line
    assert len(line) < 200 + LONGEST_WORDS
