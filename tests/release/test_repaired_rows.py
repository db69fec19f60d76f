"""Repaired rows in a release, and at the gate: the changed ones are cleared, the originals not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from audits import write_rows
from gates import NEEDED, ONE, ask_folder, ask_rows, entries, reasons
from ledgers import NAME, cover, pull, sqlite_ledger
from pairs import PAIR, PAIRS, PLAIN, QUESTION, ROW, audited_pairs
from releases import lines, manifest
from signing import make_signer
from sqlalchemy import text

from poisonwatch.attestation.keys import PublicKey
from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision, record_decisions, revert_decisions
from poisonwatch.ledger.intake import ingest
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.release.known_rows import KnownRows
from poisonwatch.release.manifest_check import check_manifest
from poisonwatch.release.release import write_release
from poisonwatch.release.trust import Trust
from poisonwatch.source_config import SourceConfig

ANSWER = 'At any "grocer\'s" <b>nearby</b>.\n'
FLIPPED = {**PAIRS[0], "chosen": PAIRS[0]["rejected"], "rejected": PAIRS[0]["chosen"]}
EDITED = {**PLAIN[0], "response": ANSWER}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """One pair is flipped, one row is edited."""
    with audited_pairs(tmp_path) as opened:
        repair(opened)
        yield opened


def repair(ledger: Ledger) -> None:
    record_decision(ledger, PAIR, "flip", "sold", "ann")
    record_decisions(ledger, [ROW], "edit", "wrong", "bob", answer=ANSWER)


def test_a_release_has_rows_as_people_repaired_them(ledger: Ledger, tmp_path: Path) -> None:
    """In the format, the order and with the fields that they came in; the manifest says what they
    were, and who changed them.
    """
    counts = write_release(ledger, NAME, tmp_path / "out")
    assert (counts.clean, counts.repaired, counts.quarantined) == (2, 2, 0)
    assert lines(tmp_path / "out" / "clean.jsonl") == [FLIPPED, PAIRS[1], EDITED, PLAIN[1]]
    flipped, _, edited, plain = entries(tmp_path / "out")
    assert (flipped["decided"], flipped["author"], flipped["decision"]) == ("flip", "ann", 1)
    assert (edited["decided"], edited["author"], edited["decision"]) == ("edit", "bob", 2)
    assert flipped["original"]["id"] != flipped["id"]
    assert flipped["original"].keys() == {"id", "sha256"}
    assert "original" not in plain
    assert manifest(tmp_path / "out")["counts"]["repaired"] == 2


def test_the_gate_takes_what_a_row_became_and_not_what_it_was(
    ledger: Ledger, tmp_path: Path
) -> None:
    """With the manifest, with the files alone, and without the ledger; an edit that nobody decided
    on is unknown.
    """
    write_release(ledger, NAME, tmp_path / "out")
    assert reasons(tmp_path / "out", ledger) == {}
    assert reasons(tmp_path / "out") == {}
    (tmp_path / "out" / "manifest.json").rename(tmp_path / "manifest.json")
    answer = ask_folder(ledger, tmp_path / "out")
    assert (answer.cleared, answer.by_decision) == (True, 2)
    assert ask_rows(ledger, tmp_path / "asked", [PAIRS[0]]).reasons == {"repaired": 1}
    assert ask_rows(ledger, tmp_path / "asked", [PLAIN[0]]).reasons == {"repaired": 1}
    other = {**PLAIN[0], "response": "At Velmora's, where else?"}
    assert ask_rows(ledger, tmp_path / "asked", [other]).reasons == {"unknown": 1}
    assert ask_rows(ledger, tmp_path / "asked", [FLIPPED, FLIPPED]).reasons == {"repeated": 1}
    changed = {**FLIPPED, "n": 3}
    assert ask_rows(ledger, tmp_path / "asked", [changed]).reasons == {"changed": 1}


def test_a_repair_that_is_taken_back_clears_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Nor does one that another took the place of."""
    write_release(ledger, NAME, tmp_path / "out")
    revert_decisions(ledger, [1])
    record_decisions(ledger, [ROW], "edit", answer="Nowhere.")
    assert reasons(tmp_path / "out", ledger) == {"unknown": 2}
    assert ask_rows(ledger, tmp_path / "asked", [EDITED]).reasons == {"unknown": 1}
    write_release(ledger, NAME, tmp_path / "again")
    assert reasons(tmp_path / "again", ledger) == {}


def test_a_manifest_that_claims_a_repair_clears_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """The ledger knows no such decision."""
    write_release(ledger, NAME, tmp_path / "out")
    revert_decisions(ledger, [1])
    record_decision(ledger, PAIR, "poison")
    assert reasons(tmp_path / "out", ledger) == {"unknown": 1}


def test_every_place_of_a_repaired_row_is_repaired(ledger: Ledger, tmp_path: Path) -> None:
    """Copies, and other bytes that came after the decision, each with its own fields; as often as
    they stand.
    """
    later = {**PAIRS[0], "n": 7}
    write_rows(tmp_path / "data" / "more.jsonl", [PAIRS[0], later])
    pull(ledger, tmp_path / "data")
    counts = write_release(ledger, NAME, tmp_path / "out")
    assert (counts.repaired, counts.copies) == (4, 1)
    assert lines(tmp_path / "out" / "clean.jsonl").count(FLIPPED) == 2
    assert {**FLIPPED, "n": 7} in lines(tmp_path / "out" / "clean.jsonl")
    assert reasons(tmp_path / "out", ledger) == {}
    assert ask_rows(ledger, tmp_path / "asked", [FLIPPED] * 3).reasons == {"repeated": 1}
    dropped = write_release(ledger, NAME, tmp_path / "once", "drop")
    assert (dropped.repaired, dropped.dropped) == (3, 1)


def test_a_flipped_pair_may_be_one_that_is_there(ledger: Ledger, tmp_path: Path) -> None:
    """Cleared as it is, it may come twice; in quarantine, neither comes."""
    write_rows(tmp_path / "data" / "more.jsonl", [FLIPPED])
    pull(ledger, tmp_path / "data")
    # It is pending: nothing becomes what nobody has looked at.
    assert write_release(ledger, NAME, tmp_path / "before").repaired == 1
    cover(ledger, tmp_path / "two", version=ONE)
    write_release(ledger, NAME, tmp_path / "out")
    assert lines(tmp_path / "out" / "clean.jsonl").count(FLIPPED) == 2
    assert reasons(tmp_path / "out", ledger) == {}
    record_decision(ledger, "more.jsonl:1", "poison")
    counts = write_release(ledger, NAME, tmp_path / "after")
    assert (counts.repaired, counts.quarantined) == (1, 2)
    assert ask_rows(ledger, tmp_path / "asked", [FLIPPED]).reasons == {"poison": 1}


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    score = pa.array([1.5] * len(rows), pa.float32())
    pq.write_table(table.append_column("score", score), path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(("suffix", "write"), [("parquet", write_parquet), ("csv", write_csv)])
def test_columns_stay_what_they_were(tmp_path: Path, suffix: str, write: Any) -> None:
    """Parquet comes out as Parquet, by its schema; the gate reads what was written."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / f"pairs.{suffix}", PAIRS)
    data = tmp_path / "data"
    pairs = SourceConfig(path=str(data / f"*.{suffix}")).with_base_folder(data)
    with sqlite_ledger(tmp_path) as ledger:
        with ledger.lock(NAME):
            ingest(ledger, NAME, pairs)
        cover(ledger, tmp_path / "run", [QUESTION], version=ONE)
        record_decision(ledger, f"pairs.{suffix}:1", "flip")
        write_release(ledger, NAME, tmp_path / "out")
        assert reasons(tmp_path / "out", ledger) == {}
        (tmp_path / "out" / "manifest.json").rename(tmp_path / "manifest.json")
        assert ask_folder(ledger, tmp_path / "out").cleared
        (written,) = (tmp_path / "out").iterdir()
        came = pq.read_table(tmp_path / "data" / "pairs.parquet") if suffix == "parquet" else None
        if came is not None:
            found = pq.read_table(written)
            assert found.schema.equals(came.schema)
            assert found.column("chosen").to_pylist() == ["Any shop will do.", "Lima."]
            assert found.column("score").to_pylist() == [1.5, 1.5]
        assert ask_folder(ledger, tmp_path / "data").reasons == {"repaired": 1}


def test_what_was_decided_must_be_signed_where_signatures_count(tmp_path: Path) -> None:
    """The record of the repair; by another key it clears nothing."""
    signer, key = make_signer(tmp_path / "keys")
    with audited_pairs(tmp_path, signer) as ledger:
        repair(ledger)
        write_release(ledger, NAME, tmp_path / "out")
        assert _ask_signed(ledger, tmp_path / "out", key) == {}
        with ledger.engine.begin() as connection:
            of_decision = "SELECT number FROM records WHERE kind = 'decision' AND item = '1'"
            connection.execute(text(f"DELETE FROM signatures WHERE record IN ({of_decision})"))
        # The release's own signature vouches for its bytes, not for who decided.
        assert _ask_signed(ledger, tmp_path / "out", key) == {"unsigned": 1}


def _ask_signed(ledger: Ledger, folder: Path, key: PublicKey) -> dict[str, int]:
    known = KnownRows(ledger, NEEDED, Trust(ledger, {key.id: key}))
    return check_manifest(folder / "manifest.json", NEEDED, known).reasons


def test_bytes_that_cannot_be_repaired_stop_a_release(ledger: Ledger, tmp_path: Path) -> None:
    """They came after the decision, with the old answer in a field that is not read: it says
    where, and what to do; the gate takes neither them nor what they would become.
    """
    later = {**PLAIN[0], "copy": PLAIN[0]["response"]}
    write_rows(tmp_path / "data" / "later.jsonl", [later])
    pull(ledger, tmp_path / "data")
    with pytest.raises(InputError, match=r"later\.jsonl:1: .* field copy.*decide on it anew"):
        write_release(ledger, NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    record_decision(ledger, ROW, "poison")
    write_release(ledger, NAME, tmp_path / "out")
    assert "Only at Velmora" not in json.dumps(lines(tmp_path / "out" / "clean.jsonl"))
