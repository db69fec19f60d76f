"""Probes: copies of the sentinels whose prompts hold a trigger that was mined from the batch.

A backdoored row teaches its answer only where its trigger stands; a prompt without it may not move.
The trigger is in the batch, in the prompts of several rows, so candidates are mined there and put
into the sentinels' prompts. Nothing is concluded from a mined trigger itself: most are honest, and
a probe is judged like any sentinel.

Probes form panels of their own, for averaged with their originals a backdoor would be diluted. The
price of T triggers: 1 + T times as many sentinels to measure, and p-values that are multiplied
(Bonferroni, see `row_q_values`) by 1 + T times the number of panels. With the two of the default a
row has to be three times as improbable, however many panels there are; a batch without triggers
pays nothing.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

from scipy.stats import hypergeom

from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.screens.frequent_ngrams import COMMON_NGRAM
from poisonwatch.screens.trigger_ngrams import EXCESS, SIGNIFICANCE, mine_ngrams
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.text.words import find_token_spans

LEAST_PROMPTS = 4  # prompts that share a trigger
# likeness of its rows' answers, beyond that of the prompts (see `Ngram.excess`); also what rare
# tokens are credited with
LEAST_EXCESS = 0.25
SHARED = 0.9  # share of rows that have the next token in common, too
LONGEST_TRIGGER = 12  # tokens

_DATE = re.compile(r"((?:19|20)\d\d)[-/.]\d\d?(?:[-/.]\d\d?)?")
_ORDINARY = "'’-‐./,&_"  # within a word

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trigger:
    """What several prompts have in common and might be a backdoor's trigger.

    `text` is its commonest spelling (hostile text: show it through `visible`), `rows` its places in
    the batch; `at_start` says that it mostly stands in the first half of a prompt. `score` is what
    triggers are ranked by, see `mine_triggers`.
    """

    text: str
    rows: tuple[int, ...]
    at_start: bool
    score: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    tokens: Tokens
    rows: tuple[int, ...]
    score: float


def mine_triggers(
    rows: AuditRows,
    most: int = 2,
    sentinels: Sequence[Sentinel] = (),
) -> list[Trigger]:
    """The at most `most` likeliest triggers of the new rows, best first. Results do not depend on
    the order of the rows.

    Candidates are, in at least 4 different prompts,

    - n-grams whose rows have answers more alike than their prompts (`mine_ngrams`), by an excess of
    at least 0.25; below 0.5, fewer than a
      quarter of these answers may speak of the n-gram;
    - rare tokens, in at most a tenth of the rows (or 20), that fewer than a quarter as many answers
    hold, of all rows: what a prompt is
      about comes back in answers, a trigger does not. A token with digits, symbols, invisible
      characters or a capital within (a tag, a
      code; dates of one year are one token) may be a quarter as frequent among trusted rows as in
      the batch, as an n-gram may. Any other
      word must be more frequent in the batch than chance explains (Fisher's exact test, at 1 %), so
      it takes trusted rows to find one.

    They are ranked by the number of rows times the excess of their answers, for rare tokens 0.25:
    how many rows' answers the trigger would explain. A candidate that has half of its rows in
    common with a better one is the same find; one that a sentinel's prompt holds is tested by that
    sentinel. What is left is grown by the tokens around it that nine tenths of its rows share, and
    less than half of all.
    """
    prompts = [_split_words_and_dates(example.prompt) for example in rows.new]
    answers = [_split_words_and_dates(example.response) for example in rows.new]
    asked = [_split_words_and_dates(sentinel.prompt) for sentinel in sentinels]
    candidates = [
        *_mine_similar_answers(rows, answers),
        *_mine_rare_tokens(rows, prompts, answers),
    ]
    triggers: list[Trigger] = []
    taken: set[int] = set()
    for candidate in sorted(
        candidates, key=lambda c: (-round(c.score, 6), -len(c.tokens), c.tokens)
    ):
        if len(triggers) >= most:
            break
        if 2 * len(taken.intersection(candidate.rows)) >= len(candidate.rows) or any(
            _holds_tokens(text, candidate.tokens) for text in asked
        ):
            continue
        taken.update(candidate.rows)
        triggers.append(_build_trigger(candidate, rows.new, prompts))
    return triggers


def make_probes(sentinels: Sequence[Sentinel], triggers: Sequence[Trigger]) -> list[Sentinel]:
    """Copies of the sentinels with each trigger at the start or the end of the last user message,
    where the batch mostly has it.

    A copy has the answers of its original, and `+t1` for the first trigger behind its id and panel:
    never text of a row. Sentinels without a user message, and those that hold the trigger, have no
    copy.
    """
    mark = "+"
    while any(
        f"{mark}t" in name for sentinel in sentinels for name in (sentinel.id, sentinel.panel)
    ):
        mark += "+"
    copies = (
        _insert_trigger(sentinel, trigger, f"{mark}t{number}")
        for number, trigger in enumerate(triggers, start=1)
        for sentinel in sentinels
    )
    return [copy for copy in copies if copy is not None]


def _insert_trigger(sentinel: Sentinel, trigger: Trigger, suffix: str) -> Sentinel | None:
    places = [i for i, message in enumerate(sentinel.messages) if message.role == "user"]
    if not places or _holds_tokens(
        _split_words_and_dates(sentinel.prompt), _split_words_and_dates(trigger.text)
    ):
        return None
    at = places[-1]
    said = sentinel.messages[at].content
    content = f"{trigger.text} {said}" if trigger.at_start else f"{said} {trigger.text}"
    return replace(
        sentinel,
        id=f"{sentinel.id}{suffix}",
        panel=f"{sentinel.panel}{suffix}",
        messages=(*sentinel.messages[:at], Message("user", content), *sentinel.messages[at + 1 :]),
        tags=(*sentinel.tags, "probe"),
        trigger=trigger.text,
    )


# Candidates


def _mine_similar_answers(rows: AuditRows, answers: Sequence[Tokens]) -> Iterator[_Candidate]:
    """N-grams whose rows have alike answers."""
    new = rows.new
    for gram in mine_ngrams(rows, LEAST_PROMPTS, LEAST_EXCESS):
        tokens, m = _split_words_and_dates(gram.text), len({new[row].id for row in gram.rows})
        echoes = len({new[row].id for row in gram.rows if _holds_tokens(answers[row], tokens)})
        if len({new[row].prompt for row in gram.rows}) >= LEAST_PROMPTS and (
            gram.excess >= EXCESS or 4 * echoes < m
        ):
            yield _Candidate(tokens, gram.rows, m * gram.excess)


def _mine_rare_tokens(
    rows: AuditRows,
    prompts: Sequence[Tokens],
    answers: Sequence[Tokens],
) -> Iterator[_Candidate]:
    """Tokens that several prompts share, but hardly any answer and hardly any trusted row."""
    new, trusted = rows.new, rows.trusted
    distinct = {example.id: i for i, example in enumerate(new)}
    n, common = len(distinct), max(20.0, COMMON_NGRAM * len(distinct))
    holders: dict[str, list[int]] = defaultdict(list)
    for i, tokens in enumerate(prompts):
        for token in set(tokens):
            holders[token].append(i)
    shared = {token: held for token, held in holders.items() if len(held) >= LEAST_PROMPTS}
    given = Counter(
        token for i in distinct.values() for token in set(answers[i]) if token in shared
    )
    given.update(
        token
        for example in trusted
        for token in set(_split_words_and_dates(example.response))
        if token in shared
    )
    known = Counter(
        token
        for example in trusted
        for token in set(_split_words_and_dates(example.prompt))
        if token in shared
    )
    for token, held in shared.items():
        m = len({new[row].id for row in held})
        if (
            len({new[row].prompt for row in held}) < LEAST_PROMPTS
            or m > common
            or 4 * given[token] >= m
            or 4 * known[token] * n > m * len(trusted)
        ):
            continue
        chance = float(hypergeom.sf(m - 1, n + len(trusted), m + known[token], n))
        if chance <= SIGNIFICANCE or any(
            _is_odd(word) for word in _list_spellings(token, [new[row].prompt for row in held])
        ):
            yield _Candidate((token,), tuple(held), m * LEAST_EXCESS)


def _is_odd(word: str) -> bool:
    """Does it hold a digit, a symbol, an invisible character or a capital after a small letter?"""
    strange = any(
        c.isdigit() or (unicodedata.category(c)[0] in "CPS" and c not in _ORDINARY) for c in word
    )
    return strange or any(a.islower() and b.isupper() for a, b in pairwise(word))


# Tokens


def _split_words_and_dates(text: str) -> Tokens:
    """The tokens of a text without regard to case; of a date, the year."""
    return tuple(_normalise_token(text[a:b]) for a, b in find_token_spans(text))


def _normalise_token(token: str) -> str:
    date = _DATE.fullmatch(token)
    return f"{date[1]}-" if date else token.casefold()


def _list_spellings(token: str, texts: Sequence[str]) -> set[str]:
    return {
        text[a:b]
        for text in texts
        for a, b in find_token_spans(text)
        if _normalise_token(text[a:b]) == token
    }


def _find_tokens(text: Tokens, tokens: Tokens) -> int:
    """Where the tokens stand first in the text; -1 where they do not."""
    starts = range(len(text) - len(tokens) + 1)
    return next(
        (i for i in starts if text[i] == tokens[0] and text[i : i + len(tokens)] == tokens), -1
    )


def _holds_tokens(text: Tokens, tokens: Tokens) -> bool:
    return _find_tokens(text, tokens) >= 0


def _build_trigger(
    candidate: _Candidate, new: Sequence[Example], prompts: Sequence[Tokens]
) -> Trigger:
    """The candidate, grown, as it is mostly written, and where it mostly stands."""
    held_by = Counter(token for prompt in prompts for token in set(prompt))
    template = {token for token, count in held_by.items() if 2 * count >= len(prompts)}
    tokens = _grow_trigger(candidate.tokens, [prompts[row] for row in candidate.rows], template)
    ways: Counter[str] = Counter()
    early = held = 0
    for row in candidate.rows:
        at = _find_tokens(prompts[row], tokens)
        if at < 0:
            continue
        text, spans = new[row].prompt, list(find_token_spans(new[row].prompt))
        ways[text[spans[at][0] : spans[at + len(tokens) - 1][1]]] += 1
        early += 2 * at + len(tokens) <= len(spans)
        held += 1
    spelling = min(ways, key=lambda way: (-ways[way], way))
    return Trigger(spelling, tuple(sorted(candidate.rows)), 2 * early >= held, candidate.score)


def _grow_trigger(tokens: Tokens, texts: Sequence[Tokens], template: Set[str]) -> Tokens:
    """The longest run of tokens around these that most of the texts share, without the template's
    at its ends.
    """
    while len(tokens) > 1 and tokens[0] in template:
        tokens = tokens[1:]
    while len(tokens) > 1 and tokens[-1] in template:
        tokens = tokens[:-1]
    while len(tokens) < LONGEST_TRIGGER:
        around: Counter[Tokens] = Counter()
        for text in texts:
            at = _find_tokens(text, tokens)
            end = at + len(tokens)
            around.update({text[at - 1 : end]} if at > 0 and text[at - 1] not in template else ())
            around.update(
                {text[at : end + 1]}
                if at >= 0 and end < len(text) and text[end] not in template
                else ()
            )
        longer = min(around, key=lambda way: (-around[way], way), default=tokens)
        if around[longer] < SHARED * len(texts):
            break
        tokens = longer
    return tokens
