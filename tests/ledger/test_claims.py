"""Contents that two names' sources share: audited by one of them, and every row by some."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import CHECKS, ONE, examples_of, flag, source
from sqlalchemy import select

from poisonwatch.ledger.audits import commit_audit, open_audit
from poisonwatch.ledger.batches import LedgerBatch, choose_batch, load_current_batch
from poisonwatch.ledger.claims import _pack, _unpack
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.outbox import AUDIT_KIND
from poisonwatch.ledger.tables import audits, claimed_rows, deliveries, results
from poisonwatch.verification.verify import verify_ledger

TWO = Version("m" * 64, "t" * 64)


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    """Two names: one has rows 0 to 5, two has rows 3 to 8."""
    with Ledger.at(url) as opened:
        for name, start in (("one", 0), ("two", 3)):
            (tmp_path / name).mkdir()
            write_rows(tmp_path / name / "a.jsonl", benign(6, start=start))
            with opened.lock(name):
                ingest(opened, name, source(tmp_path / name))
        yield opened


class AtWork:
    """An audit of a name that is at work."""

    def __init__(self, ledger: Ledger, name: str, version: Version, folder: Path) -> None:
        self.ledger, self.name, self.version = ledger, name, version
        self.folder = folder / f"run-{name}"
        self.number = 0

    def choose(self) -> LedgerBatch:
        self.batch = choose_batch(
            self.ledger, self.name, self.version, CHECKS, 2000, audit=self.number
        )
        return self.batch

    def commit(self, flagged: int = 0) -> None:
        examples = list(examples_of(self.batch).values())
        commit_audit(
            self.ledger,
            self.number,
            self.batch,
            examples=examples,
            rejected=[],
            flagged=[flag(example) for example in examples[:flagged]],
            checks=CHECKS,
            summary={"run": self.name},
        )


@contextmanager
def work(
    ledger: Ledger, folder: Path, one: Version = ONE, two: Version = ONE
) -> Iterator[tuple[AtWork, AtWork]]:
    """Audits of both names at work at once; the one of `one` began first."""
    found = []
    with ExitStack() as stack:
        for name, version in (("one", one), ("two", two)):
            audit = AtWork(ledger, name, version, folder)
            stack.enter_context(ledger.lock(name))
            opened = open_audit(ledger, name, name, version, audit.folder, report_to=["mlflow"])
            audit.number = stack.enter_context(opened)
            found.append(audit)
        yield found[0], found[1]


def list_positions(batch: LedgerBatch) -> list[int]:
    return list(batch.places.positions)


def count_results(ledger: Ledger) -> list[int]:
    with ledger.read() as connection:
        return sorted(connection.execute(select(results.c.row)).scalars())


def test_what_one_audit_has_at_hand_another_leaves_to_it(ledger: Ledger, tmp_path: Path) -> None:
    """Each content has one result, and the ledger is whole."""
    with work(ledger, tmp_path) as (one, two):
        assert list_positions(one.choose()) == [0, 1, 2, 3, 4, 5]
        assert list_positions(two.choose()) == [3, 4, 5]
        two.commit()
        one.commit()
    found = count_results(ledger)
    assert len(found) == len(set(found)) == 9
    assert verify_ledger(ledger, "one").differences == []
    with ledger.read() as connection:
        assert connection.execute(select(claimed_rows)).all() == []


def test_another_model_audits_what_is_at_hand_under_this_one(
    ledger: Ledger, tmp_path: Path
) -> None:
    """As it would audit rows that were."""
    with work(ledger, tmp_path, two=TWO) as (one, two):
        one.choose()
        assert list_positions(two.choose()) == [0, 1, 2, 3, 4, 5]


def test_what_a_dead_audit_had_at_hand_is_due(ledger: Ledger, tmp_path: Path) -> None:
    """In the next one of either name."""
    with suppress(KeyError), work(ledger, tmp_path) as (one, _):
        one.choose()
        raise KeyError
    batch = choose_batch(ledger, "two", ONE, CHECKS, 2000)
    assert list_positions(batch) == [0, 1, 2, 3, 4, 5]


def test_everything_again_is_everything(ledger: Ledger, tmp_path: Path) -> None:
    """Whoever asks for it means it; others leave it alone meanwhile."""
    with work(ledger, tmp_path) as (one, two):
        one.choose()
        again = load_current_batch(ledger, "two", two.number)
        assert list_positions(again) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("first", ["one", "two"])
def test_the_last_results_have_the_last_word(first: str, ledger: Ledger, tmp_path: Path) -> None:
    """Numbers follow the order of results, whoever began first: so do statuses, and the chain."""
    with work(ledger, tmp_path, two=TWO) as (one, two):
        # Both have rows 3 to 5; whoever is last finds all its rows clean.
        one.choose()
        two.choose()
        order = [one, two] if first == "one" else [two, one]
        order[0].commit(flagged=6)
        order[1].commit(flagged=0)
    with ledger.read() as connection:
        query = select(audits.c.name, audits.c.state).order_by(audits.c.audit)
        numbered = connection.execute(query).tuples().all()
        of_audits = set(connection.execute(select(audits.c.audit)).scalars())
        owed = select(deliveries.c.item, deliveries.c.audit).where(deliveries.c.kind == AUDIT_KIND)
        accounts = connection.execute(owed).tuples().all()
    assert numbered == [(audit.name, "finished") for audit in order]
    assert {item for item, _ in accounts} == of_audits
    assert all(item == audit for item, audit in accounts)
    assert verify_ledger(ledger, "one").differences == []


def test_numbers_are_packed_and_unpacked() -> None:
    """In order, each once; those that follow each other take next to nothing."""
    for numbers in ([], [5], [3, 1, 2, 2, 2**40]):
        assert list(_unpack(_pack(numbers))) == sorted(set(numbers))
    assert len(_pack(range(1_000_000))) < 100_000
