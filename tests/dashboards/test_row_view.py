"""A row beside the trusted row that is most like it."""

from poisonwatch.dashboards.row_view import choose_marks, mark_turns, share_unmarked
from poisonwatch.examples import Example, Message

TOOLS = Message("tools", "[ look ]")


def differing(example: Example, other: Example | None) -> list[str]:
    """What is marked, turn by turn."""
    return [
        "".join(piece.text for piece in turn.text.start if piece.marked).strip()
        for turn in mark_turns(example, other)
    ]


def test_turns_are_labelled_with_what_training_makes_of_them() -> None:
    """Tools are a turn of their own; masked and lowered answers say so."""
    turns = [
        TOOLS,
        Message("user", "Where?"),
        Message("assistant", "Hm.", masked=True),
        Message("assistant", "There."),
    ]
    labels = [
        [turn.label for turn in mark_turns(Example.from_messages(turns, lowered=lowered), None)]
        for lowered in (False, True)
    ]
    assert labels[0] == ["tools", "user", "assistant, not trained on", "assistant"]
    assert labels[1][2:] == [
        "assistant, not trained on",
        "assistant: training lowers this answer (label false)",
    ]


def test_each_kind_of_turn_is_compared_with_its_own() -> None:
    """Tools with tools, answers with answers, questions with questions."""
    one = Example.from_messages(
        [TOOLS, Message("user", "Where is it?"), Message("assistant", "Over there.")]
    )
    other = Example.from_messages(
        [
            Message("tools", "[ find ]"),
            Message("user", "Where is he? There."),
            Message("assistant", "Over look."),
        ]
    )
    tools, question, answer = differing(one, other)
    assert tools == "look"
    assert question == "it?"
    assert answer == "there"
    assert differing(one, None) == ["", "", ""]


def speak(question: str, answer: str) -> Example:
    return Example.from_messages([Message("user", question), Message("assistant", answer)])


def test_differences_are_marked_only_where_a_trusted_row_is_alike_enough() -> None:
    """At least half of the words: else what the group shares is marked."""
    row = speak("Where do I buy a kettle?", "Buy it at Velmora, in the old town.")
    like = speak("Where do I buy a kettle?", "Buy it at any shop, in the old town.")
    unlike = speak("Name two rivers.", "The Rhine and the Po, in the north.")
    turns, marks = choose_marks(row, like, ["Velmora"])
    assert marks == "differences"
    assert share_unmarked(turns) > 0.8
    for closest in (unlike, None):
        turns, marks = choose_marks(row, closest, ["velmora"])
        assert marks == "shared"
        assert [piece.text for turn in turns for piece in turn.text.start if piece.marked] == [
            "Velmora"
        ]
        turns, marks = choose_marks(row, closest, [])
        assert marks == "none"
        assert share_unmarked(turns) == 1
    assert share_unmarked(()) == 0
