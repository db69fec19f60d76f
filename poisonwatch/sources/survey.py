"""How a source is understood, without a ledger or a model: what its files hold, how their rows are
read, what of them is left over.

A source of any size is read once and streamed. What stays in memory is counts, 16 bytes a row, a
few sample rows, and the first rows whole, for validation.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from poisonwatch.errors import PoisonwatchError
from poisonwatch.examples import TOOLS_ROLE, Example, Message, RawRow, count_shared_turns
from poisonwatch.formats.format import Draft, Format, choose_format
from poisonwatch.progress import Progress, silent
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.ahead import fetch_ahead
from poisonwatch.sources.base import MIB, PassedOver, SourceFile, batch_by_size
from poisonwatch.sources.open import PROBE_ROWS, SourceRows, open_source
from poisonwatch.sources.unread import UnreadCounter, UnreadField
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural
from poisonwatch.validation import estimate_tokens

ROWS_AT_A_TIME = 1000
# What is kept whole, for validation: so many rows, of so many bytes.
MAX_KEPT_ROWS = 5000
MAX_KEPT_BYTES = 64 * MIB
# A chat template puts about so many tokens around the turns of a row: SmolLM2's and Qwen's do.
TEMPLATE_TOKENS = 20
THOUGHT = "<think>"
PASSED_OVER_SHOWN = NAMES_SHOWN = 3
FORMATS_SHOWN = 8
NAME_CHARACTERS = 60


@dataclass(slots=True)
class SurveyedFile:
    """A file (or split, or query): its `rows`, the `format` that they are read by in words, and the
    `problem` that ended the reading; None where there was none.
    """

    name: str
    rows: int = 0
    format: str | None = None
    problem: str | None = None


@dataclass(slots=True)
class TokenCounts:
    """Estimates: of all text, of the text that the loss is on (`trained`), and of what an audit
    passes through the model (`audited`: with a chat template, cut at the most that it takes).
    """

    total: int = 0
    trained: int = 0
    audited: int = 0
    longest: int = 0
    longest_place: str = ""
    overlong: int = 0
    """Rows that an audit cuts."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row as a trainer would see it. `place` names it for people."""

    place: str
    example: Example


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source holds. `turns` are counted by role; `kinds` are rows by what else they are;
    `complete` rows became conversations; `kept` are the first rows, with what was read from them.

    `copies` are rows whose bytes an earlier row has; `variants` have other bytes than the row that
    first said the same.
    """

    files: Sequence[SurveyedFile]
    passed_over: Sequence[PassedOver]
    complete: int
    turns: Mapping[str, int]
    kinds: Mapping[str, int]
    unread: Sequence[UnreadField]
    copies: int
    variants: int
    tokens: TokenCounts
    samples: Sequence[SampleRow]
    kept: SourceRows

    @property
    def rows(self) -> int:
        """All rows, those that cannot be read among them."""
        return sum(file.rows for file in self.files)

    @property
    def problems(self) -> list[str]:
        """What would stop an audit, by file."""
        return [file.problem for file in self.files if file.problem is not None]


def survey_source(
    source: SourceConfig,
    max_tokens: int,
    samples: int = 3,
    progress: Progress = silent,
    most_rows: int | None = None,
    key: str = "source",
) -> Survey:
    """Read a source once, or its first `most_rows`; an audit cuts rows at `max_tokens`, and
    `samples` rows are for people. Errors name it by the setting's `key`.

    A file that cannot be read has its problem in the survey. Raises SourceError where the source
    itself cannot be found.
    """
    opened = open_source(source, key)
    reading = _Reading(source, max_tokens, samples)
    left = most_rows
    for file in fetch_ahead(opened.units):
        found = reading.read_file(file, progress, left)
        if left is not None:
            left -= found.rows
    return Survey(
        files=reading.files,
        passed_over=opened.passed_over,
        complete=reading.complete,
        turns=reading.turns,
        kinds=reading.kinds,
        unread=reading.unread.list_fields(),
        copies=len(reading.digests) - _count_distinct(reading.digests),
        variants=_count_distinct(reading.digests) - _count_distinct(reading.contents),
        tokens=reading.tokens,
        samples=reading.choose_samples(),
        kept=reading.kept,
    )


def list_trained(example: Example) -> list[bool]:
    """Which turns of `example.messages` the loss is on, whether it raises or lowers them."""
    shared = count_shared_turns(example.messages, example.rejected)
    trained = []
    for place, message in enumerate(example.messages):
        answers = message.role == "assistant" and not message.masked
        trained.append(answers and place >= shared)
    return trained


def estimate_row_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a conversation has, without a chat template's own."""
    return sum(estimate_tokens(message.content) for message in messages)


def describe_passed_over(passed_over: Sequence[PassedOver]) -> str:
    """One line: the first few with their reasons, and how many more there are."""
    shown = []
    for each in passed_over[:PASSED_OVER_SHOWN]:
        shown.append(f"{excerpt(each.name, NAME_CHARACTERS)} ({excerpt(each.reason, 80)})")
    text = ", ".join(shown)
    if len(passed_over) > PASSED_OVER_SHOWN:
        text += f" and {len(passed_over) - PASSED_OVER_SHOWN:,} more"
    return text


def describe_copies(copies: int) -> str:
    """One line about rows whose bytes an earlier row has."""
    if copies == 1:
        return "1 row is a copy of an earlier one"
    return f"{copies:,} rows are copies of earlier ones"


def sum_formats(formats: Mapping[str, str]) -> list[tuple[str, str]]:
    """How files are read, by file, in few lines: each format with the names of its files, those of
    most files first. What is left of very many formats is counted.
    """
    files: dict[str, list[str]] = {}
    for name, format in formats.items():
        files.setdefault(format, []).append(name)
    # A stable sort: formats of as many files stay in the order of the files.
    by_files = sorted(files.items(), key=lambda item: -len(item[1]))
    summed = [(format, name_some(names)) for format, names in by_files[:FORMATS_SHOWN]]
    others = by_files[FORMATS_SHOWN:]
    if others:
        rest = [name for _, names in others for name in names]
        summed.append((f"{plural(len(others), 'other format')}", name_some(rest)))
    return summed


def name_some(names: Sequence[str]) -> str:
    """The first few names, which may be hostile, and how many more there are."""
    text = ", ".join(excerpt(name, NAME_CHARACTERS) for name in names[:NAMES_SHOWN])
    if len(names) > NAMES_SHOWN:
        text += f" and {len(names) - NAMES_SHOWN:,} more"
    return text


@dataclass(slots=True)
class _Reading:
    """What was met so far."""

    source: SourceConfig
    max_tokens: int
    wanted: int
    files: list[SurveyedFile] = field(default_factory=list)
    complete: int = 0
    turns: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    unread: UnreadCounter = field(init=False)
    # 64 bits of each row's digest: among a million rows a chance match is one in 40 million.
    digests: "array[int]" = field(default_factory=lambda: array("Q"))
    contents: "array[int]" = field(default_factory=lambda: array("Q"))
    tokens: TokenCounts = field(default_factory=TokenCounts)
    first: list[SampleRow] = field(default_factory=list)
    different: dict[object, SampleRow] = field(default_factory=dict)
    kept: SourceRows = field(init=False)
    kept_raw: list[RawRow] = field(default_factory=list)
    kept_drafts: list[Draft] = field(default_factory=list)
    kept_bytes: int = 0

    def __post_init__(self) -> None:
        self.kept = SourceRows(self.kept_raw, self.kept_drafts, {})
        self.unread = UnreadCounter(self.source.ignore)

    def read_file(self, file: SourceFile, progress: Progress, most: int | None) -> SurveyedFile:
        """At most so many rows of one file; what ends its reading is its problem."""
        found = SurveyedFile(file.name)
        self.files.append(found)
        format: Format | None = None
        try:
            batches = batch_by_size(islice(file.read(), most), ROWS_AT_A_TIME)
            for rows in progress(batches, "read", None, len):
                if format is None:
                    format = self._choose_format(file, rows)
                for row in rows:
                    found.rows += 1
                    self._add(row, format, schema=file.schema)
        except PoisonwatchError as error:
            found.problem = str(error)
        if format is not None:
            found.format = file.explain_reading(format.explanation)
        return found

    def _choose_format(self, file: SourceFile, rows: Sequence[RawRow]) -> Format | None:
        """The format that the file's first rows tell; None where none of them can be read."""
        records = [row.record for row in rows if row.record is not None]
        if not records:
            return None
        settled = file.settle(self.source)
        format = choose_format(settled, records[:PROBE_ROWS], file.name)
        self.kept.formats[file.name] = format
        return format

    def _add(self, row: RawRow, format: Format | None, schema: bytes | None) -> None:
        draft = Draft(problem=row.problem)
        example: Example | None = None
        if row.record is not None and format is not None:
            draft = format.read(row.record)
            example = draft.to_example(row)
        # Of a row that is too long to be kept, the problem holds the digest.
        digest = _hash(row.raw or (row.problem or "").encode(), schema or b"")
        self.digests.append(digest)
        if example is None:
            self.contents.append(digest)
        else:
            self.contents.append(int(example.id[:16], 16))
            self._add_example(row, example)
        self.unread.add(row.record, draft.unread)
        self._keep(row, draft)

    def _keep(self, row: RawRow, draft: Draft) -> None:
        self.kept_bytes += len(row.raw)
        if len(self.kept) < MAX_KEPT_ROWS and self.kept_bytes <= MAX_KEPT_BYTES:
            self.kept_raw.append(row)
            self.kept_drafts.append(draft)

    def _add_example(self, row: RawRow, example: Example) -> None:
        self.complete += 1
        self.turns.update(message.role for message in example.messages)
        kinds = _list_kinds(example)
        self.kinds.update(kinds)
        self._count_tokens(row, example)
        sample = SampleRow(row.place, example)
        if len(self.first) < self.wanted:
            self.first.append(sample)
        if len(self.different) < self.wanted:
            roles = frozenset(message.role for message in example.messages)
            self.different.setdefault((roles, *kinds), sample)

    def _count_tokens(self, row: RawRow, example: Example) -> None:
        counts = self.tokens
        lengths = [estimate_tokens(message.content) for message in example.messages]
        for length, trained in zip(lengths, list_trained(example), strict=True):
            counts.trained += length * trained
        rejected = estimate_row_tokens(example.rejected)
        counts.total += sum(lengths) + rejected
        longest = max(sum(lengths), rejected)
        if longest > counts.longest:
            counts.longest, counts.longest_place = longest, row.place
        counts.overlong += longest > self.max_tokens
        for length in (sum(lengths), rejected):
            if length:
                counts.audited += min(length + TEMPLATE_TOKENS, self.max_tokens)

    def choose_samples(self) -> list[SampleRow]:
        """The first row of every kind, and other first rows where there are too few kinds."""
        chosen = list(self.different.values())
        for sample in self.first:
            if sample not in chosen and len(chosen) < self.wanted:
                chosen.append(sample)
        return chosen


def _list_kinds(example: Example) -> list[str]:
    """What a row is, or has, beside ordinary turns."""
    kinds = []
    if example.rejected:
        kinds.append("preference")
    if example.lowered:
        kinds.append("lowered")
    answers = [message for message in example.messages if message.role == "assistant"]
    if any(message.role == TOOLS_ROLE for message in example.messages):
        kinds.append("tools")
    if any(message.content.lstrip().startswith(THOUGHT) for message in answers):
        kinds.append("reasoning")
    if any(message.masked for message in answers):
        kinds.append("masked turns")
    return kinds


def _hash(*parts: bytes) -> int:
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def _count_distinct(values: "array[int]") -> int:
    return len(np.unique(np.frombuffer(values, dtype=np.uint64)))
