"""A ledger that another process holds."""

import time
from multiprocessing.synchronize import Event

from poisonwatch.ledger.ledger import Ledger


def hold(url: str, inside: Event, seconds: float) -> None:
    with Ledger.at(url) as ledger, ledger.lock("tiny"):
        inside.set()
        time.sleep(seconds)
