"""What cannot be judged: topics of unjudged rows, and rows that are held back for them."""

import re
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from report_pages import HOSTILE
from topics import NEW, PANELS, judged, made_up

from poisonwatch.config import DetectionConfig
from poisonwatch.detection import new_topics
from poisonwatch.detection.detect import flag_rows
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.new_topics import (
    LEAST_ROWS,
    LONGEST_WORDS,
    ON_ITS_OWN,
    find_held_rows,
    find_new_topics,
    judge_rows,
)
from poisonwatch.examples import AuditRows
from poisonwatch.failures import Attempts
from poisonwatch.flags import make_flag_record
from poisonwatch.reports.new_topics import TRUSTED_NEEDED
from poisonwatch.screens.finding import Finding
from poisonwatch.text.display import make_visible


def test_each_crowd_is_a_topic_with_its_panel_and_words() -> None:
    """Largest first; rows by falling score, the example one of them, what they say in common."""
    detection, topics = judged(sizes=(38, 45))
    assert [topic.panel for topic in topics] == [PANELS[1], PANELS[0]]
    crowds = (("recipe", range(38, 83)), ("sonnet", range(38)))
    for topic, (craft, crowd) in zip(topics, crowds, strict=True):
        assert set(topic.rows) <= set(crowd)
        assert len(topic.rows) >= 0.9 * len(crowd)
        assert topic.example in topic.rows
        highest = detection.scores[list(topic.rows)].max(axis=1)
        assert (np.diff(highest) <= 0).all()
        assert topic.words is not None
        assert craft in topic.words
        assert craft in topic.answer_ngrams[0].text
    assert detection.flags == ()


def test_every_row_of_a_topic_is_unjudged() -> None:
    """No row that is flagged, or whose score is ordinary, is on one."""
    detection, topics = judged(sizes=(38, 45))
    on_topic = [row for topic in topics for row in topic.rows]
    assert len(on_topic) == len(set(on_topic))
    assert detection.unjudged[on_topic].all()


@pytest.mark.parametrize("size", [LEAST_ROWS - 1, LEAST_ROWS])
def test_a_topic_takes_some_rows(size: int) -> None:
    """Unjudged rows that are alike are a topic from LEAST_ROWS on."""
    influence, rows = made_up()
    detection = flag_rows(influence, rows, DetectionConfig())
    unjudged = np.zeros(NEW, dtype=bool)
    unjudged[:size] = True
    # Others that are unjudged and like nothing do not help.
    unjudged[60:62] = True
    topics = find_new_topics(influence, replace(detection, unjudged=unjudged))
    assert [len(topic.rows) for topic in topics] == [size] * (size >= LEAST_ROWS)


def test_trusted_rows_on_the_topic_let_it_be() -> None:
    """With TRUSTED_NEEDED of them no row of the crowd is unjudged, and none is flagged."""
    detection, topics = judged(covered=TRUSTED_NEEDED)
    assert not detection.unjudged[:40].any()
    assert (topics, detection.flags) == ((), ())


def test_where_nothing_is_known_of_likeness_there_are_no_topics() -> None:
    """f = 0."""
    influence, rows = made_up()
    detection = flag_rows(influence, rows, DetectionConfig())
    assert detection.unjudged.sum() >= 36
    unknown = replace(influence, features=influence.features[:, :0])
    assert find_new_topics(unknown, detection) == ()
    assert find_new_topics(unknown, Detection.empty(DetectionConfig())) == ()


@pytest.mark.parametrize("setting", ["release", "hold"])
def test_topics_that_cannot_be_named_cost_no_verdict(
    monkeypatch: pytest.MonkeyPatch, setting: Literal["release", "hold"]
) -> None:
    """The same rows are unjudged, and held or let pass, each on its own."""
    influence, rows = made_up()
    config = DetectionConfig(new_topics=setting)
    whole, _ = judge_rows(influence, rows, config)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(new_topics, "cluster_rows", fail)
    attempts = Attempts()
    found, topics = judge_rows(influence, rows, config, attempts=attempts)
    assert topics == ()
    np.testing.assert_array_equal(found.unjudged, whole.unjudged)
    assert {flag.example.id for flag in found.flags} == {flag.example.id for flag in whole.flags}
    assert len(found.flags) == found.unjudged.sum() * (setting == "hold")
    assert [(failure.part, failure.outcome) for failure in attempts.failures] == [
        ("topics that cannot be judged", "not named")
    ]


def test_only_the_highest_scores_are_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Affinities of MOST_CLUSTERED rows are held at once, and of no more."""
    monkeypatch.setattr(new_topics, "MOST_CLUSTERED", 10)
    detection, (topic,) = judged()
    highest = np.where(detection.unjudged, detection.scores.max(axis=1), -np.inf)
    assert set(topic.rows) == set(np.argsort(-highest)[:10].tolist())


def test_topics_do_not_depend_on_the_order_of_rows() -> None:
    """Permuted rows are on the same topics."""
    influence, rows = made_up(sizes=(38, 45))
    detection, topics = judge_rows(influence, rows, DetectionConfig())
    order = np.random.default_rng(0).permutation(NEW)
    shuffled = AuditRows(tuple(rows.new[i] for i in order), rows.trusted)
    everywhere = np.append(order, np.arange(NEW, len(rows)))
    moved = replace(
        detection,
        rows=shuffled,
        scores=detection.scores[order],
        unjudged=detection.unjudged[order],
    )
    found = find_new_topics(replace(influence, features=influence.features[everywhere]), moved)
    assert [{int(order[row]) for row in topic.rows} for topic in found] == [
        set(topic.rows) for topic in topics
    ]
    assert [int(order[topic.example]) for topic in found] == [topic.example for topic in topics]


def test_released_rows_are_not_flagged_and_held_ones_are() -> None:
    """release: no flag; hold: a flag for each unjudged row, by its topic alone; what cannot be
    judged is the same.
    """
    released, topics = judged("release", sizes=(38, 45))
    held, same = judged("hold", sizes=(38, 45))
    assert topics == same
    np.testing.assert_array_equal(released.unjudged, held.unjudged)
    assert released.flags == ()
    unjudged = {held.examples[i].id for i in np.flatnonzero(held.unjudged)}
    assert {flag.example.id for flag in held.flags} == unjudged
    for flag in held.flags:
        assert flag.held
        assert not flag.by_attribution
        assert make_flag_record(flag)["by"] == ["new-topic"]
        (reason,) = flag.reasons
        assert reason.startswith(("new-topic: does what ", "new-topic: scores beyond trusted "))
        said = re.search(
            r"rows on a topic that trusted rows do not cover \(most say “(.*)”\)", reason
        )
        assert said is None or said[1].startswith(("A sonnet", "A recipe"))
    assert {flag.findings[0].group for flag in held.flags} >= {"topic 1", "topic 2"}


def test_what_screens_and_attribution_found_stays_beside_what_is_held() -> None:
    """A screen's finding on a held row comes first; a row that stands out of its crowd is flagged
    for it, and not held.
    """
    influence, rows = made_up()
    w = influence.w.copy()
    w[:4, 0] += 0.02
    screened = Finding(10, "control-tokens", "g", "spells a token.")
    detection, _ = judge_rows(
        replace(influence, w=w), rows, DetectionConfig(new_topics="hold"), [screened]
    )
    flags = {flag.example.id: flag for flag in detection.flags}
    for i in range(4):
        assert flags[rows.new[i].id].by_attribution
        assert not flags[rows.new[i].id].held
    found = [finding.screen for finding in flags[rows.new[10].id].findings]
    assert found == ["control-tokens", "new-topic"]


def test_a_held_row_without_a_topic_says_so() -> None:
    """It is in a group of its own name, and its reason counts no rows."""
    detection, _ = judged()
    (first, *_) = find_held_rows(detection, ())
    assert first.group == ON_ITS_OWN
    assert first.reason == (
        "scores beyond trusted rows, not far enough beyond the rows most like it: nothing says "
        "whether it should."
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_reasons_show_row_text_in_short_and_visible(text: str) -> None:
    """Whatever the rows have in common, a reason is one visible line."""
    detection, topics = judged("hold", words=text + " x" * 200)
    assert topics
    assert detection.flags
    for reason in {flag.reasons[0] for flag in detection.flags}:
        assert make_visible(reason) == reason
        assert "\n" not in reason
        assert len(reason) < 200 + LONGEST_WORDS
