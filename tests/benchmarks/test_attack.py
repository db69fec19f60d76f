"""The campaign of attacks: that it attacks what it says, and sees what it is to see. Few of each."""

import itertools
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import attack_changes
import attack_connections
import attack_files
import attack_kills
import attack_tampering
import pytest
from attack import Campaign
from attack_site import Line, run_forked
from clusters import pulled, settings
from ledgers import covered_ledger
from muting import audit_two_groups
from slow_tests import slow
from tampering import verify
from teamwork import review_together

from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.queue import list_group_rows

TABLES = ("agreements", "assignments", "commented_rows", "proposals", "records")
TEAM_TABLES = [f"ledger: {table}" for table in TABLES]


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_was_found_is_not_looked_for_again(tmp_path: Path) -> None:
    """A campaign goes on where it was stopped; what failed is done again."""
    campaign, calls = Campaign(tmp_path, kills=2, seed=0), []

    def fail(folder: Path) -> Any:
        calls.append(folder)
        raise OSError("stopped")

    def find(folder: Path) -> Any:
        calls.append(folder)
        return {"found": len(calls)}

    with pytest.raises(OSError, match="stopped"):
        campaign.keep("part", fail)
    for site in calls:
        site.rmdir()  # as the clock may not have moved on
    assert campaign.keep("part", find) == {"found": 2}
    assert campaign.keep("part", find) == {"found": 2}
    assert len(calls) == 2


def test_a_forked_process_tells_how_it_ended(tmp_path: Path) -> None:
    """What it raises is in the log, and is exit code 1."""

    def fail() -> None:
        raise ValueError("so it goes")

    assert wait(run_forked(lambda: None, tmp_path / "log")) == 0
    assert wait(run_forked(fail, tmp_path / "log")) == 1
    assert "ValueError: so it goes" in (tmp_path / "log").read_text()


@slow
def test_audits_are_killed_where_they_are_and_nothing_is_lost(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """A kill, then an audit that ends: every count of what may be lost is 0."""
    from attack_site import prepare_site

    with prepare_site(tmp_path / "site", tiny_folder) as site:
        found = attack_kills.kill_audits(site, 1, seed=8, note=print)
    assert sum(found["killed"].values()) == 1
    assert {name: found[name] for name in attack_kills.ACCOUNTED if found[name]} == {}
    assert found["rows"] == 43 + 13 * (1 + found["ended"])
    assert found["verify"] == 0
    lines = attack_kills.summarise_kills({"SQLite": [found]})
    assert [line.holds for line in lines] == [True, True]
    found["rows with two results"] = 1
    assert [line.holds for line in attack_kills.summarise_kills({"SQLite": [found]})] == [
        False,
        True,
    ]


def test_every_column_of_a_ledger_is_changed(tmp_path: Path) -> None:
    """UPDATE, DELETE and INSERT of each table that holds rows do what they say."""
    with covered_ledger(tmp_path, flagged="Tell me fact 1 about bread.") as ledger:
        path = Path(str(ledger.engine.url.database))
    columns, content = {}, path.read_bytes()
    connection = sqlite3.connect(path)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        if not attack_changes.is_evidence(table):
            continue
        if connection.execute(f"SELECT count(*) FROM '{table}'").fetchone()[0]:
            found = connection.execute(f"PRAGMA table_info('{table}')").fetchall()
            columns[table] = {column[1] for column in found}
    connection.close()
    changes = list(attack_changes.list_changes(path))
    for table, names in columns.items():
        made = {change.what for change in changes if change.part == f"ledger: {table}"}
        assert made == {f"UPDATE {name}" for name in names} | {
            "DELETE a row",
            "DELETE all rows",
            "INSERT a row",
        }
    for change in changes:
        before = path.read_bytes()
        change.make()
        assert path.read_bytes() != before, change
        for file in path.parent.glob("*.db-*"):
            file.unlink()
        path.write_bytes(content)


def test_what_people_left_together_is_attacked_and_each_change_is_found(tmp_path: Path) -> None:
    """Every table that came with teams holds something to change, and `verify` names each."""
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, settings("json://one"))
        first = list_group_rows(ledger, "one", "1")[0]
        record_decision(ledger, first.example_id, "poison", "by hand", "ann")
        review_together(ledger)
        assert verify(ledger).is_whole
        url, path = ledger.url, Path(str(ledger.engine.url.database))
    content = path.read_bytes()
    by_table = {
        table: [change for change in attack_changes.list_changes(path) if change.part == table]
        for table in TEAM_TABLES
    }
    assert all(by_table.values())
    for change in itertools.chain(*by_table.values()):
        change.make()
        with Ledger.at(url) as ledger:
            assert verify(ledger).differences, change
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ("ab12cd", "ab13cd"),
        ("9", "0"),
        ("abc", "abcx"),
        ('{"a": ["b"]}', '{"a": ["bx"]}'),
        ("", "x"),
    ],
)
def test_a_changed_text_is_another_one(value: str, changed: str) -> None:
    assert attack_changes.change_text(value) == changed


def test_a_change_that_nobody_saw_fails_the_table() -> None:
    """So does a flagged row that the gate cleared, and a site that is not whole to begin with."""
    whole = {"verify": 0, "release": 0, "release without ledger": 0, "poison": 3}
    nothing = {"part": "nothing", "change": "none", **whole}
    seen = {"part": "ledger: rows", "change": "UPDATE status", **whole, "verify": 1}
    unseen = {"part": "ledger: rows", "change": "UPDATE raw", **whole}
    beside = {"part": "ledger: files", "change": "UPDATE read_at", **whole}
    to_do = {"part": "ledger: deliveries", "change": "DELETE a row", **whole}
    cleared = {**seen, "poison": 0}

    def judge(*changes: dict[str, Any]) -> list[bool]:
        return [line.holds for line in attack_tampering.summarise_tampering([nothing, *changes])]

    assert all(judge(seen, beside, to_do))
    assert judge(seen, unseen) == [True, False, True, True]
    assert judge(cleared) == [True, True, True, False]
    broken = attack_tampering.summarise_tampering([{**nothing, "verify": 1}])
    assert not broken[0].holds


def test_a_hostile_file_that_takes_too_much_or_says_too_much_is_seen() -> None:
    """Killed, a gigabyte, two lines: each is out of order."""
    good = {"kind": "csv: wide", "mib": 10, "seconds": 1.0, "code": 2, "lines": ["no"]}
    for change in ({"mib": 2000}, {"code": -9}, {"lines": ["a", "b"]}, {"code": 1}):
        (line,) = attack_files.summarise_files([good, {**good, **change}])
        assert not line.holds
    (line,) = attack_files.summarise_files([good, {**good, "code": 0, "lines": []}])
    assert line.holds
    assert line.count == 2


def test_slow_pages_and_refusals_are_seen() -> None:
    found = {"held": 300, "held at the end": 0, "asked": 20, "refused": 0, "slowest": 0.4}
    assert attack_connections.summarise_connections(found)[0].holds
    for change in ({"slowest": 2.5}, {"refused": 1}):
        assert not attack_connections.summarise_connections(found | change)[0].holds


def test_the_table_marks_what_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    from attack import print_table

    print_table([Line("a", 1000, "none", "0", True), Line("b", 1, "none", "1", False)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["| a | 1,000 | none | 0 | holds |", "| b | 1 | none | 1 | **✗** |"]
    assert json.dumps(lines[0])
