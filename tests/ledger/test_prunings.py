"""Prunings are records of the chain, found by audit and part."""

from pathlib import Path

from ledgers import sqlite_ledger

from poisonwatch.ledger.audit_records import RUN_DIRECTORY
from poisonwatch.ledger.prunings import OPERATORS, PRUNED, append_pruned, find_pruned
from poisonwatch.ledger.records import read_records, verify_records


def test_a_pruning_is_found_by_its_audit_and_part(tmp_path: Path) -> None:
    """The first time counts; the statement is about the run directory's seal, where it had one."""
    seal = "5" * 64
    with sqlite_ledger(tmp_path) as ledger:
        with ledger.write() as connection:
            append_pruned(connection, "a", OPERATORS, seal, {"bytes": 3}, None)
            append_pruned(connection, "a", RUN_DIRECTORY, seal, {"bytes": 5}, None)
            append_pruned(connection, "b", RUN_DIRECTORY, None, {"bytes": 7}, None)
        with ledger.read() as connection:
            made = list(read_records(connection, PRUNED))
            asked = ["a", "b", *(f"other-{i}" for i in range(1200))]
            assert find_pruned(connection, asked).keys() == {"a", "b"}
            assert find_pruned(connection, asked, OPERATORS).keys() == {"a"}
            assert verify_records(connection) == []
    assert [record.statement.subjects for record in made] == [
        {RUN_DIRECTORY: seal},
        {RUN_DIRECTORY: seal},
        {},
    ]
    assert [record.statement.predicate["bytes"] for record in made] == [3, 5, 7]
