"""Training jobs that named what they train on: `gate --training-run ID` records what the gate
answered, in the chain of records.

A job names releases by their manifests. What it was refused is on record, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.records import Record, append_record, read_records
from poisonwatch.ledger.transactions import retried
from poisonwatch.release.answer import GateAnswer
from poisonwatch.release.manifest import hash_file
from poisonwatch.text.display import make_visible

TRAINING = "training"  # kind of records
LONGEST_RUN = 200  # characters of a training run's id


@dataclass(frozen=True, slots=True)
class Training:
    """A training run that named releases, by the SHA-256 of their manifests, and what the gate
    answered: how many rows, and whether all were `cleared`.
    """

    record: int
    run: str
    manifests: tuple[str, ...]
    rows: int
    cleared: bool
    asked_at: str


def check_run(run: str) -> str:
    """The id of a training run, without white space around it. Raises InputError where it is
    none.
    """
    cleaned = run.strip()
    is_line = len(cleaned.splitlines()) == 1 and make_visible(cleaned) == cleaned
    if not is_line or len(cleaned) > LONGEST_RUN:
        raise InputError(
            f"the id of a training run is one line of at most {LONGEST_RUN} characters"
        )
    return cleaned


@retried
def record_training(
    ledger: Ledger, run: str, manifests: Sequence[Path], answer: GateAnswer
) -> None:
    """Append that a training run named these manifests, and what the gate answered. Raises what
    the ledger's signer raises.
    """
    digests = sorted({hash_file(path) for path in manifests})
    subjects = {name_manifest(digest): digest for digest in digests}
    said = {
        "training_run": run,
        "manifests": digests,
        "rows": answer.rows,
        "cleared": answer.cleared,
        "reasons": answer.reasons,
    }
    with ledger.write() as connection:
        append_record(connection, TRAINING, run, subjects, said, signer=ledger.signer)


def name_manifest(digest: str) -> str:
    """What a manifest is called in the record of a training run."""
    return f"manifest {digest[:16]}"


def read_trainings(connection: Connection) -> list[Training]:
    """Every training run that named a release, oldest first; one that asked again comes again."""
    return [_to_training(record) for record in read_records(connection, TRAINING)]


def _to_training(record: Record) -> Training:
    said: Any = record.statement.predicate
    return Training(
        record=record.number,
        run=said["training_run"],
        manifests=tuple(said["manifests"]),
        rows=said["rows"],
        cleared=said["cleared"],
        asked_at=said["chain"]["recorded_at"],
    )
