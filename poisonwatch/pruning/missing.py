"""Why something that an audit left is not there: in words for people."""

import shlex
from pathlib import Path

from poisonwatch.config_file import load_config
from poisonwatch.errors import PoisonwatchError, RunError
from poisonwatch.ledger.history import PastAudit
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.prunings import OPERATORS, find_pruned
from poisonwatch.ledger.read_only import open_to_read
from poisonwatch.ledger.transactions import retried
from poisonwatch.run_directory.layout import OPERATORS_FILE, SETTINGS_FILE

DAY = 10  # characters of a time that name its day


@retried
def describe_missing_run(ledger: Ledger, past: PastAudit) -> str:
    """Why the run directory of an audit is not here."""
    if past.nothing_new:
        return "none: no row was new"
    with ledger.read() as connection:
        pruned_at = find_pruned(connection, [past.audit_id]).get(past.audit_id)
    if pruned_at is not None:
        return f"pruned on {pruned_at[:DAY]}"
    return "gone, or on another machine"


def require_operators(run_dir: Path) -> None:
    """Raises RunError where a run directory has no operators."""
    if not (run_dir / OPERATORS_FILE).is_file():
        raise RunError(describe_missing_operators(run_dir))


def describe_missing_records(past: PastAudit, audit_file: Path) -> RunError | None:
    """The error of an audit whose records of its rows are gone, with the command that makes them
    anew; None where they are there.
    """
    if (past.run_dir / OPERATORS_FILE).is_file():
        return None
    why = "its run directory is gone, or on another machine"
    if past.run_dir.is_dir():
        pruned_at = _find_pruned_operators(past.run_dir)
        why = f"its run directory holds no {OPERATORS_FILE}"
        if pruned_at is not None:
            why = f"they were pruned on {pruned_at[:DAY]} (keep.operators)"
    again = shlex.join(["poisonwatch", "audit", str(audit_file), "--again"])
    return RunError(
        f"audit {past.number} has no records of its rows any more ({why}): `{again}` makes them"
    )


def describe_missing_operators(run_dir: Path) -> str:
    """Why a run directory has no operators, in a line that says what to do."""
    if not run_dir.is_dir():
        return (
            f"there is no run directory {run_dir}: name that of a finished audit; "
            "`poisonwatch history AUDIT.yaml --json` says which were pruned"
        )
    pruned_at = _find_pruned_operators(run_dir)
    if pruned_at is None:
        return f"{run_dir} holds no {OPERATORS_FILE}: name the run directory of a finished audit"
    return (
        f"the operators of {run_dir} were pruned on {pruned_at[:DAY]} (keep.operators): "
        f"repeat the audit of its {SETTINGS_FILE}, or name a later run directory"
    )


def _find_pruned_operators(run_dir: Path) -> str | None:
    """When; None also where the ledger that the run directory names is not here."""
    try:
        config = load_config(run_dir / SETTINGS_FILE)
        audit_id = config.replay.audit_id or ""
        with open_to_read(config.state) as ledger, ledger.read() as connection:
            return find_pruned(connection, [audit_id], OPERATORS).get(audit_id)
    except PoisonwatchError:
        return None
