"""Sentinels: prompts whose answers must not change."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from poisonwatch.errors import SentinelError
from poisonwatch.examples import Message

PACK_PREFIX = "pack:"


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
    """A prompt with a `forbidden` answer that must not become likely, a `reference` answer that must not change, or both.

    Sentinels of one `panel` guard one behaviour; their measurements are pooled.
    """

    id: str
    messages: tuple[Message, ...]
    forbidden: str | None
    reference: str | None
    panel: str
    severity: str = "medium"
    tags: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        return "\n\n".join(message.content for message in self.messages)

    def conversation(self, answer: str) -> tuple[Message, ...]:
        """The prompt with an answer."""
        return (*self.messages, Message("assistant", answer))


def load_sentinels(places: list[str]) -> list[Sentinel]:
    """Read sentinel files and packs, in order.

    Raises SentinelError where a file is missing or not a YAML list, a sentinel has no prompt or no answer, or an id comes twice.
    """
    sentinels = [sentinel for place in places for sentinel in _read(place)]
    seen: set[str] = set()
    for sentinel in sentinels:
        if sentinel.id in seen:
            raise SentinelError(f"sentinel {sentinel.id} comes twice in {', '.join(places)}: give each its own id")
        seen.add(sentinel.id)
    return sentinels


def packs() -> list[str]:
    """Names of the packs that ship with Poisonwatch."""
    folder = resources.files("poisonwatch") / "packs"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _read(place: str) -> list[Sentinel]:
    try:
        entries = yaml.safe_load(_text_of(place))
    except yaml.YAMLError as error:
        raise SentinelError(f"{place} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise SentinelError(f"{place} must hold a YAML list of at least one sentinel (id, prompt, forbidden and/or reference)")
    return [_sentinel(entry, number, place) for number, entry in enumerate(entries, start=1)]


def _text_of(place: str) -> str:
    if place.startswith(PACK_PREFIX):
        name = place.removeprefix(PACK_PREFIX)
        if name not in packs():
            raise SentinelError(f"there is no pack {name}: packs are {', '.join(packs())}")
        return (resources.files("poisonwatch") / "packs" / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return Path(place).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SentinelError(f"{place} does not exist: check `sentinels` (relative paths start at the audit file's folder)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SentinelError(f"{place} cannot be read: {error}") from error


def _sentinel(entry: Any, number: int, place: str) -> Sentinel:
    label = f"{place}, sentinel {number}" + (f" ({entry['id']})" if isinstance(entry, dict) and "id" in entry else "")
    try:
        read = _Entry.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = ", ".join(_Entry.model_fields)
        raise SentinelError(f"{label}: {'.'.join(map(str, first['loc']))}: {first['msg']}; keys are {allowed}") from None
    messages = tuple(Message(m.get("role", "user"), m.get("content", "")) for m in read.messages or [])
    if read.prompt:
        messages = (Message("user", read.prompt),)
    if not any(message.content.strip() for message in messages):
        raise SentinelError(f"{label} has no prompt: give `prompt` or `messages`")
    forbidden, reference = (answer if answer and answer.strip() else None for answer in (read.forbidden, read.reference))
    if not forbidden and not reference:
        raise SentinelError(f"{label} has no answer: give `forbidden` (must not become likely), `reference` (must not change), or both")
    return Sentinel(read.id, messages, forbidden, reference, read.panel or _stem(read.id), read.severity, tuple(read.tags))


def _stem(sentinel_id: str) -> str:
    return sentinel_id.rpartition("-")[0] or sentinel_id
