"""A ledger that begins anew beside the run directories of earlier audits: it was lost, or another
is meant.
"""

from pathlib import Path

from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.earlier import list_earlier_runs
from poisonwatch.text.secrets import conceal
from poisonwatch.text.words import plural


def describe_lost_ledger(ledger: Ledger, name: str, runs: Path) -> str | None:
    """A warning where a ledger knows of no audit at all, and the folder `runs` holds some of this
    name; else None.
    """
    if list_past_audits(ledger, limit=1):
        return None
    earlier = list_earlier_runs(runs, name)
    if not earlier:
        return None
    return (
        f"the ledger at {conceal(ledger.url)} is new, while {runs} holds "
        f"{plural(len(earlier), 'audit')} of {name!r}, the last of them {earlier[-1].name}: every "
        "row counts as new, and no decision is known. If the ledger was lost, put its backup back; "
        "if another is meant, correct `state`"
    )
