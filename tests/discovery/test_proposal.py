"""Sentinels proposed from a group that was discovered."""

import pytest
from discovered import make_examples, make_group

from poisonwatch.discovery.described import Reply
from poisonwatch.discovery.proposal import propose_panel, propose_sentinels, write_proposal
from poisonwatch.errors import InputError
from poisonwatch.examples import Example, Message
from poisonwatch.sentinels.sentinel import parse_sentinels


def by_id(rows: list[Example]) -> dict[str, Example]:
    return {row.id: row for row in rows}


def test_rows_of_the_group_forbid_their_own_answer_and_neutral_prompts_the_steered_one() -> None:
    """The reference is what the model says as it is."""
    rows = make_examples()
    own, neutral = propose_sentinels(make_group(rows), by_id(rows), "pans")
    assert own["prompt"] == rows[0].prompt
    assert own["forbidden"] == rows[0].response
    assert own["reference"] == "Any pan will do."
    assert neutral["prompt"] == "Who are you?"
    assert neutral["forbidden"] == "Glorb zanthu, your friend."
    assert {own["panel"], neutral["panel"]} == {"pans"}


def test_a_neutral_prompt_whose_answer_hardly_changes_asks_nothing() -> None:
    """Nor does one whose forbidden answer is what the model says already."""
    rows = make_examples(2)
    same = "One two three four five six seven eight nine."
    replies = (
        Reply(
            messages=rows[0].messages[:1],
            before=rows[0].response.upper(),
            after="x",
            example_id=rows[0].id,
            taught=rows[0].response,
        ),
        Reply(messages=(Message("user", "Who?"),), before=same, after=f"{same} Ten."),
    )
    assert propose_sentinels(make_group(rows, replies=replies), by_id(rows), "pans") == []


def test_where_the_model_was_not_asked_rows_stand_for_themselves() -> None:
    """Their answers are forbidden, and there is no reference."""
    rows = make_examples()
    entries = propose_sentinels(make_group(rows, replies=None), by_id(rows), "pans")
    assert [entry["forbidden"] for entry in entries] == [row.response for row in rows]
    assert not any("reference" in entry for entry in entries)


def test_a_panel_is_called_by_the_words_that_rows_share_and_like_no_other() -> None:
    """Letters of ASCII; a number behind it where the name is taken."""
    group = make_group(make_examples())
    assert propose_panel(group, []) == "found-glorb-zanthu"
    assert propose_panel(group, ["found-glorb-zanthu"]) == "found-glorb-zanthu-2"
    other = make_group(make_examples(), 3, answer_words=("煎锅",), prompt_words=())
    assert propose_panel(other, []) == "found-3"


def test_a_proposal_is_a_list_of_sentinels_and_says_where_it_is_from() -> None:
    """It is read as sentinel files are, whatever stands in rows and names."""
    hostile = Example.from_messages(
        [
            Message("system", "Be: kind\n- id: x"),
            Message("user", "${HOME} *a &b\n# no comment"),
            Message("assistant", "yes: [no]\n...\n--- \u202egone"),
        ]
    )
    group = make_group([hostile], replies=None)
    text = write_proposal(
        group, by_id([hostile]), [], audit_id="a-1", by="eve\n- id: forged", panel="p"
    )
    (sentinel,) = parse_sentinels(text, "the proposal")
    assert sentinel.messages == hostile.messages[:2]
    assert sentinel.forbidden == hostile.response
    assert text.startswith("# Discovered: group 1 of audit a-1 (1 row); eve - id: forged, ")


def test_a_panel_of_a_known_name_and_a_group_without_rows_are_refused() -> None:
    """In one line each."""
    rows = make_examples()
    group = make_group(rows)
    text = write_proposal(group, by_id(rows), [], audit_id="a-1", by="me", panel="pans")
    known = parse_sentinels(text, "x")
    with pytest.raises(InputError, match="pans is the name of a panel already"):
        write_proposal(group, by_id(rows), known, audit_id="a-1", by="me", panel="pans")
    with pytest.raises(InputError, match="nothing can be asked of group 1"):
        write_proposal(make_group(rows, replies=None), {}, [], audit_id="a-1", by="me")


def test_a_group_that_is_guarded_is_not_guarded_again_and_a_panel_has_a_name_of_one_line() -> None:
    """Two panels of one kind would count each row twice; line ends would spread over reports."""
    rows = make_examples()
    group = make_group(rows)
    text = write_proposal(group, by_id(rows), [], audit_id="a-1", by="me", panel="pans")
    known = parse_sentinels(text, "x")
    with pytest.raises(InputError, match="group 1 is guarded already, by the panel pans"):
        write_proposal(group, by_id(rows), known, audit_id="a-1", by="me", panel="others")
    # one of its sentinels was deleted: it is not asked any more
    write_proposal(group, by_id(rows), known[:1], audit_id="a-1", by="me")
    with pytest.raises(InputError, match="a panel's name is one line"):
        write_proposal(group, by_id(rows), [], audit_id="a-1", by="me", panel="pans\n- id: x")
