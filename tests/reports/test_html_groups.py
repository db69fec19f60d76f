"""The report about groups of flagged rows, what steering with them does, and what cannot be judged."""

import dataclasses
import re

import numpy as np
import pytest
from report_pages import (
    Page,
    build,
    build_flag,
    group,
    render,
    topic,
    trusted_rows,
)

from poisonwatch.detection.evidence import ClusterEvidence, Confirmation, Effect, LossChange
from poisonwatch.examples import Example, Message
from poisonwatch.flags import Flag
from poisonwatch.reports.html import (
    MOST_CARDS,
    MOST_FURTHER_FLAGS,
    MOST_GROUPS_SHOWN,
    build_cards,
    render_report,
)
from poisonwatch.reports.new_topics import MOST_TOPICS
from poisonwatch.screens.finding import NEW_TOPIC, Finding


def test_a_group_is_shown_with_what_its_rows_share_and_what_steering_does() -> None:
    """Shared words with their counts, losses before and after, both continuations, and whether that
    confirms the flags.
    """
    flag = build_flag([Message("user", "hello"), Message("assistant", "world")])
    evidence = group(flag, "BadWord")
    page = Page(render_report(*build([flag], trusted=trusted_rows("kind")), [], [evidence]))
    assert "Shared by prompts: BadWord (1 of 1 rows, 0 of 4 others)" in " ".join(page.text.split())
    assert "loss 2.00 to 1.50 nats a token" in page.text
    assert "not confirmed by steering: no sure effect" in page.text
    without = dataclasses.replace(evidence, confirmation=None, unconfirmed="there are 2 rows")
    assert (
        "Not confirmed: there are 2 rows"
        in Page(render_report(*build([flag], trusted=trusted_rows("kind")), [], [without])).text
    )


def steered_page(before: float, after: float, said: str) -> str:
    """The page of a group that takes the loss of "Shop at Velmora." from `before` to `after`, with
    what the model then says.
    """
    flag = build_flag([Message("user", "hello"), Message("assistant", "world")])
    asked = dataclasses.replace(flag.sentinel, forbidden="Shop at Velmora.")
    moved = LossChange(before, after, (before,) * 9)
    effect = Effect(asked, "forbidden", moved, None, "Anywhere.", said)
    evidence = dataclasses.replace(group(flag, "x"), confirmation=Confirmation(0.01, 1, (effect,)))
    return render_report(*build([flag], trusted=trusted_rows("kind")), [], [evidence])


@pytest.mark.parametrize(
    ("said", "harmful"), [("Try Velmora.", True), ("I am not sure.", False), ("Anywhere.", False)]
)
def test_a_reply_is_marked_where_it_says_what_is_forbidden(said: str, harmful: bool) -> None:
    """In a forbidden box, and in words beside the colour, only then."""
    page = steered_page(3.0, 2.0, said)
    assert (said in Page(page).within("forbidden")) is harmful
    assert ("after, in words of the forbidden answer" in page) is harmful


@pytest.mark.parametrize(
    ("after", "outcome", "strong"),
    [
        (2.9, "confirmed by steering: a strong effect", True),
        (2.96, "not confirmed by steering: a weak effect", False),
        (3.1, "not confirmed by steering: no sure effect", False),
    ],
)
def test_a_group_is_marked_by_its_grade(after: float, outcome: str, strong: bool) -> None:
    """Only a strong effect has the colour of harm."""
    page = steered_page(3.0, after, "x")
    assert f">{outcome}</span>" in page
    assert ('class="tag strong"' in page) is strong
    assert ('class="sheet card calm" id="group-1"' in page) is not strong


def singles(n: int, text: str = "x", turns: int = 1) -> tuple[list[Flag], list[ClusterEvidence]]:
    """n flagged rows of some turns, each a group of its own without a confirmation."""
    flags = [build_flag([Message("user", f"row {i}: {text}")] * turns) for i in range(n)]
    alone = [group(flag, "shared") for flag in flags]
    changed = [
        dataclasses.replace(
            of, rows=(i,), example=i, confirmation=None, unconfirmed="there are few rows"
        )
        for i, of in enumerate(alone)
    ]
    return flags, changed


def test_a_flagged_row_names_its_group_and_the_trusted_rows_most_like_it() -> None:
    """The group is a link to where it is shown; a trusted row comes with its text and its similarity."""
    flags, evidence = singles(3)
    page = Page(render_report(*build(flags, trusted=trusted_rows("harmless words")), [], evidence))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert [links.count(f"#group-{number}") for number in (1, 2, 3)] == [
        2,
        2,
        2,
    ]  # on the card, and in the heat map
    assert "harmless words" in page.within("near")
    assert page.within("near").count("similarity 0.50") == 3


def test_a_row_outside_every_group_says_so() -> None:
    """Only so many rows are grouped; the others have cards, too."""
    flags, evidence = singles(2)
    page = Page(render_report(*build(flags, trusted=trusted_rows("kind")), [], evidence[:1]))
    assert page.within("tag").count("in no group") == 1
    assert [
        card.group
        for card in build_cards(build(flags, trusted=trusted_rows("kind"))[1], evidence[:1])
    ] == [1, None]


def test_a_score_is_compared_with_the_trusted_rows_of_its_panel() -> None:
    """By how many it exceeds, of those that p-values were taken against."""
    flag = build_flag([Message("user", "x")], panel="brand")
    summary, detection = build([flag], panels=("safety", "brand"))
    scores = np.column_stack([np.full(1900, 99.0), np.r_[np.zeros(1894), np.full(6, 99.0)]])
    page = Page(render_report(summary, dataclasses.replace(detection, reference_scores=scores), []))
    assert "Of 1,900 trusted rows 6 push as much as this one" in page.within("card")


def test_the_report_opens_with_its_groups() -> None:
    """What is flagged and why comes first; statistics fold away, and come after it."""
    flag = build_flag([Message("user", "hello"), Message("assistant", "world")])
    page = Page(
        render_report(*build([flag], trusted=trusted_rows("kind")), [], [group(flag, "BadWord")])
    )
    sections = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert sections[:5] == ["groups", "flagged", "panels", "heat", "trend"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert [link for link in links if link in ("#groups", "#panels", "#trend")][:3] == [
        "#groups",
        "#panels",
        "#trend",
    ]
    folded = page.within("statistics")
    assert page.within("measures") in folded
    assert f"Training on this row {flag.reason}." in folded
    assert "loss 2.00 to 1.50 nats a token" in folded


def test_the_strongest_flags_have_cards_and_the_others_lines() -> None:
    """In the order of the flags; past that, they are counted."""
    flags, evidence = singles(MOST_CARDS + 3)
    page = Page(render_report(*build(flags, n=300, trusted=trusted_rows("kind")), [], evidence))
    assert page.within("card").count("severity") == MOST_CARDS
    assert re.findall(r"row \d+:", page.within("further")) == [
        f"row {MOST_CARDS + i}:" for i in range(3)
    ]
    assert f"The first {MOST_GROUPS_SHOWN} of {len(evidence)} groups are shown" in page.text
    flags = [
        build_flag([Message("user", str(i))]) for i in range(MOST_CARDS + MOST_FURTHER_FLAGS + 2)
    ]
    assert (
        "The first 1,200 of 1,202 flagged rows are shown" in Page(render(flags, n=len(flags))).text
    )


def test_five_hundred_long_rows_stay_below_five_megabytes() -> None:
    """Rows of many long turns, each its own group."""
    flags, evidence = singles(500, "long words & <more> " * 500, turns=30)
    trusted = [Example.from_messages([Message("user", "long words " * 500)], "trusted")]
    html = render_report(*build(flags, n=600, trusted=trusted), [], evidence)
    assert len(html.encode()) < 5_000_000


def test_rows_that_cannot_be_judged_have_a_section() -> None:
    """How many, on which topics, with what they share and one of them; the outcome does not say
    that all is well.
    """
    summary, detection = build(n=60)
    some = dataclasses.replace(detection, unjudged=np.arange(60) < 12)
    topics = [topic(tuple(range(9)), "sonnet")]
    page = Page(render_report(summary, some, [], topics=topics))
    text = " ".join(page.text.split())
    assert "12 rows score as poison would beside the trusted rows, and do only what" in text
    assert "9 rows on a topic that trusted rows do not cover" in page.within("topic")
    assert "question 0" in page.within("topic")
    assert "Shared by prompts: sonnet (9 of 9 rows, 0 of 4 others)" in text
    assert "They are not flagged; detection: {new_topics: hold}" in text
    assert "but for 12 rows that cannot be judged" in text
    assert "cannot be judged" not in Page(render()).text


def test_only_the_largest_topics_are_shown() -> None:
    """The others are counted."""
    summary, detection = build(n=60)
    some = dataclasses.replace(detection, unjudged=np.ones(60, dtype=bool))
    topics = [topic((i,), f"words {i};") for i in range(MOST_TOPICS + 2)]
    page = Page(render_report(summary, some, [], topics=topics))
    assert page.within("topic").count("Shared by prompts") == MOST_TOPICS
    assert f"The largest {MOST_TOPICS} of {MOST_TOPICS + 2} topics are shown." in page.text


def test_a_held_row_says_why_it_is_there() -> None:
    """Its score does stand out: it is no screen's."""
    finding = Finding(0, NEW_TOPIC, "topic 1", "does what 9 rows do.")
    flag = dataclasses.replace(
        build_flag([Message("user", "x")]), by_attribution=False, findings=(finding,)
    )
    summary, detection = build([flag])
    some = dataclasses.replace(detection, unjudged=np.arange(5) < 1)
    page = Page(render_report(summary, some, []))
    assert "New topic: does what 9 rows do." in page.within("card")
    assert "Held back until somebody decides" in page.within("card")
    assert "screen" not in page.within("card").lower()
    assert "It is held back until somebody decides." in " ".join(page.text.split())


def test_the_heat_map_says_in_numbers_what_its_colours_say() -> None:
    """A cell has the class of its value and the value itself; what is left out is counted."""
    flags, evidence = singles(14)
    summary, detection = build(flags, n=20, trusted=trusted_rows("kind"))
    detection.coefficients[0, 0], detection.coefficients[1, 0] = 12.34, -2.0
    page = Page(render_report(summary, detection, [], evidence))
    table = page.within("heat")
    assert "safety-1" in table
    assert "+12.3" in page.within("h6")
    assert "-2.0" in page.within("h2")
    assert "0 less moved sentinels, 2 smaller groups" in " ".join(page.text.split())
