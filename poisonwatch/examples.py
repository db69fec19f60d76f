"""`Example`, the one record that passes through every stage, what a row is before and beside that
(raw, or rejected), and `AuditRows`: which rows of an audit are new and which are trusted.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from json.encoder import encode_basestring
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

# What a conversation's tool definitions are: no turn of anybody's, but the prompt begins with them.
TOOLS_ROLE = "tools"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is system, user, assistant or tool, or tools for the
    definitions of tools (canonical JSON), which come before all turns.

    `content` is everything that the turn says: an assistant's thoughts and tool calls, too. An
    assistant's turn that is `masked` is read by the model, and its loss is not trained on.
    """

    role: str
    content: str
    masked: bool = False

    def to_record(self) -> dict[str, Any]:
        """As JSON; `masked` only where it is."""
        record: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.masked:
            record["masked"] = True
        return record


@dataclass(frozen=True, slots=True)
class Example:
    """One fine-tuning row.

    `id` is the SHA-256 of the normalised content, so the same content is the same example wherever
    it stands; `position` is the zero-based row in `source`; `metadata` holds the fields that were
    not read. Of a preference row, `messages` is the conversation with the answer that training
    raises, and `rejected` that with the one it lowers. Where training lowers the answer of
    `messages` itself, as with KTO's label false, the row is `lowered`.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    position: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rejected: tuple[Message, ...] = ()
    lowered: bool = False

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Message],
        source: str = "",
        position: int = 0,
        metadata: Mapping[str, Any] | None = None,
        rejected: Sequence[Message] = (),
        lowered: bool = False,
        id: str | None = None,
    ) -> "Example":
        """The example of these messages, with its id, unless it has one already."""
        return cls(
            id=id or compute_content_id(messages, rejected, lowered),
            messages=tuple(messages),
            source=source,
            position=position,
            metadata=metadata or {},
            rejected=tuple(rejected),
            lowered=lowered,
        )

    @property
    def prompt(self) -> str:
        """Everything said to the assistant, turns joined by blank lines; without the definitions of
        tools, which nobody says.
        """
        others = ("assistant", TOOLS_ROLE)
        return "\n\n".join(m.content for m in self.messages if m.role not in others)

    @property
    def tools(self) -> str:
        """The definitions of tools that the prompt begins with, as JSON; empty without any."""
        return "".join(m.content for m in self.messages if m.role == TOOLS_ROLE)

    @property
    def response(self) -> str:
        """Everything the assistant said, turns joined by blank lines."""
        return _join_assistant_turns(self.messages)

    @property
    def rejected_response(self) -> str:
        """Everything the assistant says in the rejected conversation; empty where there is none."""
        return _join_assistant_turns(self.rejected)

    @property
    def all_messages(self) -> tuple[Message, ...]:
        """The messages of both conversations; what they have in common, once."""
        only_rejected = [message for message in self.rejected if message not in self.messages]
        return (*self.messages, *only_rejected)


def _join_assistant_turns(messages: Sequence[Message]) -> str:
    return "\n\n".join(m.content for m in messages if m.role == "assistant")


class MessageLike(Protocol):
    """Anything with a role and a text."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...
    @property
    def masked(self) -> bool: ...


def count_shared_turns(chosen: Sequence[MessageLike], rejected: Sequence[MessageLike]) -> int:
    """How many turns both conversations of a preference row begin with: its prompt. Never the last
    of either, which is the answer in question, even where both give the same one.
    """
    shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if (one.role, one.content) != (other.role, other.content):
            break
        shared += 1
    return shared


def compute_content_id(
    messages: Sequence[Message], rejected: Sequence[Message] = (), lowered: bool = False
) -> str:
    """SHA-256 (hex) of the messages as canonical JSON: [{"content":...,"role":...},...], with
    "masked":true between the two where a turn is.

    Of a preference row it is {"chosen":[...],"rejected":[...]}; of a `lowered` one the same, with
    nothing chosen. Normalised: Unicode NFC, line ends as \\n, no white space at the end of a text,
    roles in lower case. White space that a text begins with is content: indentation is code.
    """
    # An ordinary row is a plain list: its id is older than the other kinds, and stays.
    canonical = _write_messages(messages)
    if lowered:
        canonical = f'{{"chosen":[],"rejected":{canonical}}}'
    elif rejected:
        canonical = f'{{"chosen":{canonical},"rejected":{_write_messages(rejected)}}}'
    # Half of a surrogate pair is no UTF-8, but rows have it, and must have an id.
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _write_messages(messages: Sequence[Message]) -> str:
    """Messages as canonical JSON, without what does not change what they say."""
    written = []
    for message in messages:
        # Every row of a source comes by here: json.dumps takes three times as long.
        content = encode_basestring(_normalise_text(message.content))
        role = encode_basestring(message.role.strip().lower())
        masked = ""
        if message.masked:
            masked = ',"masked":true'
        written.append(f'{{"content":{content}{masked},"role":{role}}}')
    return f"[{','.join(written)}]"


def _normalise_text(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").rstrip()


@runtime_checkable
class HasIds(Protocol):
    """Examples whose ids are known without making one of them."""

    def iterate_ids(self) -> Iterator[str]: ...


def iterate_ids(examples: Sequence[Example]) -> Iterator[str]:
    """The ids of examples, in order."""
    if isinstance(examples, HasIds):
        return examples.iterate_ids()
    return (example.id for example in examples)


class JoinedExamples(Sequence[Example]):
    """Two sequences of examples as one, neither of them copied; a slice is a view, whatever its
    step.
    """

    def __init__(
        self, first: Sequence[Example], second: Sequence[Example], places: range | None = None
    ) -> None:
        self._first = first
        self._second = second
        self._places = range(len(first) + len(second)) if places is None else places

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, without making every example where they are known."""
        return tuple(self.iterate_ids())

    def iterate_ids(self) -> Iterator[str]:
        """The ids one by one."""
        if self._is_whole():
            return chain(iterate_ids(self._first), iterate_ids(self._second))
        return (example.id for example in self)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "JoinedExamples": ...
    def __getitem__(self, place: int | slice) -> "Example | JoinedExamples":
        if isinstance(place, slice):
            return JoinedExamples(self._first, self._second, self._places[place])
        i = self._places[place]
        if i < len(self._first):
            return self._first[i]
        return self._second[i - len(self._first)]

    def __iter__(self) -> Iterator[Example]:
        if self._is_whole():
            return chain(self._first, self._second)
        return super().__iter__()

    def _is_whole(self) -> bool:
        return self._places == range(len(self._first) + len(self._second))


class SelectedExamples(Sequence[Example]):
    """The examples at some `places` of a sequence, none of them copied; a slice is a view."""

    def __init__(self, examples: Sequence[Example], places: Sequence[int]) -> None:
        self._examples = examples
        self._places = places

    @classmethod
    def of(cls, examples: Sequence[Example], places: Sequence[int]) -> Sequence[Example]:
        """The examples at these places; the sequence itself where they are all of it."""
        if len(places) == len(examples):
            return examples
        return cls(examples, places)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, without making every example where they are known."""
        return tuple(self.iterate_ids())

    def iterate_ids(self) -> Iterator[str]:
        """The ids one by one."""
        ids = tuple(iterate_ids(self._examples))
        return (ids[i] for i in self._places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "SelectedExamples": ...
    def __getitem__(self, place: int | slice) -> "Example | SelectedExamples":
        if isinstance(place, slice):
            return SelectedExamples(self._examples, self._places[place])
        return self._examples[self._places[place]]


class Sliceable(Protocol):
    """Values by row: an array, a tuple or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Any: ...


Values = TypeVar("Values", bound=Sliceable)


@dataclass(frozen=True, slots=True)
class AuditRows:
    """The rows of an audit by role: `new` ones, which may be flagged, and `trusted` ones, which
    they are compared with.

    Whatever holds a value for each row of an audit has them in the order of `all`. Neither sequence
    is copied: millions of rows may lie in a file (`poisonwatch.packed_examples`). Raises ValueError
    where a row is new and trusted at once.
    """

    new: Sequence[Example]
    trusted: Sequence[Example] = ()

    def __post_init__(self) -> None:
        # The few are kept, the many pass by.
        trusted_ids = set(iterate_ids(self.trusted))
        shared = trusted_ids.intersection(iterate_ids(self.new))
        if shared:
            both = sum(id in shared for id in iterate_ids(self.trusted))
            raise ValueError(f"{both} of {len(self.trusted)} trusted rows are among the new ones")

    def __len__(self) -> int:
        return len(self.new) + len(self.trusted)

    @property
    def all(self) -> "JoinedExamples":
        """New rows, then trusted ones: the one place that fixes the order."""
        return JoinedExamples(self.new, self.trusted)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of `all`."""
        return self.all.ids

    @property
    def new_places(self) -> range:
        """Where the new rows stand in `all`."""
        return range(len(self.new))

    @property
    def trusted_places(self) -> range:
        """Where the trusted rows stand in `all`."""
        return range(len(self.new), len(self))

    def split(self, values: Values) -> tuple[Values, Values]:
        """Values of `all`, one a row, as those of the new rows and those of the trusted ones.

        Raises ValueError where there are fewer values than rows, or more.
        """
        if len(values) != len(self):
            raise ValueError(f"got {len(values)} values for {len(self)} rows: give one a row")
        return values[: len(self.new)], values[len(self.new) :]


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it was found: its `record`, or the `problem` that kept it from being read.

    `place` names it for people: the file and, where there are lines, the one-based line. `raw` is
    what stands in the source: the line's bytes in JSON Lines, else the record as compact JSON, or
    (columnar files) as an Arrow record batch of one row without its schema. A row out of the ledger
    has its `content_id` from there: earlier versions may have read less of it.
    """

    source: str
    position: int
    place: str
    record: Mapping[str, Any] | None = None
    problem: str | None = None
    raw: bytes = b""
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is kept out of the audit: the `expectation` it failed, the `reason` in words, and
    what was read of its `text`; the example's id where the row could be read.
    """

    source: str
    position: int
    place: str
    expectation: str
    reason: str
    text: str
    example_id: str = ""
