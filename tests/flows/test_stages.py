"""The stages that a person is told of are those of the audit."""

import ast

from paths import ROOT

from poisonwatch.flows.reporter import Reporter
from poisonwatch.flows.stages import DRILL_STAGES, STAGES, describe_stage


def list_tasks(flow: str = "audit.py") -> list[str]:
    """The tasks that a file of `flows/` names, in the order of its lines."""
    tree = ast.parse((ROOT / "flows" / flow).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = []
    for call in sorted(calls, key=lambda call: call.lineno):
        if ast.unparse(call.func) in ("engine", "engine.attempt"):
            found.append(ast.unparse(call.args[0]))
    return found


def test_stages_of_a_drill_are_of_its_tasks_in_their_order() -> None:
    """All of them, but the one that opens a run in MLflow."""
    named = [task for _, those in DRILL_STAGES for task in those]
    assert [task for task in list_tasks("drill.py") if task != "open_run"] == named


def test_stages_are_of_tasks_that_the_audit_calls_in_their_order() -> None:
    """But for those that judge rows, which stand in a function of their own below the first."""
    tasks = list_tasks()
    named = [task for _, those in STAGES for task in those]
    assert set(named) <= set(tasks)
    within = [task for task in tasks if task in named[3:-2]]
    assert within == named[3:-2]


def test_each_stage_is_told_once_by_its_number() -> None:
    """A task that takes no time is none."""
    assert describe_stage("pull") == f"1 of {len(STAGES)}: reading rows"
    assert describe_stage("claim") is None
    reporter = Reporter()
    told = []
    for task in ("pull", "claim", "validate", "pull_reference"):
        with reporter.console.capture() as shown:
            reporter.enter_task(task)
        told.append(shown.get())
    assert told == [
        f"1 of {len(STAGES)}: reading rows\n",
        "",
        f"2 of {len(STAGES)}: checking rows\n",
        "",
    ]
