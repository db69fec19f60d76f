"""Wrong passwords make the next guess wait, and lock nobody out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.dashboards import guesses
from poisonwatch.dashboards.guesses import (
    FIRST_WAIT,
    FORGET,
    FREE,
    FREE_ON_ACCOUNT,
    LONGEST,
    Guesses,
)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tried(clock: Clock) -> Guesses:
    return Guesses(clock)


def guess(tried: Guesses, clock: Clock, address: str, account: str = "ann") -> float:
    """Guess wrong once, as soon as that may be: the seconds that it took."""
    begun = clock.now
    while (attempt := tried.begin(address, account)).is_early:
        clock.now += attempt.wait
    clock.now += attempt.wait
    return clock.now - begun


def test_each_wrong_password_makes_an_address_wait_longer(tried: Guesses, clock: Clock) -> None:
    """The first cost nothing, so that people may mistype; then 1, 2, 4, ... seconds, to a limit."""
    waits = [guess(tried, clock, "10.0.0.6") for _ in range(12)]
    assert waits[:FREE] == [0.0] * FREE
    assert waits[FREE:9] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert waits[9:] == [LONGEST] * 3


def test_many_at_once_are_no_more_than_one_after_another(tried: Guesses) -> None:
    """What is at work counts as wrong: of a hundred at one moment five are looked at."""
    at_once = [tried.begin("10.0.0.6", "ann") for _ in range(100)]
    assert sum(not attempt.is_early for attempt in at_once) == FREE + 1


def test_a_right_password_from_a_new_address_waits_for_nobody_s_guesses(
    tried: Guesses, clock: Clock
) -> None:
    """Thousands of addresses guess at one account: its owner waits a second, at any time."""
    for k in range(3000):
        tried.begin(f"10.0.{k // 250}.{k % 250}", "ann")
        clock.now += 0.01
        if k % 100 == 99:
            own = tried.begin("192.0.2.7", "ann")
            assert (own.is_early, own.wait <= FIRST_WAIT) == (False, True)
            tried.succeed(own)


def test_who_mistyped_once_under_attack_is_let_try_again(tried: Guesses, clock: Clock) -> None:
    """The wait is counted from the own last try: guesses of others cannot push it on."""
    for k in range(500):
        tried.begin(f"10.0.{k // 250}.{k % 250}", "ann")
    tried.begin("192.0.2.7", "ann")
    assert tried.begin("192.0.2.7", "ann").is_early
    for k in range(int(LONGEST)):
        clock.now += 1
        tried.begin(f"10.1.0.{k}", "ann")
    assert not tried.begin("192.0.2.7", "ann").is_early


def test_guesses_at_one_account_from_everywhere_count(tried: Guesses, clock: Clock) -> None:
    """An address that has guessed once waits as if all had been its own; on another account it
    does not.
    """
    for k in range(FREE_ON_ACCOUNT + 10):
        tried.begin(f"10.0.0.{k}", "ann")
    tried.begin("10.9.9.9", "ann")
    assert tried.begin("10.9.9.9", "ann").wait == LONGEST
    tried.begin("10.9.9.8", "bob")
    assert not tried.begin("10.9.9.8", "bob").is_early


def test_a_browser_that_was_let_in_before_counts_by_itself(tried: Guesses, clock: Clock) -> None:
    """From the very address that guesses, too; its own wrong passwords count."""
    for _ in range(20):
        guess(tried, clock, "127.0.0.1")
    assert tried.begin("127.0.0.1", "ann").is_early
    attempt = tried.begin("127.0.0.1", "ann", proof="a cookie")
    assert (attempt.is_early, attempt.wait) == (False, 0.0)
    for _ in range(FREE):
        tried.begin("127.0.0.1", "ann", proof="a cookie")
    assert tried.begin("127.0.0.1", "ann", proof="a cookie").is_early
    assert not tried.begin("127.0.0.1", "ann", proof="another").is_early


def test_being_right_clears_no_guesses(tried: Guesses, clock: Clock) -> None:
    """Or else who has an account would guess at others between logins of their own."""
    for _ in range(10):
        guess(tried, clock, "10.0.0.6", "ann")
    clock.now += LONGEST
    own = tried.begin("10.0.0.6", "eve")
    tried.succeed(own)
    clock.now += own.wait
    assert guess(tried, clock, "10.0.0.6", "ann") <= FIRST_WAIT
    assert guess(tried, clock, "10.0.0.6", "ann") == LONGEST


def test_right_passwords_leave_no_trace(tried: Guesses) -> None:
    """Somebody may log in as often as they like."""
    for _ in range(1000):
        attempt = tried.begin("10.0.0.6", "ann")
        assert not attempt.is_early
        tried.succeed(attempt)
    assert tried.count_kept() == 0


def test_an_hour_later_nothing_is_remembered(tried: Guesses, clock: Clock) -> None:
    """Of an address and of an account."""
    for _ in range(30):
        guess(tried, clock, "10.0.0.6")
    clock.now += FORGET + 1
    assert [guess(tried, clock, "10.0.0.6") for _ in range(FREE)] == [0.0] * FREE


def test_strangers_cannot_fill_the_memory(
    tried: Guesses, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest addresses and accounts are kept; one that is guessed at all the time is among
    them.
    """
    monkeypatch.setattr(guesses, "MOST_KEPT", 100)
    for k in range(1000):
        tried.begin(f"10.0.{k // 250}.{k % 250}", "ann")
        tried.begin(f"10.1.{k // 250}.{k % 250}", f"somebody {k}" * 1000)
        assert tried.count_kept() <= 200
    tried.begin("10.9.9.9", "ann")
    assert tried.begin("10.9.9.9", "ann").wait == LONGEST


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans(), st.floats(0, 100)),
        max_size=60,
    )
)
def test_nobody_waits_longer_than_the_longest(
    steps: list[tuple[int, int, bool, float]],
) -> None:
    """Whatever came before, and in any order: a try is looked at within LONGEST and a second."""
    clock = Clock()
    tried = Guesses(clock)
    for address, account, is_right, seconds in steps:
        attempt = tried.begin(f"10.0.0.{address}", f"account {account}")
        assert 0 <= attempt.wait <= LONGEST + FIRST_WAIT
        if is_right and not attempt.is_early:
            tried.succeed(attempt)
        clock.now += seconds
