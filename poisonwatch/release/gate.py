"""The gate: whether exactly these rows are cleared, asked by a training job just before it trains
on them.

A row is cleared by an audit under the required model and sentinels that did not flag it, unless it
is in quarantine now; or by a person who called it benign. Everything else is a reason (`reasons`).

The ledger is only read, and no lock is taken: the gate answers while an audit runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from poisonwatch.config import AuditConfig
from poisonwatch.config_file import load_config
from poisonwatch.errors import InputError, NotClearedError
from poisonwatch.examples import RawRow
from poisonwatch.ledger.decisions import MIN_ID_DIGITS, verify_chain
from poisonwatch.ledger.intake import FORMAT_SAMPLE_ROWS, ROWS_PER_CHUNK
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.queries import ID_DIGITS, is_hex
from poisonwatch.ledger.tables import results, rows, shapes, versions
from poisonwatch.model.files import find_model_files
from poisonwatch.release.answer import GateAnswer, RequiredVersions, UnclearedRow
from poisonwatch.release.manifest import (
    ManifestComparison,
    ManifestEntry,
    compare_manifest,
    is_manifest,
    read_manifest,
)
from poisonwatch.release.reasons import (
    REASON_ADDED,
    REASON_CHANGED,
    REASON_LOST,
    REASON_UNREADABLE,
    explain_entry,
    explain_entry_now,
    explain_row,
)
from poisonwatch.sentinels.sentinel import compute_sentinels_version, load_sentinels
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.base import SourceFile
from poisonwatch.sources.formats import Format, choose_format
from poisonwatch.sources.open import open_source
from poisonwatch.text.display import excerpt, make_visible

MAX_NAMED_ROWS = 3  # rows that an error names
MAX_ROW_NAME_CHARS = 200


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
        model=_check_digits(model_version, "model"),
        sentinels=_check_digits(sentinels_version, "sentinels"),
    )
    manifests, data = _split_paths(paths)
    if audit is None:
        if data:
            raise InputError(
                f"{make_visible(data[0])} is no manifest of a release: give the audit file whose "
                "ledger knows its rows (--audit)"
            )
        return _combine_answers([check_manifest(path, required) for path in manifests], required)
    settings = load_config(audit)
    required = _fill_in_versions(required, settings)
    with Ledger.existing(settings.state) as ledger:
        # A decision counts as one only in a chain that nobody tampered with.
        verify_chain(ledger)
        answers = [check_manifest(path, required, ledger) for path in manifests]
        for path in data:
            source = _resolve_source(settings.source, path)
            answers.append(check_data(ledger, source, required))
    return _combine_answers(answers, required)


def _split_paths(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The manifests among the paths, and the others. Raises InputError where one is the folder of a
    release: its files would be taken without their manifest.
    """
    manifests: list[Path] = []
    data: list[str] = []
    for path in paths:
        if is_manifest(Path(path)):
            manifests.append(Path(path))
            continue
        inside = Path(path) / "manifest.json"
        if inside.is_file():
            raise InputError(
                f"{make_visible(str(path))} is a folder with a manifest: give "
                f"{make_visible(str(inside))} itself, or files"
            )
        data.append(str(path))
    return manifests, data


def require_cleared(
    paths: Sequence[str | Path],
    audit: str | Path | None = None,
    model_version: str | None = None,
    sentinels_version: str | None = None,
) -> int:
    """The number of these rows, all of which are cleared. Raises NotClearedError where some are
    not, and what `check_cleared` raises.
    """
    answer = check_cleared(paths, audit, model_version, sentinels_version)
    if not answer.cleared:
        reasons = ", ".join(f"{count} {reason}" for reason, count in answer.reasons.items())
        first = answer.missing[:MAX_NAMED_ROWS]
        named = ", ".join(excerpt(place.words, MAX_ROW_NAME_CHARS) for place in first)
        raise NotClearedError(
            f"{answer.headline} ({reasons}), such as {named}: audit them, decide on them, or train "
            "without them"
        )
    return answer.rows


def check_data(ledger: Ledger, source: SourceConfig, required: RequiredVersions) -> GateAnswer:
    """Ask a ledger for every row of a source. Raises SourceError where it cannot be read."""
    version = _find_version(ledger, required)
    number, files, decided = 0, 0, 0
    missing: list[UnclearedRow] = []
    for file in open_source(source, "data").units:
        files += 1
        # A question to the ledger for some rows at a time: a file may be longer than the memory.
        for some in batched(_identify_rows(file, source), VALUES_PER_STATEMENT):
            ledger_rows = _load_ledger_rows(ledger, (id for _, id in some if id), version)
            number += len(some)
            for row, id in some:
                known = None
                reason: str | None = REASON_UNREADABLE
                if id:
                    known = ledger_rows.get(id)
                    reason = explain_row(known)
                decided += known is not None and known.decided == "benign"
                if reason:
                    missing.append(UnclearedRow(row.source, row.position, id, reason=reason))
    return GateAnswer(
        rows=number,
        files=files,
        required=_complete_digits(version, required),
        by_decision=decided,
        missing=tuple(missing),
        compared=True,
    )


def check_manifest(
    path: Path, required: RequiredVersions, ledger: Ledger | None = None
) -> GateAnswer:
    """Compare a manifest with the files beside it, and its rows with what a ledger says of them
    now.

    Without a ledger the answer is worth what the manifest is. Raises InputError where it is none.
    """
    manifest = read_manifest(path)
    version, schema_of = None, None
    if ledger is not None:
        version, schema_of = _find_version(ledger, required), partial(_find_schema, ledger)
    compared = compare_manifest(path.parent, manifest, schema_of)
    missing = _list_differences(compared)
    # Audits whose word counts, by id.
    met: set[str] = set()
    for audit_id, cover in manifest.audits.items():
        if required.is_met_by(cover.model, cover.sentinels):
            met.add(audit_id)
    decided = 0
    shapes_of: dict[str, set[int]] = {}  # by file
    for some in batched(compared.present, VALUES_PER_STATEMENT):
        ledger_rows = {}
        if ledger is not None:
            ledger_rows = _load_ledger_rows(ledger, (entry.id for entry in some), version)
        for entry in some:
            known = ledger_rows.get(entry.id)
            if ledger is None:
                reason = explain_entry(entry, met)
            else:
                reason = explain_entry_now(entry, met, known)
            # What the rows of a file were kept by.
            if known:
                shapes_of.setdefault(entry.file, set()).add(known.shape)
            if reason:
                missing.append(_place_entry(entry, reason))
            elif (known or entry).decided == "benign":
                decided += 1
    # By another schema than a row was kept by, its bytes say something else; a release never puts
    # two into one file.
    for name, numbers in shapes_of.items():
        if len(numbers) > 1:
            missing.append(UnclearedRow(name, None, None, reason=REASON_CHANGED))
    return GateAnswer(
        rows=len(compared.present) + len(compared.lost) + len(compared.added),
        files=len(manifest.files),
        required=_complete_digits(version, required),
        by_decision=decided,
        missing=tuple(missing),
        compared=ledger is not None,
    )


def _list_differences(compared: ManifestComparison) -> list[UnclearedRow]:
    """What files and manifest do not agree on."""
    places: list[UnclearedRow] = []
    for name in compared.changed:
        places.append(UnclearedRow(name, None, None, reason=REASON_CHANGED))
    for name in compared.unlisted:
        places.append(UnclearedRow(name, None, None, reason=REASON_ADDED))
    for name, position in compared.added:
        places.append(UnclearedRow(name, position, None, reason=REASON_ADDED))
    for entry in compared.lost:
        places.append(_place_entry(entry, REASON_LOST))
    return places


def _place_entry(entry: ManifestEntry, reason: str) -> UnclearedRow:
    return UnclearedRow(entry.source, entry.position, entry.id, reason=reason)


def _load_ledger_rows(
    ledger: Ledger, ids: Iterable[str], version: Row[Any] | None
) -> dict[str, Row[Any]]:
    """What a ledger knows of at most VALUES_PER_STATEMENT contents, and whether an audit of the
    version `flagged` them (None: there was none).
    """
    # No result is of version NULL.
    number = version.version if version else None
    here = (results.c.row == rows.c.row) & (results.c.version == number)
    columns = rows.c.id, rows.c.digest, rows.c.shape, rows.c.status, rows.c.decided
    wanted = [bytes.fromhex(id) for id in set(ids)]
    query = select(*columns, results.c.flagged).outerjoin(results, here)
    with ledger.read() as connection:
        found = connection.execute(query.where(rows.c.id.in_(wanted)))
        return {bytes(row.id).hex(): row for row in found}


def _find_version(ledger: Ledger, required: RequiredVersions) -> Row[Any] | None:
    """The version that is required; None where nothing was audited under it. Raises InputError
    where it is one of several.
    """
    found = []
    with ledger.read() as connection:
        for row in connection.execute(select(versions)):
            if required.is_met_by(row.model, row.sentinels):
                found.append(row)
    if len(found) > 1:
        raise InputError(
            f"{len(found)} versions of model and sentinels in the ledger are like the required "
            "one: give more of their digits"
        )
    return next(iter(found), None)


def _complete_digits(version: Row[Any] | None, required: RequiredVersions) -> RequiredVersions:
    if version is None:
        return required
    return RequiredVersions(version.model, version.sentinels)


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
    first rows have, as in an audit.
    """
    format: Format | None = None
    for chunk in batched(file.read(), ROWS_PER_CHUNK):
        readable = [row.record for row in chunk if row.record is not None]
        if format is None and readable:
            format = choose_format(source, readable[:FORMAT_SAMPLE_ROWS], file.name)
        for row in chunk:
            yield row, _identify_row(row, format)


def _identify_row(row: RawRow, format: Format | None) -> str | None:
    if format is None or row.record is None:
        return None
    example = format.read(row.record).to_example(row, format)
    return example.id if example else None


def _resolve_source(audited: SourceConfig, path: str) -> SourceConfig:
    """The rows of a path, which starts at the current folder, read as those of an audit's
    source.
    """
    # Not an audit file's folder: who asks names files from where they are. A variable may hold a
    # whole URL.
    if "://" not in path and "${" not in path:
        path = str(Path(path).expanduser().absolute())
    # What says where rows are (hub, split, query) is another source's.
    placed = {"hub", "subset", "split", "revision", "sql", "query", "watermark"}
    read = audited.model_dump(exclude=placed) | {"path": path}
    return SourceConfig.model_validate(read).with_base_folder(Path.cwd())


def _fill_in_versions(required: RequiredVersions, settings: AuditConfig) -> RequiredVersions:
    """The required versions, by default those that an audit of these settings would be of now."""
    model, sentinels = required.model, required.sentinels
    # Each only where it is asked for: a model's files take long to hash.
    if not model:
        model = find_model_files(settings.model).fingerprint
    if not sentinels:
        sentinels = compute_sentinels_version(load_sentinels(settings.sentinels))
    return RequiredVersions(model, sentinels)


def _check_digits(text: str | None, what: str) -> str | None:
    """A version's digits in lower case. Raises InputError where they are none."""
    if text is None:
        return None
    digits = text.lower()
    if not is_hex(digits) or not MIN_ID_DIGITS <= len(digits) <= ID_DIGITS:
        raise InputError(
            f"the {what} version {excerpt(text, ID_DIGITS)} is none: give its SHA-256 in hex, or "
            "the first 8 or more digits of it"
        )
    return digits


def _combine_answers(answers: Sequence[GateAnswer], required: RequiredVersions) -> GateAnswer:
    """One answer for all. Raises InputError where there is nothing to say."""
    missing: list[UnclearedRow] = []
    # Of one ledger, all answers name the same version by all of its digits.
    if answers:
        required = answers[0].required
    for answer in answers:
        missing += answer.missing
    number = sum(answer.rows for answer in answers)
    if not number and not missing:
        raise InputError("there are no rows to be cleared: give at least one file that holds some")
    return GateAnswer(
        rows=number,
        files=sum(answer.files for answer in answers),
        required=required,
        by_decision=sum(answer.by_decision for answer in answers),
        missing=tuple(missing),
        compared=all(answer.compared for answer in answers),
    )
