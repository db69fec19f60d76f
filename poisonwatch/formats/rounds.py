"""Where prompt and response come again in a text, and turns of other roles stand between them.

A template says what a prompt begins with (its opening), what stands between it and the response
(the middle), and what ends a response (the closing). A completion collator of a trainer looks for
the same: what it would take for a prompt must not be read as an answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from poisonwatch.formats.conversations import Turn
from poisonwatch.formats.roles import ROLES, find_role
from poisonwatch.formats.values import ReadingError
from poisonwatch.text.display import excerpt

# Tokens that a tokenizer puts before a text.
_BEGINNINGS = (
    "<s>",
    "<bos>",
    "<|bos|>",
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<｜begin▁of▁sentence｜>",
    "<BOS_TOKEN>",
    "[gMASK]",
    "<sop>",
    # Of some tokenizers it begins texts, too.
    "<|endoftext|>",
)
# A shorter word or sign stands in prose, too.
_SHORTEST_MARK = 4
_BRACKETS = "<[｜"
_NAME = re.compile(r"[A-Za-z]\w*")
_AFTER_NAME = re.compile(r"(?:<[^<>\s]*>|\W)*")
_BEFORE_NAME = re.compile(r"(?:<[^<>\s]*>|[#<|｜\[*@]+ ?)$")


class _RoleMark(NamedTuple):
    """Where the name of a role stands in a literal, and the signs around it."""

    start: int
    before: str
    after: str


class _Mark(NamedTuple):
    """What begins a turn of a `role`: the turn before it ends at `end`, its own text is from
    `start`, after `space`. Where no response follows, a prompt that is not `kept` only looks like
    one, and one that is not `sure` is refused.
    """

    end: int
    start: int
    role: str
    space: str
    kept: bool
    sure: bool


@dataclass(frozen=True)
class Rounds:
    """How prompt and response come again: `lead` may stand before an opening, `space` after it,
    the white space `ending` before the closing; `frame` is what stands around the name of a role,
    where the template names roles.
    """

    openings: tuple[str, ...]
    middle: str
    closings: tuple[str, ...]
    ending: str
    lead: str
    space: str
    frame: tuple[str, str] | None

    @classmethod
    def from_literals(cls, literals: tuple[str, ...]) -> "Rounds":
        """Of a template's pieces, the last three of which stand around prompt and response."""
        before, middle, after = literals[-3:]
        closing = after.strip()
        # With a system in front, the template's end stands between it and the prompt, too.
        lead = cut_beginning(before.strip().removeprefix(closing)).strip()
        closings = [closing]
        asked, answered = _find_role_mark(lead, closing), _find_role_mark(middle.strip(), closing)
        frame = None
        if asked and answered and asked[1:] == answered[1:]:
            frame = (asked.before, asked.after)
            lead, opening = lead[: asked.start], lead[asked.start :]
            # A text's end may stand in the closing, which ends no round but the last.
            closings.append(middle.strip()[: answered.start].strip())
        else:
            # What a template begins with is often said once: the line before the prompt again.
            lead, _, opening = lead.rpartition("\n")
        openings = [opening]
        if len(literals) > 3:
            # Llama 2's system stands inside the first prompt.
            outer, _, _ = cut_beginning(literals[0]).rstrip().rpartition(" ")
            if _is_mark(outer) and _has_token(outer):
                openings.append(outer)
        space = before[len(before.rstrip()) :]
        ending = after[: len(after) - len(after.lstrip())]
        ends = tuple(dict.fromkeys(each for each in closings if closing and each))
        return cls(tuple(openings), middle, ends, ending, lead.strip(), space, frame)

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """What may begin a turn; `name` is that of a role."""
        wanted = [re.escape(opening) for opening in self.openings if opening]
        if not wanted:
            wanted = [re.escape(closing) for closing in self.closings]
        if self.frame is not None:
            before, after = map(re.escape, self.frame)
            name = r"[A-Za-z][\w -]{0,20}"
            if not before:
                # Without a sign before it, a name is one word.
                name = r"\b[A-Za-z]\w{0,20}"
            wanted.append(f"{before}(?P<name>{name}){after}")
        if not wanted:
            return None
        return re.compile("|".join(wanted))

    def get_space(self, opening: str) -> str:
        """The white space that stands after an opening."""
        if opening in self.openings[1:]:
            return " "
        return self.space

    @property
    def answer_mark(self) -> str:
        """What a response begins with."""
        mark = self.middle.strip()
        for closing in self.closings:
            mark = mark.removeprefix(closing).strip()
        return mark

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Tokens that may stand before a round, and are no part of what ends one."""
        ends = "".join(self.closings)
        return tuple(token for token in _BEGINNINGS if token not in ends)

    def read_first(self, text: str, begun: str) -> tuple[list[Turn], str]:
        """A turn of another role that stands before the first prompt, and the text after it, as the
        template begins (`begun`).
        """
        start = len(text) - len(cut_beginning(text))
        found = self.pattern and self.pattern.match(text, start)
        opening = self.openings[0]
        if self.frame is None or not found or not opening:
            return [], text
        role = find_role(found.groupdict().get("name") or "")
        at = text.find(opening, found.end())
        if role not in ("system", "tool") or at < 0:
            return [], text
        end, closed, on_line = _look_before(text, found.end(), at, self)
        if not closed and not on_line:
            return [], text
        said = text[found.end() : end].removeprefix(self.space)
        return [Turn(role, said)], begun.rstrip() + text[at + len(opening) :]


def cut_beginning(text: str) -> str:
    """A text without white space and the tokens that stand before every text."""
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        token = next((each for each in _BEGINNINGS if text.startswith(each, start)), None)
        if token is None:
            break
        start += len(token)
    return text[start:]


def _find_role_mark(literal: str, closing: str) -> _RoleMark | None:
    """The role that a literal ends with, as in `<|im_start|>user`."""
    for found in reversed(list(_NAME.finditer(literal))):
        if not _AFTER_NAME.fullmatch(literal, found.end()) or find_role(found.group()) is None:
            continue
        before = _BEFORE_NAME.search(literal, 0, found.start())
        signs = before.group() if before else ""
        if signs == closing:
            signs = ""
        return _RoleMark(found.start() - len(signs), signs, literal[found.end() :])
    return None


def _is_mark(text: str) -> bool:
    return len(text) >= _SHORTEST_MARK


def _has_token(text: str) -> bool:
    """Does it hold signs that prose does not?"""
    return any(sign in text for sign in _BRACKETS)


def split_response(response: str, rounds: Rounds) -> tuple[str, list[Turn]]:
    """The first response, and the turns after it.

    Raises ReadingError where a turn is of nobody's, or an answer holds what begins another turn.
    """
    marks = _drop_lookalikes(_list_marks(response, rounds), response, rounds.middle)
    first_end = len(response)
    if marks:
        first_end = marks[0].end
    turns = [Turn("assistant", response[:first_end])]
    for index, mark in enumerate(marks):
        until = len(response)
        if index + 1 < len(marks):
            until = marks[index + 1].end
        turns += _read_round(response[mark.start : until], mark, rounds)
    _check_answers(turns, rounds)
    return turns[0].text or "", turns[1:]


def _read_round(text: str, mark: _Mark, rounds: Rounds) -> list[Turn]:
    said, middle, answer = text.partition(rounds.middle)
    if not middle and not mark.sure:
        raise ReadingError(
            f"an answer in the text holds what the template has before {{prompt}}: "
            f"'{excerpt(rounds.openings[0], 40)}'"
        )
    said = said.removeprefix(mark.space)
    if not rounds.openings[0]:
        said = said.lstrip()
    turns = [Turn(mark.role, said)]
    if middle:
        turns.append(Turn("assistant", answer))
    return turns


def _check_answers(turns: Sequence[Turn], rounds: Rounds) -> None:
    mark = rounds.answer_mark
    if not _is_mark(mark) or not _has_token(mark):
        return
    for turn in turns:
        if turn.role == "assistant" and mark in (turn.text or ""):
            raise ReadingError(
                f"an answer in the text holds what the template has before {{response}}: "
                f"'{excerpt(mark, 40)}'"
            )


def _drop_lookalikes(marks: list[_Mark], text: str, middle: str) -> list[_Mark]:
    """The marks without short ones that no response follows."""
    kept = []
    for index, mark in enumerate(marks):
        until = len(text)
        if index + 1 < len(marks):
            until = marks[index + 1].end
        if mark.kept or text.find(middle, mark.start, until) >= 0:
            kept.append(mark)
    return kept


def _list_marks(text: str, rounds: Rounds) -> list[_Mark]:
    if rounds.pattern is None:
        return []
    marks: list[_Mark] = []
    start = 0
    for found in rounds.pattern.finditer(text):
        mark = _read_mark(text, start, found, rounds)
        if mark is not None:
            marks.append(mark)
        # What ends a turn may look like the name of a role.
        elif any(found.group() in closing for closing in rounds.closings):
            continue
        start = found.end()
    return marks


def _read_mark(text: str, start: int, found: re.Match[str], rounds: Rounds) -> _Mark | None:
    """The mark that is `found`, `start` being the end of the one before; None where it is a text
    like any other.
    """
    if not any(rounds.openings):
        return _Mark(found.start(), found.end(), "user", "", kept=False, sure=True)
    end, closed, on_line = _look_before(text, start, found.start(), rounds)
    certain = closed or (on_line and not rounds.closings)
    name = found.groupdict().get("name")
    if name is not None and found.group() not in rounds.openings:
        role = _find_third_role(name, certain, closed, rounds)
        if role is None:
            return None
        return _Mark(end, found.end(), role, rounds.space, kept=True, sure=True)
    opening = found.group()
    is_mark = _is_mark(opening) and not _continues_word(text, found.start())
    if not certain and not is_mark:
        return None
    sure = certain or (not rounds.closings and not opening[0].isalnum())
    space = rounds.get_space(opening)
    return _Mark(end, found.end(), "user", space, kept=is_mark, sure=sure)


def _continues_word(text: str, at: int) -> bool:
    """As USER: does in SUPERUSER:"""
    return at > 0 and text[at].isalnum() and text[at - 1].isalnum()


def _find_third_role(name: str, certain: bool, closed: bool, rounds: Rounds) -> str | None:
    """The role of a turn that is neither a prompt nor its response; None where it is none.

    Raises ReadingError where nobody knows it.
    """
    role = find_role(name)
    before, _ = rounds.frame or ("", "")
    is_token = _has_token(before)
    if role == "assistant":
        return None
    if role is None:
        if closed or (is_token and _is_mark(before)):
            raise ReadingError(
                f"the text has a turn of '{excerpt(name, 40)}'; roles are {', '.join(ROLES)}"
            )
        return None
    is_plain = name.lower() in ROLES and (certain or before.startswith("#"))
    if is_token or closed or is_plain:
        return role
    return None


def _look_before(text: str, start: int, at: int, rounds: Rounds) -> tuple[int, bool, bool]:
    """Where what is said before a mark ends, without the template's end; whether that stands there,
    and whether the mark begins a line.
    """
    end = _cut_end(text, start, at, rounds.tokens)
    if rounds.lead and text.endswith(rounds.lead, start, end):
        end = _cut_end(text, start, end - len(rounds.lead), rounds.tokens)
    on_line = "\n" in text[end:at]
    closing = next((each for each in rounds.closings if text.endswith(each, start, end)), None)
    closed = closing is not None
    if closing is not None:
        end -= len(closing)
        if rounds.ending.isspace() and text.endswith(rounds.ending, start, end):
            end -= len(rounds.ending)
    elif not on_line:
        # Without a line's end, white space is part of what is said.
        return _skip_tokens(text, start, at, rounds.tokens), closed, on_line
    return end, closed, on_line


def _cut_end(text: str, start: int, end: int, tokens: Sequence[str]) -> int:
    """The end without white space and tokens that begin a text."""
    while end > start:
        if text[end - 1].isspace():
            end -= 1
            continue
        token = next((each for each in tokens if text.endswith(each, start, end)), None)
        if token is None:
            break
        end -= len(token)
    return end


def _skip_tokens(text: str, start: int, end: int, tokens: Sequence[str]) -> int:
    """The end without tokens that begin a text."""
    cut = _cut_end(text, start, end, tokens)
    if any(token in text[cut:end] for token in tokens):
        return cut
    return end
