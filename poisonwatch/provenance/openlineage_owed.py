"""What an OpenLineage server is owed: an account of each audit and release, put into the outbox in
the transaction that makes it true, and sent until the server takes it.
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, or_, select

from poisonwatch.config import AuditConfig
from poisonwatch.errors import OperationError
from poisonwatch.ledger.history import (
    PastAudit,
    counting_failures,
    list_pending_audits,
    mark_audit_delivered,
)
from poisonwatch.ledger.ledger import Ledger, now
from poisonwatch.ledger.outbox import (
    OPENLINEAGE,
    RELEASE_DELIVERY,
    Delivery,
    list_pending_records,
    mark_failed,
    mark_sent,
)
from poisonwatch.ledger.tables import files, places, rejections, results
from poisonwatch.ledger.transactions import retried
from poisonwatch.lineage.releases import PastRelease, list_releases
from poisonwatch.openlineage_config import URL_VARIABLE
from poisonwatch.provenance.openlineage import build_audit_event, build_release_event, send_events
from poisonwatch.text.environment import open_variables

KEY = "openlineage.url"


def list_lineage_readers(config: AuditConfig) -> list[str]:
    """Who is to hear of audits and releases by OpenLineage: a target of the outbox, or nobody."""
    return [OPENLINEAGE] if config.openlineage.find_url() else []


def tell_pending(ledger: Ledger, config: AuditConfig) -> int:
    """Tell the server of the audits and releases of a name that it does not know of yet, oldest
    first: how many. Nobody is told where no server is named.

    Raises OperationError where the server does not take one; what it took stays told.
    """
    url = config.openlineage.find_url()
    if url is None:
        return 0
    named = KEY if config.openlineage.url else URL_VARIABLE
    address = open_variables(url, named)
    with counting_failures(ledger, config.name, OPENLINEAGE):
        audits = list_pending_audits(ledger, config.name, OPENLINEAGE)
        for past in audits:
            _tell_audit(ledger, past, address, named)
    return len(audits) + _tell_releases(ledger, config.name, address, named)


def _tell_audit(ledger: Ledger, past: PastAudit, address: str, named: str) -> None:
    # Of one without new rows there is nothing to tell.
    if not past.nothing_new:
        event = build_audit_event(
            past.name,
            past.audit_id,
            past.finished_at or past.started_at,
            _list_sources(ledger, past.number),
            failed=not past.has_results,
        )
        send_events([event], address, named)
    mark_audit_delivered(ledger, past.number, OPENLINEAGE)


def _tell_releases(ledger: Ledger, name: str, address: str, named: str) -> int:
    releases = _list_owed_releases(ledger, name)
    for release in releases:
        manifest = release.load()
        written = [file.name for file in manifest.files] if manifest else []
        event = build_release_event(
            name, release.manifest, release.released_at, _list_source_names(ledger, name), written
        )
        try:
            send_events([event], address, named)
        except OperationError as error:
            _note_failure(ledger, releases, str(error))
            raise
        _mark_told(ledger, release)
    return len(releases)


@retried
def _list_owed_releases(ledger: Ledger, name: str) -> list[PastRelease]:
    with ledger.read() as connection:
        owed = set(list_pending_records(connection, OPENLINEAGE))
        # Statements are long: they are read where there is something to say.
        known = list_releases(connection, name) if owed else []
    return [release for release in known if release.number in owed]


@retried
def _mark_told(ledger: Ledger, release: PastRelease) -> None:
    with ledger.write() as connection:
        mark_sent(connection, _make_delivery(release), now())


@retried
def _note_failure(ledger: Ledger, releases: Iterable[PastRelease], reason: str) -> None:
    with ledger.write() as connection:
        owed = set(list_pending_records(connection, OPENLINEAGE))
        for release in releases:
            if release.number in owed:
                mark_failed(connection, _make_delivery(release), now(), reason)


def _make_delivery(release: PastRelease) -> Delivery:
    return Delivery(RELEASE_DELIVERY, release.number, OPENLINEAGE)


@retried
def _list_sources(ledger: Ledger, audit: int) -> list[str]:
    """The files that the rows of an audit stand in, by name."""
    with ledger.read() as connection:
        return list(_read_sources(connection, audit))


def _read_sources(connection: Connection, audit: int) -> Iterator[str]:
    judged = select(results.c.row).where(results.c.audit == audit)
    refused = select(rejections.c.row).where(rejections.c.audit == audit)
    inside = or_(places.c.row.in_(judged), places.c.row.in_(refused))
    query = select(files.c.name).join(places, places.c.file == files.c.file).where(inside)
    yield from connection.execute(query.distinct().order_by(files.c.name)).scalars()


@retried
def _list_source_names(ledger: Ledger, name: str) -> list[str]:
    """The files that audits of a name have read, by name."""
    query = select(files.c.name).where(files.c.audit == name).order_by(files.c.name)
    with ledger.read() as connection:
        return list(connection.execute(query).scalars())
