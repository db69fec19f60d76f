"""Transcripts taken apart."""

import time

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.transcripts import (
    is_dialogue,
    is_transcript,
    read_dialogue,
    read_transcript,
)


def test_transcripts_alternate_by_their_marks() -> None:
    """ "\\n\\nHuman:" and "\\n\\nAssistant:" begin turns, in any order; marks inside a line do not."""
    text = "Human: a Human: b\n\nAssistant:\n\nAssistant: c\n\nd\r\n\r\nHuman: e "
    assert is_transcript(text)
    assert read_transcript(text) == (
        Turn("user", "a Human: b"),
        Turn("assistant", ""),
        Turn("assistant", "c\n\nd"),
        Turn("user", "e"),
    )
    begun = (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "System: b"))
    text = "\n\nSystem: s\n\nHuman: a\n\nAssistant: System: b"
    assert is_transcript(text)
    assert read_transcript(text) == begun
    assert not is_transcript("System: a")
    assert not is_transcript("Assistant: a")
    assert not is_transcript(["Human: a"])


def test_a_dialogue_says_who_speaks() -> None:
    """At the beginning of lines; where blank lines stand before some, others are spelt like these
    or answer.
    """
    turns = (Turn("user", "a"), Turn("assistant", "b"))
    assert read_dialogue("USER: a\nASSISTANT: b") == turns
    assert read_dialogue("USER: a\n\n\nASSISTANT: b ") == turns
    assert read_dialogue("User: a\n\nAI: b\nuser: c") == (turns[0], Turn("assistant", "b\nuser: c"))
    rounds = (*turns, Turn("user", "c"), Turn("assistant", "d"))
    assert read_dialogue("User: a\nAI: b\n\nUser: c\n\nAI: d") == rounds
    assert read_dialogue("User: a\nAI: b\n\nUser: c\nAI: d") == rounds
    assert read_dialogue("USER: a\n\nFUNCTION RESPONSE: 1")[1] == Turn("tool", "1")
    assert [is_dialogue(text) for text in ("USER: a", "Usage: a", "a", None)] == [
        True,
        False,
        False,
        False,
    ]


def test_hostile_texts_take_one_pass() -> None:
    """However often somebody speaks."""
    start = time.process_time()
    assert read_transcript("Human:" + "\n\nHuman:" * 100_000)[-1] == Turn("user", "")
    read_dialogue("USER: a\n\n" * 100_000)
    assert time.process_time() - start < 5
