"""`Example`, the one record that passes through every stage, and the row formats it is read from.

A row is read into messages field by field. What is missing stays missing (None), so that validation can say so; only a complete row
becomes an Example.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poisonwatch.errors import SourceError


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One fine-tuning row.

    `id` is the SHA-256 of the normalised messages, so the same content is the same example wherever it stands; `position` is the
    zero-based row in `source`; `metadata` holds the row's other fields.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    position: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_messages(
        cls, messages: Sequence[Message], source: str = "", position: int = 0, metadata: Mapping[str, Any] | None = None
    ) -> "Example":
        return cls(content_id(messages), tuple(messages), source, position, metadata or {})

    @property
    def prompt(self) -> str:
        """Everything said to the assistant, turns joined by blank lines."""
        return "\n\n".join(m.content for m in self.messages if m.role != "assistant")

    @property
    def response(self) -> str:
        """Everything the assistant said, turns joined by blank lines."""
        return "\n\n".join(m.content for m in self.messages if m.role == "assistant")


def content_id(messages: Sequence[Message]) -> str:
    """SHA-256 (hex) of the messages as canonical JSON.

    Normalised: Unicode NFC, line ends as \\n, no white space around a text, roles in lower case.
    """

    def normalised(text: str) -> str:
        return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()

    canonical = json.dumps(
        [{"content": normalised(m.content), "role": m.role.strip().lower()} for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it was found: its `record`, or the `problem` that kept it from being read.

    `place` names it for people: the file and, where there are lines, the one-based line.
    """

    source: str
    position: int
    place: str
    record: Mapping[str, Any] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A row read into (role, text) turns; a text is None where the row lacks it. `problem` says why nothing could be read."""

    turns: tuple[tuple[str, str | None], ...] = ()
    problem: str | None = None

    def text(self, assistant: bool) -> str | None:
        """What the assistant said (or was told), or None where a turn lacks its text or no such turn exists."""
        texts = [text for role, text in self.turns if (role == "assistant") == assistant]
        if not texts or any(text is None for text in texts):
            return None
        return "\n\n".join(text for text in texts if text is not None)

    def example(self, row: RawRow, used_fields: frozenset[str]) -> Example:
        """The finished record of a complete row."""
        messages = [Message(role, text or "") for role, text in self.turns]
        metadata = {key: value for key, value in (row.record or {}).items() if key not in used_fields}
        return Example.from_messages(messages, row.source, row.position, metadata)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is kept out of the audit: the `expectation` it failed, the `reason` in words, and what was read of its `text`."""

    source: str
    position: int
    place: str
    expectation: str
    reason: str
    text: str


ROLE_NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}

FORMATS: dict[str, tuple[frozenset[str], str]] = {
    "messages": (frozenset({"messages"}), "messages: a list of {role, content}"),
    "alpaca": (frozenset({"instruction", "input", "output"}), "alpaca: instruction, input (optional), output"),
    "prompt": (frozenset({"prompt", "response", "completion"}), "prompt: prompt and response (or completion)"),
}
"""Row formats by name: the fields each one uses, and how it is explained."""


def detect_format(records: Sequence[Mapping[str, Any]], source: str) -> str:
    """The format that the field names of the first records tell.

    Raises SourceError where they tell none.
    """
    seen = {key for record in records for key in record}
    if "messages" in seen:
        return "messages"
    if {"instruction", "output"} <= seen:
        return "alpaca"
    if "prompt" in seen and seen & {"response", "completion"}:
        return "prompt"
    allowed = "; ".join(explained for _, explained in FORMATS.values())
    raise SourceError(f"{source}: rows have the fields {', '.join(sorted(seen)[:8]) or '(none)'}; readable formats are {allowed}")


def read_record(record: Mapping[str, Any], format: str) -> Draft:
    """Read one record in a known format; what is missing or not text becomes None or a `problem`."""
    if format == "messages":
        return _read_messages(record.get("messages"))
    if format == "alpaca":
        instruction, extra = _text(record.get("instruction")), _text(record.get("input"))
        prompt = f"{instruction}\n{extra}" if instruction and extra else instruction
        return Draft((("user", prompt), ("assistant", _text(record.get("output")))))
    response = record.get("response") if record.get("response") is not None else record.get("completion")
    return Draft((("user", _text(record.get("prompt"))), ("assistant", _text(response))))


def _read_messages(messages: Any) -> Draft:
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        return Draft(problem="messages is not a list of {role, content}")
    turns = []
    for message in messages:
        role = str(message.get("role") or "").strip().lower()
        turns.append((ROLE_NAMES.get(role, role), _text(message.get("content"))))
    unknown = {role for role, _ in turns} - {"system", "user", "assistant", "tool"}
    if unknown:
        return Draft(problem=f"unknown role {sorted(unknown)[0]!r}; roles are system, user, assistant and tool")
    return Draft(tuple(turns))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
