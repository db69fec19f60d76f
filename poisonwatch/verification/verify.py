"""Everything that the ledger holds, recomputed from its records: one list of differences."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.ledger.chain_tables import records
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.pull_records import check_pulls
from poisonwatch.ledger.records import ChainHead, holds_head, read_head, verify_records
from poisonwatch.ledger.row_states import read_row_states
from poisonwatch.ledger.tables import audits, decisions
from poisonwatch.ledger.transactions import retried
from poisonwatch.progress import Progress, silent
from poisonwatch.verification.audits import UNREADABLE, check_audits
from poisonwatch.verification.contents import ContentCheck
from poisonwatch.verification.decisions import check_decisions
from poisonwatch.verification.mutes import check_mutes, check_reminders
from poisonwatch.verification.probes import check_probes
from poisonwatch.verification.repairs import check_repairs
from poisonwatch.verification.reviews import check_reviews
from poisonwatch.verification.rows import check_states
from poisonwatch.verification.run_directories import RunCheck
from poisonwatch.verification.signatures import SignatureCheck
from poisonwatch.verification.team import check_team
from poisonwatch.verification.trainings import check_trainings


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked, and the `differences`: without any, all is as it was recorded. `head` is
    where the chain of `records` ends.

    `signed` records are by trusted keys, `history` ones are older than the chain; `present`
    signatures are in the ledger. `older_ids` are of rows whose ids an earlier version computed in
    another way. Of `run_dirs`, `unsealed` ones are of before there were checksums; others were
    `pruned`, or are not on this machine (`away`). `witnesses` are MLflow runs that keep a head of
    the chain; None: MLflow was not asked.
    """

    differences: Sequence[Difference]
    head: ChainHead
    records: int
    audits: int
    decisions: int
    rows: int
    variants: int
    older_ids: int
    run_dirs: int
    unsealed: int
    away: int
    pruned: int
    signatures: int
    asked_for_keys: bool
    signed: int
    history: int
    witnesses: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "whole": self.is_whole,
            "head": str(self.head),
            "checked": {
                "records": self.records,
                "audits": self.audits,
                "decisions": self.decisions,
                "rows": self.rows,
                "variants": self.variants,
                "run_directories": self.run_dirs,
            },
            "ids_of_earlier_versions": self.older_ids,
            "run_directories_without_checksums": self.unsealed,
            "run_directories_elsewhere": self.away,
            "run_directories_pruned": self.pruned,
            "mlflow_runs_with_a_head": self.witnesses,
            "signatures": {
                "present": self.signatures,
                "signed_by_trusted_keys": self.signed if self.asked_for_keys else None,
                "unsigned_history": self.history if self.asked_for_keys else None,
            },
            "differences": [difference.record() for difference in self.differences],
        }


@retried
def verify_ledger(
    ledger: Ledger,
    name: str,
    keys: Mapping[str, PublicKey] | None = None,
    heads: Iterable[ChainHead] = (),
    progress: Progress = silent,
) -> Verification:
    """Check all that a ledger holds, and the run directories of the audits of a `name`.

    With `keys`, every record since the chain began must be signed by one of them. `heads` are those
    that were known once: the chain must go through them.
    """
    contents, runs, signed = ContentCheck(), RunCheck(name), SignatureCheck(keys)
    with ledger.read() as connection:
        checks: dict[str, Callable[[], Iterable[Difference]]] = {
            "the chain of records": lambda: verify_records(connection),
            "the heads": lambda: _check_heads(connection, heads),
            "the signatures": lambda: signed.check(connection),
            "the decisions": lambda: check_decisions(connection),
            "the repairs": lambda: check_repairs(connection),
            "the audits": lambda: check_audits(connection, progress=progress),
            "the rows' states": lambda: check_states(read_row_states(connection)),
            "the rows' contents": lambda: contents.check(connection, progress),
            "the pulls": lambda: check_pulls(connection),
            "the rows under review": lambda: check_reviews(connection),
            "the mutes": lambda: check_mutes(connection),
            "the reminders": lambda: check_reminders(connection),
            "the training runs": lambda: check_trainings(connection),
            "the probes": lambda: check_probes(connection),
            "who reviews what": lambda: check_team(connection),
            "the run directories": lambda: runs.check(connection),
        }
        differences: list[Difference] = []
        for what, check in checks.items():
            differences += _attempt(connection, what, check)
        return Verification(
            differences=differences,
            head=read_head(connection),
            records=_count(connection, records),
            audits=_count(connection, audits),
            decisions=_count(connection, decisions),
            rows=contents.rows,
            variants=contents.variants,
            older_ids=contents.older,
            run_dirs=runs.here,
            unsealed=runs.unsealed,
            away=runs.away,
            pruned=runs.pruned,
            signatures=signed.present,
            asked_for_keys=keys is not None,
            signed=signed.signed,
            history=signed.history,
        )


def _attempt(
    connection: Connection, what: str, check: Callable[[], Iterable[Difference]]
) -> list[Difference]:
    """What a check finds; where something that was put into the ledger stops it, that is a
    difference, too.
    """
    found: list[Difference] = []
    try:
        # A statement that fails must not take those after it along.
        with connection.begin_nested():
            for difference in check():
                found.append(difference)
    except UNREADABLE as error:
        found.append(Difference(what, "what can be read", type(error).__name__))
    return found


def _check_heads(connection: Connection, heads: Iterable[ChainHead]) -> Iterator[Difference]:
    end = read_head(connection)
    for head in heads:
        if not holds_head(connection, head):
            found = f"a chain that ends at {end.number}:{end.hash[:16]}"
            if head.number <= end.number:
                found = "another record there"
            yield Difference(f"head {head.number}:{head.hash[:16]}", "in the chain", found)


def _count(connection: Connection, table: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
