"""Mutes: in the chain of records, with an end and a reason, and no wider than what was known."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from audits import benign, write_rows
from clusters import HIGH, LOW, audit, pulled, settings
from ledgers import NAME, pull
from muting import NOW, WHY, audit_two_groups, days, flagged, muted
from servers import postgres_server
from tampering import LostSigner, make_signer, tamper, verify

from poisonwatch.errors import InputError, SigningError
from poisonwatch.ledger.decisions import record_decisions
from poisonwatch.ledger.history import list_undecided_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.mutes import (
    MutableRow,
    Mute,
    end_mutes,
    find_mute,
    list_active_mutes,
    list_mutes,
    parse_until,
    record_mute,
    tell_mute,
)
from poisonwatch.ledger.records import read_head

ALERTS = settings("json://one")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with pulled(tmp_path) as opened:
        audit_two_groups(opened, tmp_path, ALERTS)
        yield opened


def active(ledger: Ledger, n: float = 0) -> list[Mute]:
    with ledger.read() as connection:
        return list_active_mutes(connection, NAME, days(n))


def everything(ledger: Ledger) -> list[Mute]:
    with ledger.read() as connection:
        return list_mutes(connection, NAME)


def check_a_mute(ledger: Ledger) -> None:
    """Made, replaced, ended: each a record, and the ledger stays whole."""
    first = muted(ledger, "one/1", days(3), owner="shop team")
    assert (first.on, len(first.rows), first.severity) == ("one/1", 3, "high")
    assert (first.owner, first.author, first.why) == ("shop team", "ann", WHY)
    assert [mute.number for mute in active(ledger, 2.9)] == [first.number]
    assert active(ledger, 3.1) == []
    second = muted(ledger, "one/1", days(2))
    assert (first.replaces, second.replaces) == ((), (first.number,))
    assert [mute.number for mute in active(ledger)] == [second.number]
    assert active(ledger, 2.5) == []
    other = muted(ledger, "panel:shop", days(2))
    assert other.replaces == ()
    ended = end_mutes(ledger, NAME, "one/1", "done", author="bob")
    assert [mute.number for mute in ended] == [second.number]
    assert active(ledger) == [other]
    assert [mute.unmuted_by for mute in everything(ledger)] == ["ann", "bob", None]
    with ledger.read() as connection:
        assert read_head(connection).number == second.number + 3
    assert verify(ledger).differences == []


def test_a_mute_is_a_record_until_it_ends(ledger: Ledger) -> None:
    """By itself, or by another record."""
    check_a_mute(ledger)


def test_a_mute_is_a_record_until_it_ends_on_postgresql(tmp_path: Path) -> None:
    """On a real server."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "rows.jsonl", benign(12))
    with postgres_server() as url, Ledger.at(url) as ledger:
        pull(ledger, tmp_path / "data")
        audit_two_groups(ledger, tmp_path, ALERTS)
        check_a_mute(ledger)


def test_a_mute_needs_a_reason_and_an_end_within_a_year(ledger: Ledger) -> None:
    """Nothing is recorded where one lacks."""
    for until, why, author, lacking in (
        (days(3), " ", "ann", "reason"),
        (days(3), WHY, "", "author"),
        (days(-1), WHY, "ann", "to come"),
        (days(400), WHY, "ann", "366 days"),
        (days(3), "w" * 2001, "ann", "2,000"),
    ):
        with pytest.raises(InputError, match=lacking):
            record_mute(ledger, NAME, "one/1", until, why, author=author)
    assert everything(ledger) == []


def test_an_end_is_a_day_that_counts_or_a_time_from_now() -> None:
    """In UTC."""
    assert parse_until("2026-12-31").isoformat() == "2027-01-01T00:00:00+00:00"
    assert parse_until("14d", NOW) == NOW + timedelta(days=14)
    for text in ("", "soon", "31.12.2026", "9999-12-31", "999999999w"):
        with pytest.raises(InputError, match="no end of a mute"):
            parse_until(text)


def test_a_key_that_is_lost_mutes_nothing(tmp_path: Path, ledger: Ledger) -> None:
    """As it decides nothing."""
    ledger.signer = LostSigner()
    with pytest.raises(SigningError):
        muted(ledger, "one/1")
    assert everything(ledger) == []


def test_a_mute_covers_what_was_known_and_nothing_graver(ledger: Ledger) -> None:
    """Rows of another panel, graver ones, and groups that share none with it are told of."""
    low, panel = muted(ledger, "one/2"), muted(ledger, "panel:shop")
    member = next(iter(low.rows))
    assert find_mute([low], [MutableRow(member, "shop", "low")]) == low
    assert find_mute([low], [MutableRow(member, "shop", "low"), MutableRow("x", "shop", "low")])
    assert find_mute([low], [MutableRow("x", "shop", "low")], group=[member]) == low
    assert find_mute([low], [MutableRow("x", "shop", "low")]) is None
    assert find_mute([low], [MutableRow(member, "shop", "medium")]) is None
    assert find_mute([low], [MutableRow(member, "identity", "low")]) is None
    assert (panel.severity, panel.rows) == ("high", frozenset())
    assert find_mute([panel], [MutableRow("x", "shop", "high")]) == panel
    assert find_mute([panel], [MutableRow("x", "identity", "low")]) is None
    both = [MutableRow("x", "shop", "low"), MutableRow("y", "identity", "low")]
    assert find_mute([panel], both) is None


def test_a_panel_is_muted_as_gravely_as_it_is_undecided(tmp_path: Path, ledger: Ledger) -> None:
    """What was decided on does not count, unless all was: then the last audit does."""
    record_decisions(ledger, sorted(muted(ledger, "one/1").rows), "poison")
    assert muted(ledger, "panel:shop").severity == "low"
    record_decisions(ledger, list_undecided_ids(ledger, 1), "poison")
    audit(ledger, tmp_path / "two", ALERTS, flagged((HIGH, slice(6, 8))))
    record_decisions(ledger, list_undecided_ids(ledger, 2), "poison")
    assert muted(ledger, "panel:shop").severity == "high"


def test_what_is_not_muted_cannot_end(ledger: Ledger) -> None:
    """It is said where to look."""
    for what in ("one/1", "panel:shop", "77"):
        with pytest.raises(InputError, match="--list"):
            end_mutes(ledger, NAME, what, "", author="ann")
    number = str(muted(ledger, "panel:shop").number)
    assert len(end_mutes(ledger, NAME, number, "", author="ann")) == 1


def test_a_mute_of_one_name_is_none_of_another(ledger: Ledger) -> None:
    """Audits of two names share a ledger."""
    muted(ledger, "panel:shop")
    with ledger.read() as connection:
        assert list_active_mutes(connection, "another", NOW) == []
    with pytest.raises(InputError, match="no row was ever flagged"):
        record_mute(ledger, "another", "panel:shop", days(3), WHY, author="ann")


def test_a_mute_is_told_in_one_line(ledger: Ledger) -> None:
    """Whatever was written as its reason."""
    said = muted(ledger, "panel:shop", owner="eve").describe()
    line = tell_mute({**said, "why": "a\nb\x1b[31m", "rows": 2})
    assert "\n" not in line
    assert "\x1b" not in line
    for word in ("panel:shop", "ann", "eve", "2 flagged rows", f"mute {said['mute']}"):
        assert word in line


def test_a_mute_that_was_forged_is_found(tmp_path: Path) -> None:
    """Changed, removed, or unsigned."""
    signer = make_signer()
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, ALERTS)
        ledger.signer = signer
        number = muted(ledger, "one/2").number
        muted(ledger, "panel:shop")
        assert verify(ledger).differences == []
        changes = (
            f"UPDATE records SET statement = REPLACE(statement, 'ann', 'eve') WHERE number = {number}",
            f"DELETE FROM records WHERE number = {number}",
            f"DELETE FROM signatures WHERE record = {number}",
        )
        for change in changes:
            assert tamper(ledger, change)
            differences = [each.words for each in verify(ledger, signer).differences]
            assert any(f"record {number}" in words for words in differences), differences


def test_low_rows_of_a_group_do_not_mute_its_grave_ones(tmp_path: Path, ledger: Ledger) -> None:
    """The group is told of whole."""
    low = muted(ledger, "one/2")
    ids = sorted(low.rows)
    rows = [MutableRow(ids[0], "shop", "low"), MutableRow("x", "shop", "high")]
    assert find_mute([low], rows) is None
    audit(ledger, tmp_path / "two", ALERTS, flagged((LOW, slice(4, 7))))
    assert muted(ledger, "two/1").severity == "low"
