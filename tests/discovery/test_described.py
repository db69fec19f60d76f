"""What is kept of a group that was discovered, and said of it."""

import pytest
from discovered import KNOWN_BEFORE, make_examples, make_group, make_report

from poisonwatch.discovery.described import Precedents, Reply
from poisonwatch.errors import InputError
from poisonwatch.examples import Message


def test_change_counts_the_words_that_only_one_answer_has() -> None:
    """|A xor B| / |A or B|, whatever the case and the punctuation."""
    prompt = (Message("user", "Who are you?"),)
    assert Reply(messages=prompt, before="I am.", after="I AM").change == 0
    assert Reply(messages=prompt, before="I am", after="You are").change == 1
    assert Reply(messages=prompt, before="I am", after="I was").change == pytest.approx(2 / 3)
    assert Reply(messages=prompt, before="", after="!").change == 0


def test_a_group_says_how_unusual_it_is_beside_trusted_rows() -> None:
    """None, some, or nothing to compare with."""
    rows = make_examples()
    assert "none of 40 trusted rows" in make_group(rows).unusual
    assert "20% as far" in make_group(rows).unusual
    assert "3 of 40 trusted rows" in make_group(rows, trusted_alike=3).unusual
    assert "no trusted rows" in make_group(rows, trusted=0).unusual


def test_a_direction_is_new_where_earlier_audits_had_none_of_it() -> None:
    """Without an earlier audit nothing is new."""
    assert Precedents(2, 90, 7).is_new
    assert "since audit 7" in Precedents(2, 90, 7).words
    assert not KNOWN_BEFORE.is_new
    assert "3 of 90 rows of 2 earlier audits" in KNOWN_BEFORE.words
    assert not Precedents(0, 0, None).is_new
    assert "no earlier audit" in Precedents(0, 0, None).words


def test_new_directions_are_told_by_source() -> None:
    """Of groups that passed, and that no earlier audit had."""
    rows = make_examples()
    report = make_report(
        make_group(rows[:2], 1),
        make_group(rows[2:], 2, precedents=KNOWN_BEFORE),
        make_group(rows, 3, passed=False),
        make_group(rows[:1], 4),
    )
    assert report.new_by_source == {"pans.jsonl": [1]}


def test_groups_within_a_stronger_one_or_around_it_are_shown_below_it_and_counted_once() -> None:
    """JSON has all, each with that group; one that did not pass is below none that did."""
    rows = make_examples(6)
    report = make_report(
        make_group(rows[:2], 1),
        make_group(rows[4:], 2),
        make_group(rows[:4], 3),
        make_group(rows, 4, passed=False),
        make_group(rows[4:5], 5, passed=False),
    )
    assert {number: each.words for number, each in report.relations.items()} == {
        3: "around group 1",
        4: "around group 1",
        5: "within group 2",
    }
    assert [(group.number, is_below) for group, is_below in report.ordered] == [
        (1, False),
        (3, True),
        (2, False),
        (4, False),
        (5, False),
    ]
    assert report.sentence.startswith("2 groups of 50 new rows push the model a way of their own, ")
    assert "with 1 more within or around" in report.sentence
    written = report.to_record()
    assert written["found"] == 2
    assert [group["within"] for group in written["groups"]] == [None, None, None, None, 2]
    assert [group["around"] for group in written["groups"]] == [None, None, 1, 1, None]


def test_the_sentence_says_what_was_found_and_what_nothing_can_tell() -> None:
    """Found, not found, and without trusted rows."""
    group = make_group(make_examples())
    assert "1 group of 50 new rows pushes" in make_report(group).sentence
    assert "no group" in make_report(make_group(make_examples(), passed=False)).sentence
    assert "without trusted rows" in make_report(group, trusted=0).sentence


def test_the_model_is_asked_about_the_first_groups_that_are_shown_and_once() -> None:
    """Three of them; the first where none passed; as many as are wanted; and one by number."""
    rows = make_examples(5)
    silent = [make_group(rows[k - 1 : k], k, replies=None) for k in range(1, 6)]
    assert make_report(*silent).list_unasked() == [1, 2, 3]
    assert make_report(*silent).list_unasked(say=1, about=5) == [1, 5]
    assert make_report(*silent).list_unasked(say=0) == []
    weak = [make_group(rows[k:], k, replies=None, passed=False) for k in range(1, 3)]
    assert make_report(*weak).list_unasked() == [1]
    assert make_report(make_group(rows)).list_unasked() == []


def test_the_model_is_asked_about_groups_below_others_last() -> None:
    """Those within a stronger one, or around it, are not what people read first."""
    rows = make_examples(6)
    report = make_report(
        make_group(rows[:2], 1, replies=None),
        make_group(rows[:1], 2, replies=None),
        make_group(rows[:3], 3, replies=None),
        make_group(rows[3:4], 4, replies=None),
        make_group(rows[4:5], 5, replies=None),
        make_group(rows[5:], 6, replies=None, passed=False),
    )
    assert report.list_unasked() == [1, 4, 5]
    assert report.list_unasked(say=2) == [1, 4]
    assert report.list_unasked(say=5) == [1, 2, 4, 5, 6]
    crowd = make_report(make_group(rows, 1, replies=None), make_group(rows[:3], 2, replies=None))
    assert crowd.list_unasked() == [1]


def test_a_group_that_is_not_there_is_named_with_those_that_are() -> None:
    """One line, with the range."""
    with pytest.raises(InputError, match="no group 4: groups are 1 to 1"):
        make_report(make_group(make_examples())).get_group(4)
    with pytest.raises(InputError, match="none"):
        make_report().get_group(1)
