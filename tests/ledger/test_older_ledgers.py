"""Ledgers of earlier versions, which read less of a row: at the next pull every file is read anew.

read as before       the same row: what audits and people said of it stands
read as more         a new row, to be audited, that replaces the old one
the old one          stands nowhere any more: in no release, not current; decisions on it stay
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from audits import write_rows
from gates import ask_rows
from ledgers import NAME, ONE, cover, examples_of, prompts, pull, statuses, waiting
from older_ledgers import make_older_ledger
from servers import postgres_server
from sqlalchemy import select

from poisonwatch.ledger.batches import load_audited_batch, load_current_batch, load_examples
from poisonwatch.ledger.decisions import record_decision, verify_chain
from poisonwatch.ledger.ledger import Ledger, Version
from poisonwatch.ledger.placed_rows import select_placed_rows
from poisonwatch.ledger.shapes import hash_shape
from poisonwatch.ledger.tables import rows
from poisonwatch.release.answer import RequiredVersions

OLD_READING = '["auto", {}, null]'
OLD_FORMAT = '{"name": "messages", "fields": {}, "template": null, "seen": ["messages"]}'


def say(question: str, answer: str, **more: object) -> list[dict[str, object]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, **more},
    ]


PLAIN = {"messages": say("What is tea?", "A drink.")}
THOUGHT = {"messages": say("What is rye?", "A grain.", reasoning_content="It is a grain.")}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {}}}
TOOLS = {"messages": say("Find rye.", "Here."), "tools": [TOOL]}
INDENTED = {"messages": say("  Indent.", "    return 1")}
NOT_INDENTED = {"messages": say("Indent.", "return 1")}
# The key that a parser may read either way.
TWICE = '{"messages": [], ' + json.dumps(PLAIN | {"n": 1})[1:]
OLD_ROWS = (PLAIN, THOUGHT, TOOLS, INDENTED, NOT_INDENTED)


def compute_old_id(row: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """As ids were: of roles and texts, without the white space around them."""
    messages = []
    for message in row["messages"]:
        messages.append({"content": message["content"].strip(), "role": message["role"]})
    canonical = json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def fill(url: str, file: Path, status: str) -> None:
    """The ledger of 0004 that read this file: of rows of one content, the first was kept."""
    raws = file.read_bytes().splitlines()
    statements = [
        "INSERT INTO files (file, audit, name, fingerprint, mark, reading, rows, read_at) "
        f"VALUES (1, '{NAME}', 'a.jsonl', 'f', NULL, '{OLD_READING}', {len(raws)}, '')",
        f"INSERT INTO shapes (shape, digest, format) VALUES (1, '{hash_shape(OLD_FORMAT, None)}', '{OLD_FORMAT}')",
        f"INSERT INTO versions (version, model, sentinels) VALUES (1, '{ONE.model}', "
        f"'{ONE.sentinels}')",
        "INSERT INTO audits (audit, audit_id, name, version, state, started_at, run_dir) "
        f"VALUES (1, 'one', '{NAME}', 1, 'finished', '', '')",
    ]
    number_of: dict[str, int] = {}
    for position, raw in enumerate(raws):
        id = compute_old_id(json.loads(raw))
        if id not in number_of:
            number = number_of[id] = len(number_of) + 1
            texts = [bytes.fromhex(id), raw, hashlib.sha256(raw).digest()]
            values = ", ".join(_write_bytes(url, text) for text in texts)
            statements += [
                "INSERT INTO rows (row, id, raw, digest, shape, status, first_seen) "
                f"VALUES ({number}, {values}, 1, '{status}', '')",
                f"INSERT INTO results (row, version, audit, flagged) VALUES ({number}, 1, 1, 0)",
            ]
        place = f"1, {position}, {number_of[id]}, 'line {position + 1}'"
        statements.append(f"INSERT INTO places (file, position, row, place) VALUES ({place})")
    if not url.startswith("sqlite"):
        # What the inserts took without asking.
        for table, column in (("rows", "row"), ("shapes", "shape"), ("audits", "audit")):
            statements.append(
                f"""SELECT setval(pg_get_serial_sequence('"{table}"', '{column}'), 100)"""
            )
    make_older_ledger(url, "0004", statements)


def _write_bytes(url: str, value: bytes) -> str:
    if url.startswith("sqlite"):
        return f"x'{value.hex()}'"
    return f"'\\x{value.hex()}'::bytea"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder / "a.jsonl", list(OLD_ROWS))
    return folder


@pytest.fixture
def ledger(tmp_path: Path, data: Path) -> Iterator[Ledger]:
    """Five rows in one file, four contents as they were read then, all cleared."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fill(url, data / "a.jsonl", "clean")
    with Ledger.at(url) as opened:
        yield opened


def check_next_pull(ledger: Ledger, data: Path) -> None:
    assert statuses(ledger) == {"clean": 4}
    stats = pull(ledger, data)
    assert (stats.read, stats.unchanged) == (5, 0)
    assert (stats.new, stats.variants, stats.copies) == (3, 1, 0)
    # The old rows that are read as more are current no longer.
    assert statuses(ledger) == {"clean": 2, "pending": 3}
    batch = waiting(ledger)
    assert prompts(batch)[-1] == "  Indent."
    assert [json.loads(row.raw) for row in batch.rows.raw] == [THOUGHT, TOOLS, INDENTED]
    with ledger.read() as connection:
        replaced = dict(
            connection.execute(
                select(rows.c.row, rows.c.replaces).where(rows.c.replaces.is_not(None))
            )
            .tuples()
            .all()
        )
        placed = [bytes(row.raw) for row in connection.execute(select_placed_rows(NAME))]
    # INDENTED shared its content with the row after it, which still has it.
    assert sorted(replaced.values()) == [2, 3]
    assert placed == (data / "a.jsonl").read_bytes().splitlines()
    assert pull(ledger, data).unchanged == 1


def test_rows_that_are_read_as_more_are_new_ones(ledger: Ledger, data: Path) -> None:
    """Thoughts, tools and indentation; the plain row stays cleared, and so does the content
    without indentation, in the bytes that are its own.
    """
    check_next_pull(ledger, data)


def test_rows_that_are_read_as_more_are_new_ones_on_postgresql(data: Path) -> None:
    """On a real server."""
    with postgres_server() as url:
        fill(url, data / "a.jsonl", "clean")
        with Ledger.at(url) as ledger:
            check_next_pull(ledger, data)


def test_what_was_cleared_stays_so_for_the_models_own_template(
    ledger: Ledger, data: Path, tmp_path: Path
) -> None:
    """Nobody recorded how rows were read: as they are now, where no setting says otherwise. Then
    they are neither audited again nor refused.
    """
    pull(ledger, data)
    own = RequiredVersions(ONE.model, ONE.sentinels, reading="1" * 64, reads_as_before=True)
    changed = replace(own, reading="2" * 64, reads_as_before=False)
    reason = "another tokenizer or template"
    assert ask_rows(ledger, tmp_path / "asked", [PLAIN], own).cleared
    assert ask_rows(ledger, tmp_path / "asked", [PLAIN], changed).reasons == {reason: 1}
    assert len(waiting(ledger, replace(ONE, reading="2" * 64))) == 5
    assert len(waiting(ledger, replace(ONE, reading="1" * 64, reads_as_before=True))) == 3
    assert ask_rows(ledger, tmp_path / "asked", [PLAIN], own).cleared


def test_decisions_on_a_replaced_row_stand_and_trust_nothing(ledger: Ledger, data: Path) -> None:
    """The chain goes on; the new row is another, and nobody has decided on it."""
    record_decision(ledger, compute_old_id(THOUGHT)[:12], "benign", "seen", "ann")
    pull(ledger, data)
    assert verify_chain(ledger)[0] == 1
    assert len(waiting(ledger)) == 3
    made = record_decision(ledger, compute_old_id(THOUGHT), "poison", "after all", "ann")
    assert made.number == 2
    assert statuses(ledger) == {"clean": 2, "pending": 3}


def test_an_old_row_keeps_its_id_wherever_it_is_read(
    ledger: Ledger, data: Path, tmp_path: Path
) -> None:
    """Its file is gone, so it was never read anew: audited again it is found by the id that the
    ledger has for it, and decided on by it.
    """
    (data / "a.jsonl").unlink()
    (data / "b.jsonl").write_text("")
    pull(ledger, data)
    ids = {compute_old_id(row) for row in (PLAIN, THOUGHT, TOOLS, INDENTED)}
    batch = load_audited_batch(ledger, "one")
    assert batch is not None
    assert {example.id for example in examples_of(batch).values()} == ids
    assert load_examples(ledger, ids).keys() == ids
    assert len(load_current_batch(ledger, NAME)) == 0
    other = Version(ONE.model, "t" * 64)
    audited = cover(ledger, tmp_path / "run", flagged=["What is rye?"], version=other)
    assert len(audited) == 5
    made = record_decision(ledger, compute_old_id(THOUGHT), "benign")
    assert made.example_id == compute_old_id(THOUGHT)


def test_a_row_that_is_not_read_any_more_costs_nothing_else(tmp_path: Path) -> None:
    """One with a key twice was read once. It is loaded with its problem, and replaced at the next
    pull.
    """
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text(TWICE + "\n" + json.dumps(THOUGHT) + "\n")
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fill(url, data / "a.jsonl", "pending")
    with Ledger.at(url) as ledger:
        assert len(waiting(ledger)) == 2
        assert pull(ledger, data).new == 2
        assert statuses(ledger) == {"pending": 2}
        first, _ = waiting(ledger).rows.raw
        assert first.problem is not None
