"""What tuned models were found to answer: a record of the chain for each probe, beside the release
that the model was trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import Notice, add_notice, address_notice
from poisonwatch.ledger.records import (
    ChainHead,
    append_record,
    find_record,
    lock_chain,
    read_records,
)
from poisonwatch.ledger.transactions import retried
from poisonwatch.text.words import plural

PROBE = "probe"  # kind of records
RELEASE = "release"  # of the record that a release leaves, under its manifest's SHA-256


@dataclass(frozen=True, slots=True)
class PastProbe:
    """A probe by the audit file of a `name`, of a `checkpoint` (fingerprint) that was trained on a
    `release` (SHA-256 of its manifest; None: not said): how many sentinels were asked, which
    `moved`, and which panels moved as a whole.
    """

    probe_id: str
    name: str
    checkpoint: str
    release: str | None
    asked: int
    moved: tuple[str, ...]
    moved_panels: tuple[str, ...]
    recorded_at: str

    @property
    def has_moved(self) -> bool:
        """Whether a sentinel or a panel moved."""
        return bool(self.moved or self.moved_panels)

    @property
    def words(self) -> str:
        """What moved, in words; panels by name, as they were written."""
        said = f"{len(self.moved)} of {plural(self.asked, 'sentinel')} moved"
        if self.moved_panels:
            panels = plural(len(self.moved_panels), "panel")
            said += f", and {panels} as a whole ({', '.join(self.moved_panels)})"
        return said

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"has_moved": self.has_moved}


@retried
def record_probe(
    ledger: Ledger,
    probe_id: str,
    *,
    name: str,
    checkpoint: str,
    model: str,
    sentinels: str,
    release: str | None,
    asked: Sequence[Mapping[str, Any]],
    panels: Sequence[Mapping[str, Any]] = (),
    trusted: str | None = None,
    notice: Notice | None = None,
    targets: Sequence[str] = (),
) -> ChainHead:
    """Record what a checkpoint answered. `checkpoint` and `model` are fingerprints, `sentinels` the
    version asked, `release` the SHA-256 of a manifest; `asked` says of each sentinel, and `panels`
    of each panel, how far it moved (change and limit in nats a token), counted from the checkpoint
    `trusted` (fingerprint) where there is one. With the record a `notice` of it is put into the
    outbox, for these alert `targets`, unless it is there already.

    Raises InputError where no such release was written, and what the ledger's signer raises.
    """
    said = {
        "name": name,
        "checkpoint": checkpoint,
        "model": model,
        "sentinels": sentinels,
        "release": release,
        "asked": [dict(each) for each in asked],
        "panels": [dict(each) for each in panels],
        "trusted": trusted,
    }
    with ledger.write() as connection:
        lock_chain(connection)
        if release is not None and find_record(connection, RELEASE, release) is None:
            raise make_unknown_release_error(release)
        if notice is not None:
            _enqueue(connection, notice, targets)
        subjects = {"checkpoint": checkpoint}
        return append_record(connection, PROBE, probe_id, subjects, said, ledger.signer)


def _enqueue(connection: Connection, notice: Notice, targets: Sequence[str]) -> None:
    number = add_notice(connection, notice, datetime.now(UTC))
    # None where the same checkpoint was told of before.
    if number is not None:
        address_notice(connection, number, targets)


def read_probes(connection: Connection) -> Iterator[PastProbe]:
    """The probes on record, oldest first."""
    for record in read_records(connection, PROBE):
        said = record.statement.predicate
        yield PastProbe(
            probe_id=record.item or "",
            name=said["name"],
            checkpoint=said["checkpoint"],
            release=said["release"],
            asked=len(said["asked"]),
            moved=tuple(each["sentinel"] for each in said["asked"] if each["moved"]),
            # Records of earlier versions say nothing of panels.
            moved_panels=tuple(each["panel"] for each in said.get("panels", ()) if each["moved"]),
            recorded_at=said["chain"]["recorded_at"],
        )


@retried
def require_release(ledger: Ledger, digest: str) -> None:
    """Raise InputError where the ledger never released a manifest of this SHA-256."""
    with ledger.read() as connection:
        if find_record(connection, RELEASE, digest) is None:
            raise make_unknown_release_error(digest)


def make_unknown_release_error(digest: str) -> InputError:
    """The error that a manifest is which the ledger did not write."""
    return InputError(
        f"the ledger has no release with the manifest {digest[:12]}: name one that `poisonwatch "
        "release` wrote with this audit file, unchanged"
    )


@retried
def list_probed_checkpoints(ledger: Ledger, name: str) -> set[str]:
    """The fingerprints of the checkpoints that were probed by the audit file of this name."""
    with ledger.read() as connection:
        return {probe.checkpoint for probe in read_probes(connection) if probe.name == name}


@retried
def list_probes_since(ledger: Ledger, name: str, moment: datetime) -> list[PastProbe]:
    """The probes by the audit file of this name that were recorded at a moment or later, oldest
    first.
    """
    with ledger.read() as connection:
        return [
            probe
            for probe in read_probes(connection)
            if probe.name == name and datetime.fromisoformat(probe.recorded_at) >= moment
        ]


@retried
def list_last_probes(ledger: Ledger, name: str | None = None) -> list[PastProbe]:
    """The last probe of each checkpoint by the audit file of this name (None: of any), latest
    first.
    """
    last: dict[tuple[str, str], PastProbe] = {}
    with ledger.read() as connection:
        for probe in read_probes(connection):
            if name in (None, probe.name):
                last.pop((probe.name, probe.checkpoint), None)
                last[probe.name, probe.checkpoint] = probe
    return list(reversed(last.values()))
