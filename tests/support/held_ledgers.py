"""What another process does to a ledger."""

from multiprocessing.synchronize import Barrier, Event

from poisonwatch.ledger.ledger import Ledger

LONGEST_S = 600


def hold(url: str, inside: Event, leave: Event, name: str = "tiny") -> None:
    """Hold the lock on a name until the event `leave`."""
    with Ledger.at(url) as ledger, ledger.lock(name):
        inside.set()
        leave.wait(LONGEST_S)


def open_at_once(url: str, start: Barrier) -> None:
    """Open a ledger when the others do."""
    start.wait(LONGEST_S)
    with Ledger.at(url), Ledger.existing(url):
        pass
