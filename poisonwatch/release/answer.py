"""What the gate answers: how many rows are cleared, by which versions, and what is not, and why."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from poisonwatch.attestation.keys import SHOWN_DIGITS as SHOWN_KEY_DIGITS
from poisonwatch.ledger.verdict_settings import parse_strictness
from poisonwatch.text.display import make_visible
from poisonwatch.text.words import plural

UNSIGNED = "unsigned"  # the reason that is not about a file's content
SHOWN_DIGITS = 12  # digits that tell two versions apart


@dataclass(frozen=True, slots=True)
class RequiredVersions:
    """The versions that an audit must have been of: SHA-256 in hex, or its first digits; None:
    any. `reads_as_before`: an audit that recorded no reading will do for this one.

    Its `settings` must have been these, unless nobody recorded them; or, where a least `rate` or
    `screens` are given, at least so strict.
    """

    model: str | None = None
    sentinels: str | None = None
    reading: str | None = None
    reads_as_before: bool = False
    settings: str | None = None
    rate: float | None = None
    screens: tuple[str, ...] | None = None

    def asks(self, model: str, sentinels: str) -> bool:
        """Whether an audit asked this model these sentinels, however it read rows."""
        return model.startswith(self.model or "") and sentinels.startswith(self.sentinels or "")

    def reads_alike(self, reading: str | None) -> bool:
        """Whether an audit that read rows so will do."""
        if self.reading is None:
            return True
        if reading is None:
            return self.reads_as_before
        return reading.startswith(self.reading)

    def is_set_alike(self, settings: str | None) -> bool:
        """Whether an audit with these settings will do."""
        if self.rate is None and self.screens is None:
            return self.settings is None or settings in (None, self.settings)
        found = parse_strictness(settings)
        return found is not None and found.is_at_least(self.rate, self.screens)

    def is_met_by(
        self, model: str, sentinels: str, reading: str | None, settings: str | None = None
    ) -> bool:
        """Whether an audit of these versions will do."""
        if not self.asks(model, sentinels):
            return False
        return self.reads_alike(reading) and self.is_set_alike(settings)

    def record(self) -> dict[str, Any]:
        """As JSON; `reading`, `rate` and `screens` only where they are required."""
        record: dict[str, Any] = {"model": self.model, "sentinels": self.sentinels}
        if self.reading is not None:
            record["reading"] = self.reading
        if self.rate is not None:
            record["rate"] = self.rate
        if self.screens is not None:
            record["screens"] = list(self.screens)
        return record


@dataclass(frozen=True, slots=True)
class UnclearedRow:
    """A row that is not cleared, and the `reason`; a whole file where `position` (zero-based) is
    None. `problem` is what kept it from being read.
    """

    source: str
    position: int | None
    example_id: str | None
    reason: str
    problem: str | None = None

    @property
    def words(self) -> str:
        """Where it is, for people: FILE:LINE, as `decide` takes it."""
        if self.position is None:
            return make_visible(self.source)
        return make_visible(f"{self.source}:{self.position + 1}")

    @property
    def account(self) -> str:
        """Where it is, and what kept it from being read."""
        if self.problem is None:
            return self.words
        return f"{self.words}: {make_visible(self.problem)}"

    def record(self) -> dict[str, Any]:
        """As JSON; `problem` only where there is one."""
        record = asdict(self)
        if self.problem is None:
            del record["problem"]
        return record


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What the gate says of so many rows and files; `compared` tells whether a ledger was asked, or
    only a manifest. Besides, so many files were `passed_over`, which no trainer takes for rows.

    `keys` are the ids of the keys whose signatures were asked for; without any, `is_signed` tells
    whether there were signatures that nobody asked for. `head` is the end of the ledger's chain, as
    NUMBER:HASH.
    """

    rows: int
    files: int
    required: RequiredVersions
    by_decision: int
    missing: tuple[UnclearedRow, ...]
    compared: bool
    passed_over: int = 0
    keys: tuple[str, ...] = ()
    is_signed: bool = False
    head: str | None = None

    @property
    def cleared(self) -> bool:
        """Whether all is; without rows, nothing is."""
        return self.rows > 0 and not self.missing

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows and files each reason holds back, the most frequent first."""
        return dict(Counter(place.reason for place in self.missing).most_common())

    @property
    def headline(self) -> str:
        """The answer in one line."""
        if self.cleared:
            return self._describe_cleared()
        uncleared_rows = sum(place.position is not None for place in self.missing)
        files = [place for place in self.missing if place.position is None]
        unread_files = sum(place.problem is not None for place in files)
        unsigned = sum(place.reason == UNSIGNED for place in files)
        changed_files = len(files) - unread_files - unsigned
        parts = []
        # Without rows there is nothing missing, and something to say all the same.
        if uncleared_rows or not files:
            verb = "is" if uncleared_rows == 1 else "are"
            parts.append(f"{uncleared_rows} of {self.rows} rows {verb} not cleared")
        if changed_files:
            verb = "is" if changed_files == 1 else "are"
            parts.append(f"{plural(changed_files, 'file')} {verb} not what was released")
        if unread_files:
            places = plural(unread_files, "file or folder", "files or folders")
            parts.append(f"{places} cannot be read, or {'is' if unread_files == 1 else 'are'} not")
        if unsigned:
            parts.append("what clears them is not signed by a key that counts")
        return ", and ".join(parts)

    def _describe_cleared(self) -> str:
        versions = []
        required = {
            "model": self.required.model,
            "reading": self.required.reading,
            "sentinels": self.required.sentinels,
        }
        for what, digest in required.items():
            versions.append(f"{what} {(digest or '(any)')[:SHOWN_DIGITS]}")
        if self.required.rate is not None:
            versions.append(f"a false-discovery rate of {self.required.rate:g} or more")
        if self.required.screens is not None:
            versions.append(f"screens {' '.join(self.required.screens) or '(none)'}")
        text = (
            f"{plural(self.rows, 'row')} in {plural(self.files, 'file')}: all cleared by audits "
            f"under {', '.join(versions)}"
        )
        if self.by_decision:
            text += f" ({self.by_decision} by a person's decision)"
        return text

    @property
    def signatures(self) -> str:
        """What was asked of signatures, in one line."""
        if self.keys:
            named = ", ".join(key[:SHOWN_KEY_DIGITS] for key in self.keys)
            return f"signatures: only those of {plural(len(self.keys), 'key')} counted ({named})"
        if self.is_signed:
            return "signatures: not checked (--key names a public key whose signatures count)"
        return "signatures: nothing is signed (`poisonwatch keys init` makes a key)"

    def record(self) -> dict[str, Any]:
        """As JSON; `passed_over` only where something was."""
        record: dict[str, Any] = {
            "cleared": self.cleared,
            "rows": self.rows,
            "files": self.files,
            **self.required.record(),
            "by_decision": self.by_decision,
            "ledger": self.compared,
            "head": self.head,
            "signed": self.is_signed,
            "keys": list(self.keys),
            "reasons": self.reasons,
            "missing": [place.record() for place in self.missing],
        }
        if self.passed_over:
            record["passed_over"] = self.passed_over
        return record
