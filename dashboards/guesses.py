"""Passwords that were wrong, counted by address and by account: each makes the next guess wait
longer, and nobody is ever locked out.

What is promised (T are seconds between guesses):

- From one address, `FREE` wrong passwords cost nothing; then T = 1, 2, 4, ... up to `LONGEST`.
- On one account wrong passwords from everywhere count: after `FREE_ON_ACCOUNT` of them, an address
  waits after its own first wrong one as if all had been its own.
- An address that has not guessed wrong waits at most `FIRST_WAIT` for its password to be looked at,
  whatever others guess on the account.
- What an address waits is counted from its own last try: nobody elsewhere can make it longer than
  `LONGEST`.
- A browser in which somebody has logged in before brings a proof of it. Its tries count by
  themselves: guesses of others do not delay them, not even from the same address.
- A try that comes too early is not looked at and not counted; its sender is told how long to wait.
- After `FORGET` seconds without a wrong password an address, or account, begins anew.

So a right password is delayed, and never refused for good. Counters are kept for `MOST_KEPT`
addresses and accounts each, the latest.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 3  # wrong passwords that cost nothing
FREE_ON_ACCOUNT = 10  # wrong passwords on an account, from all addresses together
LONGEST = 60.0  # seconds between guesses
FIRST_WAIT = 1.0  # seconds that an address without a wrong password waits at most
FORGET = 3600.0  # seconds
MOST_KEPT = 10_000


@dataclass(slots=True)
class _Count:
    wrong: int = 0
    last: float = 0.0
    # of an address: before this time none of its tries is looked at
    next: float = 0.0


@dataclass(frozen=True, slots=True)
class Guess:
    """A try that waits `wait` seconds before it is looked at; where `is_early`, it is not."""

    address: str
    account: str
    wait: float
    is_early: bool
    # how much longer the next try from the address waits for this one
    added: float = 0.0


class _Counter:
    """Counts by name, the latest names only."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def look_up(self, name: str, now: float) -> _Count:
        """The count of a name; a new one, not kept, where nothing is known of it."""
        count = self._counts.get(name)
        if count is None or now - count.last > FORGET:
            return _Count()
        return count

    def add(self, name: str, now: float) -> _Count:
        """One more wrong try of a name: its count."""
        count = self.look_up(name, now)
        count.wrong += 1
        count.last = now
        self._counts[name] = count
        self._counts.move_to_end(name)
        while len(self._counts) > MOST_KEPT:
            self._counts.popitem(last=False)
        return count

    def take_back(self, name: str, added: float = 0.0) -> None:
        """A try of a name was right."""
        count = self._counts.get(name)
        # forgotten meanwhile, as the latest of too many
        if count is None:
            return
        count.wrong -= 1
        count.next -= added
        if count.wrong <= 0:
            del self._counts[name]

    def __len__(self) -> int:
        return len(self._counts)


def _grow(beyond: int) -> float:
    """Seconds to wait after so many wrong tries beyond those that are free."""
    if beyond < 0:
        return 0.0
    return min(2.0 ** min(beyond, 30), LONGEST)


class Guesses:
    """What is known of wrong passwords."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses = _Counter()
        self._accounts = _Counter()

    def begin(self, address: str, account: str, proof: str | None = None) -> Guess:
        """A try from an address on an account. `proof` is what a browser brings in which somebody
        has logged in to it before, checked already. What is not early is counted as wrong until
        `succeed` says otherwise: many at once gain nothing.
        """
        now = self._clock()
        account = _shorten(account)
        if proof is not None:
            # one browser, one account: nobody else counts here
            account = address = f"proof {account} {_shorten(proof)}"
        by_address = self._addresses.look_up(address, now)
        by_account = self._accounts.look_up(account, now)
        wait = max(by_address.next - now, 0.0)
        if not by_address.wrong and by_account.wrong >= FREE_ON_ACCOUNT:
            wait = FIRST_WAIT
        if wait > FIRST_WAIT:
            return Guess(address=address, account=account, wait=wait, is_early=True)
        by_address = self._addresses.add(address, now)
        by_account = self._accounts.add(account, now)
        added = max(_grow(by_address.wrong - FREE), _grow(by_account.wrong - FREE_ON_ACCOUNT))
        by_address.next = max(by_address.next, now) + added
        return Guess(address=address, account=account, wait=wait, is_early=False, added=added)

    def succeed(self, guess: Guess) -> None:
        """The password was right: this try does not count."""
        self._addresses.take_back(guess.address, guess.added)
        self._accounts.take_back(guess.account)

    def count_kept(self) -> int:
        """How many addresses and accounts are remembered."""
        return len(self._addresses) + len(self._accounts)


def _shorten(name: str) -> str:
    # names are anybody's text of any length
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
