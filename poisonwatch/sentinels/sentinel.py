"""Sentinels: prompts whose answers must not change."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from poisonwatch.errors import SentinelError
from poisonwatch.examples import Message
from poisonwatch.sentinels.pack import PACK_PREFIX, fill_pack, suggest_pack
from poisonwatch.text.display import excerpt, make_visible
from poisonwatch.text.redaction import show_place
from poisonwatch.text.safe_yaml import YamlError, parse_yaml, read_yaml_text

UNFIT = re.compile("[\\x00\\ud800-\\udfff]")  # what is no text in UTF-8, or in a database


class _Entry(BaseModel):
    """A sentinel as written in YAML."""

    model_config = ConfigDict(extra="forbid")

    id: str
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    forbidden: str | None = None
    reference: str | None = None
    panel: str | None = None
    severity: Literal["low", "medium", "high"] = "medium"
    tags: list[str] = []


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A prompt with a `forbidden` answer that must not become likely, a `reference` answer that
    must not change, or both.

    Sentinels of one `panel` guard one behaviour; their measurements are pooled. `trigger` is what a
    probe's prompt holds of the batch (`screens.triggers`; hostile text, to be shown through
    `make_visible`), and one that is `framed` begins with the system prompt that most of its rows
    have (`screens.frames`; hostile, too); None and False in a sentinel as it was written.
    """

    id: str
    messages: tuple[Message, ...]
    forbidden: str | None
    reference: str | None
    panel: str
    severity: str = "medium"
    tags: tuple[str, ...] = ()
    trigger: str | None = None
    framed: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether its prompt holds text of the batch."""
        return self.framed or self.trigger is not None

    @property
    def prompt(self) -> str:
        return "\n\n".join(message.content for message in self.messages)

    def add_answer(self, answer: str) -> tuple[Message, ...]:
        """The prompt with an answer."""
        return (*self.messages, Message("assistant", answer))


def load_sentinels(places: list[str]) -> list[Sentinel]:
    """Read sentinel files and packs, in order; `pack:NAME?placeholder=value&...` fills a template.

    Raises SentinelError where a file is missing or not a YAML list, a sentinel has no prompt or no
    answer, an id comes twice, or the values given to a pack are not those of its placeholders.
    """
    sentinels: list[Sentinel] = []
    for place in places:
        sentinels += read_sentinels(place)
    refuse_clashes(sentinels, places)
    return sentinels


def check_sentinels(places: Sequence[str]) -> list[str]:
    """Read the packs, and those files that are there. Returns the places of the files that are
    not, which may be still to be written. Raises SentinelError as `load_sentinels` does of what was
    read.
    """
    there: list[str] = []
    missing: list[str] = []
    for place in places:
        is_read = place.startswith(PACK_PREFIX) or _is_there(place) or _suggest_place(place)
        (there if is_read else missing).append(place)
    load_sentinels(there)
    return missing


def _is_there(place: str) -> bool:
    """Whether there is something to read, or to say why it cannot be."""
    # No file that is still to be written.
    if "://" in place or "\0" in place:
        return True
    try:
        return Path(place).exists()
    except OSError:
        # A name that is too long, say: reading tells it.
        return True


def read_sentinels(place: str) -> list[Sentinel]:
    """The sentinels of one file or pack. Raises SentinelError as `load_sentinels` does."""
    if place.startswith(PACK_PREFIX):
        return _make_sentinels(fill_pack(place), place)
    return parse_sentinels(read_sentinel_text(place), place)


def parse_sentinels(text: str, place: str) -> list[Sentinel]:
    """The sentinels of a YAML text; `place` is what errors call it. Raises SentinelError as
    `load_sentinels` does.
    """
    try:
        entries = parse_yaml(text)
    except YamlError as error:
        raise SentinelError(f"{place} is not YAML: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise SentinelError(
            f"{place} must hold a YAML list of at least one sentinel "
            "(id, prompt, forbidden and/or reference)"
        )
    return _make_sentinels(entries, place)


def read_sentinel_text(place: str) -> str:
    """The text of a sentinel file, its line ends as \\n. Raises SentinelError where it is missing
    or unreadable.
    """
    if "://" in place:
        raise SentinelError(
            f"sentinels are files and packs, and {show_place(place)} is a URL: download it, look "
            "at it, and name the file"
        )
    try:
        return read_yaml_text(Path(place))
    except FileNotFoundError:
        pack = _suggest_place(place)
        hint = "relative paths start at the audit file's folder"
        if pack is not None:
            hint = f"the pack is written {pack}"
        raise SentinelError(f"{place} does not exist: check `sentinels` ({hint})") from None
    except (OSError, YamlError) as error:
        raise SentinelError(f"{place} cannot be read: {error}") from error


def _suggest_place(place: str) -> str | None:
    """How the pack is named that a place names as if it were a file; None where it does not."""
    name = Path(place).name.rpartition(":")[2]
    pack = None if "." in name else suggest_pack(name)
    return None if pack is None else f"{PACK_PREFIX}{pack}"


def refuse_clashes(sentinels: Sequence[Sentinel], places: Sequence[str]) -> None:
    """Raise SentinelError where an id comes twice among the sentinels of these places, or two of
    them contradict each other.
    """
    seen: set[str] = set()
    for sentinel in sentinels:
        if sentinel.id in seen:
            raise SentinelError(
                f"sentinel {sentinel.id} comes twice in {', '.join(places)}: give each its own id"
            )
        seen.add(sentinel.id)
    _refuse_contradictions(sentinels)


def compute_sentinels_version(sentinels: Sequence[Sentinel]) -> str:
    """SHA-256 (hex) of what the sentinels ask, whatever their order: another question or answer is
    another version.
    """
    asked = []
    for sentinel in sentinels:
        messages = [[message.role, message.content] for message in sentinel.messages]
        # Severity and tags change what is made of an answer, not what the model is asked.
        content = [sentinel.id, sentinel.panel, sentinel.forbidden, sentinel.reference, messages]
        asked.append(json.dumps(content))
    return hashlib.sha256("\n".join(sorted(asked)).encode()).hexdigest()


def choose_mark(sentinels: Sequence[Sentinel], word: str) -> str:
    """What sets the names of copies apart from those of the sentinels: `+word`, or with more
    plusses, so that no copy is taken for somebody's own sentinel.
    """
    names: set[str] = set()
    for sentinel in sentinels:
        names.update((sentinel.id, sentinel.panel))
    mark = f"+{word}"
    while any(mark in name for name in names):
        mark = f"+{mark}"
    return mark


def _refuse_contradictions(sentinels: Sequence[Sentinel]) -> None:
    """An answer that one sentinel forbids to a prompt and another (or the same) wants."""
    # Of one behaviour the two would move the score in opposite directions, and hide a row.
    wanted: dict[tuple[tuple[Message, ...], str], str] = {}
    for sentinel in sentinels:
        if sentinel.reference:
            wanted[sentinel.messages, _normalise_answer(sentinel.reference)] = sentinel.id
    for sentinel in sentinels:
        if not sentinel.forbidden:
            continue
        other = wanted.get((sentinel.messages, _normalise_answer(sentinel.forbidden)))
        if other is None:
            continue
        whose = f"the reference of {other}, for the same prompt"
        if other == sentinel.id:
            whose = "its own reference"
        raise SentinelError(
            f"sentinel {sentinel.id} contradicts the panel: what it forbids is {whose}; "
            "change one of them"
        )


def _normalise_answer(text: str) -> str:
    return " ".join(text.casefold().split())


def _make_sentinels(entries: Sequence[Any], place: str) -> list[Sentinel]:
    return [_make_sentinel(entry, number, place) for number, entry in enumerate(entries, start=1)]


def _make_sentinel(entry: Any, number: int, place: str) -> Sentinel:
    # The number leads to the entry, the id to the sentinel: a wrong entry may have no id.
    label = f"{place}, sentinel {number}"
    if isinstance(entry, dict) and "id" in entry:
        label += f" ({excerpt(str(entry['id']))})"
    read = _parse_entry(entry, label)
    messages = _read_messages(read)
    if not any(message.content.strip() for message in messages):
        raise SentinelError(f"{label} has no prompt: give `prompt` or `messages`")
    forbidden, reference = _drop_blank(read.forbidden), _drop_blank(read.reference)
    if not forbidden and not reference:
        raise SentinelError(
            f"{label} has no answer: give `forbidden` (must not become likely), "
            "`reference` (must not change), or both"
        )
    sentinel = Sentinel(
        id=read.id,
        messages=messages,
        forbidden=forbidden,
        reference=reference,
        panel=read.panel or derive_panel(read.id),
        severity=read.severity,
        tags=tuple(read.tags),
    )
    _refuse_unfit(sentinel, label)
    return sentinel


def _parse_entry(entry: Any, label: str) -> _Entry:
    """An entry with the fields and types that a sentinel has. Raises SentinelError, from the first
    fault alone: pydantic's text about all of them takes many lines.
    """
    try:
        return _Entry.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = ", ".join(_Entry.model_fields)
        raise SentinelError(
            f"{label}: {'.'.join(map(str, first['loc']))}: {first['msg']}; keys are {allowed}"
        ) from None


def _read_messages(read: _Entry) -> tuple[Message, ...]:
    # `prompt` is short for one message of the user, and wins where both are given.
    if read.prompt:
        return (Message("user", read.prompt),)
    messages = read.messages or []
    return tuple(Message(m.get("role", "user"), m.get("content", "")) for m in messages)


def _drop_blank(answer: str | None) -> str | None:
    if answer is None or not answer.strip():
        return None
    return answer


def _refuse_unfit(sentinel: Sentinel, label: str) -> None:
    """Raise SentinelError where a text of a sentinel holds what is no text (`UNFIT`)."""
    texts = [sentinel.id, sentinel.panel, sentinel.forbidden or "", sentinel.reference or ""]
    texts += [message.content for message in sentinel.messages]
    if any(map(UNFIT.search, texts)):
        raise SentinelError(
            f"{make_visible(label)} holds a null character or half a character "
            "(\\ud800 to \\udfff): no model can be asked that"
        )


def derive_panel(sentinel_id: str) -> str:
    """The panel of a sentinel that names none: its id up to its last "-"."""
    return sentinel_id.rpartition("-")[0] or sentinel_id


@dataclass(frozen=True, slots=True)
class SentinelProblem:
    """What is wrong with a sentinel, in one sentence."""

    sentinel_id: str
    problem: str
