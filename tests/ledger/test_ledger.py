"""What waits, what is covered, and who may work: the ledger between audits."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from audits import benign, write_rows
from held_ledgers import hold
from ledgers import (
    CHECKS,
    NAME,
    ONE,
    append,
    cover,
    examples_of,
    prompts,
    pull,
    statuses,
    waiting,
    write_two_files,
)
from sqlalchemy import func, select, update

from poisonwatch.config import ValidationConfig
from poisonwatch.errors import OperationError, PoisonwatchError
from poisonwatch.ledger.batches import hash_checks
from poisonwatch.ledger.ledger import Ledger, Version, batched
from poisonwatch.ledger.tables import audits, flags, rejections, results, rows

TWO = Version("m" * 64, "t" * 64)
TEA = "Tell me fact 0 about tea."


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    """Nine pulled rows, one of them broken."""
    write_two_files(tmp_path / "data")
    with Ledger.at(url) as opened:
        pull(opened, tmp_path / "data")
        yield opened


def test_a_covered_row_never_waits_again(ledger: Ledger, tmp_path: Path) -> None:
    """Nine rows wait; after an audit none; after a pull of one more, that one."""
    assert len(waiting(ledger)) == 9
    cover(ledger, tmp_path / "one", flagged=[TEA])
    assert statuses(ledger) == {"clean": 7, "flagged": 1, "rejected": 1}
    assert len(waiting(ledger)) == 0
    append(tmp_path / "data" / "a.jsonl", benign(1, start=60))
    pull(ledger, tmp_path / "data")
    assert prompts(waiting(ledger)) == [benign(1, start=60)[0]["prompt"]]


def test_another_version_audits_the_latest_rows_again(ledger: Ledger, tmp_path: Path) -> None:
    """Other sentinels: the window's last rows wait, the rejected one does not; afterwards nothing
    waits for either version.
    """
    cover(ledger, tmp_path / "one")
    assert len(waiting(ledger, TWO, window=3)) == 3
    assert {row.source for row in waiting(ledger, TWO, window=3).rows.raw} == {"b.jsonl"}
    cover(ledger, tmp_path / "two", version=TWO)
    assert len(waiting(ledger, TWO)) == len(waiting(ledger)) == 0


def test_the_window_is_the_latest_rows_and_does_not_creep(ledger: Ledger, tmp_path: Path) -> None:
    """Once the last 3 are covered under the other version, the 3 before them do not wait."""
    cover(ledger, tmp_path / "one")
    assert len(cover(ledger, tmp_path / "two", version=TWO, window=3)) == 3
    assert len(waiting(ledger, TWO, window=3)) == 0
    assert len(waiting(ledger, TWO, window=4)) == 1


def test_rejected_rows_wait_where_validation_has_changed(ledger: Ledger, tmp_path: Path) -> None:
    """The broken line is validated again under other settings only."""
    cover(ledger, tmp_path / "one")
    other = hash_checks(ValidationConfig(max_characters=10))
    assert prompts(waiting(ledger, checks=other)) == ["{not json"]
    assert len(waiting(ledger, checks=CHECKS)) == 0


def test_all_rows_can_be_audited_again(ledger: Ledger, tmp_path: Path) -> None:
    """The second audit's word replaces the first's; nothing is there twice."""
    cover(ledger, tmp_path / "one", flagged=[TEA])
    assert len(cover(ledger, tmp_path / "two", again=True)) == 9
    assert statuses(ledger) == {"clean": 8, "rejected": 1}
    with ledger.read() as connection:
        assert [
            connection.scalar(select(func.count()).select_from(table))
            for table in (results, rejections, flags)
        ] == [8, 1, 1]


def test_a_moved_row_is_no_copy_of_itself(ledger: Ledger, tmp_path: Path) -> None:
    """Audited again after its file was renamed, every row comes once, from where it stands now; a
    row that is gone, from where it stood.
    """
    (tmp_path / "data" / "a.jsonl").rename(tmp_path / "data" / "moved.jsonl")
    pull(ledger, tmp_path / "data")
    assert [row.source for row in ledger.all_of(NAME).rows.raw] == ["b.jsonl"] * 4 + [
        "moved.jsonl"
    ] * 5
    (tmp_path / "data" / "moved.jsonl").unlink()
    pull(ledger, tmp_path / "data")
    assert len(ledger.all_of(NAME)) == 4
    assert len(waiting(ledger)) == 14


def test_the_rows_of_an_earlier_audit_are_found_again(ledger: Ledger, tmp_path: Path) -> None:
    """By its id; None for an id that this ledger does not know."""
    first = cover(ledger, tmp_path / "one")
    append(tmp_path / "data" / "a.jsonl", benign(1, start=60))
    pull(ledger, tmp_path / "data")
    cover(ledger, tmp_path / "two")
    found = ledger.batch_of("one")
    assert found is not None
    assert prompts(found) == prompts(first)
    assert ledger.batch_of("three") is None


def test_a_second_copy_waits_beside_the_first(ledger: Ledger, tmp_path: Path) -> None:
    """Two places of one content are two lines of the batch, and one row when covered."""
    write_rows(tmp_path / "data" / "c.jsonl", benign(1))
    pull(ledger, tmp_path / "data")
    batch = waiting(ledger)
    assert len(batch) == 10
    assert len(set(batch.numbers)) == 9
    cover(ledger, tmp_path / "one")
    assert sum(statuses(ledger).values()) == 9


def test_an_audit_that_fails_leaves_its_rows_waiting(ledger: Ledger, tmp_path: Path) -> None:
    """It is written down as interrupted."""
    with pytest.raises(KeyError), ledger.alone(), ledger.audit("one", NAME, ONE, tmp_path / "run"):
        raise KeyError
    assert len(waiting(ledger)) == 9
    with ledger.read() as connection:
        assert connection.scalars(select(audits.c.state)).all() == ["interrupted"]


def test_what_died_before_its_commit_is_cleared_away(ledger: Ledger, tmp_path: Path) -> None:
    """The next audit removes the half-written run directory."""
    with ledger.write() as connection:
        cover_state(connection, ledger, tmp_path, "running")
    (tmp_path / "run.part").mkdir()
    with ledger.alone():
        pass
    assert not (tmp_path / "run.part").exists()
    assert states(ledger) == {"dead": "interrupted"}


def test_what_died_after_its_commit_is_completed(ledger: Ledger, tmp_path: Path) -> None:
    """The next audit puts the complete run directory in its place."""
    with ledger.write() as connection:
        cover_state(connection, ledger, tmp_path, "committed")
    (tmp_path / "run.part").mkdir()
    (tmp_path / "run.part" / "summary.json").write_text("{}")
    with ledger.alone():
        pass
    assert (tmp_path / "run" / "summary.json").exists()
    assert states(ledger) == {"dead": "finished"}


def cover_state(connection, ledger: Ledger, tmp_path: Path, state: str) -> None:  # type: ignore[no-untyped-def]
    version = ledger._version(connection, ONE)
    values = {
        "audit_id": "dead",
        "name": NAME,
        "version": version,
        "state": state,
        "started_at": "",
        "run_dir": str(tmp_path / "run"),
    }
    connection.execute(audits.insert().values(values))


def states(ledger: Ledger) -> dict[str, str]:
    with ledger.read() as connection:
        return dict(connection.execute(select(audits.c.audit_id, audits.c.state)).tuples().all())


def test_rows_that_an_audit_covered_are_known(ledger: Ledger, tmp_path: Path) -> None:
    """By example id; none before the audit, and never one that the ledger has not seen."""
    ids = {example.id for example in examples_of(waiting(ledger)).values()}
    assert ledger.audited(ids) == set()
    cover(ledger, tmp_path / "one")
    assert ledger.audited({*ids, "0" * 64}) == ids


def test_trusted_rows_are_those_that_people_called_benign(ledger: Ledger, tmp_path: Path) -> None:
    """And these are not audited again, under whatever version."""
    cover(ledger, tmp_path / "one", flagged=[TEA])
    with ledger.write() as connection:
        connection.execute(
            update(rows).where(rows.c.status == "flagged").values(decided="benign", status="clean")
        )
    assert [example.prompt for example in ledger.trusted(NAME)] == [TEA]
    assert TEA not in prompts(waiting(ledger, TWO))


def test_the_mix_counts_rows_that_passed(ledger: Ledger, tmp_path: Path) -> None:
    """By file, the rejected one left out."""
    assert ledger.mix(NAME) == {}
    cover(ledger, tmp_path / "one")
    assert ledger.mix(NAME) == {"a.jsonl": 5, "b.jsonl": 3}


def test_a_second_process_waits_for_the_first(ledger: Ledger, url: str) -> None:
    """It is told so, and goes in when the first is done."""
    context = multiprocessing.get_context("spawn")
    inside = context.Event()
    other = context.Process(target=hold, args=(url, inside, 1.0))
    other.start()
    assert inside.wait(60)
    told: list[str] = []
    with ledger.alone(lambda: told.append("waiting")):
        pass
    other.join(60)
    assert told == ["waiting"]


def test_the_lock_of_a_killed_process_is_free(ledger: Ledger, url: str) -> None:
    """kill -9 while it holds the lock."""
    context = multiprocessing.get_context("spawn")
    inside = context.Event()
    other = context.Process(target=hold, args=(url, inside, 600.0))
    other.start()
    assert inside.wait(60)
    other.kill()
    other.join(60)
    with ledger.alone():
        assert len(waiting(ledger)) == 9


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://x/y", "SQLite or PostgreSQL"),
        ("nothing", "no SQLAlchemy URL"),
        ("sqlite:////proc/no/where.db", "cannot be used"),
    ],
)
def test_a_ledger_that_cannot_be_opened_is_said_so(url: str, told: str) -> None:
    """A database of another kind, no URL, a path that cannot be written."""
    with pytest.raises(PoisonwatchError, match=told), Ledger.at(url):
        pass


def test_no_password_is_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens; the password stands in the URL, or in the environment."""
    monkeypatch.setenv("LEDGER_PASSWORD", "hunter2secret")
    for url in (
        "postgresql://ann:hunter2secret@127.0.0.1:9/x",
        "postgresql://ann:${LEDGER_PASSWORD}@127.0.0.1:9/x",
    ):
        with pytest.raises(OperationError) as raised, Ledger.at(url):
            pass
        assert "hunter2secret" not in str(raised.value)


def test_items_come_in_batches() -> None:
    """n at a time, the rest last."""
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_rows_are_found_by_their_ids(ledger: Ledger) -> None:
    """With their text; those that cannot be read, or are not there, are left out."""
    known = {example.id: example for example in examples_of(waiting(ledger)).values()}
    found = ledger.examples([*known, "0" * 64])
    assert {id: example.messages for id, example in found.items()} == {
        id: example.messages for id, example in known.items()
    }
    assert ledger.examples([]) == {}
