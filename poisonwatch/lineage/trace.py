"""The lineage of an audit's rows: of all of them, of one row, or of a release."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from sqlalchemy import Connection, func, select

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import find_rows
from poisonwatch.ledger.group_teams import list_agreed
from poisonwatch.ledger.ledger import VALUES_PER_STATEMENT, Ledger, batched
from poisonwatch.ledger.probes import read_probes
from poisonwatch.ledger.queries import is_hex
from poisonwatch.ledger.tables import (
    audits,
    decisions,
    files,
    flags,
    places,
    rejections,
    results,
    rows,
)
from poisonwatch.ledger.team_tables import agreements
from poisonwatch.ledger.transactions import retried
from poisonwatch.lineage.releases import (
    MISSING,
    SHOWN_DIGITS,
    PastRelease,
    list_releases,
    make_probe_step,
    make_training_step,
)
from poisonwatch.lineage.step import Lineage, Step
from poisonwatch.release.manifest import Manifest, hash_file, is_manifest
from poisonwatch.release.trainings import read_trainings
from poisonwatch.text.display import excerpt
from poisonwatch.text.words import plural

MIN_DIGITS = 8  # of the SHA-256 of a manifest
COMMITTED = ("committed", "finished")


@retried
def trace(
    ledger: Ledger, name: str, what: str | None = None, *, reads_files: bool = True
) -> Lineage:
    """The lineage of the rows of audits of a name: of all (None), of a release (its manifest, or 8
    or more digits of that one's SHA-256), or of a row, as `decide` names it. Whoever is not to
    have files of this machine read cannot name a manifest (`reads_files`). Raises InputError where
    there is no such thing.
    """
    with ledger.read() as connection:
        if what is None:
            return Lineage(f"rows of {name}", tuple(_trace_all(connection, name)))
        release = _find_release(connection, what, reads_files)
        if release is not None:
            steps = tuple(_trace_release(connection, release))
            return Lineage(f"release {release.manifest[:SHOWN_DIGITS]}", steps)
        (row,) = find_rows(connection, [what], unflagged=True)
        id = bytes(row.id).hex()
        return Lineage(f"row {id[:16]}", tuple(_trace_row(connection, row.row, id)))


def _find_release(connection: Connection, what: str, reads_files: bool) -> PastRelease | None:
    """The release of this name, if it is one."""
    is_file = reads_files and is_manifest(Path(what))
    digits = hash_file(Path(what)) if is_file else what.lower()
    if not is_hex(digits) or len(digits) < MIN_DIGITS:
        return None
    for release in list_releases(connection):
        if release.manifest.startswith(digits):
            return release
    if is_file:
        raise InputError(f"{excerpt(what, 200)} is no manifest of a release of this ledger")
    return None


def _trace_all(connection: Connection, name: str) -> Iterator[Step]:
    listed = select(files).where(files.c.audit == name).order_by(files.c.name)
    for file in connection.execute(listed):
        words = plural(file.rows, "row")
        if file.gone_at is not None:
            words += f", gone since {file.gone_at}"
        yield Step("source", file.name, file.read_at, words, {"rows": file.rows})
    yield from _list_audits(connection, name)
    here = (
        select(places.c.row)
        .join(files, files.c.file == places.c.file)
        .where(files.c.audit == name, files.c.gone_at.is_(None))
    )
    query = select(rows.c.decided, func.count()).where(rows.c.row.in_(here))
    counted = query.where(rows.c.decided.is_not(None)).group_by(rows.c.decided)
    for verdict, count in connection.execute(counted.order_by(rows.c.decided)).tuples():
        words = f"{plural(count, 'row')} of the source as it is now"
        yield Step("decision", verdict, None, words, {"rows": count})
    yield from _follow(connection, list_releases(connection, name))


def _list_audits(connection: Connection, name: str) -> Iterator[Step]:
    audited = select(func.count()).where(results.c.audit == audits.c.audit).scalar_subquery()
    flagged = select(func.count()).where(flags.c.audit == audits.c.audit).scalar_subquery()
    refused = select(func.count()).where(rejections.c.audit == audits.c.audit).scalar_subquery()
    counts = audited.label("audited"), flagged.label("flagged"), refused.label("rejected")
    query = select(audits.c.audit_id, audits.c.started_at, audits.c.run_dir, *counts)
    query = query.where(audits.c.name == name, audits.c.state.in_(COMMITTED))
    for audit in connection.execute(query.order_by(audits.c.audit)):
        if not audit.audited + audit.rejected:
            continue
        facts = {"rows": audit.audited, "flagged": audit.flagged, "rejected": audit.rejected}
        words = f"{plural(audit.audited, 'row')}, {audit.flagged} flagged"
        if audit.rejected:
            words += f", {audit.rejected} rejected"
        run = {"run": Path(audit.run_dir).name}
        yield Step("audit", audit.audit_id, audit.started_at, words, {**facts, **run})


def _trace_row(connection: Connection, row: int, id: str) -> Iterator[Step]:
    placed = (
        select(files.c.name, places.c.position, files.c.read_at, files.c.gone_at)
        .join(files, files.c.file == places.c.file)
        .where(places.c.row == row)
        .order_by(files.c.name, places.c.position)
    )
    for place in connection.execute(placed):
        words = "stands there" if place.gone_at is None else f"gone since {place.gone_at}"
        facts = {"file": place.name, "line": place.position + 1}
        yield Step("source", f"{place.name}:{place.position + 1}", place.read_at, words, facts)
    yield from _list_results(connection, row)
    made = select(decisions).where(decisions.c.row == row).order_by(decisions.c.number)
    agreed = list_agreed(connection, [row])
    for decision in connection.execute(made):
        words = f"{decision.verdict} by {decision.author or 'nobody named'}"
        first = agreed.get(decision.number)
        if first is not None:
            words += f", who agrees with {first}"
        if decision.note:
            words += f": {decision.note}"
        facts = {"verdict": decision.verdict, "author": decision.author, "note": decision.note}
        if first is not None:
            facts["agrees_with"] = first
        yield Step("decision", str(decision.number), decision.decided_at, words, facts)
    holding, unknown = [], 0
    for release in list_releases(connection):
        manifest = release.load()
        unknown += manifest is None
        if manifest is not None and _holds(manifest, id):
            holding.append(release)
    yield from _follow(connection, holding)
    if unknown:
        words = f"of {plural(unknown, 'release')} {MISSING.removeprefix('its ')}"
        yield Step("release", "unknown", None, words, {"releases": unknown})


def _list_results(connection: Connection, row: int) -> Iterator[Step]:
    """What audits said of a row, oldest first."""
    found: list[tuple[int, Step]] = []
    passed = (
        select(audits, results.c.flagged, flags.c.panel, flags.c.score)
        .join(results, results.c.audit == audits.c.audit)
        .outerjoin(flags, (flags.c.audit == audits.c.audit) & (flags.c.row == results.c.row))
        .where(results.c.row == row)
    )
    for said in connection.execute(passed):
        words, facts = "passed", {"flagged": bool(said.flagged)}
        if said.flagged:
            words = f"flagged on {said.panel}, score {said.score:.1f}"
            facts |= {"panel": said.panel, "score": said.score}
        found.append((said.audit, Step("audit", said.audit_id, said.started_at, words, facts)))
    refused = (
        select(audits, rejections.c.expectation, rejections.c.reason)
        .join(rejections, rejections.c.audit == audits.c.audit)
        .where(rejections.c.row == row)
    )
    for said in connection.execute(refused):
        facts = {"expectation": said.expectation, "reason": said.reason}
        words = f"rejected: {said.reason}"
        found.append((said.audit, Step("audit", said.audit_id, said.started_at, words, facts)))
    yield from (step for _, step in sorted(found, key=lambda pair: pair[0]))


def _holds(manifest: Manifest, id: str) -> bool:
    """Whether a release holds a row, as it is or repaired."""
    for entry in manifest.rows:
        if entry.id == id or (entry.original is not None and entry.original.id == id):
            return True
    return False


def _trace_release(connection: Connection, release: PastRelease) -> Iterator[Step]:
    manifest = release.load()
    if manifest is None:
        yield Step("source", "unknown", None, MISSING)
    else:
        yield from _list_contents(connection, manifest)
    yield from _follow(connection, [release])


def _list_contents(connection: Connection, manifest: Manifest) -> Iterator[Step]:
    """Where the rows of a release came from, and who cleared them."""
    read_at = dict(connection.execute(select(files.c.name, files.c.read_at)).tuples().all())
    for source, count in sorted(Counter(entry.source for entry in manifest.rows).items()):
        words = f"{plural(count, 'row')} in the release"
        yield Step("source", source, read_at.get(source), words, {"rows": count})
    by_audit = Counter(entry.audit_id for entry in manifest.rows if not entry.is_cleared_by_person)
    begun = select(audits.c.audit_id, audits.c.started_at)
    known = begun.where(audits.c.audit_id.in_(manifest.audits))
    started = dict(connection.execute(known).tuples().all())
    for audit_id, count in sorted(by_audit.items(), key=lambda pair: started.get(pair[0], "")):
        words = f"cleared {plural(count, 'row')}"
        name = audit_id or "unknown"
        yield Step("audit", name, started.get(audit_id), words, {"rows": count})
    decided = Counter(entry.decided for entry in manifest.rows if entry.is_cleared_by_person)
    for verdict, count in sorted(decided.items(), key=str):
        words = plural(count, "row")
        repaired = [entry for entry in manifest.rows if entry.decided == verdict]
        people = {entry.author for entry in repaired if entry.author}
        people |= _list_proposers(connection, [entry.decision for entry in repaired])
        if authors := sorted(people):
            words += f", by {', '.join(authors)}"
        facts = {"rows": count, "authors": authors}
        yield Step("decision", str(verdict), None, words, facts)


def _list_proposers(connection: Connection, numbers: Collection[int | None]) -> set[str]:
    """Who said the same before those who made these decisions."""
    found: set[str] = set()
    known = sorted({number for number in numbers if number is not None})
    for some in batched(known, VALUES_PER_STATEMENT):
        query = select(agreements.c.proposer).where(agreements.c.decision.in_(some))
        found.update(connection.execute(query).scalars())
    return found


def _follow(connection: Connection, releases: Collection[PastRelease]) -> Iterator[Step]:
    """Releases, the training runs that named one of them, and what models that were trained on one
    answer.
    """
    for release in releases:
        yield release.make_step()
    manifests = {release.manifest for release in releases}
    for training in read_trainings(connection):
        if manifests.intersection(training.manifests):
            yield make_training_step(training)
    for probe in read_probes(connection):
        if probe.release in manifests:
            yield make_probe_step(probe)
