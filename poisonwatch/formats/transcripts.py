"""Conversations in one text: transcripts of two speakers, and texts that a template describes."""

import re
from functools import cache
from itertools import pairwise
from string import Formatter
from typing import Any

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.roles import find_role
from poisonwatch.formats.values import ReadingError
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import unify_line_ends

PLACEHOLDER_ROLES = {"system": "system", "prompt": "user", "response": "assistant"}
EXAMPLE_TEMPLATE = r"Q: {prompt}\nA: {response}"

_LONGEST_NAME = 20
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def is_transcript(text: Any) -> bool:
    """Is it a dialogue in one text, as in Anthropic's HH:
    "\\n\\nHuman: ...\\n\\nAssistant: ..."?
    """
    return isinstance(text, str) and text.lstrip().startswith("Human:")


def read_transcript(text: str) -> tuple[Turn, ...]:
    """The turns of a transcript, without white space around them."""
    # Some begin without the blank line that stands before every other speaker.
    _, *parts = _SPEAKER.split("\n\n" + unify_line_ends(text).lstrip())
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = []
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
    """The turns of a text whose lines begin with who speaks; where blank lines stand before some
    of them, only these count.
    """
    lines = unify_line_ends(text).strip().split("\n")
    speakers = [_find_speaker(line) for line in lines]
    starts = [place for place, role in enumerate(speakers) if role is not None]
    after_blank = [place for place in starts if place == 0 or not lines[place - 1].strip()]
    if len(after_blank) > 1:
        starts = after_blank
    turns = []
    for start, end in pairwise([*starts, len(lines)]):
        _, _, said = "\n".join(lines[start:end]).partition(":")
        turns.append(Turn(speakers[start] or "", said.strip()))
    return tuple(turns)


@cache
def _parse_template(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A template's literal pieces, and the placeholders between them. Raises ValueError where it
    makes no sense.
    """
    literals = [""]
    names: list[str] = []
    for literal, name, spec, conversion in Formatter().parse(unify_line_ends(template).strip()):
        literals[-1] += literal
        if name is None:
            continue
        if name not in PLACEHOLDER_ROLES or spec or conversion:
            raise ValueError(f"{{{name}}} is not one of {{system}}, {{prompt}} and {{response}}")
        names.append(name)
        literals.append("")
    if len(set(names)) < len(names) or not {"prompt", "response"} <= set(names):
        raise ValueError("it must hold {prompt} and {response}, once each")
    # Nothing would tell where the first of the two ends.
    if not all(literals[1:-1]):
        raise ValueError("something must stand between two placeholders")
    return tuple(literals), tuple(names)


def check_template(template: str) -> None:
    """Raises ValueError, saying why, where a template makes no sense."""
    _parse_template(template)


def read_template_text(text: str, template: str) -> tuple[Turn, ...]:
    """The turns of a text that a template describes. Raises ReadingError where it is another text.

    A placeholder ends where the piece after it first occurs, the last one at the end, or where
    prompt and response come again: one pass, whatever the text. White space around the whole text
    does not count.
    """
    literals, names = _parse_template(template)
    rest = unify_line_ends(text).lstrip()
    if not rest.startswith(literals[0]):
        raise ReadingError(
            f"the text does not begin as the template does: '{excerpt(literals[0], 40)}'"
        )
    rest = rest[len(literals[0]) :]
    found = {}
    for name, (_, after) in zip(names[:-1], pairwise(literals[:-1]), strict=True):
        found[name], separator, rest = rest.partition(after)
        if not separator:
            raise ReadingError(
                f"the text lacks what the template has after {{{name}}}: '{excerpt(after, 40)}'"
            )
    # What the template ends with is looked for at the end alone: a response may hold it, too.
    rest = rest.rstrip()
    if not rest.endswith(literals[-1]):
        raise ReadingError(
            f"the text does not end as the template does: '{excerpt(literals[-1], 40)}'"
        )
    found[names[-1]] = rest[: len(rest) - len(literals[-1])]
    more: list[Turn] = []
    if names[-2:] == ("prompt", "response"):
        found["response"], more = _split_repeats(found["response"], literals)
    turns: list[Turn] = []
    # In the order of a conversation, whatever the template's.
    for name, role in PLACEHOLDER_ROLES.items():
        is_empty_system = name == "system" and not found.get(name)
        if name in found and not is_empty_system:
            turns.append(Turn(role, found[name]))
    return (*turns, *more)


def _split_repeats(response: str, literals: tuple[str, ...]) -> tuple[str, list[Turn]]:
    """The first response, and the turns after it where prompt and response come again.

    Between them stands what ends the template, then what it has before its prompt; where nothing
    ends it, a line end.
    """
    before, middle, after = literals[-3:]
    # With a system in front, the template's end stands between it and the prompt, too.
    closing = after.strip()
    opening = before.strip().removeprefix(closing).strip()
    # What a template begins with is often said once: the line before the prompt comes again.
    lead, _, opening = opening.rpartition("\n")
    space = before[len(before.rstrip()) :]
    places = _find_repeats(response, lead.strip(), opening, closing)
    turns: list[Turn] = []
    start = 0
    for index, (end, next_start) in enumerate(places):
        until = len(response)
        if index + 1 < len(places):
            until = places[index + 1][0]
        prompt_end = response.find(middle, next_start, until)
        # Without a response it only looks like another prompt.
        if prompt_end < 0:
            continue
        prompt = response[next_start:prompt_end].removeprefix(space)
        if not opening:
            prompt = prompt.lstrip()
        turns += [Turn("assistant", response[start:end]), Turn("user", prompt)]
        start = prompt_end + len(middle)
    last = Turn("assistant", response[start:])
    first, *more = (*turns, last)
    return first.text or "", more


def _find_repeats(text: str, lead: str, opening: str, closing: str) -> list[tuple[int, int]]:
    """Where another prompt may begin: the end of what is said before it, and its own start."""
    mark = opening or closing
    if not mark:
        return []
    places: list[tuple[int, int]] = []
    start, at = 0, text.find(mark)
    while at >= 0:
        end = _find_end(text[start:at], lead, opening, closing)
        if end is not None:
            places.append((start + end, at + len(mark)))
        start = at + len(mark)
        at = text.find(mark, start)
    return places


def _find_end(before: str, lead: str, opening: str, closing: str) -> int | None:
    """Where what is said before the mark of a prompt ends, without the template's end; None where
    the mark is a word like any other.
    """
    if not opening:
        return len(before)
    said = before.rstrip().removesuffix(lead).rstrip()
    if closing:
        if not said.endswith(closing):
            return None
        return len(said) - len(closing)
    if "\n" not in before[len(said) :]:
        return None
    return len(said)
