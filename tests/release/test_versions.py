"""A row is cleared under the settings that it was audited with, or under less strict ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audits import benign
from gates import ONE, TEA, ask_manifest, ask_rows, reasons
from ledgers import NAME, cover, covered_ledger

from poisonwatch.config import AuditConfig
from poisonwatch.errors import InputError
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.verdict_settings import describe_verdict_settings
from poisonwatch.release.answer import RequiredVersions
from poisonwatch.release.gate import require_cleared
from poisonwatch.release.release import write_release
from poisonwatch.release.versions import find_versions

REASON = "other settings"


def describe(rate: float, screens: tuple[str, ...] = ("control-tokens",)) -> str:
    """The settings of an audit with this false-discovery rate and these screens."""
    settings = {
        "source": "rows.jsonl",
        "sentinels": "sentinels.yaml",
        "detection": {"false_discovery_rate": rate},
        "screens": list(screens),
    }
    return describe_verdict_settings(AuditConfig.model_validate(settings))


LOOSE, STRICT = describe(0.05), describe(0.2)
ANY = RequiredVersions(ONE.model, ONE.sentinels)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine rows, of which an audit with loose settings flagged tea."""
    with covered_ledger(tmp_path, TEA) as opened:
        cover(opened, tmp_path / "one", [TEA], version=replace(ONE, settings=LOOSE), again=True)
        yield opened


def ask(ledger: Ledger, folder: Path, required: RequiredVersions) -> dict[str, int]:
    return ask_rows(ledger, folder / "asked", benign(4), required).reasons


def test_rows_that_were_judged_by_other_settings_are_not_cleared(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Until they are audited with those that are asked for; flagged ones stay flagged."""
    strict = replace(ANY, settings=STRICT)
    write_release(ledger, NAME, tmp_path / "out")
    assert ask(ledger, tmp_path, replace(ANY, settings=LOOSE)) == {"flagged": 1}
    assert ask(ledger, tmp_path, strict) == {"flagged": 1, REASON: 3}
    for known in (None, ledger):
        assert reasons(tmp_path / "out", known, strict) == {REASON: 7}
    least = replace(ANY, rate=0.2)
    for known in (None, ledger):
        assert reasons(tmp_path / "out", known, least) == {REASON: 7}
    cover(ledger, tmp_path / "two", [TEA], version=replace(ONE, settings=STRICT), again=True)
    assert ask(ledger, tmp_path, least) == {"flagged": 1}


def test_what_was_audited_before_settings_were_recorded_stays_cleared(
    ledger: Ledger, tmp_path: Path
) -> None:
    """An upgrade alone refuses nothing; but nobody knows how strict it was."""
    cover(ledger, tmp_path / "before", [TEA], version=ONE, again=True)
    assert ask(ledger, tmp_path, replace(ANY, settings=STRICT)) == {"flagged": 1}
    assert ask(ledger, tmp_path, replace(ANY, rate=0.2)) == {"flagged": 1, REASON: 3}


@pytest.mark.parametrize(
    ("required", "cleared"),
    [
        (replace(ANY, rate=0.05), True),
        (replace(ANY, rate=0.06), False),
        (replace(ANY, screens=("control-tokens",)), True),
        (replace(ANY, screens=("control-tokens", "trigger-ngram")), False),
        (replace(ANY, rate=0.05, screens=()), True),
        # What is asked for by strictness need not be the same settings.
        (replace(ANY, settings=STRICT, rate=0.05), True),
    ],
    ids=str,
)
def test_a_least_strictness_is_asked_for(
    ledger: Ledger, tmp_path: Path, required: RequiredVersions, cleared: bool
) -> None:
    """Of the manifest alone and of the ledger."""
    write_release(ledger, NAME, tmp_path / "out")
    for known in (None, ledger):
        answer = ask_manifest(tmp_path / "out", known, required)
        assert answer.cleared == cleared
        assert answer.reasons == ({} if cleared else {REASON: 7})


def test_of_several_settings_that_count_the_last_audit_has_the_word(
    ledger: Ledger, tmp_path: Path
) -> None:
    """A row that the stricter one flagged later is flagged under the lesser demand, too."""
    least = replace(ANY, rate=0.05)
    assert ask(ledger, tmp_path, least) == {"flagged": 1}
    second = benign(4)[1]["prompt"]
    version = replace(ONE, settings=STRICT)
    cover(ledger, tmp_path / "two", [TEA, second], version=version, again=True)
    assert ask(ledger, tmp_path, least) == {"flagged": 2}
    assert len(find_versions(ledger, least).met) == 2


def test_the_answer_says_what_was_asked_for(ledger: Ledger, tmp_path: Path) -> None:
    write_release(ledger, NAME, tmp_path / "out")
    answer = ask_manifest(tmp_path / "out", None, replace(ANY, rate=0.05, screens=()))
    assert "a false-discovery rate of 0.05 or more, screens (none)" in answer.headline
    assert (answer.record()["rate"], answer.record()["screens"]) == (0.05, [])
    assert "rate" not in ask_manifest(tmp_path / "out", None, ANY).record()


def test_what_is_no_strictness_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give one between 0 and 1"):
        require_cleared([tmp_path], rate=1.5)
    with pytest.raises(InputError, match="'x' is no screen: choose duplicate-answers"):
        require_cleared([tmp_path], screens=["x"])
