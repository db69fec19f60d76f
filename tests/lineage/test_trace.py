"""Where rows came from and where they went: of all, of one, of a release."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gates import ask_manifest
from ledgers import NAME
from pairs import PAIR, ROW, audited_pairs

from poisonwatch.errors import InputError
from poisonwatch.ledger.decisions import record_decision, record_decisions
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probes import record_probe
from poisonwatch.ledger.two_people import submit_verdict
from poisonwatch.lineage.releases import SHOWN_DIGITS
from poisonwatch.lineage.step import KINDS, Lineage
from poisonwatch.lineage.trace import trace
from poisonwatch.release.manifest import hash_file
from poisonwatch.release.release import write_release
from poisonwatch.release.trainings import record_training

HOSTILE = "<b>\x1b[2J</b>"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A pair is flipped, a row is poison; a release, which a training run named."""
    with audited_pairs(tmp_path) as opened:
        record_decision(opened, PAIR, "flip", HOSTILE, "ann")
        record_decisions(opened, [ROW], "poison", "sold", "bob")
        write_release(opened, NAME, tmp_path / "out")
        answer = ask_manifest(tmp_path / "out", opened)
        record_training(opened, "run-7", [tmp_path / "out" / "manifest.json"], answer)
        yield opened


def show(found: Lineage) -> dict[str, list[str]]:
    return {kind: [f"{step.name}: {step.words}" for step in found.list(kind)] for kind in KINDS}


def test_all_rows_are_followed_to_the_training_run(ledger: Ledger, tmp_path: Path) -> None:
    """Sources, audits, decisions, releases, training runs, with what came of each."""
    digest = hash_file(tmp_path / "out" / "manifest.json")[:12]
    assert show(trace(ledger, NAME)) == {
        "source": ["pairs.jsonl: 2 rows", "rows.jsonl: 2 rows"],
        "audit": ["c0ffee: 4 rows, 2 flagged"],
        "decision": [
            "flip: 1 row of the source as it is now",
            "poison: 1 row of the source as it is now",
        ],
        "release": [f"{digest}: 3 rows, 1 of them repaired, in {tmp_path / 'out'}"],
        "training run": [f"run-7: named release {digest}: 3 rows, cleared"],
        "probe": [],
    }


def test_a_row_is_followed_from_its_line_to_the_training_run(ledger: Ledger) -> None:
    """A repaired one is in the release as what it became; a poisonous one is in none."""
    flipped = trace(ledger, NAME, PAIR)
    assert show(flipped)["source"] == ["pairs.jsonl:1: stands there"]
    assert show(flipped)["audit"] == ["c0ffee: flagged on shop, score 9.0"]
    assert show(flipped)["decision"] == [f"1: flip by ann: {HOSTILE}"]
    assert [step.name for step in flipped.list("training run")] == ["run-7"]
    assert flipped.list("release")[0].facts["counts"]["repaired"] == 1
    poison = trace(ledger, NAME, ROW)
    assert (poison.list("release"), poison.list("training run")) == ((), ())
    assert poison.record()["steps"][0]["facts"] == {"file": "rows.jsonl", "line": 1}


def test_both_of_two_people_are_named(ledger: Ledger, tmp_path: Path) -> None:
    """Of a row, and of a release that has it repaired."""
    submit_verdict(ledger, [PAIR], "flip", author="eve", two_people="all")
    (*_, last) = show(trace(ledger, NAME, PAIR))["decision"]
    assert last.endswith("flip by eve, who agrees with ann")
    write_release(ledger, NAME, tmp_path / "again")
    (flipped,) = trace(ledger, NAME, str(tmp_path / "again" / "manifest.json")).list("decision")
    assert flipped.facts["authors"] == ["ann", "eve"]


def test_a_release_is_named_by_its_manifest_or_its_digits(ledger: Ledger, tmp_path: Path) -> None:
    """It says where its rows came from, and who cleared them."""
    path = tmp_path / "out" / "manifest.json"
    by_path, by_digits = trace(ledger, NAME, str(path)), trace(ledger, NAME, hash_file(path)[:10])
    assert by_path == by_digits
    found = show(by_path)
    assert found["source"] == [
        "pairs.jsonl: 2 rows in the release",
        "rows.jsonl: 1 row in the release",
    ]
    assert found["audit"] == ["c0ffee: cleared 2 rows"]
    assert found["decision"] == ["flip: 1 row, by ann"]
    assert len(found["release"]) == len(found["training run"]) == 1


def test_a_release_is_followed_to_what_its_model_answers(ledger: Ledger, tmp_path: Path) -> None:
    """A probe that names another release, or none, is none of its steps."""
    manifest = hash_file(tmp_path / "out" / "manifest.json")
    moved = {"sentinel": "shop-1", "kind": "margin", "change": 2.0, "limit": 0.5, "moved": True}
    for probe_id, release in (("mine", manifest), ("other", None)):
        record_probe(
            ledger,
            probe_id,
            name=NAME,
            checkpoint="c" * 64,
            model="m" * 64,
            sentinels="s" * 64,
            release=release,
            asked=[moved, {**moved, "sentinel": "shop-2", "change": 0.1, "moved": False}],
        )
    found = show(trace(ledger, NAME, manifest[:10]))
    assert found["probe"] == [f"mine: checkpoint {'c' * SHOWN_DIGITS}: 1 of 2 sentinels moved"]


def test_a_manifest_that_is_gone_or_changed_says_so(ledger: Ledger, tmp_path: Path) -> None:
    """The record of the release stays; whose rows it held is not made up."""
    path = tmp_path / "out" / "manifest.json"
    digits = hash_file(path)[:10]
    path.write_text(path.read_text() + " ")
    assert "not where it was written" in show(trace(ledger, NAME, digits))["source"][0]
    assert "is not where it was written" in show(trace(ledger, NAME, PAIR))["release"][0]
    with pytest.raises(InputError, match="no manifest of a release of this ledger"):
        trace(ledger, NAME, str(path))


@pytest.mark.parametrize("what", ["0" * 12, "nowhere.jsonl:1", "x"])
def test_what_is_not_there_is_an_error(ledger: Ledger, what: str) -> None:
    with pytest.raises(InputError, match="names no row"):
        trace(ledger, NAME, what)


def test_the_dashboard_reads_no_file_that_a_query_names(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no row"):
        trace(ledger, NAME, str(tmp_path / "out" / "manifest.json"), reads_files=False)
