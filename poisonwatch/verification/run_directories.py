"""Run directories against the audits that wrote them; and audits that only a run directory knows:
the ledger was cut off, or put back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from poisonwatch.errors import RunError
from poisonwatch.ledger.audit_records import RUN_DIRECTORY, find_audit_record
from poisonwatch.ledger.differences import Difference
from poisonwatch.ledger.history import COMMITTED_STATES, HAD_ROWS
from poisonwatch.ledger.prunings import OPERATORS, find_pruned
from poisonwatch.ledger.tables import audits
from poisonwatch.run_directory.checksums import CHECKSUMS_FILE, compute_seal, list_differences
from poisonwatch.run_directory.layout import OPERATORS_FILE, SUMMARY_FILE, read_summary

SHOWN_DIGITS = 16  # of a digest


@dataclass(slots=True)
class RunCheck:
    """Run directories of the ledger's audits, and those beside them of audits of a `name`: so many
    are `here`, `unsealed` ones among them from before there were checksums; so many were `pruned`,
    and so many are on another machine, or gone (`away`).
    """

    name: str
    here: int = 0
    unsealed: int = 0
    away: int = 0
    pruned: int = 0
    _folders: set[Path] = field(default_factory=set)

    def check(self, connection: Connection) -> Iterator[Difference]:
        """The differences of the run directories that are on this machine."""
        known: set[str] = set()
        listed = select(audits.c.audit_id, audits.c.run_dir, audits.c.state, HAD_ROWS)
        found = connection.execute(listed).tuples().all()
        gone = find_pruned(connection, [audit_id for audit_id, *_ in found])
        for audit_id, place, state, had_rows in found:
            known.add(audit_id)
            run_dir = Path(place)
            self._folders.add(run_dir.parent)
            if state not in COMMITTED_STATES:
                continue
            if not run_dir.is_dir():
                self.pruned += audit_id in gone
                # One without new rows left none.
                self.away += bool(had_rows) and audit_id not in gone
                continue
            self.here += 1
            yield from self._check_run(connection, audit_id, run_dir)
        for folder in sorted(self._folders):
            yield from self._check_beside(folder, known)

    def _check_run(
        self, connection: Connection, audit_id: str, run_dir: Path
    ) -> Iterator[Difference]:
        name = f"run directory {run_dir.name}"
        record = find_audit_record(connection, audit_id)
        seal = record.statement.subjects.get(RUN_DIRECTORY) if record else None
        try:
            if seal is None and compute_seal(run_dir) is None:
                self.unsealed += 1
            differences = list_differences(run_dir, seal)
            pruned = {OPERATORS_FILE} if find_pruned(connection, [audit_id], OPERATORS) else set()
            for file in differences:
                if file.name in pruned and file.found is None:
                    continue
                expected, found = _show(file.expected), _show(file.found)
                yield Difference(f"{name}: {file.name}", expected, found)
        except RunError as error:
            yield Difference(f"{name}: {CHECKSUMS_FILE}", "what can be read", str(error))
        summary = read_summary(run_dir)
        found = "no summary" if summary is None else str(summary.get("audit_id"))
        if found != audit_id:
            yield Difference(f"{name}: audit of its {SUMMARY_FILE}", audit_id, found)

    def _check_beside(self, folder: Path, known: set[str]) -> Iterator[Difference]:
        """Run directories beside those of the ledger, of audits that it has not."""
        if not folder.is_dir():
            return
        for run_dir in sorted(folder.iterdir()):
            summary = None
            if run_dir.suffix != ".part" and run_dir.is_dir():
                summary = read_summary(run_dir)
            if summary is None or summary.get("name") != self.name:
                continue
            audit_id = summary.get("audit_id")
            if isinstance(audit_id, str) and audit_id not in known:
                yield Difference(
                    f"run directory {run_dir.name}", "an audit of the ledger", f"audit {audit_id}"
                )


def _show(digest: str | None) -> str:
    return "no such file" if digest is None else f"SHA-256 {digest[:SHOWN_DIGITS]}"
