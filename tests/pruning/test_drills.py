"""Which drills go, and their removal."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ledgers import NAME
from prunable import leave_drill

from poisonwatch.keep_config import KeepConfig
from poisonwatch.pruning import plan as plans
from poisonwatch.pruning.drills import (
    FILES,
    DrillPruning,
    plan_drill_pruning,
    remove_drills,
)
from poisonwatch.pruning.plan import get_pruned_path

LAST_ONE = KeepConfig(days=0, drills=1)
NOW = datetime.now(UTC)


def leave(folder: Path, ages: dict[str, int]) -> dict[str, Path]:
    """Drills by id that are so many days old: their run directories."""
    left = {}
    for id, days in ages.items():
        left[id] = leave_drill(folder, id, (NOW - timedelta(days=days)).isoformat())
    return left


def find(
    folder: Path, keep: KeepConfig = LAST_ONE, tracked: dict[str, datetime] | None = None
) -> DrillPruning:
    return plan_drill_pruning(folder, NAME, keep, tracked or {})


def test_the_last_drills_and_young_ones_stay(tmp_path: Path) -> None:
    """However old the last are; nothing is changed by a plan."""
    left = leave(tmp_path, {"a": 400, "b": 300, "c": 200})
    plan = find(tmp_path)
    assert {removal.path for removal in plan.removals} == {left["a"], left["b"]}
    assert (plan.kept, plan.drill_ids) == ({plans.LAST: 1}, {"a", "b"})
    assert all(removal.bytes > 0 for removal in plan.removals)
    younger = find(tmp_path, KeepConfig(days=350, drills=1))
    assert (younger.drill_ids, younger.kept) == ({"a"}, {plans.LAST: 1, plans.YOUNG: 1})
    assert find(tmp_path, KeepConfig(days=0)).drill_ids == frozenset()
    assert all(path.is_dir() for path in left.values())


def test_drills_that_mlflow_alone_knows_count_too(tmp_path: Path) -> None:
    """The last of all stays, wherever its run directory is."""
    leave(tmp_path, {"a": 20, "b": 10})
    tracked = {id: NOW - timedelta(days=days) for id, days in {"x": 15, "y": 5}.items()}
    plan = find(tmp_path, tracked=tracked)
    assert plan.drill_ids == {"a", "b", "x"}
    assert {removal.drill_id for removal in plan.removals} == {"a", "b"}
    nowhere = plan_drill_pruning(None, NAME, LAST_ONE, tracked)
    assert (nowhere.drill_ids, list(nowhere.removals)) == ({"x"}, [])


def test_what_goes_is_gone_and_nothing_else_is(tmp_path: Path) -> None:
    """A second time there is nothing left."""
    left = leave(tmp_path, {"a": 3, "b": 2})
    other = leave_drill(tmp_path, "o", NOW.isoformat(), name="another")
    (tmp_path / "runs" / "notes").mkdir()
    assert remove_drills(find(tmp_path)) == []
    assert [left["a"].exists(), left["b"].is_dir(), other.is_dir()] == [False, True, True]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "drill-b",
        "drill-o",
        "notes",
    }
    again = find(tmp_path)
    assert (list(again.removals), list(again.leftovers)) == ([], [])


@pytest.mark.parametrize("gone", range(len(FILES) + 1))
def test_a_removal_that_breaks_off_is_finished_by_the_next(tmp_path: Path, gone: int) -> None:
    """After the renaming, and after each file."""
    left = leave(tmp_path, {"a": 3, "b": 2})
    away = get_pruned_path(left["a"])
    left["a"].rename(away)
    for name in FILES[:gone]:
        (away / name).unlink()
    plan = find(tmp_path)
    assert (list(plan.leftovers), list(plan.removals)) == ([away], [])
    assert remove_drills(plan) == []
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["drill-b"]


def test_what_is_not_as_a_drill_wrote_it_is_never_removed(tmp_path: Path) -> None:
    """Changed, with more in it, a link, of a time that is none, or half-removed by somebody
    else.
    """
    left = leave(tmp_path, {"a": 6, "b": 5, "c": 4, "d": 3, "e": 2, "last": 1})
    (left["a"] / "config.yaml").write_text("seed: 8\n")
    (left["b"] / "thesis.tex").write_text("mine")
    left["c"].rename(tmp_path / "elsewhere")
    left["c"].symlink_to(tmp_path / "elsewhere")
    report = json.loads((left["d"] / "drill.json").read_text())
    (left["d"] / "drill.json").write_text(json.dumps({**report, "created": "soon"}))
    half = get_pruned_path(left["e"])
    left["e"].rename(half)
    (half / "notes.txt").write_text("mine")
    plan = find(tmp_path)
    assert (list(plan.removals), list(plan.leftovers)) == ([], [])
    assert plan.kept == {plans.CHANGED: 2, plans.LAST: 1}
    # Nor are their MLflow runs, which hold what they were.
    assert plan.drill_ids == frozenset()


def test_one_that_cannot_be_removed_keeps_none_of_the_others(tmp_path: Path) -> None:
    """A file stands where it would be renamed to."""
    left = leave(tmp_path, {"a": 3, "b": 2, "c": 1})
    get_pruned_path(left["a"]).write_text("in the way")
    (failure,) = remove_drills(find(tmp_path))
    assert str(left["a"]) in failure
    assert [path.is_dir() for path in left.values()] == [True, False, True]
