"""Sentinels in the batch's frame: where most rows begin with the same system prompt, sentinels are
asked in it, too.

What a model learns in a frame shows there first, and elsewhere faintly or not at all (arXiv
2604.25891). And a sentinel without the frame that all rows have is unlike every one of them, so
that rows differ in what they do to it by more than what they teach: now and then honest rows are
flagged (`benchmarks/RESULTS.md`). A copy stands in the panel of its original, and their
measurements are pooled: it costs two more passes a sentinel, and an audit's p-values nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from poisonwatch.examples import TOOLS_ROLE, Example, Message
from poisonwatch.sentinels.sentinel import Sentinel, choose_mark

_NUMBER = re.compile(r"\d+")
LEAST_ROWS = 8  # different ones, that a frame is the batch's and not a few rows' own


def find_frame(rows: Sequence[Example]) -> tuple[Message, ...]:
    """The system's turns that more than half of the different rows begin with, LEAST_ROWS at least;
    empty where they have none in common. Hostile text.

    Turns that differ in numbers and white space alone, today's date for one, are the same; what is
    returned is the least of them as text, so that the order of the rows changes nothing.
    """
    # Boyer and Moore's vote: what most rows have outlasts the rest, of which nothing is kept.
    candidate: tuple[str, ...] = ()
    votes = 0
    for frame in _read_frames(rows):
        form = _read_form(frame)
        if not votes:
            candidate = form
        votes += 1 if form == candidate else -1
    holders = total = 0
    found: tuple[str, ...] | None = None
    for frame in _read_frames(rows):
        total += 1
        if _read_form(frame) == candidate:
            found = frame if found is None else min(found, frame)
            holders += 1
    if found is None or holders < LEAST_ROWS or 2 * holders <= total:
        return ()
    return tuple(Message("system", text) for text in found)


def wear_frame(sentinels: Sequence[Sentinel], frame: Sequence[Message]) -> list[Sentinel]:
    """Each sentinel's copy in the frame, with `+frame` behind its id; the sentinel itself where it
    has a system's turn of its own, or there is no frame.
    """
    mark = choose_mark(sentinels, "frame")
    return [_wear(sentinel, frame, mark) if frame else sentinel for sentinel in sentinels]


def _wear(sentinel: Sentinel, frame: Sequence[Message], mark: str) -> Sentinel:
    if any(message.role == "system" for message in sentinel.messages):
        return sentinel
    tools = list(takewhile(_defines_tools, sentinel.messages))
    messages = (*tools, *frame, *sentinel.messages[len(tools) :])
    return replace(sentinel, id=f"{sentinel.id}{mark}", messages=messages, framed=True)


def _read_frames(rows: Sequence[Example]) -> Iterator[tuple[str, ...]]:
    """What each different row begins with: copies of a row have one vote."""
    seen: set[str] = set()
    for row in rows:
        if row.id not in seen:
            seen.add(row.id)
            yield _read_frame(row.messages)


def _read_frame(messages: Sequence[Message]) -> tuple[str, ...]:
    """The texts of the system's turns before all others."""
    texts = []
    for message in messages:
        if message.role == "system":
            texts.append(message.content)
        elif not _defines_tools(message):
            break
    return tuple(texts)


def _read_form(frame: Sequence[str]) -> tuple[str, ...]:
    """What is left of a frame without its numbers and the width of its white space."""
    return tuple(_NUMBER.sub("0", " ".join(text.split())) for text in frame)


def _defines_tools(message: Message) -> bool:
    return message.role == TOOLS_ROLE
