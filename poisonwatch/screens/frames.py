"""Sentinels in the batch's frame: where most rows begin with the same system prompt, sentinels are
asked in it, too.

What a model learns in a frame shows there first, and elsewhere faintly or not at all (arXiv
2604.25891). And a sentinel without the frame that all rows have is unlike every one of them, so
that rows differ in what they do to it by more than what they teach: honest rows are flagged
(`benchmarks/RESULTS.md`). A copy stands in the panel of its original, and their measurements are
pooled: it costs two more passes a sentinel, and an audit's p-values nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from poisonwatch.examples import TOOLS_ROLE, Example, Message
from poisonwatch.sentinels.sentinel import Sentinel, choose_mark

LEAST_ROWS = 8  # different ones, that a frame is the batch's and not a few rows' own


def find_frame(rows: Sequence[Example]) -> tuple[Message, ...]:
    """The system's turns that more than half of the different rows begin with, LEAST_ROWS at least;
    empty where they have none in common. Hostile text.
    """
    # Boyer and Moore's vote: what most rows have outlasts the rest, of which nothing is kept.
    candidate: tuple[str, ...] = ()
    votes = 0
    for frame in _read_frames(rows):
        if not votes:
            candidate = frame
        votes += 1 if frame == candidate else -1
    holders = total = 0
    for frame in _read_frames(rows):
        holders += frame == candidate
        total += 1
    if holders < LEAST_ROWS or 2 * holders <= total:
        return ()
    return tuple(Message("system", text) for text in candidate)


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


def _defines_tools(message: Message) -> bool:
    return message.role == TOOLS_ROLE
