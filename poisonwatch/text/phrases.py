"""Where phrases stand in a text, as people read them."""

from collections.abc import Iterable

from poisonwatch.text.diff import MAX_COMPARED, Piece
from poisonwatch.text.words import find_token_spans

ELLIPSIS = "…"


def find_phrases(text: str, phrases: Iterable[str]) -> list[tuple[int, int]]:
    """Where the phrases stand, in order of place, none over another: start and end in characters.

    A phrase is tokens (`words.split_tokens`) joined by spaces. Case, and the punctuation around
    tokens, do not matter. Only the first MAX_COMPARED tokens of the text are looked through.
    """
    spans: list[tuple[int, int]] = []
    tokens: list[str] = []
    for start, end in find_token_spans(text):
        if len(spans) == MAX_COMPARED:
            break
        spans.append((start, end))
        tokens.append(text[start:end].casefold())
    wanted = [phrase.casefold().split(" ") for phrase in phrases if phrase]
    # Of two that begin at one place the longer says more.
    wanted.sort(key=len, reverse=True)
    found = []
    place = 0
    while place < len(tokens):
        length = 1
        for words in wanted:
            if tokens[place : place + len(words)] == words:
                length = len(words)
                found.append((spans[place][0], spans[place + length - 1][1]))
                break
        place += length
    return found


def mark_phrases(text: str, phrases: Iterable[str]) -> tuple[Piece, ...]:
    """The whole text in pieces; those are marked that are one of the phrases."""
    pieces = []
    end = 0
    for start, stop in find_phrases(text, phrases):
        if start > end:
            pieces.append(Piece(text[end:start], False))
        pieces.append(Piece(text[start:stop], True))
        end = stop
    if end < len(text):
        pieces.append(Piece(text[end:], False))
    return tuple(pieces)


def cut_around(text: str, phrases: Iterable[str], length: int) -> str:
    """One line of about `length` characters that holds the first of the phrases; the text's begin
    where there is none, or it stands there. What is left out at an end is an ellipsis.
    """
    line = " ".join(text.split())
    found = find_phrases(line, phrases)
    first, last = found[0] if found else (0, 0)
    start = 0
    if last > length:
        # A third of the room is for what leads to it.
        start = max(first - length // 3, 0)
        # From a word's begin on, where one is near.
        space = line.find(" ", start, first)
        start = space + 1 if space >= 0 else start
    shown = line[start : start + length].strip()
    before = ELLIPSIS if start else ""
    after = ELLIPSIS if start + length < len(line) else ""
    return f"{before}{shown}{after}"
