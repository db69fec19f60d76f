"""The gate: whether exactly these rows are cleared, asked by a training job just before it trains
on them.

A row is cleared by an audit under the required model and sentinels that did not flag it, unless it
is in quarantine now; or by a person who called it benign. Everything else is a reason:

    unknown, pending, rejected, flagged, poison     what the ledger says of the content (unknown: nothing)
    another version                                 audited, but not under the required model and sentinels
    unreadable                                      no prompt and response can be read, so that nothing tells which content it is
    changed                                         not the bytes that were cleared; of a file, not the file that was released
    not in the manifest, not in its file            a row, or a file, that only one of the two has

The ledger is only read, and no lock is taken: the gate answers while an audit runs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from poisonwatch.config import AuditConfig, SourceConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError, NotClearedError
from poisonwatch.examples import RawRow
from poisonwatch.ledger.decisions import MIN_ID_DIGITS, verify_chain
from poisonwatch.ledger.intake import FORMAT_SAMPLE_ROWS, ROWS_PER_CHUNK
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.tables import results, rows, shapes, versions
from poisonwatch.model.files import find_model_files
from poisonwatch.release.manifest import ManifestEntry, compare_manifest, is_manifest, read_manifest
from poisonwatch.release.release import CLEARED_STATUSES
from poisonwatch.sentinels.sentinel import compute_sentinels_version, load_sentinels
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.formats import Format, choose_format
from poisonwatch.sources.open import open_source
from poisonwatch.text.display import excerpt, make_visible

REASON_UNKNOWN, REASON_FLAGGED, REASON_VERSION, REASON_UNREADABLE, REASON_CHANGED = (
    "unknown",
    "flagged",
    "another version",
    "unreadable",
    "changed",
)
REASON_ADDED, REASON_LOST = "not in the manifest", "not in its file"
DIGEST_DIGITS = 64  # of a SHA-256 in hex
SHOWN_DIGITS = 12  # digits that tell two versions apart
MAX_NAMED_ROWS = 3  # rows that an error names
MAX_ROW_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class RequiredVersions:
    """The versions that an audit must have been of: SHA-256 in hex, or its first digits; None: any."""

    model: str | None = None
    sentinels: str | None = None

    def is_met_by(self, model: str, sentinels: str) -> bool:
        """Whether an audit of these versions will do."""
        return model.startswith(self.model or "") and sentinels.startswith(self.sentinels or "")


@dataclass(frozen=True, slots=True)
class UnclearedRow:
    """A row that is not cleared, and the `reason`; a whole file where `position` (zero-based) is
    None.
    """

    source: str
    position: int | None
    example_id: str | None
    reason: str

    @property
    def words(self) -> str:
        """Where it is, for people."""
        return make_visible(
            self.source if self.position is None else f"{self.source}, row {self.position}"
        )


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What the gate says of so many rows and files; `compared` tells whether a ledger was asked, or
    only a manifest.
    """

    rows: int
    files: int
    required: RequiredVersions
    by_decision: int
    missing: tuple[UnclearedRow, ...]
    compared: bool

    @property
    def cleared(self) -> bool:
        return self.rows > 0 and not self.missing

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows and files each reason holds back, the most frequent first."""
        return dict(Counter(place.reason for place in self.missing).most_common())

    @property
    def headline(self) -> str:
        """The answer in one line."""
        if self.cleared:
            what = [
                f"{key} {value[:SHOWN_DIGITS] if value else '(any)'}"
                for key, value in asdict(self.required).items()
            ]
            decided = f" ({self.by_decision} by a person's decision)" * bool(self.by_decision)
            return f"{self.rows} rows in {self.files} files: all cleared by audits under {' and '.join(what)}{decided}"
        places = sum(place.position is not None for place in self.missing)
        others = len(self.missing) - places
        said = [f"{places} of {self.rows} rows are not cleared"] if places or not others else []
        return ", and ".join(
            [*said, *([f"{others} files are not what was released"] if others else [])]
        )

    def record(self) -> dict[str, Any]:
        """As JSON."""
        counts = {
            "cleared": self.cleared,
            "rows": self.rows,
            "files": self.files,
            **asdict(self.required),
            "by_decision": self.by_decision,
        }
        return {
            **counts,
            "ledger": self.compared,
            "reasons": self.reasons,
            "missing": [asdict(place) for place in self.missing],
        }


def check_cleared(
    paths: Sequence[str | Path],
    audit: str | Path | None = None,
    model_version: str | None = None,
    sentinels_version: str | None = None,
) -> GateAnswer:
    """Whether the rows of these manifests, files, folders, globs and URLs are cleared.

    Rows are read as the audit file's source is, and asked for in its ledger, under its model and
    sentinels or the versions given (8 or more hex digits). Without an audit file, a manifest is
    compared with its files alone. Raises InputError where there are no rows, data come without an
    audit file, no audit has run, or a version is none.
    """
    required = RequiredVersions(
        _check_digits(model_version, "model"), _check_digits(sentinels_version, "sentinels")
    )
    manifests = [path for path in map(Path, paths) if is_manifest(path)]
    data = [str(path) for path in paths if Path(path) not in manifests]
    for path in data:
        if (Path(path) / "manifest.json").is_file():
            raise InputError(
                f"{make_visible(path)} is a folder with a manifest: give {make_visible(str(Path(path) / 'manifest.json'))} itself, or files"
            )
    if audit is None:
        if data:
            raise InputError(
                f"{make_visible(data[0])} is no manifest of a release: give the audit file whose ledger knows its rows (--audit)"
            )
        return _combine_answers([check_manifest(path, required) for path in manifests], required)
    settings = load_config(audit)
    required = _fill_in_versions(required, settings)
    with Ledger.existing(settings.state) as ledger:
        verify_chain(ledger)
        answers = [check_manifest(path, required, ledger) for path in manifests]
        answers += [
            check_data(ledger, _resolve_source(settings.source, path), required) for path in data
        ]
    return _combine_answers(answers, required)


def require_cleared(
    paths: Sequence[str | Path],
    audit: str | Path | None = None,
    model_version: str | None = None,
    sentinels_version: str | None = None,
) -> int:
    """The number of these rows, all of which are cleared. Raises NotClearedError where some are
    not, and what `check` raises.
    """
    answer = check_cleared(paths, audit, model_version, sentinels_version)
    if not answer.cleared:
        reasons = ", ".join(f"{count} {reason}" for reason, count in answer.reasons.items())
        named = ", ".join(
            excerpt(place.words, MAX_ROW_NAME_CHARS) for place in answer.missing[:MAX_NAMED_ROWS]
        )
        raise NotClearedError(
            f"{answer.headline} ({reasons}), such as {named}: audit them, decide on them, or train without them"
        )
    return answer.rows


def check_data(ledger: Ledger, source: SourceConfig, required: RequiredVersions) -> GateAnswer:
    """Ask a ledger for every row of a source. Raises SourceError where it cannot be read."""
    found = _find_version(ledger, required)
    number, files, decided, missing = 0, 0, 0, list[UnclearedRow]()
    for file in open_source(source, "data"):
        files += 1
        for some in batched(_identify_rows(file, source), VALUES_PER_STATEMENT):
            standing = _load_standings(ledger, (id for _, id in some if id), found)
            number += len(some)
            for row, id in some:
                known = standing.get(id) if id else None
                reason = _explain_row(known) if id else REASON_UNREADABLE
                decided += known is not None and known.decided == "benign"
                if reason:
                    missing.append(UnclearedRow(row.source, row.position, id, reason))
    return GateAnswer(
        number, files, _complete_digits(found, required), decided, tuple(missing), compared=True
    )


def check_manifest(
    path: Path, required: RequiredVersions, ledger: Ledger | None = None
) -> GateAnswer:
    """Compare a manifest with the files beside it, and its rows with what a ledger says of them
    now.

    Without a ledger the answer is worth what the manifest is. Raises InputError where it is none.
    """
    manifest = read_manifest(path)
    found = _find_version(ledger, required) if ledger else None
    compared = compare_manifest(
        path.parent, manifest, partial(_find_schema, ledger) if ledger else None
    )
    missing = [UnclearedRow(name, None, None, REASON_CHANGED) for name in compared.changed]
    missing += [UnclearedRow(name, None, None, REASON_ADDED) for name in compared.unlisted]
    missing += [
        UnclearedRow(name, position, None, REASON_ADDED) for name, position in compared.added
    ]
    missing += [
        UnclearedRow(entry.source, entry.position, entry.id, REASON_LOST) for entry in compared.lost
    ]
    met = {
        audit_id
        for audit_id, cover in manifest.audits.items()
        if required.is_met_by(cover.model, cover.sentinels)
    }
    decided, kept = 0, dict[str, set[int]]()
    for some in batched(compared.present, VALUES_PER_STATEMENT):
        standing = _load_standings(ledger, (entry.id for entry in some), found) if ledger else {}
        for entry in some:
            known = standing.get(entry.id)
            reason = _explain_entry_now(entry, met, known) if ledger else _explain_entry(entry, met)
            decided += not reason and (known or entry).decided == "benign"
            if known:
                kept.setdefault(entry.file, set()).add(known.shape)
            if reason:
                missing.append(UnclearedRow(entry.source, entry.position, entry.id, reason))
    # by another schema than a row was kept by, its bytes say something else; a release never puts
    # two into one file
    missing += [
        UnclearedRow(name, None, None, REASON_CHANGED)
        for name, schemas in kept.items()
        if len(schemas) > 1
    ]
    number = len(compared.present) + len(compared.lost) + len(compared.added)
    return GateAnswer(
        number,
        len(manifest.files),
        _complete_digits(found, required),
        decided,
        tuple(missing),
        compared=ledger is not None,
    )


def _explain_entry(entry: ManifestEntry, met: set[str]) -> str | None:
    """Why a row is not cleared by what its manifest says."""
    if entry.decided == "benign":
        return None
    if entry.decided is not None:
        return entry.decided
    return None if entry.audit_id in met else REASON_VERSION if entry.audit_id else "pending"


def _explain_entry_now(entry: ManifestEntry, met: set[str], known: Row[Any] | None) -> str | None:
    """The same by what the ledger says now: a row may have been flagged, or decided on, since the
    release.
    """
    reason = _explain_row(known)
    if known is None or reason:
        return reason
    if bytes(known.digest).hex() != entry.sha256:
        return REASON_CHANGED
    return None if known.decided == "benign" else _explain_entry(entry, met)


def _explain_row(row: Row[Any] | None) -> str | None:
    """Why a row is not cleared by what the ledger says; the names of its statuses are reasons."""
    if row is None:
        return REASON_UNKNOWN
    said: str = row.decided or row.status
    if said == "benign":
        return None
    if said not in CLEARED_STATUSES:
        return said
    return REASON_VERSION if row.flagged is None else REASON_FLAGGED if row.flagged else None


def _load_standings(
    ledger: Ledger, ids: Iterable[str], version: Row[Any] | None
) -> dict[str, Row[Any]]:
    """What a ledger knows of at most AT_ONCE contents, and whether an audit of the version
    `flagged` them (None: there was none).
    """
    here = (results.c.row == rows.c.row) & (
        results.c.version == (version.version if version else None)
    )
    query = select(
        rows.c.id, rows.c.digest, rows.c.shape, rows.c.status, rows.c.decided, results.c.flagged
    ).outerjoin(results, here)
    with ledger.read() as connection:
        found = connection.execute(
            query.where(rows.c.id.in_([bytes.fromhex(id) for id in set(ids)]))
        )
        return {bytes(row.id).hex(): row for row in found}


def _find_version(ledger: Ledger, required: RequiredVersions) -> Row[Any] | None:
    """The version that is required; None where nothing was audited under it. Raises InputError
    where it is one of several.
    """
    with ledger.read() as connection:
        found = [
            row
            for row in connection.execute(select(versions))
            if required.is_met_by(row.model, row.sentinels)
        ]
    if len(found) > 1:
        raise InputError(
            f"{len(found)} versions of model and sentinels in the ledger are like the required one: give more of their digits"
        )
    return found[0] if found else None


def _complete_digits(version: Row[Any] | None, required: RequiredVersions) -> RequiredVersions:
    return RequiredVersions(version.model, version.sentinels) if version else required


def _find_schema(ledger: Ledger, entry: ManifestEntry) -> bytes | None:
    """The Arrow schema by which a content is kept, if the ledger knows it."""
    query = (
        select(shapes.c.schema)
        .join(rows, rows.c.shape == shapes.c.shape)
        .where(rows.c.id == bytes.fromhex(entry.id))
    )
    with ledger.read() as connection:
        return connection.execute(query).scalar_one_or_none()


def _identify_rows(file: SourceFile, source: SourceConfig) -> Iterator[tuple[RawRow, str | None]]:
    """Each row of a file with its content's id (None: it cannot be read), by the format that the
    first rows tell, as in an audit.
    """
    format: Format | None = None
    for chunk in batched(file.read(), ROWS_PER_CHUNK):
        readable = [row.record for row in chunk if row.record is not None]
        if format is None and readable:
            format = choose_format(source, readable[:FORMAT_SAMPLE_ROWS], file.name)
        for row in chunk:
            example = (
                format.read(row.record).example(row, format)
                if format and row.record is not None
                else None
            )
            yield row, example.id if example else None


def _resolve_source(audited: SourceConfig, path: str) -> SourceConfig:
    """The rows of a path, which starts at the current folder, read as those of an audit's source."""
    path = path if "://" in path or "${" in path else str(Path(path).expanduser().absolute())
    read = {"format": audited.format, "fields": audited.fields, "template": audited.template}
    return SourceConfig.model_validate({"path": path, **read}).with_base_folder(Path.cwd())


def _fill_in_versions(required: RequiredVersions, settings: AuditConfig) -> RequiredVersions:
    """The required versions, by default those that an audit of these settings would be of now."""
    model = required.model or find_model_files(settings.model).fingerprint
    return RequiredVersions(
        model, required.sentinels or compute_sentinels_version(load_sentinels(settings.sentinels))
    )


def _check_digits(text: str | None, what: str) -> str | None:
    if text is not None and (
        set(text.lower()) - set("0123456789abcdef")
        or not MIN_ID_DIGITS <= len(text) <= DIGEST_DIGITS
    ):
        raise InputError(
            f"the {what} version {excerpt(text, DIGEST_DIGITS)} is none: give its SHA-256 in hex, or the first 8 or more digits of it"
        )
    return text and text.lower()


def _combine_answers(answers: Sequence[GateAnswer], required: RequiredVersions) -> GateAnswer:
    """One answer for all. Raises InputError where there is nothing to say."""
    missing = tuple(place for answer in answers for place in answer.missing)
    number = sum(answer.rows for answer in answers)
    if not number and not missing:
        raise InputError("there are no rows to be cleared: give at least one file that holds some")
    named = next((answer.required for answer in answers), required)
    files, decided = (
        sum(answer.files for answer in answers),
        sum(answer.by_decision for answer in answers),
    )
    return GateAnswer(
        number, files, named, decided, missing, all(answer.compared for answer in answers)
    )
