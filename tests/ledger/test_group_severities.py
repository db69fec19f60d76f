"""How grave groups are, asked in few questions."""

from pathlib import Path

from clusters import pulled, settings
from muting import audit_two_groups
from sqlalchemy import event, select

from poisonwatch.ledger.group_severities import find_group_severities
from poisonwatch.ledger.tables import flags, rows


def test_rows_are_as_grave_as_their_group_in_two_questions(tmp_path: Path) -> None:
    """However many rows are asked for; what was never flagged is left out."""
    with pulled(tmp_path) as ledger:
        audit_two_groups(ledger, tmp_path, settings("json://one"))
        with ledger.read() as connection:
            everything = connection.execute(select(rows.c.row)).scalars().all()
            flagged = connection.execute(select(flags.c.row, flags.c.severity, flags.c.group)).all()
        asked: list[str] = []
        event.listen(ledger.engine, "before_cursor_execute", lambda *of: asked.append(str(of[2])))
        with ledger.read() as connection:
            found = find_group_severities(connection, everything)
            assert find_group_severities(connection, []) == {}
        questions = [text for text in asked if "FROM flags" in text]
    assert len(questions) == 2
    assert found.keys() == {flag.row for flag in flagged}
    assert len(everything) > len(found)
    by_group: dict[int, set[str]] = {}
    for flag in flagged:
        by_group.setdefault(flag.group, set()).add(found[flag.row])
    assert all(len(severities) == 1 for severities in by_group.values())
    assert {flag.severity for flag in flagged} == set(found.values())
