"""Notices in the outbox: once a target, by one sender, again later where one fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledgers import NAME, sqlite_ledger
from servers import postgres_server
from silent import HOUR, MINUTE, NOON

from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.notices import (
    BACK,
    CLAIM_LASTS,
    LONGEST_WAIT,
    MOVED,
    OVERDUE,
    Notice,
    add_notice,
    address_notice,
    claim_notice,
    drop_earlier,
    find_last_notice,
    is_notice_due,
    list_targets_of,
    list_targets_of_silence,
    settle_notice,
)

TARGETS = ["json-1", "json-2"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with sqlite_ledger(tmp_path) as opened:
        yield opened


def make(key: str, kind: str = OVERDUE, name: str = NAME) -> Notice:
    return Notice(name=name, kind=kind, key=key, severity="high", title="title", body="body")


def put_in(ledger: Ledger, key: str, kind: str = OVERDUE) -> int:
    """A notice to both targets: its number."""
    with ledger.write() as connection:
        number = add_notice(connection, make(key, kind), NOON)
        assert number is not None
        address_notice(connection, number, TARGETS)
    return number


def test_a_notice_goes_to_each_target_once(ledger: Ledger) -> None:
    """Addressed again, it goes nowhere again."""
    number = put_in(ledger, "one")
    with ledger.write() as connection:
        address_notice(connection, number, [*TARGETS, *TARGETS])
        claimed = [claim_notice(connection, TARGETS, NOON) for _ in range(3)]
        assert [notice and notice.delivery.target for notice in claimed] == [*TARGETS, None]
        for notice in claimed[:2]:
            assert notice is not None
            settle_notice(connection, notice.delivery, NOON)
        address_notice(connection, number, TARGETS)
        assert list_targets_of(connection, number) == TARGETS
        assert not is_notice_due(connection, TARGETS, NOON + 9 * HOUR)


def test_one_that_is_put_in_twice_is_one(ledger: Ledger) -> None:
    """By two processes that see the same silence: a key is of one silence alone."""
    put_in(ledger, "one")
    with ledger.write() as connection:
        assert add_notice(connection, make("one"), NOON) is None
        last = find_last_notice(connection, NAME)
        assert last is not None
        assert (last.kind, last.created_at) == (OVERDUE, NOON)
        assert find_last_notice(connection, "another") is None


def test_a_sender_that_dies_loses_its_claim(ledger: Ledger) -> None:
    """After a while, somebody else sends."""
    put_in(ledger, "one")
    with ledger.write() as connection:
        assert claim_notice(connection, TARGETS[:1], NOON) is not None
        assert claim_notice(connection, TARGETS[:1], NOON + MINUTE) is None
        assert claim_notice(connection, TARGETS[:1], NOON + CLAIM_LASTS) is not None


def test_what_fails_waits_twice_as_long_each_time(ledger: Ledger) -> None:
    """At most an hour."""
    put_in(ledger, "one")
    waits = []
    now = NOON
    with ledger.write() as connection:
        for _ in range(9):
            notice = claim_notice(connection, TARGETS[:1], now)
            assert notice is not None
            settle_notice(connection, notice.delivery, now, "answered 500")
            tried = now
            while not is_notice_due(connection, TARGETS[:1], now):
                now += MINUTE
            waits.append((now - tried) / MINUTE)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(waits) == LONGEST_WAIT / MINUTE


def test_the_last_notice_says_it_all(ledger: Ledger) -> None:
    """Who has not heard of the silence gets no message of it any more once it has ended."""
    silence = put_in(ledger, "one")
    with ledger.write() as connection:
        heard = claim_notice(connection, TARGETS[:1], NOON)
        assert heard is not None
        settle_notice(connection, heard.delivery, NOON)
    end = put_in(ledger, "two", BACK)
    with ledger.write() as connection:
        assert list_targets_of_silence(connection, NAME, end) == TARGETS
        drop_earlier(connection, NAME, end, TARGETS)
        assert list_targets_of(connection, silence) == TARGETS[:1]
        assert list_targets_of(connection, end) == TARGETS


def check_no_two_senders_claim_the_same(url: str) -> None:
    with Ledger.at(url) as ledger:
        for key in "abcdefgh":
            put_in(ledger, key)

    def claim_all(_: int) -> list[tuple[int, str]]:
        claimed = []
        with Ledger.at(url) as own:
            while True:
                with own.write() as connection:
                    notice = claim_notice(connection, TARGETS, NOON)
                if notice is None:
                    return claimed
                claimed.append((notice.delivery.item, notice.delivery.target))

    with ThreadPoolExecutor(4) as pool:
        found = [one for some in pool.map(claim_all, range(4)) for one in some]
    assert len(found) == len(set(found)) == 16


def test_no_two_senders_claim_the_same(tmp_path: Path) -> None:
    """Four at a time."""
    check_no_two_senders_claim_the_same(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_no_two_senders_claim_the_same_on_postgresql() -> None:
    """On a real server, where transactions do not wait for each other."""
    with postgres_server() as url:
        check_no_two_senders_claim_the_same(url)


def test_a_model_that_moved_is_told_beside_silences(ledger: Ledger) -> None:
    """It neither ends a silence, nor is it dropped by one that comes later."""
    silence = put_in(ledger, "one")
    put_in(ledger, "two", MOVED)
    with ledger.write() as connection:
        last = find_last_notice(connection, NAME)
        assert last is not None
        assert (last.number, last.kind) == (silence, OVERDUE)
    back = put_in(ledger, "three", BACK)
    with ledger.write() as connection:
        drop_earlier(connection, NAME, back, TARGETS)
        claimed = [claim_notice(connection, TARGETS, NOON) for _ in range(5)]
    kinds = [notice.kind for notice in claimed if notice is not None]
    assert kinds == [MOVED, MOVED, BACK, BACK]
