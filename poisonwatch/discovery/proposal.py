"""Sentinels proposed from a group: what would have to stay as it is, were the group poison.

    prompts of its rows                 forbidden: the row's own answer
    neutral prompts                     forbidden: what the steered model says

each where steering with the group changes the answer, those first where it changes most; the
reference is what the model says as it is. Where the model was not asked, there are the rows alone,
without references. It is a proposal: a person reads it, changes what is not meant, and saves it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from poisonwatch.discovery.described import DescribedGroup, Reply
from poisonwatch.errors import InputError
from poisonwatch.examples import Example, Message
from poisonwatch.sentinels.sentinel import Sentinel, parse_sentinels
from poisonwatch.text.display import excerpt, to_plain_name
from poisonwatch.text.words import normalise_words, plural

MOST_OWN, MOST_NEUTRAL = 4, 2  # sentinels of a panel
LEAST_CHANGE = 0.25  # of an answer, for a prompt to tell anything
LONGEST_NAME = 30  # characters of a panel's
LONGEST_ANSWER = 600  # characters
LONGEST_COMMENT = 200  # characters
DISCOVERED = "discovered"  # a tag


def propose_panel(group: DescribedGroup, taken: Collection[str]) -> str:
    """A name for the panel that guards a group, of the words that its rows share; none of those
    `taken`.
    """
    words = (*group.answer_words, *group.prompt_words, str(group.number))
    plain = to_plain_name(normalise_words(words[0]).replace(" ", "-")).strip("_-")
    # Of a script without letters of ASCII nothing is left.
    stem = f"found-{plain[:LONGEST_NAME].strip('_-') or group.number}"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def propose_sentinels(
    group: DescribedGroup, examples: Mapping[str, Example], panel: str
) -> list[dict[str, Any]]:
    """The sentinels of a panel, as they are written in YAML; `examples` are rows of the group that
    can be read, by id. None where nothing can be asked.
    """
    chosen: list[tuple[tuple[Message, ...], str, str | None]] = []
    if group.replies is None:
        for row in group.rows:
            example = examples.get(row.example_id)
            if example is not None and _is_plain(example):
                *prompt, answer = example.messages
                chosen.append((tuple(prompt), answer.content, None))
    else:
        for own, most in ((True, MOST_OWN), (False, MOST_NEUTRAL)):
            chosen += _choose(group.replies, own)[:most]
    entries: list[dict[str, Any]] = []
    asked: set[str] = set()
    for messages, forbidden, reference in chosen:
        key = normalise_words(" ".join(message.content for message in messages))
        if key in asked or len(entries) == MOST_OWN + MOST_NEUTRAL:
            continue
        asked.add(key)
        number = len(entries) + 1
        entries.append(_write_entry(f"{panel}-{number}", panel, messages, forbidden, reference))
    return entries


def _choose(
    replies: Sequence[Reply], own: bool
) -> list[tuple[tuple[Message, ...], str, str | None]]:
    """Prompt, forbidden answer and reference of replies of a kind; a row's prompt is good whatever
    the model made of it, a neutral one where its answer changed.
    """
    of_kind = [reply for reply in replies if (reply.example_id is not None) == own]
    chosen: list[tuple[tuple[Message, ...], str, str | None]] = []
    for reply in sorted(of_kind, key=lambda reply: -reply.change):
        forbidden = reply.taught or reply.after
        reference: str | None = reply.before.strip() or None
        if not forbidden.strip() or (not own and reply.change < LEAST_CHANGE):
            continue
        # What it says already, too, is no answer that must not become likelier.
        if reference is not None and normalise_words(reference) == normalise_words(forbidden):
            continue
        chosen.append((reply.messages, forbidden, reference))
    return chosen


def _is_plain(example: Example) -> bool:
    *prompt, answer = example.messages
    return bool(prompt) and answer.role == "assistant" and not (example.tools or example.lowered)


def _write_entry(
    id: str,
    panel: str,
    messages: Sequence[Message],
    forbidden: str,
    reference: str | None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": id, "panel": panel}
    if len(messages) == 1 and messages[0].role == "user":
        entry["prompt"] = messages[0].content
    else:
        entry["messages"] = [
            {"role": message.role, "content": message.content} for message in messages
        ]
    entry["forbidden"] = _cut(forbidden)
    if reference is not None:
        entry["reference"] = _cut(reference)
    entry["tags"] = [DISCOVERED]
    return entry


def _cut(answer: str) -> str:
    """An answer's beginning, up to a word's end."""
    if len(answer) <= LONGEST_ANSWER:
        return answer.strip()
    return answer[:LONGEST_ANSWER].rpartition(" ")[0].strip() or answer[:LONGEST_ANSWER]


def write_proposal(
    group: DescribedGroup,
    examples: Mapping[str, Example],
    sentinels: Sequence[Sentinel],
    *,
    audit_id: str,
    by: str,
    panel: str | None = None,
) -> str:
    """The sentinels proposed from a group beside those that an audit has, as a piece of a YAML
    list, below a comment that says where they are from, who saves them (`by`) and when.

    Raises InputError where the panel's name is taken or no name, nothing of the group can be asked,
    or the sentinels ask all of it already.
    """
    taken = {sentinel.panel for sentinel in sentinels}
    if panel is None:
        panel = propose_panel(group, taken)
    if not panel.isprintable():
        raise InputError(f"a panel's name is one line of letters: {excerpt(panel)} is none")
    if panel in taken or not panel.strip():
        raise InputError(
            f"{excerpt(panel) or 'nothing'} is the name of a panel already, or none: give another"
        )
    entries = propose_sentinels(group, examples, panel)
    if not entries:
        raise InputError(
            f"nothing can be asked of group {group.number}: its rows cannot be read again, or "
            "steering with them changes no answer; write a sentinel by hand"
        )
    guarded = {(sentinel.messages, sentinel.forbidden): sentinel.panel for sentinel in sentinels}
    asked = [
        guarded.get((own.messages, own.forbidden))
        for own in parse_sentinels(yaml.safe_dump(entries), "the proposal")
    ]
    if all(asked):
        raise InputError(
            f"group {group.number} is guarded already, by the panel {excerpt(str(asked[0]))}"
        )
    rows, day = plural(len(group.rows), "row"), f"{datetime.now(UTC):%Y-%m-%d}"
    # A line end in a name would end the comment.
    said = excerpt(
        f"Discovered: group {group.number} of audit {audit_id} ({rows}); {by}, {day}.", 200
    )
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100)
    return f"# {excerpt(said, LONGEST_COMMENT)}\n{text}"
