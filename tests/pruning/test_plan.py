"""What of past audits may go, and why the rest stays."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import NAME
from prunable import LAST_ONE, SIZE, leave, leave_line

from poisonwatch.keep_config import KeepConfig
from poisonwatch.ledger.audit_records import RUN_DIRECTORY
from poisonwatch.ledger.decisions import record_decision
from poisonwatch.ledger.history import list_undecided_ids
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.outbox import MLFLOW
from poisonwatch.ledger.prunings import OPERATORS
from poisonwatch.pruning import plan as plans
from poisonwatch.pruning.plan import PruningPlan, plan_pruning
from poisonwatch.release.release import write_release
from poisonwatch.run_directory.layout import OPERATORS_FILE


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.at(url) as opened:
        yield opened


def find(ledger: Ledger, keep: KeepConfig = LAST_ONE, champions: str = "") -> PruningPlan:
    return plan_pruning(ledger, NAME, keep, champions.split())


def names(plan: PruningPlan, part: str = RUN_DIRECTORY) -> list[str]:
    return [removal.audit_id for removal in plan.removals if removal.part == part]


def test_what_is_old_goes_and_the_last_audits_with_rows_stay(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Audits without new rows do not count among the last; nothing is changed by a plan."""
    for name in ("a", "b", "c"):
        leave(ledger, tmp_path, name)
    leave_line(ledger, tmp_path, "d")
    plan = find(ledger)
    assert names(plan) == ["b", "a"]
    assert plan.kept == {plans.LAST: 1}
    assert plan.audit_ids == {"a", "b", "d"}
    count, size = plan.count(RUN_DIRECTORY)
    assert (count, size > 2 * SIZE) == (2, True)
    assert all((tmp_path / "runs" / name).is_dir() for name in "abc")


def test_what_is_young_stays(ledger: Ledger, tmp_path: Path) -> None:
    """`keep.days` counts from the audit's end."""
    leave(ledger, tmp_path, "a")
    leave(ledger, tmp_path, "b")
    plan = find(ledger, KeepConfig(days=1, audits=1, operators=9))
    assert (names(plan), plan.kept) == ([], {plans.LAST: 1, plans.YOUNG: 1})


def test_an_audit_with_undecided_flags_stays_until_somebody_decides(
    ledger: Ledger, tmp_path: Path
) -> None:
    leave(ledger, tmp_path, "a", flagged=True)
    leave(ledger, tmp_path, "b")
    plan = find(ledger)
    assert (names(plan), plan.kept[plans.UNDECIDED]) == ([], 1)
    (row,) = list_undecided_ids(ledger, 1)
    record_decision(ledger, row, "poison", "planted", "ann")
    assert names(find(ledger)) == ["a"]


def test_the_champion_keeps_its_operators_too(ledger: Ledger, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        leave(ledger, tmp_path, name)
    plan = find(ledger, champions="a")
    assert names(plan) == ["b"]
    assert names(plan, OPERATORS) == []
    assert plan.kept == {plans.LAST: 1, plans.CHAMPION: 1}


def test_audits_that_a_release_leans_on_stay_unless_the_audit_file_lets_them_go(
    ledger: Ledger, tmp_path: Path
) -> None:
    leave(ledger, tmp_path, "a")
    leave(ledger, tmp_path, "b")
    write_release(ledger, NAME, tmp_path / "out", "keep")
    plan = find(ledger)
    assert (names(plan), plan.kept[plans.RELEASED]) == ([], 1)
    freely = LAST_ONE.model_copy(update={"released": False})
    assert names(find(ledger, freely)) == ["a"]


def test_an_audit_that_somebody_is_still_to_be_told_of_stays_whole(
    ledger: Ledger, tmp_path: Path
) -> None:
    leave(ledger, tmp_path, "a", owed=[MLFLOW])
    leave(ledger, tmp_path, "b")
    plan = find(ledger)
    assert (list(plan.removals), plan.kept[plans.OWED]) == ([], 1)
    assert plan.audit_ids == frozenset()


def test_operators_go_before_their_run_directories(ledger: Ledger, tmp_path: Path) -> None:
    """Of a run directory that stays, operators alone; the last ones stay."""
    for name in ("a", "b", "c"):
        leave(ledger, tmp_path, name)
    plan = find(ledger, KeepConfig(days=1, operators=1))
    assert names(plan, OPERATORS) == ["b", "a"]
    assert plan.count(OPERATORS) == (2, 2 * SIZE)
    (tmp_path / "runs" / "c" / OPERATORS_FILE).unlink()
    # "c" is not as its audit wrote it: that is no reason to keep fewer of the others.
    assert names(find(ledger, KeepConfig(days=1, operators=1)), OPERATORS) == ["a"]


def test_what_is_not_as_an_audit_wrote_it_is_never_removed(ledger: Ledger, tmp_path: Path) -> None:
    """Changed files are evidence; a place that a ledger names may be anybody's folder, or a
    link.
    """
    changed, foreign, linked, extended = (leave(ledger, tmp_path, name) for name in "abcd")
    leave(ledger, tmp_path, "e")
    (changed / OPERATORS_FILE).write_bytes(b"other")
    shutil.rmtree(foreign)
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    shutil.move(linked, tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    (extended / "notes.txt").write_text("mine")
    plan = find(ledger)
    assert (list(plan.removals), plan.kept[plans.CHANGED]) == ([], 4)
    # Nor are their MLflow runs, which hold what they were.
    assert plan.audit_ids == frozenset()


def test_another_name_is_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    leave(ledger, tmp_path, "a")
    assert plan_pruning(ledger, "another", LAST_ONE) == PruningPlan(
        removals=[], leftovers=[], kept={}, audit_ids=frozenset()
    )


def test_run_directories_of_before_there_were_checksums_go_by_their_summary(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The one in "a" is of another audit."""
    from ledgers import cover

    for name, said in (("a", "x"), ("b", "b")):
        run_dir = tmp_path / "old" / name
        cover(ledger, run_dir)
        (run_dir / "summary.json").write_text(json.dumps({"audit_id": said}))
    leave(ledger, tmp_path, "c")
    assert names(find(ledger)) == ["b"]
