"""Which of a ledger's versions count for a gate: those whose audits clear rows, and those that miss
in one thing alone, which is then the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, select

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import versions
from poisonwatch.ledger.transactions import retried
from poisonwatch.release.answer import SHOWN_DIGITS, RequiredVersions


@dataclass(frozen=True, slots=True)
class FoundVersions:
    """The `required` version by all of its digits, and numbers of versions in the ledger: those
    that meet it (they differ in their settings at most), those that asked the same of rows that
    were `read_otherwise`, and those with the same reading that were `set_otherwise`.
    """

    required: RequiredVersions
    met: tuple[int, ...] = ()
    read_otherwise: tuple[int, ...] = ()
    set_otherwise: tuple[int, ...] = ()


@retried
def find_versions(ledger: Ledger, required: RequiredVersions) -> FoundVersions:
    """Raises InputError where the required version is one of several that differ in more than their
    settings.
    """
    with ledger.read() as connection:
        known = connection.execute(select(versions)).all()
    asked = [row for row in known if required.asks(row.model, row.sentinels)]
    alike = [row for row in asked if required.reads_alike(row.reading)]
    # What says its reading comes before what is only taken to have it.
    if required.reading is not None:
        alike = [row for row in alike if row.reading is not None] or alike
    _require_one(alike)
    if alike:
        required = _complete(required, alike[0])
        asked = [row for row in known if required.asks(row.model, row.sentinels)]
    numbers = {row.version for row in alike}
    met = [row.version for row in alike if required.is_set_alike(row.settings)]
    return FoundVersions(
        required=required,
        met=tuple(met),
        read_otherwise=tuple(row.version for row in asked if row.version not in numbers),
        set_otherwise=tuple(sorted(numbers.difference(met))),
    )


def _require_one(alike: Sequence[Row[Any]]) -> None:
    """Raises InputError where versions differ in more than their settings."""
    differing = sorted({(row.model, row.sentinels, row.reading or "none") for row in alike})
    if len(differing) <= 1:
        return
    remedy = "give more of their digits"
    if len({(model, sentinels) for model, sentinels, _ in differing}) == 1:
        readings = ", ".join(reading[:SHOWN_DIGITS] for _, _, reading in differing)
        remedy = f"they differ in the reading ({readings}), give its digits, too"
    raise InputError(
        f"{len(differing)} versions of model and sentinels in the ledger are like the required "
        f"one: {remedy}"
    )


def _complete(required: RequiredVersions, version: Row[Any]) -> RequiredVersions:
    """The required versions by all of their digits. Where any reading will do, it stays so: the
    ledger has one.
    """
    reading = version.reading if required.reading is not None else None
    return replace(required, model=version.model, sentinels=version.sentinels, reading=reading)
