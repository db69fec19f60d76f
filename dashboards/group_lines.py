"""What the line of a group says of it in a list: the words that its rows share, its worst row, what
the second look found, where it comes from, and since when it waits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request

from poisonwatch.dashboards.pages import get_desk
from poisonwatch.errors import RunError
from poisonwatch.flags import read_flagged_example
from poisonwatch.ledger.group_fronts import GroupFront, load_fronts
from poisonwatch.ledger.history import find_by_audit_id
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import FlaggedGroup
from poisonwatch.run_directory import read as readback
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.seals import find_seal
from poisonwatch.text.diff import Piece
from poisonwatch.text.durations import tell_duration
from poisonwatch.text.phrases import cut_around, mark_phrases

LONGEST_PROMPT = 90  # characters of the worst row's question
LONGEST_ANSWER = 140  # and of its answer
LONGEST_LOOKED_AT = 20_000  # characters of a text in which the shared words are looked for
DAY, WEEK = timedelta(days=1), timedelta(days=7)
# What a second look came to: a line's words for the grade of a confirmation.
SECOND_LOOKS = {"strong": "strong effect", "weak": "weak effect", "none": "no sure effect"}
NOT_ASKED, NOT_KNOWN = "not asked", "not known"


@dataclass(frozen=True, slots=True)
class SharedPhrase:
    """Words that `inside` of the group's `rows` share, in their `side`: answers or prompts."""

    text: str
    side: str
    inside: int
    rows: int


@dataclass(frozen=True, slots=True)
class GroupLine:
    """What a list says of a group: `prompt` and `answer` are excerpts of its worst row (the
    strongest), with the phrases marked; `second_look` is one of SECOND_LOOKS, or why there is none.
    """

    phrases: tuple[SharedPhrase, ...]
    prompt: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    second_look: str
    confirmed: bool
    source: str
    further_files: int
    age: str


def describe_groups(
    request: Request, groups: Iterable[FlaggedGroup]
) -> dict[tuple[str, str], GroupLine]:
    """What a list says of each group, by audit id and key."""
    groups = list(groups)
    ledger = get_desk(request).ledger
    fronts = load_fronts(ledger, groups)
    evidence_of = {audit_id: _read_evidence(ledger, audit_id) for audit_id in _list_audits(groups)}
    now = datetime.now(UTC)
    lines = {}
    for group in groups:
        place = group.audit_id, group.key
        lines[place] = _describe(group, fronts[place], evidence_of[group.audit_id], now)
    return lines


def _list_audits(groups: Iterable[FlaggedGroup]) -> list[str]:
    return list(dict.fromkeys(group.audit_id for group in groups))


def _read_evidence(ledger: Ledger, audit_id: str) -> tuple[Mapping[str, Any], ...] | None:
    """The lines of an audit's evidence.jsonl; None where they are gone, or are not what the audit
    wrote: the group's own page says which.
    """
    past = find_by_audit_id(ledger, audit_id)
    if past is None or not past.run_dir.is_dir():
        return None
    try:
        require_unchanged(past.run_dir, "evidence.jsonl", seal=find_seal(ledger, audit_id))
        found = readback.read_evidence(past.run_dir)
    except RunError:
        return None
    return found or None


def _describe(
    group: FlaggedGroup,
    front: GroupFront,
    evidence: tuple[Mapping[str, Any], ...] | None,
    now: datetime,
) -> GroupLine:
    of_group: Mapping[str, Any] | None = None
    if evidence is not None and group.number is not None and group.number <= len(evidence):
        of_group = evidence[group.number - 1]
    phrases = find_shared_phrases(of_group)
    texts = list_shared_words(of_group)
    example = read_flagged_example(front.record)
    prompt = cut_around(example.prompt[:LONGEST_LOOKED_AT], texts, LONGEST_PROMPT)
    answer = cut_around(example.response[:LONGEST_LOOKED_AT], texts, LONGEST_ANSWER)
    # A row in no group never had a second look; of a group whose evidence is gone nobody knows.
    second_look, confirmed = NOT_ASKED, False
    if of_group is not None:
        second_look, confirmed = describe_second_look(of_group["confirmation"])
    elif group.number is not None:
        second_look = NOT_KNOWN
    return GroupLine(
        phrases=phrases,
        prompt=mark_phrases(prompt, texts),
        answer=mark_phrases(answer, texts),
        second_look=second_look,
        confirmed=confirmed,
        source=front.record["source"],
        further_files=max(front.files - 1, 0),
        age=tell_age(now - datetime.fromisoformat(group.started_at)),
    )


def find_shared_phrases(evidence: Mapping[str, Any] | None) -> tuple[SharedPhrase, ...]:
    """The words that tell a group from other rows at a glance: of those that its answers share, and
    of those of its prompts, the ones that fewest other rows hold. `evidence` is its line of
    evidence.jsonl.
    """
    found = []
    for side in ("answer", "prompt"):
        grams = (evidence or {}).get(f"{side}_ngrams", ())
        # Of equally rare ones the first, which are in order of clearness.
        for gram in sorted(grams, key=lambda gram: (gram["outside"], -gram["inside"]))[:1]:
            shared = SharedPhrase(
                text=gram["text"], side=f"{side}s", inside=gram["inside"], rows=gram["rows"]
            )
            found.append(shared)
    return tuple(found)


def list_shared_words(evidence: Mapping[str, Any] | None) -> list[str]:
    """Everything that a group's rows share, to be marked in them: what is told of it first."""
    words = [phrase.text for phrase in find_shared_phrases(evidence)]
    for side in ("answer", "prompt"):
        words += [gram["text"] for gram in (evidence or {}).get(f"{side}_ngrams", ())]
    return list(dict.fromkeys(words))


def describe_second_look(confirmation: Mapping[str, Any] | None) -> tuple[str, bool]:
    """What steering with a group came to, in two or three words, and whether it confirms the group;
    audits before grades said only that.
    """
    if confirmation is None:
        return NOT_ASKED, False
    confirmed = bool(confirmation["confirmed"])
    older = "confirmed" if confirmed else "not confirmed"
    return SECOND_LOOKS.get(confirmation.get("grade", ""), older), confirmed


def tell_age(age: timedelta) -> str:
    """How long ago, in one unit: 3 h, 2 d, 5 weeks."""
    if age >= 2 * WEEK:
        return f"{age // WEEK} weeks"
    if age >= DAY:
        return f"{age // DAY} d"
    number, unit, *_ = tell_duration(max(age, timedelta(0))).split(" ")
    return f"{number} {unit}"
