"""What a result holds for: versions, and which of them count as one."""

from dataclasses import asdict, dataclass, replace

from sqlalchemy import ColumnElement, Connection, Select, func, insert, select, update

from poisonwatch.attestation.signer import Signer
from poisonwatch.ledger.records import append_adopted_version
from poisonwatch.ledger.tables import versions

VERSIONS_LOCK_NUMBER = 0x76657273696F6E  # PostgreSQL's advisory lock of whoever adds a version


@dataclass(frozen=True, slots=True)
class Version:
    """What a result holds for: SHA-256 of the model, of the sentinels, of how the model reads rows,
    and the settings that shape verdicts, as JSON (`verdict_settings`; None: nobody recorded it).

    `reads_as_before`: the reading is taken for the one of results without any, which an earlier
    version of this library recorded.
    """

    model: str
    sentinels: str
    reading: str | None = None
    reads_as_before: bool = False
    settings: str | None = None


def find_or_add_version(
    connection: Connection, version: Version, signer: Signer | None = None
) -> int:
    """The number of a version. Results of no recorded reading are from now on those of the first
    that is taken for it: the chain of records says so.
    """
    query = _select_version(version)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        # On SQLite the transaction itself holds the write lock (`Ledger.write`).
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(VERSIONS_LOCK_NUMBER)))
        # Others may have added it since.
        found = _find_version(connection, version, signer)
    if found is None:
        values = {
            "model": version.model,
            "sentinels": version.sentinels,
            "reading": version.reading,
            "settings": version.settings,
        }
        added = insert(versions).values(values).returning(versions.c.version)
        found = connection.execute(added).scalar_one()
    return int(found)


def find_covering_versions(
    connection: Connection, version: Version, signer: Signer | None = None
) -> list[int]:
    """The numbers of the versions whose results need not be found again under this one: its own,
    which is added where it is new, and that of results whose settings nobody recorded.
    """
    covering = [find_or_add_version(connection, version, signer)]
    if version.settings is not None:
        before = _find_version(connection, replace(version, settings=None), signer)
        if before is not None:
            covering.append(before)
    return covering


def _match_all_but_reading(version: Version) -> ColumnElement[bool]:
    same = (versions.c.model == version.model) & (versions.c.sentinels == version.sentinels)
    return same & versions.c.settings.is_not_distinct_from(version.settings)


def _select_version(version: Version) -> Select[tuple[int]]:
    has_reading = versions.c.reading.is_not_distinct_from(version.reading)
    return select(versions.c.version).where(_match_all_but_reading(version), has_reading)


def _find_version(connection: Connection, version: Version, signer: Signer | None) -> int | None:
    """The number of a version that is there, or is taken for it from now on."""
    found = connection.execute(_select_version(version)).scalar_one_or_none()
    if found is None and version.reads_as_before:
        has_none = versions.c.reading.is_(None)
        unrecorded = update(versions).where(_match_all_but_reading(version), has_none)
        taken = unrecorded.values(reading=version.reading).returning(versions.c.version)
        found = connection.execute(taken).scalar_one_or_none()
        if found is not None:
            append_adopted_version(connection, asdict(version), signer)
    return found
