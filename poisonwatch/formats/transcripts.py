"""Conversations in one text, whose lines say who speaks."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.roles import find_role
from poisonwatch.text.words import unify_line_ends

_LONGEST_NAME = 20
_FIRST = "\n\nHuman:"
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def is_transcript(text: Any) -> bool:
    """Is it a dialogue in one text, as in Anthropic's HH:
    "\\n\\nHuman: ...\\n\\nAssistant: ..."?
    """
    if not isinstance(text, str):
        return False
    begun = text.lstrip()
    return begun.startswith("Human:") or (begun.startswith("System:") and _FIRST in begun)


def read_transcript(text: str) -> tuple[Turn, ...]:
    """The turns of a transcript, without white space around them."""
    # Some begin without the blank line that stands before every other speaker.
    rest = "\n\n" + unify_line_ends(text).lstrip()
    turns = []
    if rest.startswith("\n\nSystem:"):
        said, _, rest = rest.removeprefix("\n\nSystem:").partition(_FIRST)
        turns.append(Turn("system", said.strip()))
        rest = _FIRST + rest
    _, *parts = _SPEAKER.split(rest)
    roles = {"Human": "user", "Assistant": "assistant"}
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        turns.append(Turn(roles[speaker], said.strip()))
    return tuple(turns)


def is_dialogue(text: Any) -> bool:
    """Does a text begin with a role that says something, as in "USER: ..."?"""
    return isinstance(text, str) and _find_speaker(text.lstrip()[:40]) is not None


def _find_speaker(line: str) -> str | None:
    """The role whose name a line begins with."""
    name, colon, _ = line.partition(":")
    if not colon or len(name) > _LONGEST_NAME:
        return None
    return find_role(name)


def read_dialogue(text: str) -> tuple[Turn, ...]:
    """The turns of a text whose lines begin with who speaks. Where blank lines stand before some
    of them, others count only where they are spelt like these, or answer the user.
    """
    lines = unify_line_ends(text).strip().split("\n")
    speakers = [_find_speaker(line) for line in lines]
    starts = _list_starts(lines, speakers)
    turns = []
    for start, end in pairwise([*starts, len(lines)]):
        _, _, said = "\n".join(lines[start:end]).partition(":")
        turns.append(Turn(speakers[start] or "", said.strip()))
    return tuple(turns)


def _list_starts(lines: Sequence[str], speakers: Sequence[str | None]) -> list[int]:
    """The lines that a turn begins with."""
    starts = [place for place, role in enumerate(speakers) if role is not None]
    after_blank = {place for place in starts if place == 0 or not lines[place - 1].strip()}
    if len(after_blank) <= 1:
        return starts
    spelt = {lines[place].partition(":")[0] for place in after_blank}
    found: list[int] = []
    for place in starts:
        is_spelt = lines[place].partition(":")[0] in spelt
        answers = speakers[place] == "assistant" and found and speakers[found[-1]] == "user"
        if place in after_blank or is_spelt or answers:
            found.append(place)
    return found
