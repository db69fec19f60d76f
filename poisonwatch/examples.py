"""`Example`, the one record that passes through every stage, and what a row is before and beside
that: raw, or rejected.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One fine-tuning row.

    `id` is the SHA-256 of the normalised messages, so the same content is the same example wherever
    it stands; `position` is the zero-based row in `source`; `metadata` holds the row's other
    fields. Of a preference row, `messages` is the conversation with the answer that training
    raises, and `rejected` that with the one it lowers.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    position: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rejected: tuple[Message, ...] = ()

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Message],
        source: str = "",
        position: int = 0,
        metadata: Mapping[str, Any] | None = None,
        rejected: Sequence[Message] = (),
    ) -> "Example":
        return cls(
            compute_content_id(messages, rejected),
            tuple(messages),
            source,
            position,
            metadata or {},
            tuple(rejected),
        )

    @property
    def prompt(self) -> str:
        """Everything said to the assistant, turns joined by blank lines."""
        return "\n\n".join(m.content for m in self.messages if m.role != "assistant")

    @property
    def response(self) -> str:
        """Everything the assistant said, turns joined by blank lines."""
        return _join_assistant_turns(self.messages)

    @property
    def rejected_response(self) -> str:
        """Everything the assistant says in the rejected conversation; empty where there is none."""
        return _join_assistant_turns(self.rejected)


def _join_assistant_turns(messages: Sequence[Message]) -> str:
    return "\n\n".join(m.content for m in messages if m.role == "assistant")


def compute_content_id(messages: Sequence[Message], rejected: Sequence[Message] = ()) -> str:
    """SHA-256 (hex) of the messages as canonical JSON: [{"content":...,"role":...},...].

    Of a preference row it is {"chosen":[...],"rejected":[...]}. Normalised: Unicode NFC, line ends
    as \\n, no white space around a text, roles in lower case.
    """

    def normalised(text: str) -> str:
        return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()

    chosen, other = (
        [{"content": normalised(m.content), "role": m.role.strip().lower()} for m in of]
        for of in (messages, rejected)
    )
    content = {"chosen": chosen, "rejected": other} if other else chosen
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it was found: its `record`, or the `problem` that kept it from being read.

    `place` names it for people: the file and, where there are lines, the one-based line. `raw` is
    what stands in the source: the line's bytes in JSON Lines, else the record as compact JSON, or
    (columnar files) as an Arrow record batch of one row without its schema.
    """

    source: str
    position: int
    place: str
    record: Mapping[str, Any] | None = None
    problem: str | None = None
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is kept out of the audit: the `expectation` it failed, the `reason` in words, and
    what was read of its `text`.
    """

    source: str
    position: int
    place: str
    expectation: str
    reason: str
    text: str
