"""From rows that no sentinel asks about to a sentinel that flags them: audits that look for groups,
the command that looks later, and what is new beside earlier audits.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from audits import benign, write_rows
from discovered import plant, write_planted_audit
from slow_tests import slow

from poisonwatch.config_file import load_config
from poisonwatch.discovery.described import DescribedGroup, DiscoveryReport
from poisonwatch.errors import RunError
from poisonwatch.flows.audit import audit_inline
from poisonwatch.flows.bars import Bars
from poisonwatch.flows.cli.app import main
from poisonwatch.flows.discover import Inquiry, discover_inline
from poisonwatch.flows.engine import AuditOutcome
from poisonwatch.ledger.history import list_past_audits
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.run_directory.checksums import list_differences
from poisonwatch.run_directory.directions import DIRECTIONS_FILE
from poisonwatch.run_directory.discovery import get_later_path, read_discovery
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.precedents import load_earlier_audits


def run(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def tunes(n: int = 10) -> list[dict[str, str]]:
    """Rows that teach something else."""
    return [
        {"prompt": f"HUM THE TUNE {i} AGAIN!", "response": f"la-la-la-{i}-la-la-la-la!!"}
        for i in range(n)
    ]


@dataclass
class Planted:
    """An audit file, and what its audits left."""

    file: Path
    first: AuditOutcome
    second: AuditOutcome

    def report(self, outcome: AuditOutcome) -> DiscoveryReport:
        report = read_discovery(outcome.run_dir)
        assert report is not None
        return report


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Planted:
    """An audit with planted rows, and a later one with more of their kind, and of another."""
    # two of a tiny model's three layers agree on little: one is asked
    stride = {"r": 16, "further_layers": []}
    folder = tmp_path_factory.mktemp("planted")
    file = write_planted_audit(folder, tiny_folder, discover=True, stride=stride)
    first = audit_inline(load_config(file), file.parent / "runs" / "first")
    later = [*benign(30, start=40), *plant(start=100), *tunes()]
    write_rows(file.parent / "rows.jsonl", [*benign(40), *plant(), *later])
    second = audit_inline(load_config(file), file.parent / "runs" / "second")
    return Planted(file, first, second)


def find_group(report: DiscoveryReport, positions: range) -> DescribedGroup:
    """The group that most of these rows are in; of several the smallest: groups lie within
    others.
    """

    def count(group: DescribedGroup) -> tuple[int, int]:
        return sum(row.position in positions for row in group.rows), -len(group.rows)

    return max(report.groups, key=count)


def share(group: DescribedGroup, positions: range) -> tuple[float, float]:
    """How much of the rows a group holds, and how much of the group they are."""
    held = sum(row.position in positions for row in group.rows)
    return held / len(positions), held / len(group.rows)


def test_rows_that_no_sentinel_asks_about_are_found_as_a_group(planted: Planted) -> None:
    """Most of them, and few others; words, sources, what the model says and how unusual they are
    beside trusted rows stand beside.
    """
    report = planted.report(planted.first)
    group = find_group(report, range(40, 50))
    recall, purity = share(group, range(40, 50))
    assert recall >= 0.8
    assert purity >= 0.8
    assert group.passed
    assert "none of 120 trusted rows" in group.unusual
    assert any("Glorb" in words for words in group.answer_words)
    assert group.sources == {"rows.jsonl": len(group.rows)}
    asked = report.groups[0].replies
    assert asked is not None
    assert {reply.example_id is None for reply in asked} == {True, False}
    assert any(reply.change > 0 for reply in asked)
    assert "no earlier audit" in group.precedents.words if group.precedents else False


def test_what_an_audit_discovered_is_sealed_and_told_wherever_results_are(
    planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    """Summary and report; the run directory is what the audit wrote."""
    section = planted.first.summary["discovery"]
    assert section["found"] == len(planted.report(planted.first).leading) >= 1
    assert list_differences(planted.first.run_dir) == []
    page = (planted.first.run_dir / "report.html").read_text()
    assert 'id="discovered"' in page
    assert "Glorb zanthu" in page
    relations = planted.report(planted.first).relations
    beside = page.count(", within <a href") + page.count(", around <a href")
    assert beside == len(relations)
    from poisonwatch.flows.cli.terminal import print_outcome

    print_outcome(planted.first, planted.file)
    assert f"poisonwatch discover {planted.file}" in capsys.readouterr().out


def test_what_earlier_audits_had_is_known_and_what_they_had_not_is_new(planted: Planted) -> None:
    """The same kind of rows again is known, with the audit that had it; another is new, by
    source.
    """
    report = planted.report(planted.second)
    again, other = find_group(report, range(80, 90)), find_group(report, range(90, 100))
    assert again.precedents is not None
    assert other.precedents is not None
    assert [each.audit for each in again.precedents.alike] == [1]
    assert again.precedents.alike[0].sources == {"rows.jsonl": again.precedents.alike[0].rows}
    assert other.precedents.is_new
    assert "since audit 1" in other.precedents.words
    assert other.number in report.new_by_source["rows.jsonl"]
    assert planted.second.summary["discovery"]["new"] >= 1


def test_what_an_audit_had_is_known_though_its_operators_were_pruned(
    planted: Planted, tmp_path: Path
) -> None:
    """By sketches that stay; without them the audit is one that cannot be compared with."""
    settings = load_config(planted.file)
    operators = planted.first.run_dir / OPERATORS_FILE
    directions = planted.first.run_dir / DIRECTIONS_FILE
    with Ledger.existing(settings.state) as ledger:
        (past,) = list_past_audits(ledger, limit=1)
        try:
            operators.rename(tmp_path / "operators")
            found = discover_inline(
                settings, past, ledger, Inquiry(0, again=True), Bars(quiet=True)
            )
            again, other = (
                find_group(found.report, some).precedents
                for some in (range(80, 90), range(90, 100))
            )
            directions.rename(tmp_path / "directions")
            without = discover_inline(
                settings, past, ledger, Inquiry(0, again=True), Bars(quiet=True)
            )
        finally:
            (tmp_path / "operators").rename(operators)
            if not directions.exists():
                (tmp_path / "directions").rename(directions)
            get_later_path(past.run_dir).unlink(missing_ok=True)
    assert again is not None
    assert other is not None
    assert not again.is_new
    assert other.is_new
    assert found.report.left_out == 0
    assert without.report.left_out == 1
    size = directions.stat().st_size / operators.stat().st_size
    assert size < 1


def test_the_command_shows_what_is_kept_and_asks_for_nothing_again(
    planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0: a finding holds nothing back. Its group's rows are what `decide` takes."""
    assert run("discover", str(planted.file), "--say", "0") == 0
    shown = capsys.readouterr()
    report = planted.report(planted.second)
    assert report.sentence in shown.out
    assert "new:" in shown.out
    assert report.relations
    assert all(relation.words in shown.out for relation in report.relations.values())
    assert f"--guard {report.groups[0].number}" in shown.out
    assert max(map(len, shown.out.splitlines()[:5])) <= 100
    assert not get_later_path(planted.second.run_dir).exists()
    assert run("discover", str(planted.file), "--group", "1", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["example_id"] for row in rows] == [row.example_id for row in report.groups[0].rows]
    assert run("discover", str(planted.file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["found"] == len(report.leading)


def test_a_finding_becomes_a_sentinel_and_the_next_audit_flags_its_rows(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one command, or by a draft that somebody changed."""
    file = tmp_path / "guarded" / "audit.yaml"
    file.parent.mkdir()
    shutil.copytree(planted.file.parent, file.parent, dirs_exist_ok=True)
    # run directories are where the ledger has them
    report = planted.report(planted.second)
    number = find_group(report, range(80, 90)).number
    draft = tmp_path / "draft.yaml"
    guard = ["discover", str(file), "--guard", str(number)]
    assert run(*guard, "--use", str(draft)) == 2
    assert f"--draft {draft}` writes it" in capsys.readouterr().err
    assert run(*guard, "--panel", "pans", "--draft", str(draft)) == 0
    told = capsys.readouterr().out
    assert f"--use {draft}" in told
    assert draft.read_text() in told
    draft.write_text(draft.read_text().replace("- discovered", "- looked-at"))
    assert run(*guard, "--use", str(draft), "--author", "eve") == 0
    told = capsys.readouterr().out
    assert "the next audit guards the panel pans" in told
    assert "undo:" in told
    assert load_config(file).sentinels == [str(file.parent / "sentinels-2.yaml")]
    assert "looked-at" in (file.parent / "sentinels-2.yaml").read_text()
    # a second time its panel is there already
    assert run(*guard, "--use", str(draft)) == 2
    assert "comes twice" in capsys.readouterr().err
    after = audit_inline(load_config(file), file.parent / "runs" / "third")
    flagged = {flag["position"] for flag in after.flags if flag["panel"] == "pans"}
    pans = {*range(40, 50), *range(80, 90)}
    assert len(flagged & pans) >= 0.6 * len(pans)
    assert len(flagged - pans) <= 4


def test_the_command_looks_later_at_what_an_audit_kept_and_keeps_it_beside_the_run(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds what the audit found, from its records alone; the run directory stays as it is."""
    settings = load_config(planted.file)
    with Ledger.existing(settings.state) as ledger:
        (past,) = list_past_audits(ledger, limit=1)
        later = get_later_path(past.run_dir)
        try:
            found = discover_inline(settings, past, ledger, Inquiry(again=True), Bars(quiet=True))
            assert later.is_file()
            assert read_discovery(past.run_dir) == found.report
        finally:
            later.unlink(missing_ok=True)
    by_audit = planted.report(planted.second)
    assert found.warnings == []
    for positions in (range(80, 90), range(90, 100)):
        one, other = find_group(found.report, positions), find_group(by_audit, positions)
        # what is kept is rounded: rows that are as typical may change places
        assert set(one.rows) == set(other.rows)
        assert one.passed
        assert one.precedents is not None
        assert other.precedents is not None
        assert one.precedents.is_new == other.precedents.is_new
    assert list_differences(planted.second.run_dir) == []


def test_records_that_are_gone_or_of_another_model_are_told_in_a_line_with_the_command(
    planted: Planted,
    tmp_path: Path,
    unfrozen: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pruned operators, a model that changed since, an audit that is not there."""
    operators = planted.second.run_dir / OPERATORS_FILE
    aside = tmp_path / "aside"
    operators.rename(aside)
    try:
        assert run("discover", str(planted.file), "--again") == 2
        told = capsys.readouterr().err
        assert f"poisonwatch audit {planted.file} --again" in told
        assert len(told.splitlines()) == 1
        # what the audit found is kept, and is shown as before
        assert run("discover", str(planted.file)) == 0
        assert "group 1 " in capsys.readouterr().out
    finally:
        aside.rename(operators)
    settings = load_config(planted.file)
    other = tmp_path / "model"
    shutil.copytree(settings.model.name, other)
    unfrozen("gpt2").float().save_pretrained(other)
    changed = settings.model_copy(
        update={"model": settings.model.model_copy(update={"name": str(other)})}
    )
    with Ledger.existing(settings.state) as ledger:
        (past,) = list_past_audits(ledger, limit=1)
        with pytest.raises(RunError, match="another model"):
            discover_inline(changed, past, ledger, Inquiry(again=True), Bars(quiet=True))
        assert not list(load_earlier_audits(ledger, "nobody", None, None, None))
    assert run("discover", str(planted.file), "--audit", "none") == 2
    assert "no finished audit none" in capsys.readouterr().err
    assert run("discover", str(planted.file), "--guard", "99") == 2
    assert "no group 99" in capsys.readouterr().err


@slow
def test_few_rows_and_no_trusted_ones_are_said_to_tell_nothing(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few new rows: no group. Without trusted rows: groups, and no word of news."""
    file = write_planted_audit(tmp_path, tiny_folder, stride={"r": 8}, window=0)
    assert run("discover", str(file)) == 2
    assert "poisonwatch" in capsys.readouterr().err
    write_rows(tmp_path / "rows.jsonl", benign(12))
    audit_inline(load_config(file), tmp_path / "few")
    assert run("discover", str(file)) == 0
    assert "12 new rows are too few" in capsys.readouterr().out
    text = file.read_text().replace("reference: trusted.jsonl\n", "")
    file.write_text(text)
    write_rows(tmp_path / "rows.jsonl", [*benign(12), *benign(30, start=50), *plant()])
    audit_inline(load_config(file), tmp_path / "untrusted")
    assert run("discover", str(file), "--say", "0") == 0
    assert "without trusted rows nothing says" in capsys.readouterr().out


@slow
def test_rows_in_shared_subsets_are_said_not_to_be_told_apart(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command; and by an audit, as a part of it that failed."""
    file = write_planted_audit(tmp_path, tiny_folder, stride={"r": 8, "K": 20}, discover=True)
    outcome = audit_inline(load_config(file), tmp_path / "shared")
    assert any("groups of rows that push alike" in warning for warning in outcome.warnings)
    assert outcome.summary["discovery"] is None
    assert run("discover", str(file)) == 2
    assert "shared subsets" in capsys.readouterr().err
