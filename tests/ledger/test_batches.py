"""Which rows an audit takes, and what earlier audits say of others."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audits import benign, write_rows
from ledgers import (
    CHECKS,
    NAME,
    ONE,
    append,
    cover,
    examples_of,
    prompts,
    pull,
    sqlite_ledger,
    statuses,
    waiting,
    write_two_files,
)
from sqlalchemy import update

from poisonwatch.config import ValidationConfig
from poisonwatch.ledger.batches import (
    count_passed_by_file,
    find_audited_ids,
    hash_checks,
    load_audited_batch,
    load_current_batch,
    load_examples,
    load_trusted,
)
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.tables import rows

TWO = Version("m" * 64, "t" * 64)
TEA = "Tell me fact 0 about tea."


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine pulled rows, one of them broken."""
    write_two_files(tmp_path / "data")
    with sqlite_ledger(tmp_path) as opened:
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


def test_the_window_may_be_all(ledger: Ledger, tmp_path: Path) -> None:
    """Another version audits every row that passed before; afterwards none waits."""
    cover(ledger, tmp_path / "one")
    assert len(cover(ledger, tmp_path / "two", version=TWO, window="all")) == 8
    assert len(waiting(ledger, TWO, window="all")) == 0


def test_rejected_rows_wait_where_validation_has_changed(ledger: Ledger, tmp_path: Path) -> None:
    """The broken line is validated again under other settings only."""
    cover(ledger, tmp_path / "one")
    other = hash_checks(ValidationConfig(max_characters=10))
    assert prompts(waiting(ledger, checks=other)) == ["{not json"]
    assert len(waiting(ledger, checks=CHECKS)) == 0


def test_a_moved_row_is_no_copy_of_itself(ledger: Ledger, tmp_path: Path) -> None:
    """Audited again after its file was renamed, every row comes once, from where it stands now; a
    row that is gone, from where it stood.
    """
    (tmp_path / "data" / "a.jsonl").rename(tmp_path / "data" / "moved.jsonl")
    pull(ledger, tmp_path / "data")
    assert [row.source for row in load_current_batch(ledger, NAME).rows.raw] == ["b.jsonl"] * 4 + [
        "moved.jsonl"
    ] * 5
    (tmp_path / "data" / "moved.jsonl").unlink()
    pull(ledger, tmp_path / "data")
    assert len(load_current_batch(ledger, NAME)) == 4
    assert len(waiting(ledger)) == 14


def test_the_rows_of_an_earlier_audit_are_found_again(ledger: Ledger, tmp_path: Path) -> None:
    """By its id; None for an id that this ledger does not know."""
    first = cover(ledger, tmp_path / "one")
    append(tmp_path / "data" / "a.jsonl", benign(1, start=60))
    pull(ledger, tmp_path / "data")
    cover(ledger, tmp_path / "two")
    found = load_audited_batch(ledger, "one")
    assert found is not None
    assert prompts(found) == prompts(first)
    assert load_audited_batch(ledger, "three") is None


def test_a_second_copy_waits_beside_the_first(ledger: Ledger, tmp_path: Path) -> None:
    """Two places of one content are two lines of the batch, and one row when covered."""
    write_rows(tmp_path / "data" / "c.jsonl", benign(1))
    pull(ledger, tmp_path / "data")
    batch = waiting(ledger)
    assert len(batch) == 10
    assert len(set(batch.numbers)) == 9
    cover(ledger, tmp_path / "one")
    assert sum(statuses(ledger).values()) == 9


def test_rows_that_an_audit_covered_are_known(ledger: Ledger, tmp_path: Path) -> None:
    """By example id; none before the audit, and never one that the ledger has not seen."""
    ids = {example.id for example in examples_of(waiting(ledger)).values()}
    assert find_audited_ids(ledger, ids) == set()
    cover(ledger, tmp_path / "one")
    assert find_audited_ids(ledger, {*ids, "0" * 64}) == ids


def test_trusted_rows_are_those_that_people_called_benign(ledger: Ledger, tmp_path: Path) -> None:
    """And these are not audited again, under whatever version."""
    cover(ledger, tmp_path / "one", flagged=[TEA])
    with ledger.write() as connection:
        connection.execute(
            update(rows).where(rows.c.status == "flagged").values(decided="benign", status="clean")
        )
    assert [example.prompt for example in load_trusted(ledger, NAME)] == [TEA]
    assert TEA not in prompts(waiting(ledger, TWO))


def test_the_mix_counts_rows_that_passed(ledger: Ledger, tmp_path: Path) -> None:
    """By file, the rejected one left out."""
    assert count_passed_by_file(ledger, NAME) == {}
    cover(ledger, tmp_path / "one")
    assert count_passed_by_file(ledger, NAME) == {"a.jsonl": 5, "b.jsonl": 3}


def test_rows_are_found_by_their_ids(ledger: Ledger) -> None:
    """With their text; those that cannot be read, or are not there, are left out."""
    known = {example.id: example for example in examples_of(waiting(ledger)).values()}
    found = load_examples(ledger, [*known, "0" * 64])
    assert {id: example.messages for id, example in found.items()} == {
        id: example.messages for id, example in known.items()
    }
    assert load_examples(ledger, []) == {}


def test_rows_are_audited_as_they_stand(ledger: Ledger, tmp_path: Path) -> None:
    """A content in three forms: each place is read by its own bytes, all under one id; once it is
    covered an edit of them changes what stands there, and nothing else.
    """
    (row,) = benign(1, start=80)
    forms = [row | {"score": score} for score in (1, 2, 3)]
    write_rows(tmp_path / "data" / "c.jsonl", forms)
    pull(ledger, tmp_path / "data")
    batch = waiting(ledger)
    found = [(raw, draft) for raw, draft in batch.rows if raw.source == "c.jsonl"]
    assert [raw.record for raw, _ in found] == forms
    assert all(raw.raw == json.dumps(raw.record).encode() for raw, _ in found)
    assert len(set(batch.numbers[-3:])) == 1
    ids = {draft.to_example(raw).id for raw, draft in found}
    assert len(ids) == 1
    cover(ledger, tmp_path / "one")
    write_rows(tmp_path / "data" / "c.jsonl", [row | {"score": 4}])
    pull(ledger, tmp_path / "data")
    assert len(waiting(ledger)) == 0
    current = load_current_batch(ledger, NAME)
    assert [raw.record for raw in current.rows.raw if raw.source == "c.jsonl"] == [
        row | {"score": 4}
    ]


def test_a_change_of_settings_makes_the_latest_rows_due_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    first, second = replace(ONE, settings='{"seed":0}'), replace(ONE, settings='{"seed":1}')
    cover(ledger, tmp_path / "one", version=first)
    assert len(waiting(ledger, first)) == 0
    assert len(waiting(ledger, second, window=2)) == 2
    cover(ledger, tmp_path / "two", version=second)
    assert len(waiting(ledger, first)) == len(waiting(ledger, second)) == 0


def test_rows_audited_before_settings_were_recorded_are_not_due(
    ledger: Ledger, tmp_path: Path
) -> None:
    """An upgrade alone does not audit everything anew, whichever reading they are taken for."""
    cover(ledger, tmp_path / "before")
    version = replace(ONE, reading="r" * 64, reads_as_before=True, settings='{"seed":0}')
    assert len(waiting(ledger, version)) == 0
    assert len(waiting(ledger, replace(version, reading="q" * 64, reads_as_before=False))) > 0
