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

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

from scipy.stats import hypergeom

from poisonwatch.examples import AuditRows, Example, Message, iterate_ids
from poisonwatch.screens.frequent_ngrams import COMMON_NGRAM, COMMON_TEXTS
from poisonwatch.screens.tokens import (
    Tokens,
    choose_commonest,
    find_tokens,
    holds_tokens,
    list_spellings,
    slice_tokens,
    split_tokens_and_years,
)
from poisonwatch.screens.trigger_ngrams import EXCESS, LEAST_EXCESS, SIGNIFICANCE, NgramMine
from poisonwatch.sentinels.sentinel import Sentinel, choose_mark

LEAST_PROMPTS = 4  # prompts that share a trigger
SHARED = 0.9  # share of rows that have the next token in common, too
LONGEST_TRIGGER = 12  # tokens

_ORDINARY = "'’-‐./,&_"  # within a word


@dataclass(frozen=True, slots=True)
class Trigger:
    """What several prompts have in common and might be a backdoor's trigger.

    `text` is its commonest spelling (hostile text: show it through `make_visible`), `rows` its
    places in the batch; `at_start` says that it mostly stands in the first half of a user's turn.
    `score` is what triggers are ranked by, see `mine_triggers`.
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
    mine: NgramMine | None = None,
) -> list[Trigger]:
    """The at most `most` likeliest triggers of the new rows, best first. Results do not depend on
    the order of the rows. `mine`: the rows' n-grams, where others ask for them, too.

    Candidates are, in at least 4 different prompts,

    - n-grams whose rows have answers more similar than their prompts (`mine_ngrams`), by an excess
      of at least 0.25; below 0.5, fewer than a quarter of these answers may speak of the n-gram;
    - rare tokens, in at most a tenth of the rows (or 20), that fewer than a quarter as many answers
      hold, of all rows: what a prompt is about comes back in answers, a trigger does not. A token
      with digits, symbols, invisible characters or a capital within (a tag, a code; dates of one
      year are one token) may be a quarter as frequent among trusted rows as in the batch, as an
      n-gram may. Any other word must be more frequent in the batch than chance explains (Fisher's
      exact test, at 1 %), so it takes trusted rows to find one.

    They are ranked by the number of rows times the excess of their answers, for rare tokens 0.25:
    how many rows' answers the trigger would explain. A candidate that has half of its rows in
    common with a better one is the same find; one that a sentinel's prompt holds is tested by that
    sentinel. What is left is grown by the tokens around it that nine tenths of its rows share, and
    less than half of all.
    """
    if most < 1:
        return []
    shared = _SharedTokens.read(rows.new)
    asked = [split_tokens_and_years(sentinel.prompt) for sentinel in sentinels]
    candidates = [
        *_mine_similar_answers(rows, mine or NgramMine(rows)),
        *_mine_rare_tokens(rows, shared),
    ]
    # Rounded, for sums over rows in another order differ in the last digits.
    candidates.sort(key=lambda found: (-round(found.score, 6), -len(found.tokens), found.tokens))
    triggers: list[Trigger] = []
    taken: set[int] = set()
    for candidate in candidates:
        if len(triggers) >= most:
            break
        if 2 * len(taken.intersection(candidate.rows)) >= len(candidate.rows):
            continue
        if any(holds_tokens(text, candidate.tokens) for text in asked):
            continue
        taken.update(candidate.rows)
        triggers.append(_build_trigger(candidate, rows.new, shared.template))
    return triggers


def make_probes(sentinels: Sequence[Sentinel], triggers: Sequence[Trigger]) -> list[Sentinel]:
    """Copies of the sentinels with each trigger at the start or the end of the last user message,
    where the batch mostly has it.

    A copy has the answers of its original, and `+t1` for the first trigger behind its id and panel:
    never text of a row. Sentinels without a user message, and those that hold the trigger, have no
    copy.
    """
    mark = choose_mark(sentinels, "t")
    copies = []
    for number, trigger in enumerate(triggers, start=1):
        for sentinel in sentinels:
            copy = _insert_trigger(sentinel, trigger, f"{mark}{number}")
            if copy is not None:
                copies.append(copy)
    return copies


def _insert_trigger(sentinel: Sentinel, trigger: Trigger, suffix: str) -> Sentinel | None:
    """A sentinel's copy that holds the trigger; None where it has no place, or is there."""
    messages = list(sentinel.messages)
    places = [i for i, message in enumerate(messages) if message.role == "user"]
    if not places:
        return None
    if holds_tokens(split_tokens_and_years(sentinel.prompt), split_tokens_and_years(trigger.text)):
        return None
    last = places[-1]
    parts = [messages[last].content, trigger.text]
    if trigger.at_start:
        parts.reverse()
    messages[last] = Message("user", " ".join(parts))
    return replace(
        sentinel,
        id=f"{sentinel.id}{suffix}",
        panel=f"{sentinel.panel}{suffix}",
        messages=tuple(messages),
        tags=(*sentinel.tags, "probe"),
        trigger=trigger.text,
    )


# Candidates


def _mine_similar_answers(rows: AuditRows, mine: NgramMine) -> Iterator[_Candidate]:
    """N-grams whose rows have similar answers."""
    for gram in mine.list_ngrams():
        m, prompts = _count_different(rows.new, gram.rows)
        if prompts < LEAST_PROMPTS:
            continue
        tokens = split_tokens_and_years(gram.text)
        # Answers that speak of the n-gram are similar because of what they are about.
        echoing = []
        for row in gram.rows:
            if holds_tokens(split_tokens_and_years(rows.new[row].response), tokens):
                echoing.append(row)
        echoes, _ = _count_different(rows.new, echoing)
        if gram.excess >= EXCESS or 4 * echoes < m:
            yield _Candidate(tokens, gram.rows, m * gram.excess)


@dataclass(frozen=True, slots=True)
class _SharedTokens:
    """The tokens of n prompts: those that some share, not too many, with their places (`held`), and
    those that at least half of all prompts hold, a form that they were written by (`template`).
    """

    held: Mapping[str, Sequence[int]]
    template: Set[str]

    @classmethod
    def read(cls, examples: Sequence[Example]) -> "_SharedTokens":
        """Two passes: what most tokens of a million prompts are found in need not be kept."""
        counts: Counter[str] = Counter()
        for example in examples:
            counts.update(set(split_tokens_and_years(example.prompt)))
        n = len(examples)
        template = {token for token, count in counts.items() if 2 * count >= n}
        # Copies count once later: of all places, too many for a token are more than these.
        most = max(float(COMMON_TEXTS), COMMON_NGRAM * n)
        copies = n - len(set(iterate_ids(examples)))
        wanted = {
            token for token, count in counts.items() if LEAST_PROMPTS <= count <= most + copies
        }
        del counts
        held: dict[str, array[int]] = {}
        for place, example in enumerate(examples):
            for token in wanted.intersection(split_tokens_and_years(example.prompt)):
                held.setdefault(token, array("q")).append(place)
        return cls(held, template)


def _mine_rare_tokens(rows: AuditRows, shared: _SharedTokens) -> Iterator[_Candidate]:
    """Tokens that several prompts share, but hardly any answer and hardly any trusted row."""
    tokens = shared.held.keys()
    given, known = Counter[str](), Counter[str]()
    # Rows that are repeated count once.
    seen: set[str] = set()
    for example in rows.new:
        if example.id not in seen:
            seen.add(example.id)
            given.update(tokens & set(split_tokens_and_years(example.response)))
    n, n_trusted = len(seen), len(rows.trusted)
    common = max(float(COMMON_TEXTS), COMMON_NGRAM * n)
    for example in rows.trusted:
        given.update(tokens & set(split_tokens_and_years(example.response)))
        known.update(tokens & set(split_tokens_and_years(example.prompt)))
    for token, held in shared.held.items():
        # What answers speak of is a topic: most tokens end here, before a row is looked at.
        if 4 * given[token] >= len(held):
            continue
        m, different = _count_different(rows.new, held)
        if different < LEAST_PROMPTS or m > common:
            continue
        # What trusted prompts hold as often is no news.
        if 4 * given[token] >= m or 4 * known[token] * n > m * n_trusted:
            continue
        chance = float(hypergeom.sf(m - 1, n + n_trusted, m + known[token], n))
        if chance <= SIGNIFICANCE or _is_ever_odd(token, rows.new, held):
            yield _Candidate((token,), tuple(held), m * LEAST_EXCESS)


def _count_different(new: Sequence[Example], places: Iterable[int]) -> tuple[int, int]:
    """How many different examples, and how many different prompts, are at these places."""
    ids, prompts = set(), set()
    for place in places:
        ids.add(new[place].id)
        prompts.add(new[place].prompt)
    return len(ids), len(prompts)


def _is_ever_odd(token: str, new: Sequence[Example], places: Sequence[int]) -> bool:
    """Is the token written as no ordinary word is, in any of these prompts?"""
    spellings: set[str] = set()
    for place in places:
        spellings |= list_spellings(token, new[place].prompt)
    return any(map(_is_odd, spellings))


def _is_odd(word: str) -> bool:
    """Does it hold a digit, a symbol, an invisible character or a capital after a small letter?"""
    for c in word:
        # Control and format characters, punctuation and symbols.
        strange = unicodedata.category(c)[0] in "CPS" and c not in _ORDINARY
        if strange or c.isdigit():
            return True
    return any(a.islower() and b.isupper() for a, b in pairwise(word))


# Triggers


def _build_trigger(candidate: _Candidate, new: Sequence[Example], template: Set[str]) -> Trigger:
    """The candidate, grown, as it is mostly written, and where it mostly stands."""
    texts = [split_tokens_and_years(new[row].prompt) for row in candidate.rows]
    tokens = _grow_trigger(candidate.tokens, texts, template)
    ways: Counter[str] = Counter()
    early = held = 0
    for row, text in zip(candidate.rows, texts, strict=True):
        at = find_tokens(text, tokens)
        # A tenth of the rows may lack what the trigger was grown by.
        if at < 0:
            continue
        ways[slice_tokens(new[row].prompt, at, len(tokens))] += 1
        early += _stands_early(tokens, new[row])
        held += 1
    return Trigger(
        text=choose_commonest(ways),
        rows=tuple(sorted(candidate.rows)),
        at_start=2 * early >= held,
        score=candidate.score,
    )


def _stands_early(tokens: Tokens, example: Example) -> bool:
    """Whether a trigger's middle lies before that of the user's turn which holds it, or of the
    whole prompt where none does: what a system says before it moves no place.
    """
    turns = [message.content for message in example.messages if message.role == "user"]
    for turn in (*reversed(turns), example.prompt):
        text = split_tokens_and_years(turn)
        at = find_tokens(text, tokens)
        if at >= 0:
            return 2 * at + len(tokens) <= len(text)
    return False


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
            around.update(_list_longer(tokens, text, template))
        longer = min(around, key=lambda way: (-around[way], way), default=tokens)
        if around[longer] < SHARED * len(texts):
            break
        tokens = longer
    return tokens


def _list_longer(tokens: Tokens, text: Tokens, template: Set[str]) -> list[Tokens]:
    """The tokens with the one before them in the text, and with the one behind."""
    start = find_tokens(text, tokens)
    if start < 0:
        return []
    end = start + len(tokens)
    longer = []
    if start > 0 and text[start - 1] not in template:
        longer.append(text[start - 1 : end])
    if end < len(text) and text[end] not in template:
        longer.append(text[start : end + 1])
    return longer
